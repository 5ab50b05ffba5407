"""JSON and TOML that were made to break a reader: one ValueError that names the file."""

import json
import os

import pytest

from bertloom.json_files import (
    MAX_DEPTH,
    Damaged,
    decode_json,
    parse_json,
    parse_toml,
    read_json,
    read_regular,
    read_toml,
)


def nested(levels: int) -> bytes:
    return b"[" * levels + b"]" * levels


@pytest.mark.parametrize(
    "content",
    [nested(MAX_DEPTH + 2), nested(900), nested(100_000), b'{"a":' * 100_000, b"[" * 10_000_000]
    + [b"", b"{", b'{"a": 1} x', b"\xff\xfe", b"9" * 5000, b'"\\'],
)
def test_what_is_not_json_is_damage_that_names_the_file(content):
    with pytest.raises(Damaged, match=r"^some\.json is not JSON \(.+\): it was damaged or written by another program$"):
        decode_json(content, "some.json")


def test_nesting_up_to_the_limit_is_read():
    value = decode_json(nested(MAX_DEPTH), "some.json")
    assert json.dumps(value) == nested(MAX_DEPTH).decode()


def test_an_object_is_wanted_where_an_object_is_expected():
    assert parse_json('{"a": [1, {"b": null}]}', "some.json") == {"a": [1, {"b": None}]}
    with pytest.raises(Damaged, match=r"some\.json does not hold a JSON object, but list"):
        parse_json(b"[]", "some.json")


@pytest.mark.parametrize(
    "content",
    [b"a = " + nested(900), b"a = " + nested(100_000), b"a = " + b"{b = " * 900 + b"1" + b"}" * 900]
    + [b".".join([b"a"] * 5000) + b" = 1", b"[" + b".".join([b"a"] * 5000) + b"]", b"a = ", b"\xff", b"a = 1\na = 2"],
)
def test_what_is_not_toml_is_an_error_that_names_the_file(content):
    with pytest.raises(ValueError, match=r"^some\.toml: not valid TOML: .+"):
        parse_toml(content, "some.toml")


def test_only_small_regular_files_are_read(tmp_path):
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "zero.json").symlink_to("/dev/zero")
    for name in ("pipe.json", "zero.json", "."):
        with pytest.raises(ValueError, match="is not a regular file"):
            read_json(tmp_path / name)
        with pytest.raises(ValueError, match="is not a regular file"):
            read_toml(tmp_path / name)
    (tmp_path / "large").write_bytes(b"0123456789")
    assert read_regular(tmp_path / "large", 10) == b"0123456789"
    with pytest.raises(ValueError, match="has more than 9 bytes"):
        read_regular(tmp_path / "large", 9)
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "missing.json")
