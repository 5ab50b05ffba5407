import mmap
import re

import numpy as np
import pytest

from model.loading.mapping import MappedFiles


def test_many_files_read_as_one_array_also_when_they_are_gone(tmp_path):
    contents = [bytes([number]) * (number * 5000 + 1) for number in range(5)]
    mapped = MappedFiles([len(content) for content in contents])
    assert (mapped.starts % mmap.PAGESIZE == 0).all() and not mapped.bytes.any()
    for number, content in enumerate(contents):
        (tmp_path / "file").write_bytes(content)
        with open(tmp_path / "file", "rb") as file:
            mapped.map(number, file)
        (tmp_path / "file").unlink()
    for start, content in zip(mapped.starts, contents):
        assert mapped.bytes[start : start + len(content)].tobytes() == content
    mapped.unmap(3)
    assert mapped.is_mapped.tolist() == [True, True, True, False, True]
    gathered = mapped.bytes[mapped.starts[[4, 3, 1]] + np.array([20_000, 15_000, 5000])]
    assert gathered.tolist() == [4, 0, 1]


def test_a_file_of_another_size_is_not_mapped(tmp_path):
    (tmp_path / "file").write_bytes(b"four")
    mapped = MappedFiles([5])
    with (
        open(tmp_path / "file", "rb") as file,
        pytest.raises(ValueError, match=re.escape(f"{tmp_path}/file has 4 bytes, expected 5")),
    ):
        mapped.map(0, file)
    assert not mapped.is_mapped.any()


def test_ten_thousand_files_of_a_gigabyte_take_no_memory_until_they_are_mapped():
    mapped = MappedFiles(np.full(10_000, 10**9))
    assert len(mapped.bytes) >= 10**13
    assert not mapped.bytes[mapped.starts].any()
