"""`bertloom verify` finds every fault of a data set and names its place."""

import gzip
import hashlib
import io
import json
import random
import re
import shutil
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bertloom.manifest import manifest_sha256, manifest_text
from bertloom.shards import SHARDS_SCHEMA, digest_of
from jobs import cli
from jobs.support.report import write_report
from jobs.verify import verify
from pipeline.checks.gates import Gates
from tests.jobs.corpus import digests, documents, run_job, write, write_vocabulary

SHARD = "train/seq32/copy0/00000.tar"
NO_MASKS = {"masked_lm_positions": [], "masked_lm_ids": []}
GOLDEN = Path(__file__).parent.parent / "golden/dataset"
NOT_CHECKED = ". The other files were not checked, because the manifest describes them"
NOT_AS_WRITTEN = (
    "manifest.json is not as it was written: its sha256 is not the one that it holds; copy it again" + NOT_CHECKED
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A data set with every kind of file; never written to."""
    folder = tmp_path_factory.mktemp("verify")
    texts = documents(150)
    with write(folder / "in.jsonl", texts).open("ab") as file:
        file.write(b"{broken\n")
    run_job(folder / "in.jsonl", folder / "out", write_vocabulary(folder / "vocab.txt"))
    assert write_report(str(folder / "out"), Gates()) == 0
    return folder / "out"


@pytest.fixture
def dataset(whole, tmp_path):
    """A copy to do damage to."""
    return shutil.copytree(whole, tmp_path / "set")


def faults(dataset):
    return verify(str(dataset))[0]


def names(fault, name):
    return fault.startswith((f"{name}: ", f"{name} is "))


def test_a_whole_data_set_has_no_faults_and_status_0(whole, capsys):
    assert cli.main(["verify", str(whole)]) == 0
    assert capsys.readouterr().out == f"{whole}: 16 files read, 0 faults\n"


@pytest.mark.parametrize(
    "name",
    [
        "manifest.json",
        "shards.parquet",
        "vocab.txt",
        "tokenizer.json",
        "rejects/rejects.jsonl.gz",
        "documents/train/00000.parquet",
        "documents/validation/00000.parquet",
        SHARD,
        "validation/seq64/copy1/00000.tar",
        "report.html",
        "report.json",
    ],
)
def test_one_flipped_bit_anywhere_is_found_and_its_file_named(dataset, name):
    draw = random.Random(name)
    path = dataset / name
    data = path.read_bytes()
    for at in [0, len(data) - 1, *(draw.randrange(len(data)) for _ in range(40))]:
        flipped = bytearray(data)
        flipped[at] ^= 1 << draw.randrange(8)
        path.write_bytes(flipped)
        found = faults(dataset)
        assert found and names(found[0], name), f"byte {at}: {found}"


def test_a_changed_byte_anywhere_is_found_and_its_file_named(dataset):
    draw = random.Random(1)
    files = sorted(path for path in dataset.rglob("*") if path.is_file())
    assert len(files) == 17
    for _ in range(100):
        path = draw.choice(files)
        data = path.read_bytes()
        at = draw.randrange(len(data))
        other = bytes([data[at] ^ draw.randrange(1, 256)])
        path.write_bytes(data[:at] + other + data[at + 1 :])
        found = faults(dataset)
        assert found and names(found[0], path.relative_to(dataset)), f"byte {at}: {found}"
        path.write_bytes(data)
    assert faults(dataset) == []


@pytest.mark.parametrize(
    ("was", "becomes"),
    [(b'"validation_fraction": 0.25', b'"validation_fraction": 1.25'), (b"   24\n", b"   26\n")],
    ids=str,
)
def test_any_change_of_a_value_in_the_manifest_is_reported(tmp_path, capsys, was, becomes):
    dataset = shutil.copytree(GOLDEN, tmp_path / "set")
    text = (dataset / "manifest.json").read_bytes()
    (dataset / "manifest.json").write_bytes(text.replace(was, becomes))
    assert cli.main(["verify", str(dataset)]) == 1
    assert capsys.readouterr().out == f"{NOT_AS_WRITTEN}\n{dataset}: 0 files read, 1 fault\n"


def test_one_flipped_bit_anywhere_in_the_configuration_is_reported_as_the_manifests_fault(tmp_path):
    dataset = shutil.copytree(GOLDEN, tmp_path / "set")
    path = dataset / "manifest.json"
    text = path.read_bytes()
    for at in range(text.index(b'"configuration"'), text.index(b'"configuration_digest"')):
        for bit in range(8):
            path.write_bytes(text[:at] + bytes([text[at] ^ 1 << bit]) + text[at + 1 :])
            (fault,) = faults(dataset)
            assert fault.startswith("manifest.json") and fault.endswith(NOT_CHECKED), f"byte {at}, bit {bit}"


def test_the_command_prints_the_place_and_exits_with_status_1(dataset, capsys):
    data = bytearray((dataset / SHARD).read_bytes())
    data[5000] ^= 4
    (dataset / SHARD).write_bytes(data)
    assert cli.main(["verify", str(dataset)]) == 1
    out = capsys.readouterr().out
    assert f"{SHARD}: its sha256 differs from the one in shards.parquet\n" in out
    assert re.search(r"files read, [1-9]\d* faults?\n$", out)


def test_every_file_that_is_missing_is_named(whole, tmp_path):
    for name in digests(whole):
        if name == "manifest.json":
            continue
        dataset = shutil.copytree(whole, tmp_path / "set")
        (dataset / name).unlink()
        assert any(fault.startswith(f"{name}: is missing") for fault in faults(dataset))
        shutil.rmtree(dataset)


def test_a_folder_without_a_manifest_is_wrong_use(dataset, tmp_path, capsys):
    (dataset / "manifest.json").unlink()
    for path, what in ((dataset, "has no manifest.json"), (tmp_path / "nowhere", "does not exist")):
        assert cli.main(["verify", str(path)]) == 2
        assert f"{path} {what}" in capsys.readouterr().err


def test_a_file_too_many_is_named_but_what_a_killed_job_leaves_is_not(dataset):
    (dataset / "train/seq32/copy0/00001.tar").write_bytes(b"")
    (dataset / "notes.txt").write_text("mine")
    (dataset / ".work").mkdir()
    (dataset / ".work/job.json").write_text("{}")
    (dataset / ".lock").write_text("")
    assert faults(dataset) == [
        "notes.txt: is not listed in the manifest",
        "train/seq32/copy0/00001.tar: is not listed in the manifest",
    ]


def test_a_truncated_shard_is_reported_with_its_sizes(dataset):
    data = (dataset / SHARD).read_bytes()
    (dataset / SHARD).write_bytes(data[: len(data) // 2])
    assert f"{SHARD}: has {len(data) // 2} bytes, expected {len(data)}" in faults(dataset)


def test_another_format_version_is_a_fault(dataset):
    _rewrite_manifest(dataset, lambda manifest: manifest.update(format_version=2))
    assert faults(dataset) == [
        "manifest.json: format_version is 2, this program reads 1: preprocess again, or use the version of bertloom that "
        "wrote it" + NOT_CHECKED
    ]


# ---- what checksums do not tell


def _rewrite_manifest(dataset, change, of_report=None):
    manifest = json.loads((dataset / "manifest.json").read_bytes())
    change(manifest)
    manifest.pop("sha256")
    manifest["sha256"] = manifest_sha256(manifest)
    (dataset / "manifest.json").write_bytes(manifest_text(manifest))
    if (dataset / "report.json").exists():
        report = json.loads((dataset / "report.json").read_bytes())
        report |= {"manifest_sha256": of_report or manifest["sha256"]}
        report.pop("sha256")
        report["sha256"] = manifest_sha256(report)
        (dataset / "report.json").write_bytes(manifest_text(report))


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (("counters", "examples", "train"), "shards.parquet: .* train examples, but manifest.json counts"),
        (("counters", "documents_used"), "documents came in, but .* are used, rejected or duplicate"),
        (("counters", "tokens"), "documents/: holds .* tokens, but manifest.json counts"),
        (("counters", "sentences"), "documents/: holds .* sentences, but manifest.json counts"),
        (("counters", "rejected", "not-json"), "rejects/rejects.jsonl.gz: holds .* but manifest.json counts"),
        (("configuration", "dupe_factor"), "has the copies \\[0, 1\\], expected 3 of them"),
        (
            ("configuration", "max_seq_length", 1),
            "has the lengths \\[32, 64\\], but the configuration has \\[32, 65\\]",
        ),
        (
            ("configuration", "validation_fraction"),
            "has a value that is not possible: .*fraction is 1.1,",
        ),
        (("inputs", 0, "documents"), "manifest.json: the inputs gave 152 documents, but 151 came in"),
        (("counters", "documents_used"), "shards: 150 documents are in examples, but manifest.json counts 151"),
        (("counters", "pairs", "pairs/32"), "shards: hold .* pairs of length 32, but manifest.json counts"),
        (
            ("counters", "pairs", "pairs-random/64"),
            "shards: hold .* pairs-random of length 64, but manifest.json counts",
        ),
        (("vocabulary", "size"), "vocab.txt: has .* words, but manifest.json has"),
    ],
)
def test_a_wrong_count_in_the_manifest_is_found_though_its_checksum_is_right(dataset, path, message):
    def change(manifest):
        place = manifest
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] += 1

    _rewrite_manifest(dataset, change)
    assert any(re.search(message, fault) for fault in faults(dataset)), faults(dataset)


@pytest.mark.parametrize("key", ["configuration", "counters", "documents", "files", "shards_digest", "vocabulary"])
def test_a_manifest_that_lost_a_key_is_a_fault(dataset, key):
    _rewrite_manifest(dataset, lambda manifest: manifest.pop(key))
    assert faults(dataset) == [
        f"manifest.json has lost a part: it has no {key}; copy it again, or make it again{NOT_CHECKED}"
    ]


def _doctor(dataset, change):
    """Changes the examples of the first member of a shard, and makes every checksum right again."""
    data = (dataset / SHARD).read_bytes()
    rows = pq.read_table(dataset / "shards.parquet").to_pylist()
    row = next(row for row in rows if row["path"] == SHARD)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        members = [(member.name, tar.extractfile(member).read()) for member in tar]
    table = pa.ipc.open_file(members[0][1]).read_all()
    examples = table.to_pylist()
    metadata = {key.decode(): value.decode() for key, value in table.schema.metadata.items()}
    change(examples, metadata, row)
    schema = table.schema.with_metadata(metadata)
    sink = io.BytesIO()
    with pa.ipc.new_file(sink, schema) as writer:
        writer.write_batch(pa.RecordBatch.from_pylist(examples, schema=schema))
    members[0] = (members[0][0], sink.getvalue())
    whole = io.BytesIO()
    row["member_offsets"], row["member_bytes"] = [], []
    for name, payload in members:
        header = tarfile.TarInfo(name)
        header.size = len(payload)
        whole.write(header.tobuf(tarfile.USTAR_FORMAT))
        row["member_offsets"].append(whole.tell())
        row["member_bytes"].append(len(payload))
        whole.write(payload + b"\0" * (-len(payload) % 512))
    whole.write(b"\0" * 1024)
    (dataset / SHARD).write_bytes(whole.getvalue())
    row["bytes"], row["sha256"] = len(whole.getvalue()), hashlib.sha256(whole.getvalue()).hexdigest()
    pq.write_table(pa.Table.from_pylist(rows, schema=SHARDS_SCHEMA), dataset / "shards.parquet")
    sha256 = hashlib.sha256((dataset / "shards.parquet").read_bytes()).hexdigest()
    _rewrite_manifest(
        dataset, lambda m: m.update(shards_digest=digest_of(rows), shards_parquet={"sha256": sha256, "rows": 8})
    )


def test_a_shard_written_again_as_it_was_has_no_faults(dataset):
    _doctor(dataset, lambda examples, metadata, row: None)
    assert faults(dataset) == []


def _put(column, value):
    return lambda examples, *_: examples[7].update({column: value})


def _b_of_a(examples, *_):
    examples[7] |= {"document_b": examples[7]["document_a"], "token_b": 0}


def _set(column, at, value):
    return lambda examples, *_: examples[7][column].__setitem__(at, value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_set("input_ids", 0, 9), "example 7 lacks \\[CLS\\] where it belongs"),
        (_set("input_ids", -1, 9), "example 7 lacks \\[SEP\\] where it belongs"),
        (_set("masked_lm_ids", 0, 60000), "holds a word id of 60000, but the vocabulary has"),
        (_set("masked_lm_ids", 0, 4), "example 7 has a special word as the true word of a mask"),
        (_put("segment_b_start", 1), "example 7 has B outside of it"),
        (_put("segment_b_start", 65535), "example 7 has B outside of it"),
        (_put("next_sentence_label", 2), "example 7 has a label that is none of \\(0, 1\\)"),
        (_put("next_sentence_label", 0), "example 7 has label 0, but B does not follow A"),
        (_put("token_a", 100_000), "example 7 has an A beyond the end of its document"),
        (_put("token_b", 100_000), "example 7 has a B beyond the end of its document"),
        (_b_of_a, "example 7 has label 1, but A and B are of one source"),
        (_put("document_a", 1), "example 7 has a document_a that documents/ does not hold"),
        (_put("document_b", 1), "example 7 has a document_b that documents/ does not hold"),
        (_set("masked_lm_positions", 0, 0), "example 7 has a mask outside of it"),
        (_set("masked_lm_positions", -1, 900), "example 7 has a mask outside of it"),
        (lambda examples, *_: examples[7]["masked_lm_positions"].reverse(), "example 7 has masks that are not sorted"),
        (lambda examples, *_: examples[7]["masked_lm_ids"].append(9), "example 7 has masks without a word"),
        (lambda examples, *_: examples[7].update(NO_MASKS), "example 7 has no masks or too many"),
        (lambda examples, *_: examples[7]["input_ids"].extend([9] * 40), "example 7 is longer than max_seq_length"),
        (lambda examples, *_: examples.pop(), "examples, expected"),
        (lambda examples, metadata, row: metadata.update(copy="1"), "expected .*'copy': '0'"),
        (lambda examples, metadata, row: metadata.update(vocabulary_sha256="0" * 64), "vocabulary_sha256"),
        (lambda examples, metadata, row: row.update(tokens=row["tokens"] + 1), f"{SHARD}: holds \\d+ tokens, expected"),
        (lambda examples, metadata, row: row.update(examples=row["examples"] + 1), "\\d+ examples in members of"),
    ],
)
def test_a_value_out_of_its_range_is_found_though_every_checksum_is_right(dataset, change, message):
    _doctor(dataset, change)
    found = faults(dataset)
    assert any(re.search(message, fault) and fault.startswith((SHARD, "shards.parquet")) for fault in found), found


def test_a_mask_word_where_nothing_is_masked_is_found(dataset):
    def change(examples, *_):
        free = next(
            i
            for i in range(1, 30)
            if i not in examples[7]["masked_lm_positions"] and i + 1 != examples[7]["segment_b_start"]
        )
        examples[7]["input_ids"][free] = 4

    _doctor(dataset, change)
    assert any("example 7 holds [MASK] inside a segment" in fault for fault in faults(dataset))


def test_a_reject_too_few_is_found_though_its_checksum_is_right(dataset):
    path = dataset / "rejects/rejects.jsonl.gz"
    path.write_bytes(gzip.compress(b""))
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    _rewrite_manifest(dataset, lambda manifest: manifest["files"].update({"rejects/rejects.jsonl.gz": sha256}))
    assert any(fault.startswith("rejects/rejects.jsonl.gz: holds {}") for fault in faults(dataset))


def test_documents_out_of_order_are_found_though_their_checksum_is_right(dataset):
    name = "documents/train/00000.parquet"
    table = pq.read_table(dataset / name)
    pq.write_table(table.take(list(range(table.num_rows))[::-1]).cast(table.schema), dataset / name)
    sha256 = hashlib.sha256((dataset / name).read_bytes()).hexdigest()
    _rewrite_manifest(dataset, lambda manifest: manifest["documents"].update({name: sha256}))
    assert faults(dataset) == [f"{name}: its documents are out of order, or one is there twice"]


def test_a_document_in_the_other_split_is_found_though_all_checksums_are_right(dataset):
    _rewrite_manifest(dataset, lambda manifest: manifest["configuration"].update(validation_fraction=0.2))
    found = faults(dataset)
    assert "documents/train/00000.parquet: holds documents of the other split" in found


def test_a_report_of_another_data_set_or_half_of_one_is_found(dataset):
    _rewrite_manifest(dataset, lambda manifest: manifest["notes"].append("another"), of_report="0" * 64)
    assert faults(dataset) == ["report.json: belongs to another data set"]
    assert write_report(str(dataset), Gates()) == 0
    assert faults(dataset) == []
    for name in ("report.html", "report.json"):
        (dataset / name).rename(dataset / "away")
        assert f"{name}: is missing; `bertloom report` makes it again" in faults(dataset)
        (dataset / "away").rename(dataset / name)


@pytest.mark.parametrize("options", [{"pairs": "sop"}, {"pairs": "none"}, {"compat": "google"}], ids=str)
def test_labels_of_other_kinds_are_true_too(tmp_path, options):
    source = write(tmp_path / "in.txt", documents(60))
    run_job(source, tmp_path / "out", write_vocabulary(tmp_path / "vocab.txt"), **options)
    assert faults(tmp_path / "out") == []
    other = {"sop": "none", "none": "sop"}.get(options.get("pairs"))
    if other:
        _rewrite_manifest(tmp_path / "out", lambda manifest: manifest["configuration"].update(pairs=other))
        assert any("has a label that is none of" in fault for fault in faults(tmp_path / "out"))
