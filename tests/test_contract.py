"""The shard format: docs/shard-format.md (the words), tests/golden (the bytes), and both halves of the code agree."""

import hashlib
import importlib.util
import io
import json
import re
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bertloom import draws as randomness
from bertloom import manifest, shards
from bertloom.members import read_shard
from jobs.verify import verify
from model.loading import order
from model.loading.data import DataSet
from pipeline.checks import verify as data_set
from pipeline.dataset import DOCUMENTS_SCHEMA, SKETCHES_SCHEMA
from pipeline.examples.configuration import ExamplesConfig
from pipeline.examples.masking import spans
from pipeline.options import option_names
from pipeline.tokenizer import TokenizeConfig
from tests.jobs.corpus import documents, run_job, write, write_vocabulary

ROOT = Path(__file__).parent.parent
GOLDEN = ROOT / "tests/golden/dataset"
DOCS = (ROOT / "docs/shard-format.md").read_text("utf-8")
MANIFEST = json.loads((GOLDEN / "manifest.json").read_text("utf-8"))
ROWS = pq.read_table(GOLDEN / "shards.parquet").to_pylist()
MASK64 = 2**64 - 1


def section(title: str) -> str:
    """The text of the page below a heading, up to the next one."""
    return re.split(rf"^#+ {re.escape(title)}$", DOCS, flags=re.M)[1].split("\n#")[0]


def table(title: str) -> list[list[str]]:
    """The rows of a section's first table."""
    lines = [line for line in section(title).splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def columns(title: str) -> list[tuple[str, str]]:
    """(column, type) as the page says; "`a`, `b` | x, y" and "`a`, `b` | x" are two columns."""
    found = []
    for names, types, *_ in table(title):
        names = re.findall(r"`(\w+)`", names)
        types = types.split(" (")[0].split(", ")
        found += zip(names, types * len(names) if len(types) == 1 else types, strict=True)
    return found


def types_of(schema: pa.Schema) -> list[tuple[str, str]]:
    return [
        (field.name, f"list<{field.type.value_type}>" if pa.types.is_list(field.type) else str(field.type))
        for field in schema
    ]


# ---- the words and the code


def test_the_columns_of_a_shard_are_those_of_the_page():
    said = [(name, "list<uint16>" if kind == "like `input_ids`" else kind) for name, kind in columns("A shard")]
    assert said == types_of(shards.schema(np.dtype(np.uint16)))
    wide = dict(types_of(shards.schema(np.dtype(np.uint32))))
    assert wide["input_ids"] == wide["masked_lm_ids"] == "list<uint32>"
    assert wide["masked_lm_positions"] == "list<uint16>"


def test_the_columns_of_shards_parquet_and_documents_are_those_of_the_page():
    assert columns("shards.parquet") == types_of(shards.SHARDS_SCHEMA)
    assert columns("documents/") == types_of(DOCUMENTS_SCHEMA)
    assert columns("sketches/") == types_of(SKETCHES_SCHEMA)


def test_no_column_is_nullable_and_no_item_of_a_shard():
    shard = shards.schema(np.dtype(np.uint16))
    for schema in (shard, shards.SHARDS_SCHEMA, DOCUMENTS_SCHEMA, SKETCHES_SCHEMA):
        assert not any(field.nullable for field in schema)
    assert not any(field.type.value_field.nullable for field in shard if pa.types.is_list(field.type))


def test_the_keys_of_the_manifest_are_those_of_the_page():
    said = [re.findall(r"`(\w+)`", row[0])[0] for row in table("manifest.json")]
    assert said == [*list(MANIFEST)[:-1], "extends", "sha256"]  # a data set that extends no other has no `extends`
    meanings = {re.findall(r"`(\w+)`", row[0])[0]: row[1] for row in table("manifest.json")}
    assert meanings["format"] == f'`"{manifest.FORMAT}"`' and meanings["format_version"] == f"`{shards.FORMAT_VERSION}`"
    for name in re.findall(r"`(\w+)`", meanings["configuration"]):
        assert name in MANIFEST["configuration"]


def test_every_option_that_decides_a_byte_is_in_the_configuration():
    names = {*option_names(TokenizeConfig), *option_names(ExamplesConfig)}
    assert names == set(MANIFEST["configuration"])


def test_the_purposes_of_draws_have_the_numbers_of_the_page():
    said = {re.findall(r"`(\w+)`", name)[0]: int(value) for name, value, _ in table("Draws")}
    assert len(set(said.values())) == len(said)
    assert {name: getattr(randomness, name) for name in said} == said


def test_the_constants_of_the_page_are_those_of_the_code():
    text = section("Draws")
    golden, first, second = (int(x, 16) for x in re.findall(r"0x[0-9A-F]{16}", text)[:3])
    assert (golden, first, second) == (randomness.GOLDEN, randomness.FACTOR_1, randomness.FACTOR_2)
    assert f"mix(id ^ 0x{randomness.VALIDATION:X})".lower() in text.lower()
    assert f"exactly {shards.MEMBER_EXAMPLES:,} examples" in section("A shard")
    assert order.NUM_ROUNDS == 6 and "six-round" in section("The order of training")
    for name in data_set.ALWAYS:
        assert f"DATASET/{name}" in DOCS


def test_the_table_of_the_lengths_of_spans_is_that_of_the_page():
    (numbers,) = re.findall(r"^\d{9,10}(?: \d{10})+$", section("Masks of spans"), flags=re.M)
    assert [int(number) for number in numbers.split()] == spans.LENGTHS.tolist()
    assert (spans.LENGTH_DRAW, spans.EDGE_DRAW, spans.WINDOW_DRAW) == (2**17, 2**18, 2**18 + 2)


def mix(x: int) -> int:
    """The page, in Python."""
    x ^= x >> 30
    x = x * 0xBF58476D1CE4E5B9 & MASK64
    x ^= x >> 27
    x = x * 0x94D049BB133111EB & MASK64
    return x ^ x >> 31


def fold(*values: int) -> int:
    k = 0
    for v in values:
        k = mix((k ^ v) + 0x9E3779B97F4A7C15 & MASK64)
    return k


def draw(k: int, j: int) -> int:
    return mix(k + (j + 1) * 0x9E3779B97F4A7C15 & MASK64)


def test_the_test_vectors_of_the_page_hold():
    vectors = re.findall(r"^(\w+)\(([^)]*)\) = 0x([0-9a-f]{16})$", section("Draws"), flags=re.M)
    assert {name for name, _, _ in vectors} == {"mix", "fold", "draw"} and len(vectors) >= 6
    for name, arguments, value in vectors:
        numbers = [int(x, 0) for x in arguments.split(", ")]
        twin = {"mix": mix, "fold": fold, "draw": draw}[name](*numbers)
        assert f"{twin:016x}" == value, f"{name}({arguments})"
        if name == "draw":
            assert int(randomness.draw(np.array(numbers[:1], np.uint64), numbers[1])[0]) == twin
        else:
            assert int(getattr(randomness, name)(*numbers)[0]) == twin


def test_the_order_of_training_is_the_network_of_the_page():
    def permute(i, n, keys):
        h = next(h for h in range(33) if 4**h >= n)
        while True:
            left, right = i >> h, i & (2**h - 1)
            for key in keys:
                left, right = right, left ^ (mix(key ^ right) & (2**h - 1))
            i = left << h | right
            if i < n:
                return i

    for n in (1, 2, 5, 16, 17, 100):
        keys = [fold(3, 4, 128, 7, r) for r in range(6)]
        twin = [permute(i, n, keys) for i in range(n)]
        assert order.permute(np.arange(n), n, 3, randomness.EPOCH_ORDER, 128, 7).tolist() == twin
        assert sorted(twin) == list(range(n))


# ---- the bytes


def _make(out):
    spec = importlib.util.spec_from_file_location("make_golden", ROOT / "tests/golden/make.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.make(out)


def test_today_s_code_makes_the_golden_bytes(tmp_path):
    """Shards are the same with any version of the libraries; parquet and tokenizer.json name the version that wrote them."""
    _make(tmp_path / "out")
    made = json.loads((tmp_path / "out/manifest.json").read_text("utf-8"))
    names = sorted(path.relative_to(GOLDEN).as_posix() for path in GOLDEN.rglob("*") if path.is_file())
    assert names == sorted(
        p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*") if p.is_file()
    )
    same_libraries = made["versions"] | {"python": "", "bertloom": ""} == MANIFEST["versions"] | {
        "python": "",
        "bertloom": "",
    }
    for name in names:
        if name == "manifest.json":
            continue
        if name.endswith((".tar", "vocab.txt")) or same_libraries:
            assert (tmp_path / "out" / name).read_bytes() == (GOLDEN / name).read_bytes(), name
        elif name.endswith(".parquet"):
            assert pq.read_table(tmp_path / "out" / name).equals(pq.read_table(GOLDEN / name)), name
    of_this_build = {"versions", "sha256"} | (set() if same_libraries else {"shards_parquet", "documents", "files"})
    for key in MANIFEST.keys() - of_this_build:
        assert made[key] == MANIFEST[key], key


def test_the_golden_data_set_is_whole_small_and_has_all_kinds_of_files():
    assert verify(str(GOLDEN))[0] == []
    assert sum(path.stat().st_size for path in GOLDEN.parent.rglob("*") if path.is_file()) < 200_000
    assert {(row["split"], row["max_seq_length"], row["copy"]) for row in ROWS} == {
        (split, length, copy) for split in ("train", "validation") for length in (8, 24) for copy in (0, 1)
    }
    assert MANIFEST["counters"]["documents_duplicate"] and MANIFEST["counters"]["rejected"] == {"no-text-field": 1}


def test_the_golden_manifest_names_no_place_on_a_machine():
    assert [row["path"] for row in MANIFEST["inputs"]] == ["more.jsonl", "texts.txt"]
    assert "/" not in json.dumps(MANIFEST["inputs"])


def test_shards_parquet_is_in_the_order_and_of_the_digest_that_the_page_says():
    keys = [(["train", "validation"].index(r["split"]), r["max_seq_length"], r["copy"], r["number"]) for r in ROWS]
    assert keys == sorted(keys)
    lines = "".join(f"{row['sha256']}  {row['path']}\n" for row in sorted(ROWS, key=lambda row: row["path"]))
    assert hashlib.sha256(lines.encode()).hexdigest() == MANIFEST["shards_digest"]
    content = (GOLDEN / "shards.parquet").read_bytes()
    assert MANIFEST["shards_parquet"] == {"sha256": hashlib.sha256(content).hexdigest(), "rows": len(ROWS)}


def test_the_manifest_s_own_digest_is_of_the_file_without_it():
    lines = (GOLDEN / "manifest.json").read_bytes().splitlines(keepends=True)
    assert lines[-2].startswith(b' "sha256": "') and lines[-3].endswith(b",\n")
    without = b"".join([*lines[:-3], lines[-3].removesuffix(b",\n") + b"\n", lines[-1]])
    assert hashlib.sha256(without).hexdigest() == MANIFEST["sha256"]


def _check_tar(data: bytes, row: dict) -> list[pa.RecordBatch]:
    """A shard read by the page alone; its record batches."""
    batches, at = [], 0
    for number, (offset, size, count) in enumerate(
        zip(row["member_offsets"], row["member_bytes"], row["member_examples"], strict=True)
    ):
        assert offset == at + 512 and offset % 512 == 0
        header = tarfile.TarInfo.frombuf(data[at:offset], "ascii", "strict")
        assert header.name == f"{row['number']:05d}-{number:06d}.arrow" and header.size == size
        assert (header.mtime, header.uid, header.gid, header.uname, header.gname) == (0, 0, 0, "", "")
        assert header.mode == 0o644 and data[at + 257 : at + 265] == b"ustar\x0000"
        reader = pa.ipc.open_file(pa.BufferReader(data[offset : offset + size]))
        assert reader.num_record_batches == 1
        batch = reader.get_batch(0)
        assert batch.num_rows == count and (count == 1024 or number == len(row["member_examples"]) - 1)
        at = offset + -(-size // 512) * 512
        batches.append(batch)
    assert data[at:] == b"\0" * 1024
    return batches


def test_every_golden_shard_is_the_tar_that_the_page_describes():
    for row in ROWS:
        data = (GOLDEN / row["path"]).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (row["bytes"], row["sha256"])
        for batch in _check_tar(data, row):
            assert batch.schema.metadata == {
                b"format_version": b"1",
                b"max_seq_length": str(row["max_seq_length"]).encode(),
                b"copy": str(row["copy"]).encode(),
                b"vocabulary_sha256": MANIFEST["vocabulary"]["sha256"].encode(),
            }
            assert batch.schema.equals(shards.schema(np.dtype(np.uint16)))


def test_a_shard_of_many_members_has_1024_examples_in_all_but_the_last(tmp_path):
    write(tmp_path / "in.txt", documents(120))
    vocab = write_vocabulary(tmp_path / "vocab.txt")
    run_job(tmp_path / "in.txt", tmp_path / "out", vocab, max_seq_length=(8,), dupe_factor=1)
    row = pq.read_table(tmp_path / "out/shards.parquet").to_pylist()[0]
    batches = _check_tar((tmp_path / "out" / row["path"]).read_bytes(), row)
    assert len(batches) > 2 and sum(batch.num_rows for batch in batches) == row["examples"]
    assert sum(len(batch.column("input_ids").flatten()) for batch in batches) == row["tokens"]
    mapped = pa.memory_map(str(tmp_path / "out" / row["path"]))  # read where it lies, without a copy
    first = pa.ipc.open_file(
        mapped.read_buffer(row["member_offsets"][0] + row["member_bytes"][0])[row["member_offsets"][0] :]
    )
    for buffer in first.get_batch(0).column("input_ids").buffers()[1:2]:
        assert buffer.address % 8 == 0


def test_a_vocabulary_of_65536_words_takes_32_bits(tmp_path):
    write(tmp_path / "in.txt", documents(40))
    vocab = write_vocabulary(tmp_path / "vocab.txt")
    for size, kind in ((65535, "uint16"), (65536, "uint32")):
        words = vocab.read_text("utf-8").splitlines()
        wide = tmp_path / f"{size}.txt"
        wide.write_text("\n".join(words + [f"[unused{i}]" for i in range(9, 9 + size - len(words))]) + "\n", "utf-8")
        out = tmp_path / str(size)
        run_job(tmp_path / "in.txt", out, wide, max_seq_length=(32,), dupe_factor=1)
        table = read_shard(str(out / "train/seq32/copy0/00000.tar"))
        assert str(table.schema.field("input_ids").type.value_type) == kind
        assert str(table.schema.field("masked_lm_ids").type.value_type) == kind
        assert verify(str(out))[0] == []
        examples = DataSet(out).examples("train")
        read = examples.read(np.zeros(5, np.int64), np.arange(5))
        assert read["input_ids"].tolist() == table["input_ids"].slice(0, 5).combine_chunks().flatten().to_pylist()


# ---- both halves read the same


@pytest.mark.parametrize("split", ["train", "validation"])
@pytest.mark.parametrize("length", [8, 24])
def test_the_trainer_reads_the_rows_that_the_pipeline_wrote(split, length):
    examples = DataSet(GOLDEN).examples(split, length)
    for copy in (0, 1):
        chosen = [r for r in ROWS if (r["split"], r["max_seq_length"], r["copy"]) == (split, length, copy)]
        wrote = pa.concat_tables([read_shard(str(GOLDEN / row["path"])) for row in chosen])
        assert examples.rows_per_copy[copy] == wrote.num_rows == sum(row["examples"] for row in chosen)
        backwards = np.arange(wrote.num_rows)[::-1]
        read = examples.read(np.full(wrote.num_rows, copy), backwards)
        wrote = wrote.take(backwards)
        for name, column in (
            ("input_ids", "input_ids"),
            ("positions", "masked_lm_positions"),
            ("masked_ids", "masked_lm_ids"),
        ):
            assert read[name].tolist() == [value for row in wrote[column].to_pylist() for value in row]
        assert read["lengths"].tolist() == [len(row) for row in wrote["input_ids"].to_pylist()]
        assert read["num_masks"].tolist() == [len(row) for row in wrote["masked_lm_ids"].to_pylist()]
        assert read["labels"].tolist() == wrote["next_sentence_label"].to_pylist()
        assert read["segment_b_start"].tolist() == wrote["segment_b_start"].to_pylist()
    assert examples.num_tokens == sum(
        row["tokens"] for row in ROWS if (row["split"], row["max_seq_length"]) == (split, length)
    )


def test_the_trainer_knows_the_same_of_the_data_set_as_its_manifest():
    data = DataSet(GOLDEN)
    assert data.max_seq_lengths("train") == data.max_seq_lengths("validation") == [8, 24]
    assert data.vocabulary_sha256 == hashlib.sha256((GOLDEN / "vocab.txt").read_bytes()).hexdigest()
    assert data.vocabulary_size == len((GOLDEN / "vocab.txt").read_text("utf-8").split("\n")) - 1
    assert data.num_copies == MANIFEST["configuration"]["dupe_factor"] == 2


def test_document_ids_and_the_validation_split_are_those_of_the_page():
    """Worked out from the source files alone."""
    texts = (GOLDEN.parent / "texts.txt").read_text("utf-8").strip().split("\n\n")
    for line in (GOLDEN.parent / "more.jsonl").read_text("utf-8").splitlines():
        text = json.loads(line).get("text")
        if text:
            texts.append(text.replace("\n\n", "\r").replace("\n", " ").replace("\r", "\n"))
    ids = {int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") for text in texts}
    held_out = {id_ for id_ in ids if mix(id_ ^ 0x76616C6964617465) < int(0.25 * 2**64)}
    for split, expected in (("train", ids - held_out), ("validation", held_out)):
        page = pq.read_table(GOLDEN / f"documents/{split}/00000.parquet")
        assert page["id"].to_pylist() == sorted(expected)


def test_tokenizer_json_is_the_vocabulary():
    tokens = json.load(io.StringIO((GOLDEN / "tokenizer.json").read_text("utf-8")))["model"]["vocab"]
    assert sorted(tokens, key=tokens.get) == (GOLDEN / "vocab.txt").read_text("utf-8").split("\n")[:-1]
