"""Jobs over sources with budgets, killed with SIGKILL: the next start does the rest, to the same bytes."""

from pathlib import Path

import pytest

from jobs import cli
from tests.jobs.corpus import digests, documents, write, write_vocabulary
from tests.jobs.test_restart_of_inputs import kill_and_finish

FLAGS = ["--max-seq-length", "32", "--dupe-factor", "1", "--validation-fraction", "0", "--gates.no-fail"]
TOML = """
[[input]]
path = "DIR/a/"
sample = 40

[[input]]
path = "DIR/b/"
tokens = 900
"""
POINTS = [
    "within \\.part$ 2",
    "after sample\\.json 1",
    "before elsewhere 1",
    "within over-budget/.* 1",
    "after plan-a\\.json 1",
    "before plan-b\\.json 1",
    "after \\.tar$ 1",
    "before a/manifest\\.json 1",
    "after a/manifest\\.json 1",
    "before b/manifest\\.json 1",
]


@pytest.fixture(scope="module")
def argv(tmp_path_factory):
    """The command line over two sources that share texts, into any output."""
    folder = tmp_path_factory.mktemp("sources")
    texts = documents(150)
    write(folder / "a/one.jsonl", texts[:60])
    write(folder / "b/two.txt", texts[40:])
    (folder / "corpus.toml").write_text(TOML.replace("DIR", str(folder)))
    vocab = write_vocabulary(folder / "vocab.txt")
    words = ["preprocess", "--inputs", f"{folder}/corpus.toml", "--vocab", str(vocab), "--split-mb", "0.02", *FLAGS]
    return lambda out: [*words, "--per-source", "--out", str(out)]


def check(argv, folder: Path, points):
    assert cli.main(argv(folder / "unbroken")) == 0
    kill_and_finish(argv, digests(folder / "unbroken"), folder, points, data_sets=("a", "b"))


def test_a_job_with_a_data_set_for_each_source_that_was_killed_finishes(argv, tmp_path: Path):
    check(argv, tmp_path, [POINTS[3], POINTS[8]])


@pytest.mark.slow
def test_a_job_with_a_data_set_for_each_source_that_was_killed_anywhere_finishes(argv, tmp_path: Path):
    check(argv, tmp_path, POINTS)
