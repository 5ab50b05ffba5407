"""Preprocessing killed with SIGKILL at any moment, or out of room, goes on where it was, to the same bytes."""

import errno
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from bertloom.locks import output_lock
from jobs import cli
from jobs.verify import verify
from tests.jobs.corpus import digests, documents, run_job, write, write_vocabulary

ROOT = Path(__file__).parent.parent.parent
KILL_POINTS = ROOT / "tests/jobs/kill_points.py"
PATIENCE_SECONDS = 60  # for what takes one or two on a machine that does nothing else
WORKER_LOST = 70


class Job:
    """One corpus, and the command line over it into any output."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.vocab = write_vocabulary(folder / "vocab.txt")
        texts = documents(150)
        write(folder / "in/a.txt", texts[:100])
        with write(folder / "in/b.jsonl", texts[100:]).open("ab") as file:
            file.write(b'{"text": "cut o\n')

    def argv(self, out: Path, *flags: str) -> list[str]:
        places = ["--input", f"{self.folder}/in", "--vocab", str(self.vocab), "--out", str(out)]
        what = [
            "--max-seq-length",
            "32",
            "64",
            "--dupe-factor",
            "2",
            "--validation-fraction",
            "0.1",
            "--split-mb",
            "0.02",
        ]
        return ["preprocess", *places, *what, *flags]

    def start(self, out: Path, *flags: str, **environment: str) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "-m", "jobs.cli", *self.argv(out, *flags)],
            cwd=ROOT,
            env=_environment(**environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


def _environment(**more: str) -> dict[str, str]:
    path = os.pathsep.join([more.pop("first", ""), str(ROOT)]).lstrip(os.pathsep)
    return {**os.environ, "PYTHONPATH": path, **more}


def run_in_forks(cases: list[tuple[str, list[str]]]) -> list[tuple[int, float, str]]:
    """(exit status, seconds, what it said) of each (kill point, command line), one after the other."""
    ran = subprocess.run(
        [sys.executable, str(KILL_POINTS)],
        input=json.dumps(cases),
        cwd=ROOT,
        env=_environment(),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return [tuple(json.loads(line)) for line in ran.stdout.splitlines()]


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    return Job(tmp_path_factory.mktemp("job"))


@pytest.fixture(scope="module")
def unbroken(job, tmp_path_factory):
    """The files of a data set whose job nobody killed, and their digests."""
    out = tmp_path_factory.mktemp("unbroken") / "out"
    assert cli.main(job.argv(out)) == 0
    return digests(out)


def assert_whole(out: Path, unbroken: dict[str, str]) -> None:
    assert digests(out) == unbroken  # no temporary file, no lock, no work folder beside them
    assert verify(str(out))[0] == []


# ---- killed at a chosen point

FEW = [
    ("within job.json 1", ""),
    ("before \\.part$ 2", "1 of 4 splits tokenized, 0 buckets"),
    ("within plan.json 1", "4 of 4 splits tokenized, 0 buckets"),
    ("within train/.*\\.tar$ 3", "4 of 4 splits tokenized, 0 buckets"),
    ("before documents/ 2", "4 of 4 splits tokenized, 1 buckets"),
    ("after weave/.*\\.json$ 1", "4 of 4 splits tokenized, 1 buckets"),
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


def _kill_each_and_go_on(job, unbroken, folder, points):
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


def test_killed_at_a_point_of_each_stage_the_next_start_says_what_it_found_and_does_the_rest(job, unbroken, tmp_path):
    said = _kill_each_and_go_on(job, unbroken, tmp_path, [point for point, _ in FEW])
    for (point, expected), words in zip(FEW, said, strict=True):
        assert expected in words, f"{point}: {words}"
        assert expected == "" or re.search("continuing with an unfinished run: |already complete", words)


@pytest.mark.slow
def test_killed_in_the_write_of_any_file_before_or_after_its_rename_the_next_start_does_the_rest(
    job, unbroken, tmp_path
):
    _kill_each_and_go_on(job, unbroken, tmp_path, ALL)


def test_killed_again_and_again_it_still_gets_there(job, unbroken, tmp_path):
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


def test_what_is_done_is_not_done_again(job, unbroken, tmp_path):
    out, work = tmp_path / "out", tmp_path / "work"
    argv = job.argv(out, "--work-dir", str(work))
    assert run_in_forks([("before validation/.*\\.tar$ 1", argv)])[0][0] == -signal.SIGKILL
    parts, shards = _identity(work / "parts"), _identity(out / "train")
    assert len(parts) == 4 and len(shards) == 4
    assert run_in_forks([("", argv)])[0][0] == 0
    assert _identity(work / "parts") == parts and _identity(out / "train") == shards
    assert_whole(out, unbroken)


def _identity(folder: Path) -> dict[str, tuple[int, int]]:
    """A file that was written again has another inode or time."""
    return {
        str(p.relative_to(folder)): (p.stat().st_ino, p.stat().st_mtime_ns) for p in folder.rglob("*") if p.is_file()
    }


# ---- killed at any moment, by others


def _kill_at(job, out, seconds, *flags):
    process = job.start(out, *flags)
    time.sleep(seconds)
    process.kill()
    process.communicate()


def test_killed_at_random_moments_the_next_start_does_the_rest(job, unbroken, tmp_path):
    _kill_randomly(job, unbroken, tmp_path, 2, seed=1)


@pytest.mark.slow
def test_killed_at_many_random_moments_the_next_start_does_the_rest(job, unbroken, tmp_path):
    _kill_randomly(job, unbroken, tmp_path, 20, seed=2)


def _kill_randomly(job, unbroken, folder, times, seed):
    draw = random.Random(seed)
    for i in range(times):
        _kill_at(job, folder / str(i), draw.uniform(1.5, 6), "--num-workers", str(1 + i % 2))
        process = job.start(folder / str(i), "--num-workers", str(2 - i % 2))
        _, said = process.communicate(timeout=PATIENCE_SECONDS)
        assert process.returncode == 0, said
        assert_whole(folder / str(i), unbroken)


def test_a_start_beside_orphans_that_still_write_gives_the_same_bytes(job, unbroken, tmp_path):
    out = tmp_path / "out"
    slow = _inworkers(tmp_path, "slowly \\.part$ 1")
    process = job.start(out, "--num-workers", "2", **slow)
    wait_for(lambda: list(out.glob(".work/parts/*.part")))
    process.kill()
    process.communicate()
    assert cli.main(job.argv(out)) == 0
    wait_for(lambda: not workers(slow["MARK"]))
    assert_whole(out, unbroken)


def _inworkers(folder: Path, point: str) -> dict[str, str]:
    """Environment in which one of Beam's worker processes meets a kill point, once."""
    site = folder / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(
        "import os, sys\n"
        "if any('pipeline.local.worker' in word for word in sys.orig_argv):\n"
        f"    sys.path.append({str(KILL_POINTS.parent)!r})\n"
        "    import kill_points\n"
        f"    kill_points.install({point!r}, {str(folder / 'killed')!r})\n"
    )
    return {"first": str(site), "MARK": str(folder)}


def workers(mark: str) -> list[psutil.Process]:
    """Worker processes of the jobs with this mark in their environment."""
    found = []
    for process in psutil.process_iter():
        try:
            if "pipeline.local.worker" in " ".join(process.cmdline()) and process.environ().get("MARK") == mark:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return [process for process in found if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]


def wait_for(what):
    until = time.monotonic() + PATIENCE_SECONDS
    while not what():
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.mark.parametrize(
    "point",
    [
        pytest.param("start local_worker 1", marks=pytest.mark.slow),
        "before \\.part$ 1",
        pytest.param("within \\.tar$ 2", marks=pytest.mark.slow),
        "after weave/.*\\.json$ 1",
        pytest.param("within manifest.json 1", marks=pytest.mark.slow),
    ],
)
def test_a_killed_worker_ends_the_job_with_status_70_and_a_word_and_the_next_start_goes_on(
    job, unbroken, tmp_path, point
):
    environment = _inworkers(tmp_path, point)
    process = job.start(tmp_path / "out", "--num-workers", "2", **environment)
    wait_for(lambda: (tmp_path / "killed").exists() or process.poll() is not None)
    _, said = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == WORKER_LOST
    assert "bertloom preprocess: error: a worker process died" in said.splitlines()[-1]
    assert "Start the same command again to continue" in said and "Traceback" not in said
    wait_for(lambda: not workers(environment["MARK"]))
    process = job.start(tmp_path / "out", "--num-workers", "2", **environment)
    _, said = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 0 and "continuing with an unfinished run" in said
    assert_whole(tmp_path / "out", unbroken)


@pytest.mark.parametrize(
    "who", ["the server of the workers, while it imports", "the first worker, before its first work"]
)
def test_whichever_is_killed_at_the_start_the_job_ends_with_status_70_and_leaves_none_behind(job, tmp_path, who):
    mark, at = str(tmp_path), int("worker," in who)  # the server is the eldest
    process = job.start(tmp_path / "out", "--num-workers", "2", MARK=mark)
    wait_for(lambda: len(workers(mark)) > at)
    workers(mark)[at].kill()
    _, said = process.communicate(timeout=PATIENCE_SECONDS)  # an orphan would hold the pipes
    assert process.returncode == WORKER_LOST and "a worker process died" in said and "Traceback" not in said
    wait_for(lambda: not workers(mark))


@pytest.mark.parametrize("started", [0, 1, 2])
def test_a_job_killed_while_its_workers_start_leaves_none_behind(job, tmp_path, started):
    process = job.start(tmp_path / "out", "--num-workers", "2", MARK=str(tmp_path))
    wait_for(lambda: len(workers(str(tmp_path))) > started)  # one of them their server
    process.kill()
    process.communicate()
    wait_for(lambda: not workers(str(tmp_path)))


# ---- a full disk


@pytest.mark.parametrize(
    "name", ["job.json", "parts/", "plan.json", "train/", "documents/", "weave/", "shards.parquet", "manifest.json"]
)
def test_a_full_disk_is_said_with_its_place_and_nothing_half_written_is_taken_for_whole(
    job, unbroken, tmp_path, monkeypatch, capsys, name
):
    out, real = tmp_path / "out", os.fsync

    def full(handle):
        path = os.readlink(f"/proc/self/fd/{handle}")
        if name in path and ".tmp-" in path:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        assert cli.main(job.argv(out)) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(f"bertloom preprocess: error: {out}") and name in last
    assert "no space left on device" in last and "Make room, then start the same command again" in last
    assert not (out / "manifest.json").exists() and not list(out.rglob(".tmp-*")) and not (out / ".lock").exists()
    assert cli.main(job.argv(out)) == 0
    assert_whole(out, unbroken)


def test_a_full_disk_met_by_a_worker_process_is_said_as_one_line(job, tmp_path):
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(
        "import errno, os, sys\n"
        "def full(handle, real=os.fsync):\n"
        "    if '.part' in os.readlink(f'/proc/self/fd/{handle}'):\n"
        "        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))\n"
        "    real(handle)\n"
        "if any('pipeline.local.worker' in word for word in sys.orig_argv):\n"
        "    os.fsync = full\n"
    )
    process = job.start(tmp_path / "out", "--num-workers", "2", first=str(site))
    _, said = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 2 and "Traceback" not in said
    assert said.splitlines()[-1].startswith(f"bertloom preprocess: error: {tmp_path}/out/.work/parts/")
    assert "no space left on device" in said


# ---- one job an output, one configuration an output


def test_a_second_job_on_the_same_output_is_refused_and_told_who_holds_it(job, unbroken, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    with output_lock(str(out)):
        assert cli.main(job.argv(out)) == 2
        said = capsys.readouterr().err
        assert re.search(
            rf"{out} is being written by process {os.getpid()} on \S+ since 20\d\d-.*: wait for it, or choose", said
        )
        assert os.listdir(out) == [".lock"]
    assert cli.main(job.argv(out)) == 0
    assert_whole(out, unbroken)


def test_the_lock_of_a_dead_job_holds_nobody_back(job, unbroken, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/.lock").write_text("process 1 on elsewhere since 2001-01-01 00:00:00\n")
    assert cli.main(job.argv(tmp_path / "out")) == 0
    assert_whole(tmp_path / "out", unbroken)


def test_jobs_that_ask_for_the_lock_all_at_once_get_it_one_at_a_time(tmp_path):
    code = (
        "import sys, time\n"
        "from bertloom.locks import output_lock\n"
        "held = 0\n"
        "while held < 40:\n"
        "    try:\n"
        f"        with output_lock({str(tmp_path)!r}):\n"
        f"            open({str(tmp_path / 'mine')!r}, 'x').close()\n"
        f"            import os; os.remove({str(tmp_path / 'mine')!r})\n"
        "            held += 1\n"
        "    except ValueError as error:\n"
        "        assert 'is being written by' in str(error)\n"
    )
    processes = [subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=_environment()) for _ in range(3)]
    assert [process.wait(PATIENCE_SECONDS) for process in processes] == [0, 0, 0]


@pytest.fixture
def half(job, tmp_path):
    """An output that a killed job has left."""
    ran = run_in_forks([("before weave/ 1", job.argv(tmp_path / "half"))])
    assert ran[0][0] == -signal.SIGKILL
    return tmp_path / "half"


def test_an_unfinished_output_takes_no_other_configuration_vocabulary_or_input(job, unbroken, half, capsys, tmp_path):
    (half / ".lock").unlink()  # of the killed job
    before = _identity(half)
    words = job.vocab.read_text().splitlines()
    (tmp_path / "other.txt").write_text("\n".join([*words[:-1], "other"]) + "\n")
    for flags, says in (
        (
            ["--seed", "2", "--dupe-factor", "3"],
            "unfinished data set of another configuration (dupe_factor, seed differ)",
        ),
        (["--no-do-lower-case"], "unfinished data set of another configuration (do_lower_case differ)"),
        (["--vocab", str(tmp_path / "other.txt")], "unfinished data set of another configuration (vocabulary differ)"),
        (["--input", str(job.folder / "in/a.txt")], "unfinished data set of other input files"),
    ):
        assert cli.main(job.argv(half, *flags)) == 2
        said = capsys.readouterr().err
        assert says in said and "choose another --out" in said
        assert _identity(half) == before
    assert cli.main(job.argv(half, "--split-mb", "0.05")) == 0  # how the input is cut is no part of the configuration
    assert_whole(half, unbroken)


def test_a_finished_output_is_left_alone(job, unbroken, tmp_path, capsys):
    out = tmp_path / "out"
    assert cli.main(job.argv(out)) == 0
    before = _identity(out)
    capsys.readouterr()
    assert cli.main(job.argv(out)) == 0
    said = capsys.readouterr()
    assert f"{out} is already complete: nothing to do" in said.err and f"{out}: complete" in said.out
    assert cli.main(job.argv(out, "--seed", "2")) == 2
    assert "complete data set with another configuration (seed differ): choose another --out" in capsys.readouterr().err
    assert cli.main(job.argv(out, "--input", f"{job.folder}/in/a.txt")) == 2
    assert "complete data set of other input files: choose another --out" in capsys.readouterr().err
    assert _identity(out) == before and not list(out.glob(".*"))


def test_an_output_with_shards_that_no_job_began_is_refused(job, tmp_path, capsys):
    (tmp_path / "out/train").mkdir(parents=True)
    assert cli.main(job.argv(tmp_path / "out")) == 2
    assert "holds train, which no unfinished job has written: choose an empty --out" in capsys.readouterr().err


def test_a_kept_work_folder_serves_other_lengths_copies_masks_and_more_files(job, unbroken, tmp_path, capsys):
    work = tmp_path / "work"
    assert cli.main(job.argv(tmp_path / "one", "--work-dir", str(work))) == 0
    assert_whole(tmp_path / "one", unbroken)
    parts = _identity(work / "parts")
    capsys.readouterr()
    other = ["--max-seq-length", "48", "--dupe-factor", "1", "--masked-lm-prob", "0.3", "--seed", "9"]
    assert cli.main(job.argv(tmp_path / "two", "--work-dir", str(work), *other)) == 0
    assert f"continuing with the tokens in {work}: 4 of 4 splits tokenized" in capsys.readouterr().err
    assert _identity(work / "parts") == parts
    write(tmp_path / "more/c.txt", documents(40, seed=3))
    inputs = ["--input", str(job.folder / "in"), str(tmp_path / "more")]
    assert cli.main(job.argv(tmp_path / "three", "--work-dir", str(work), *inputs)) == 0
    assert "4 of 5 splits tokenized" in capsys.readouterr().err
    assert parts.items() < _identity(work / "parts").items()
    assert cli.main(job.argv(tmp_path / "four", "--work-dir", str(work), "--no-do-lower-case", "--gates.no-fail")) == 0
    assert "splits tokenized" not in capsys.readouterr().err  # other tokens


def test_a_half_written_part_in_a_shared_work_folder_goes_once_it_is_old(job, unbroken, tmp_path):
    work = tmp_path / "work"
    (work / "parts").mkdir(parents=True)
    for name in ("old", "new"):
        (work / f"parts/.tmp-1-1-{name}.part").write_bytes(b"half")
    os.utime(work / "parts/.tmp-1-1-old.part", (0, 0))
    run_job(job.folder / "in", tmp_path / "out", job.vocab, work_dir=work)
    assert [path.name for path in (work / "parts").glob(".tmp-*")] == [".tmp-1-1-new.part"]
