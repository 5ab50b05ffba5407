"""manifest.json and shards.parquet of strangers: every value is checked, and each fault is one line."""

import hashlib
import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertloom.json_files import Damaged
from bertloom.manifest import manifest_sha256, manifest_text, parse_manifest, parse_shards, read_dataset
from bertloom.shards import SHARDS_SCHEMA

GOLDEN = Path(__file__).parent.parent / "golden/dataset"


def changed(path: tuple, value) -> bytes:
    """The golden manifest with another value, or without it, and its checksum made right."""
    manifest = json.loads((GOLDEN / "manifest.json").read_bytes())
    place = manifest
    for key in path[:-1]:
        place = place[key]
    if value is None:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    manifest.pop("sha256")
    manifest["sha256"] = manifest_sha256(manifest)
    return manifest_text(manifest)


def refusal(content: bytes) -> str:
    with pytest.raises(ValueError) as error:
        parse_manifest(content, "set/manifest.json")
    assert not isinstance(error.value, Damaged)  # another read gives the same
    return str(error.value)


@pytest.mark.parametrize(
    "path",
    [
        ("vocabulary",),
        ("vocabulary", "sha256"),
        ("configuration",),
        ("configuration", "dupe_factor"),
        ("counters",),
        ("counters", "rejected"),
        ("inputs",),
        ("inputs", 0, "path"),
        ("shards_parquet",),
        ("documents",),
        ("files",),
        ("notes",),
        ("versions",),
        ("masking",),
    ],
    ids=str,
)
def test_a_manifest_without_a_part_names_it(path):
    place = ".".join(map(str, path)).replace("inputs.0", "inputs[0]")
    expected = f"set/manifest.json has lost a part: it has no {place}; copy it again, or make it again"
    assert refusal(changed(path, None)) == expected


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (
            ("configuration", "dupe_factor"),
            0,
            "configuration.dupe_factor is 0, expected a whole number from 1 to 2^31 - 1",
        ),
        (("configuration", "dupe_factor"), True, "configuration.dupe_factor is True, expected a whole number"),
        (
            ("configuration", "dupe_factor"),
            1 << 40,
            "configuration.dupe_factor is 1099511627776, expected a whole number",
        ),
        (
            ("configuration", "max_seq_length"),
            [8, 8],
            "configuration.max_seq_length is [8, 8], expected a list of different",
        ),
        (("configuration", "max_seq_length"), [10**9], "configuration.max_seq_length is [1000000000], expected a list"),
        (
            ("configuration", "mask_token_prob"),
            1.5,
            "configuration.mask_token_prob is 1.5, expected a number from 0 to 1",
        ),
        (("configuration", "mask_token_prob"), float("nan"), "configuration.mask_token_prob is nan, expected a number"),
        (
            ("vocabulary", "sha256"),
            "../../victim",
            "vocabulary.sha256 is '../../victim', expected 64 hexadecimal digits",
        ),
        (("vocabulary", "size"), "5", "vocabulary.size is '5', expected a whole number from 0 to 2^53"),
        (("counters",), [], "counters is [], expected an object"),
        (("counters", "rejected"), {"a": -1}, "counters.rejected['a'] is -1, expected a whole number from 0 to 2^53"),
        (("counters", "cleaned"), 7, "counters.cleaned is 7, expected an object"),
        (("inputs",), {}, "inputs is {}, expected a list"),
        (("inputs", 0, "bytes"), 10**300, "inputs[0].bytes is 1000000000"),
        (("files",), {"../../dev/zero": "0" * 64}, "a name in files is '../../dev/zero', expected a file inside the"),
        (("documents",), {"/dev/zero": "0" * 64}, "a name in documents is '/dev/zero', expected a file inside the"),
        (("files", "tokenizer.json"), "é", "files['tokenizer.json'] is 'é', expected 64 hexadecimal digits"),
    ],
)
def test_a_manifest_with_a_value_that_is_not_possible_names_it(path, value, message):
    assert refusal(changed(path, value)).startswith(f"set/manifest.json has a value that is not possible: {message}")


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
JSON = st.recursive(SCALARS, lambda some: st.lists(some) | st.dictionaries(st.text(), some), max_leaves=8)


@given(st.dictionaries(st.text(), JSON, max_size=5))
def test_the_text_of_a_manifest_is_that_of_json(manifest):
    assert manifest_text(manifest) == json.dumps(manifest, indent=1, ensure_ascii=False).encode() + b"\n"


def test_half_of_a_character_in_a_manifest_is_damage():
    manifest = json.loads((GOLDEN / "manifest.json").read_bytes())
    content = json.dumps(manifest | {"notes": ["\ud800"]}).encode()
    with pytest.raises(Damaged, match="set/manifest.json is not as it was written: it holds half of a character"):
        parse_manifest(content, "set/manifest.json")


# ---- shards.parquet


def shards_with(change, schema=SHARDS_SCHEMA) -> tuple[bytes, dict]:
    """The golden shards.parquet after a change of its rows, and a manifest that fits."""
    rows = pq.read_table(GOLDEN / "shards.parquet").to_pylist()
    change(rows)
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), sink)
    manifest = json.loads((GOLDEN / "manifest.json").read_bytes())
    manifest["shards_parquet"] = {"sha256": hashlib.sha256(sink.getvalue()).hexdigest(), "rows": len(rows)}
    return sink.getvalue(), manifest


def put(**values):
    return lambda rows: rows[1].update(values)


def test_the_rows_of_a_data_set_are_possible():
    content, manifest = shards_with(lambda rows: None)
    assert parse_shards(content, "shards.parquet", manifest).num_rows == 8
    assert read_dataset(str(GOLDEN))[1].num_rows == 8


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put(sha256="../../victim/dir"), "row 1 has the sha256 '../../victim/dir', expected 64 hexadecimal digits"),
        (put(sha256="/tmp"), "row 1 has the sha256 '/tmp', expected 64 hexadecimal digits"),
        (put(path="../../../../dev/zero"), "row 1 names '../../../../dev/zero', which is not inside the data set"),
        (put(path="/dev/zero"), "row 1 names '/dev/zero', which is not inside the data set"),
        (put(path="train/seq8/copy0/00000.tar"), "row 1 names 'train/seq8/copy0/00000.tar', which is not"),
        (put(split="test"), "row 1 has the split 'test', expected train or validation"),
        (put(copy=2), "row 1 has copy 2, expected 0 to 1"),
        (put(number=-1), "row 1 has number -1, expected 0 to 2147483647"),
        (put(max_seq_length=7), "row 1 has max_seq_length 7, expected 8 to 65535"),
        (put(examples=0), "row 1 has examples 0, expected 1 to"),
        (put(tokens=2**62), "row 1 has tokens 4611686018427387904, expected "),
        (put(bytes=2**62), "row 1 has bytes 4611686018427387904, expected 1 to "),
        (put(bytes=5), "train/seq8/copy1/00000.tar has 5 bytes, but its members and two blocks of zeros have "),
        (
            put(member_offsets=[]),
            "has 0 member_offsets, 1 member_bytes and 1 member_examples, expected as many of each",
        ),
        (put(member_offsets=[0]), "train/seq8/copy1/00000.tar: its member_offsets are not those of members of its mem"),
        (put(member_bytes=[2**62]), "has a member of 4611686018427387904 or 4611686018427387904 bytes, expected 1 to"),
        (put(member_bytes=[-512]), "has a member of -512 or -512 bytes, expected 1 to"),
        (put(member_examples=[2000]), "has 2000 examples in members of [2000], expected 465 in members of 1024"),
        (lambda rows: rows.reverse(), "row 1, validation/seq24/copy0/00000.tar, is out of order, or is there twice"),
        (
            lambda rows: rows.append(rows[-1]),
            "row 8, validation/seq24/copy1/00000.tar, is out of order, or is there twice",
        ),
        (lambda rows: rows.pop(1), "length 8 has the copies [0], expected 2 of them"),
        (lambda rows: rows.clear(), "it has the lengths [], but the configuration has [8, 24]"),
    ],
)
def test_a_row_of_shards_parquet_that_is_not_possible_is_named(change, message):
    content, manifest = shards_with(change)
    with pytest.raises(ValueError) as error:
        parse_shards(content, "set/shards.parquet", manifest)
    assert str(error.value).startswith("set/shards.parquet: ") and message in str(error.value)


def test_other_columns_other_numbers_of_rows_and_nulls_are_refused():
    content, manifest = shards_with(lambda rows: None, pa.schema([f for f in SHARDS_SCHEMA if f.name != "sha256"]))
    with pytest.raises(ValueError, match="set/shards.parquet cannot be read .its columns are not those of the format"):
        parse_shards(content, "set/shards.parquet", manifest)
    content, manifest = shards_with(lambda rows: None)
    manifest["shards_parquet"]["rows"] = 9
    with pytest.raises(ValueError, match="set/shards.parquet: it has 8 rows, but manifest.json has 9"):
        parse_shards(content, "set/shards.parquet", manifest)
    with pytest.raises(
        Damaged, match="set/shards.parquet has sha256 .*, manifest.json has .*: the data set was changed"
    ):
        parse_shards(content + b"x", "set/shards.parquet", manifest)


def test_a_small_file_with_millions_of_rows_is_refused_before_it_is_read():
    row = pq.read_table(GOLDEN / "shards.parquet").slice(0, 1)
    sink = io.BytesIO()
    with pq.ParquetWriter(sink, row.schema, compression="zstd") as writer:
        for _ in range(10):
            writer.write_table(pa.concat_tables([row] * 10_000).combine_chunks())
    content, manifest = sink.getvalue(), json.loads((GOLDEN / "manifest.json").read_bytes())
    manifest["shards_parquet"] = {"sha256": hashlib.sha256(content).hexdigest(), "rows": 100_000}
    with pytest.raises(
        ValueError, match=r"set/shards.parquet cannot be read \([0-9,]+ bytes cannot hold 100,000 rows\)"
    ):
        parse_shards(content, "set/shards.parquet", manifest)
