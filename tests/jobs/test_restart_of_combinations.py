"""Jobs that use --inputs, --per-source, --exclude, --near-duplicates and --extend together, killed with SIGKILL."""

import json
import os
from pathlib import Path

import pytest

from jobs import cli
from tests.jobs.corpus import digests, documents, write, write_vocabulary
from tests.jobs.restartable_job import WRITTEN
from tests.jobs.test_restart_of_inputs import kill_and_finish

FLAGS = ["--max-seq-length", "32", "--dupe-factor", "1", "--validation-fraction", "0", "--gates.no-fail"]
FLAGS += ["--near-duplicates", "0.5", "--split-mb", "0.02"]
SOURCES = """
[[input]]
path = "DIR/a/"
sample = 90

[[input]]
path = "DIR/b/"
tokens = 2000
"""
MORE = """
[[input]]
path = "DIR/a/"

[[input]]
path = "DIR/b/"

[[input]]
path = "DIR/c/"
min_characters = 60
"""
POINTS = [
    "within excluded- 1",
    "before near/ 4",
    "after near-duplicates 1",
    "after elsewhere 1",
    "before plan-b\\.json 1",
]
POINTS += ["before b/near-duplicates\\.parquet 1", "after a/manifest\\.json 1", "within b/manifest\\.json 1"]
OF_EXTENSION = ["before known-documents 1", "after near-duplicates 1", "before known-near-duplicates 1"]
OF_EXTENSION += [
    "within plan\\.json 1",
    "after \\.tar$ 1",
    "before near-duplicates-of-others 1",
    "before manifest\\.json 1",
]


@pytest.fixture(scope="module")
def commands(tmp_path_factory):
    """(function from an output to the command for the sources, the same for the job that extends their data sets, the
    digests of unbroken ones, the folder with all of it)."""
    folder = tmp_path_factory.mktemp("combinations")
    texts, new = documents(150), documents(60, seed=2)
    write(folder / "a/one.jsonl", texts[:90])
    write(folder / "b/two.txt", [*texts[60:], *([*text, "And a sentence more."] for text in texts[:20])])
    write(
        folder / "c/three.jsonl", [*texts[100:120], *new, *([*text, "And a sentence more."] for text in texts[30:50])]
    )
    for path in folder.rglob("*.*"):
        os.utime(path, (WRITTEN, WRITTEN))
    rows = [{"text": " ".join(text)} for text in [*texts[::15], *new[::9]]]
    (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "one.toml").write_text(SOURCES.replace("DIR", str(folder)))
    (folder / "two.toml").write_text(MORE.replace("DIR", str(folder)))
    vocab = str(write_vocabulary(folder / "vocab.txt"))
    shared = ["preprocess", "--exclude", f"{folder}/test.jsonl"]
    first = [*shared, "--inputs", f"{folder}/one.toml", "--per-source", "--vocab", vocab, *FLAGS]
    extend = ["--extend", f"{folder}/old/a", f"{folder}/old/b", "--gates.no-fail", "--split-mb", "0.02"]
    second = [*shared, "--inputs", f"{folder}/two.toml", *extend]
    assert cli.main([*first, "--out", f"{folder}/old"]) == 0
    assert cli.main([*second, "--out", f"{folder}/new"]) == 0
    unbroken = digests(folder / "old"), digests(folder / "new")
    return lambda out: [*first, "--out", str(out)], lambda out: [*second, "--out", str(out)], unbroken, folder


def test_the_counts_of_the_sources_add_up_to_those_of_the_data_set(commands):
    manifest = json.loads((commands[3] / "new/manifest.json").read_text())
    counters, sources = manifest["counters"], [source["counters"] for source in manifest["sources"]]
    assert sum(numbers["near"] for numbers in counters["duplicates_of"].values()) > 5
    names = ["documents_in", "documents_used", "documents_rejected", "documents_duplicate", "documents_near_duplicate"]
    for name in names:
        assert sum(source[name] for source in sources) == counters[name], name


@pytest.mark.slow
def test_a_job_with_all_of_them_that_was_killed_finishes(commands, tmp_path: Path):
    first, second, unbroken, _ = commands
    kill_and_finish(first, unbroken[0], tmp_path / "first", POINTS[3:4], data_sets=("a", "b"))
    kill_and_finish(second, unbroken[1], tmp_path / "second", OF_EXTENSION[3:4])


@pytest.mark.slow
def test_a_job_with_all_of_them_that_was_killed_anywhere_finishes(commands, tmp_path: Path):
    first, second, unbroken, _ = commands
    kill_and_finish(first, unbroken[0], tmp_path / "first", POINTS, data_sets=("a", "b"))
    kill_and_finish(second, unbroken[1], tmp_path / "second", OF_EXTENSION)
