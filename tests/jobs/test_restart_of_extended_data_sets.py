"""`preprocess --extend` that is killed with SIGKILL at any moment: the next start does the rest, to the same bytes."""

import os
import signal

import pytest

from jobs.cli import main
from tests.jobs.corpus import digests, documents, write
from tests.jobs.restartable_job import WRITTEN, assert_whole, run_in_forks

FEW = ["before known-documents 1", "within known-near-duplicates 1"]
FILES = [("/extended$", 1), ("known/", 1), ("known/", 3), ("known/", 6), ("known-documents", 1)]
FILES += [("known-near-duplicates", 1), ("sketches/", 1), ("near-duplicates-of-others", 1), ("manifest.json", 1)]
ALL = [f"{moment} {name} {number}" for name, number in FILES for moment in ("within", "before", "after")]


@pytest.fixture(scope="module")
def extending(job, tmp_path_factory):
    """(function from an output to the command that makes it, digests of an unbroken one)."""
    folder = tmp_path_factory.mktemp("extending")
    texts = documents(150)
    again = [[*text, "And a sentence more, but no other change."] for text in texts[:30]]
    write(folder / "new/c.jsonl", [*documents(60, seed=2), *texts[30:50], *again])
    os.utime(folder / "new/c.jsonl", (WRITTEN, WRITTEN))
    assert main(job.argv(folder / "one", "--near-duplicates", "0.5")) == 0

    def argv(out):
        places = ["--extend", str(folder / "one"), "--input", str(folder / "new"), "--out", str(out)]
        return ["preprocess", *places, "--split-mb", "0.02"]

    assert main(argv(folder / "two")) == 0
    return argv, digests(folder / "two")


def kill_and_finish(extending, folder, points):
    argv, unbroken = extending
    cases = [(point, argv(folder / str(i))) for i, kill in enumerate(points) for point in (kill, "")]
    ran = run_in_forks(cases)
    for i, point in enumerate(points):
        assert ran[2 * i][0] == -signal.SIGKILL, f"{point}: never reached: {ran[2 * i]}"
        assert ran[2 * i + 1][0] == 0, f"{point}: {ran[2 * i + 1][2]}"
        assert_whole(folder / str(i), unbroken)


def test_a_job_that_was_killed_in_the_search_for_known_documents_finishes(extending, tmp_path):
    kill_and_finish(extending, tmp_path, FEW)


@pytest.mark.slow
def test_a_job_that_was_killed_while_writing_any_of_its_files_finishes(extending, tmp_path):
    kill_and_finish(extending, tmp_path, ALL)
