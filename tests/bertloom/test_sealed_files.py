"""Files with a checksum: every change of a byte is found."""

import pytest

from bertloom.json_files import Damaged
from bertloom.sealed_files import BODY, is_sealed, read_sealed, write_sealed


def test_a_sealed_file_gives_back_its_body(tmp_path):
    path = str(tmp_path / "a")
    assert not is_sealed(path)
    write_sealed(path, [b"one ", b"", b"two"])
    assert is_sealed(path) and read_sealed(path) == b"one two"
    with open(path, "rb") as file:
        assert file.read()[BODY:] == b"one two"


@pytest.mark.parametrize("body", [b"", b"some text"])
def test_a_change_of_any_byte_is_found(tmp_path, body):
    path = tmp_path / "a"
    write_sealed(str(path), [body])
    whole = path.read_bytes()
    changed = [whole[:i] + bytes([whole[i] ^ 1]) + whole[i + 1 :] for i in range(len(whole))]
    for content in [*changed, whole[:-1], whole + b"\0", b""]:
        path.write_bytes(content)
        assert not is_sealed(str(path))
        with pytest.raises(Damaged, match="a is damaged: remove it, and the next start makes it again"):
            read_sealed(str(path))
