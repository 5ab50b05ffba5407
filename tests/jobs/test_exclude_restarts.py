"""`preprocess --exclude` after kills, and where a document or a file of tokens ends between the words of a run."""

import json
import random
import signal

import pytest

from jobs import cli
from pipeline.text.records import MAX_DOCUMENT_BYTES
from tests.jobs.corpus import digests, documents, run_job
from tests.jobs.restartable_job import assert_whole, run_in_forks
from tests.jobs.test_exclude import rejects
from tests.pipeline.twins_of_exclusion import sets_shared


@pytest.fixture(scope="module")
def excluded(tmp_path_factory):
    """A test set with some texts of the corpus of the job."""
    path = tmp_path_factory.mktemp("sets") / "test.jsonl"
    texts = [text[0] for text in documents(150)[::9]]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path, texts


def test_a_job_that_was_killed_leaves_out_the_same_documents(job, excluded, tmp_path):
    path, texts = excluded
    flags = ["--exclude", str(path), "--gates.no-fail"]
    assert cli.main(job.argv(tmp_path / "whole", *flags)) == 0
    shared = sum(bool(sets_shared("\n".join(text), {"x": texts})) for text in documents(150))
    found = [one for one in rejects(tmp_path / "whole") if one["reason"] == "in-test-set"]
    assert len(found) == shared > 5
    points = [
        "after job.json 1",
        "within excluded- 1",
        "after \\.part$ 2",
        "before documents/ 1",
        "before manifest.json 1",
    ]
    ran = run_in_forks([(point, job.argv(tmp_path / "out", *flags)) for point in [*points, ""]])
    assert [status for status, _, _ in ran] == [-signal.SIGKILL] * len(points) + [0]
    assert_whole(tmp_path / "out", digests(tmp_path / "whole"))


@pytest.mark.slow
@pytest.mark.parametrize("split_mb", [None, 1.0])
def test_a_run_over_the_end_of_a_piece_leaves_out_both_pieces(vocab, tmp_path, split_mb):
    draw = random.Random(3)
    lines = [" ".join(draw.choices("bcdfg", k=9)) + f" {i} end." for i in range(500_000)]
    text = "\n".join(lines)
    assert 2 * MAX_DOCUMENT_BYTES < len(text) < 4 * MAX_DOCUMENT_BYTES
    cut = text.rfind("\n", 0, MAX_DOCUMENT_BYTES)
    leak = " ".join([*text[cut - 200 : cut].split()[-7:], *text[cut : cut + 200].split()[:6]])
    (tmp_path / "test.txt").write_text(leak)
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.txt").write_text(text)
    (tmp_path / "in/b.txt").write_text("b c d.\n")
    options = {"max_seq_length": (128,), "dupe_factor": 1, "validation_fraction": 0.0, "pairs": "none"}
    run_job(
        tmp_path / "in", tmp_path / "out", vocab, **options, split_mb=split_mb, exclude=(str(tmp_path / "test.txt"),)
    )
    found = [
        (one["source"], one.get("piece", 0)) for one in rejects(tmp_path / "out") if one["reason"] == "in-test-set"
    ]
    assert sorted(found) == [("a.txt", 0), ("a.txt", 1)]
