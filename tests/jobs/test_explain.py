"""`bertloom explain` makes every example again from its sources and the seed, and reports each one that differs."""

import io
import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bertloom.manifest import manifest_sha256, manifest_text
from bertloom.members import read_shard
from jobs import cli
from jobs.explain import Explainer
from tests.jobs.corpus import run_job

ROOT = Path(__file__).parent.parent.parent
SAMPLE = ROOT / "jobs/sample"
SHARD = "train/seq64/copy1/00000.tar"
KINDS = {
    "nsp": {},
    "whole words": {"do_whole_word_mask": True, "chinese_words": True},
    "sop": {"pairs": "sop"},
    "none": {"pairs": "none"},
    "google": {"compat": "google"},
}


def make(folder, **options):
    """A data set of a few documents of the sample, English as JSON lines and Chinese as text. One text occurs twice."""
    folder.mkdir(exist_ok=True)
    english = (SAMPLE / "en.jsonl").read_text("utf-8").splitlines(keepends=True)
    chinese = (SAMPLE / "zh.txt").read_text("utf-8").split("\n\n")
    (folder / "en.jsonl").write_text("".join([*english[:3], "{broken\n", english[1]]), "utf-8")
    (folder / "zh.txt").write_text("\n\n".join(chinese[:3]), "utf-8")
    inputs = [folder / "en.jsonl", folder / "zh.txt"]
    vocab = ROOT / "tests/golden/vocab.txt"
    run_job(inputs, folder / "out", vocab, max_seq_length=(32, 64), validation_fraction=0.0, **options)
    return folder / "out"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return make(tmp_path_factory.mktemp("explain"))


@pytest.mark.parametrize("kind", KINDS)
def test_every_example_is_reproduced_exactly(dataset, tmp_path, kind):
    explainer = Explainer(str(make(tmp_path / "in", **KINDS[kind]) if KINDS[kind] else dataset))
    assert explainer.num_examples > 300
    sources = set()
    for index in range(explainer.num_examples):
        found = explainer.explain(index)
        assert found["agrees"], (index, found)
        for name in ("a", "b"):
            if name in found:
                segment = found[name]
                _assert_is_in_its_file(segment)
                sources.add(segment["source"])
    assert sources == {"en.jsonl", "zh.txt"}


def _assert_is_in_its_file(segment):
    """The bytes that are named are those of the text, read here in the plainest way."""
    raw = Path(segment["path"]).read_bytes()[segment["position"] :]
    if segment["source"] == "en.jsonl":
        text = json.loads(raw.split(b"\n")[0])["text"].replace("\n\n", "\n").encode()
    else:
        text = raw.split(b"\n\n")[0]
    first, last = segment["bytes"]
    assert text[first:last].decode() == segment["text"]
    around = segment["before"] + segment["text"] + segment["after"]
    assert around in text.decode() and len(around) >= len(segment["text"])


def test_an_index_counts_all_examples_in_the_order_of_shards_parquet(dataset):
    rows = pq.read_table(dataset / "shards.parquet").to_pylist()
    first = next(i for i, row in enumerate(rows) if row["path"] == SHARD)
    start = sum(row["examples"] for row in rows[:first])
    examples = read_shard(str(dataset / SHARD)).to_pylist()
    explainer = Explainer(str(dataset))
    for place in (0, len(examples) - 1):
        found = explainer.explain(start + place)
        assert (found["shard"], found["row"]) == (SHARD, place)
        assert found["a"]["document"] == f"{examples[place]['document_a']:016x}"
        assert found["a"]["tokens"][0] == examples[place]["token_a"]


def test_the_text_and_the_json_agree(dataset, capsys):
    assert cli.main(["explain", str(dataset), "17", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == json.loads(json.dumps(Explainer(str(dataset)).explain(17)))
    assert cli.main(["explain", str(dataset), "17"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("example 17: train, length 32, copy 0\n") and found["example"]["a"] in out
    assert f"{found['a']['path']}, the record at byte {found['a']['position']:,}\n" in out
    assert all(f"  {sentence}\n" in out for sentence in found["drawn"])
    assert "all 9 columns agree with the shard, and the whole shard has the same sha256" in out


def _flip(dataset, row, column, change):
    """Changes one list of one example of SHARD in its place."""
    shard = next(r for r in pq.read_table(dataset / "shards.parquet").to_pylist() if r["path"] == SHARD)
    offset, size = shard["member_offsets"][0], shard["member_bytes"][0]
    data = (dataset / SHARD).read_bytes()
    table = pa.ipc.open_file(data[offset : offset + size]).read_all()
    examples = table.to_pylist()
    examples[row][column] = change(examples[row][column])
    sink = io.BytesIO()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_batch(pa.RecordBatch.from_pylist(examples, schema=table.schema))
    assert len(sink.getvalue()) == size
    (dataset / SHARD).write_bytes(data[:offset] + sink.getvalue() + data[offset + size :])


@pytest.mark.parametrize(
    ("column", "change"),
    [
        ("masked_lm_positions", lambda at: [*at[:-1], at[-1] - 1]),
        ("masked_lm_ids", lambda ids: [ids[0] + 1, *ids[1:]]),
        ("input_ids", lambda ids: [*ids[:3], ids[3] ^ 1, *ids[4:]]),
        ("next_sentence_label", lambda label: 1 - label),
        ("token_b", lambda at: at + 1),
    ],
)
def test_a_changed_value_is_shown_with_both_values_and_status_1(dataset, tmp_path, capsys, column, change):
    copy = shutil.copytree(dataset, tmp_path / "set")
    _flip(copy, 5, column, change)
    rows = pq.read_table(dataset / "shards.parquet").to_pylist()
    start = sum(row["examples"] for row in rows[: [row["path"] for row in rows].index(SHARD)])
    found = Explainer(str(copy)).explain(start + 5)
    assert found["agrees"] is False and list(found["differ"]) == [column]
    assert cli.main(["explain", str(copy), str(start + 5)]) == 1
    out = capsys.readouterr().out
    assert "1 columns DIFFER from the shard" in out and f"  {column}\n    shard    " in out
    assert cli.main(["explain", str(copy), str(start + 6)]) == 0


@pytest.mark.parametrize(
    ("column", "change", "message"),
    [
        ("masked_lm_positions", lambda at: [*at[:-1], 60_000], "example 5 has a masked_lm_position outside of it"),
        ("input_ids", lambda ids: [*ids[:2], 60_000, *ids[3:]], "input_ids has the token id 60000, but the vocabulary"),
    ],
)
def test_values_out_of_range_are_reported_as_damage(dataset, tmp_path, capsys, column, change, message):
    copy = shutil.copytree(dataset, tmp_path / "set")
    _flip(copy, 5, column, change)
    rows = pq.read_table(dataset / "shards.parquet").to_pylist()
    start = sum(row["examples"] for row in rows[: [row["path"] for row in rows].index(SHARD)])
    assert cli.main(["explain", str(copy), str(start + 5)]) == 2
    assert (
        f"member 0 of {copy / SHARD} cannot be read: {message}" in (err := capsys.readouterr().err) and "verify" in err
    )


def test_a_shard_of_another_seed_is_reported(dataset, tmp_path):
    other = make(tmp_path / "in", seed=2)
    copy = shutil.copytree(dataset, tmp_path / "set")
    shutil.copyfile(other / SHARD, copy / SHARD)
    shutil.copyfile(other / "shards.parquet", copy / "shards.parquet")
    manifest = json.loads((copy / "manifest.json").read_bytes())
    manifest["shards_parquet"] = json.loads((other / "manifest.json").read_bytes())["shards_parquet"]
    manifest["sha256"] = manifest_sha256(manifest)
    (copy / "manifest.json").write_bytes(manifest_text(manifest))
    explainer = Explainer(str(copy))
    found = explainer.explain(explainer.num_examples - 1)
    assert found["agrees"] is False and found["shard_agrees"] is False and "input_ids" in found["differ"]


# ---- sources that were changed or removed


@pytest.fixture
def sources(dataset):
    """The folder of the input files, which are restored after the test."""
    files = {dataset.parent / name: (dataset.parent / name).read_bytes() for name in ("en.jsonl", "zh.txt")}
    yield dataset.parent
    for path, data in files.items():
        path.write_bytes(data)


def test_an_example_is_shown_without_its_sources_and_the_missing_file_is_named(dataset, sources, capsys):
    (sources / "zh.txt").unlink()
    seen = set()
    for index in range(12):
        assert cli.main(["explain", str(dataset), str(index)]) == 0
        out = capsys.readouterr().out
        assert f"Not recomputed: zh.txt is no longer at {sources}/zh.txt, so its documents cannot be read again" in out
        seen |= {line[:9] for line in out.splitlines() if line.startswith(("  before ", "  its text cannot"))}
        assert "\nHow it was drawn" not in out and "\nMasks: " in out
    assert len(seen) == 2  # English texts are shown, Chinese ones cannot be


def test_a_source_that_was_changed_is_reported(dataset, sources, capsys):
    path = sources / "en.jsonl"
    path.write_text(path.read_text("utf-8").replace("the", "teh", 1), "utf-8")
    assert cli.main(["explain", str(dataset), "0", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["agrees"] is None and f"{path} was changed: document " in found["not_recomputed"]


@pytest.mark.parametrize(
    ("index", "message"), [("-1", "has no example -1: expected 0 to"), ("99999999", "expected 0 to")]
)
def test_an_index_out_of_range_is_a_usage_error(dataset, capsys, index, message):
    assert cli.main(["explain", str(dataset), index]) == 2
    assert message in capsys.readouterr().err


def test_a_folder_that_is_not_a_data_set_is_a_usage_error(tmp_path, capsys):
    assert cli.main(["explain", str(tmp_path), "3"]) == 2
    assert "is not a data set, or not a finished one" in capsys.readouterr().err
