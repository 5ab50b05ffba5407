"""Whole jobs with --near-duplicates: what is left out, what is said of it, and that nothing else shows in the bytes."""

import random

import pyarrow.parquet as pq
import pytest

from jobs.cli import main
from jobs.verify import verify
from tests.jobs.corpus import documents, run_job, shard_digests, write, write_vocabulary


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(source, vocabulary, data set, manifest): 120 texts, of which 30 come again with a sentence more, 10 unchanged."""
    folder = tmp_path_factory.mktemp("near")
    sentences = documents(720)
    texts = [sum(sentences[i : i + 6], []) for i in range(0, 720, 6)]
    again = [[*text, "And a sentence more."] for text in texts[:30]] + texts[30:40]
    mixed = [*texts, *again]
    random.Random(1).shuffle(mixed)
    source, vocab = write(folder / "texts.txt", mixed), write_vocabulary(folder / "vocab.txt")
    manifest = run_job(source, folder / "out", vocab, near_duplicates=0.8)
    return source, vocab, folder / "out", manifest


def test_near_duplicates_are_counted_among_the_duplicates_and_listed(made):
    _, _, out, manifest = made
    counters = manifest["counters"]
    assert (counters["documents_in"], counters["documents_duplicate"], counters["documents_near_duplicate"]) == (
        160,
        40,
        30,
    )
    assert counters["documents_used"] == 120 and counters["documents_rejected"] == 0
    rows = pq.read_table(out / "near-duplicates.parquet").to_pylist()
    kept = {row for page in (out / "documents").rglob("*.parquet") for row in pq.read_table(page)["id"].to_pylist()}
    assert len(rows) == 30 and all(row["resembles"] < row["id"] for row in rows)
    assert kept.isdisjoint(row["id"] for row in rows) and kept >= {row["resembles"] for row in rows}
    assert all(0.8 <= row["similarity"] < 1 and row["source"] == "texts.txt" for row in rows)
    assert verify(str(out))[0] == []


def test_neither_workers_nor_splits_show_in_the_bytes(made, tmp_path):
    source, vocab, out, manifest = made
    again = run_job(source, tmp_path / "out", vocab, near_duplicates=0.8, num_workers=2, split_mb=0.01)
    assert shard_digests(tmp_path / "out") == shard_digests(out)
    assert (tmp_path / "out/near-duplicates.parquet").read_bytes() == (out / "near-duplicates.parquet").read_bytes()
    assert again["counters"] == manifest["counters"]


def test_by_default_only_equal_documents_are_left_out(made, tmp_path):
    source, vocab, _, _ = made
    manifest = run_job(source, tmp_path / "out", vocab)
    assert manifest["counters"]["documents_duplicate"] == 10 and "documents_near_duplicate" not in manifest["counters"]
    assert manifest["configuration"]["near_duplicates"] is None
    assert not (tmp_path / "out/near-duplicates.parquet").exists()


@pytest.mark.parametrize("value", ["0.3", "1", "8"])
def test_a_similarity_that_means_nothing_is_refused(made, tmp_path, capsys, value):
    source, vocab, _, _ = made
    arguments = ["--input", str(source), "--vocab", str(vocab), "--out", str(tmp_path), "--near-duplicates", value]
    assert main(["preprocess", *arguments]) == 2
    assert "--near-duplicates" in capsys.readouterr().err
