"""Preprocessing that is killed with SIGKILL at any moment: the next start does the rest, to the same bytes."""

import random
import re
import signal
import time

import pytest

from tests.jobs.restartable_job import TIMEOUT_SECONDS, assert_whole, identities, run_in_forks

FEW = [
    ("within job.json 1", ""),
    ("before \\.part$ 2", "1 of 4 splits tokenized, 0 buckets"),
    ("within plan.json 1", "4 of 4 splits tokenized, 0 buckets"),
    ("within train/.*\\.tar$ 3", "4 of 4 splits tokenized, 0 buckets"),
    ("before documents/ 2", "4 of 4 splits tokenized, 1 bucket finished"),
    ("after weave/.*\\.json$ 1", "4 of 4 splits tokenized, 1 bucket finished"),
    ("within manifest.json 1", "4 of 4 splits tokenized, 2 buckets"),
    ("after manifest.json 1", "is already complete: nothing to do"),
]
FILES = [
    ("job.json", 1),
    ("\\.part$", 1),
    ("\\.part$", 4),
    ("plan.json", 1),
    ("\\.tar$", 1),
    ("\\.tar$", 8),
    ("documents/", 1),
    ("weave/[^/]*\\.json$", 1),
    ("weave/[^/]*\\.json$", 2),
    ("/rejects.jsonl.gz", 1),
    ("shards.parquet", 1),
    ("vocab.txt", 1),
    ("tokenizer.json", 1),
    ("manifest.json", 1),
]
ALL = [f"{moment} {name} {number}" for name, number in FILES for moment in ("within", "before", "after")]


def kill_and_finish(job, unbroken, folder, points):
    cases = []
    for i, point in enumerate(points):
        cases += [(point, job.argv(folder / str(i))), ("", job.argv(folder / str(i)))]
    ran = run_in_forks(cases)
    for i, point in enumerate(points):
        assert ran[2 * i][0] == -signal.SIGKILL, f"{point}: never reached: {ran[2 * i]}"
        status, _, said = ran[2 * i + 1]
        assert status == 0, f"{point}: {said}"
        assert_whole(folder / str(i), unbroken)
    return [said for _, _, said in ran[1::2]]


@pytest.mark.slow
def test_a_job_that_was_killed_in_any_stage_reports_what_it_found_and_finishes(job, unbroken, tmp_path):
    said = kill_and_finish(job, unbroken, tmp_path, [point for point, _ in FEW])
    for (point, expected), words in zip(FEW, said, strict=True):
        assert expected in words, f"{point}: {words}"
        assert expected == "" or re.search("continuing with an unfinished run: |already complete", words)


@pytest.mark.slow
def test_a_job_that_was_killed_while_writing_any_file_finishes(job, unbroken, tmp_path):
    kill_and_finish(job, unbroken, tmp_path, ALL)


def test_a_job_that_was_killed_several_times_finishes(job, unbroken, tmp_path):
    points = [
        "after \\.part$ 1",
        "within \\.part$ 1",
        "after plan.json 1",
        "before \\.tar$ 2",
        "before shards.parquet 1",
    ]
    ran = run_in_forks([(point, job.argv(tmp_path / "out")) for point in [*points, ""]])
    assert [status for status, _, _ in ran] == [-signal.SIGKILL] * len(points) + [0]
    assert_whole(tmp_path / "out", unbroken)


def test_finished_work_is_not_repeated(job, unbroken, tmp_path):
    out, work = tmp_path / "out", tmp_path / "work"
    argv = job.argv(out, "--work-dir", str(work))
    assert run_in_forks([("before validation/.*\\.tar$ 1", argv)])[0][0] == -signal.SIGKILL
    parts, shards = identities(work / "parts"), identities(out / "train")
    assert len(parts) == 4 and len(shards) == 4
    assert run_in_forks([("", argv)])[0][0] == 0
    assert identities(work / "parts") == parts and identities(out / "train") == shards
    assert_whole(out, unbroken)


def kill_after(job, out, seconds, *flags):
    process = job.start(out, *flags)
    time.sleep(seconds)
    process.kill()
    process.communicate()


@pytest.mark.slow
def test_a_job_that_was_killed_at_random_moments_finishes(job, unbroken, tmp_path):
    kill_randomly(job, unbroken, tmp_path, 2, seed=1)


@pytest.mark.slow
def test_a_job_that_was_killed_at_many_random_moments_finishes(job, unbroken, tmp_path):
    kill_randomly(job, unbroken, tmp_path, 20, seed=2)


def kill_randomly(job, unbroken, folder, times, seed):
    draw = random.Random(seed)
    for i in range(times):
        kill_after(job, folder / str(i), draw.uniform(1.5, 6), "--num-workers", str(1 + i % 2))
        process = job.start(folder / str(i), "--num-workers", str(2 - i % 2))
        _, said = process.communicate(timeout=TIMEOUT_SECONDS)
        assert process.returncode == 0, said
        assert_whole(folder / str(i), unbroken)
