"""A preprocessing job as a command that tests can kill and start again, and checks of its output and workers."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil

from jobs.verify import verify
from tests.jobs.corpus import digests, documents, write, write_vocabulary

ROOT = Path(__file__).parent.parent.parent
KILL_POINTS = ROOT / "tests/jobs/kill_points.py"
TIMEOUT_SECONDS = 60  # one or two seconds are enough on an idle machine


WRITTEN = 1_000_000_000
"""Time of the corpus: at this one, the last split of the corpus ends a group of splits."""


class Job:
    """One corpus, and the command line over it into any output."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.vocab = write_vocabulary(folder / "vocab.txt")
        texts = documents(150)
        write(folder / "in/a.txt", texts[:100])
        with write(folder / "in/b.jsonl", texts[100:]).open("ab") as file:
            file.write(b'{"text": "cut o\n')
        for name in ("a.txt", "b.jsonl"):  # where small splits are grouped depends on names and times
            os.utime(folder / "in" / name, (WRITTEN, WRITTEN))

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

    def start(self, out: Path, *flags: str, **environment: str) -> subprocess.Popen[str]:
        """Start the job in a process of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "jobs.cli", *self.argv(out, *flags)],
            cwd=ROOT,
            env=environment_of(**environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


def environment_of(**more: str) -> dict[str, str]:
    """Return this environment with `more`; `first` is the first folder of PYTHONPATH."""
    path = os.pathsep.join([more.pop("first", ""), str(ROOT)]).lstrip(os.pathsep)
    return {**os.environ, "PYTHONPATH": path, **more}


def run_in_forks(cases: list[tuple[str, list[str]]]) -> list[tuple[int, float, str]]:
    """Run each (kill point, command line), one after the other; return (exit status, seconds, output) of each."""
    ran = subprocess.run(
        [sys.executable, str(KILL_POINTS)],
        input=json.dumps(cases),
        cwd=ROOT,
        env=environment_of(),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return [tuple(json.loads(line)) for line in ran.stdout.splitlines()]


def assert_whole(out: Path, unbroken: dict[str, str]) -> None:
    assert digests(out) == unbroken  # no temporary file, no lock, no work folder beside them
    assert verify(str(out))[0] == []


def identities(folder: Path) -> dict[str, tuple[int, int]]:
    """Return path -> (inode, time of change) of each file: both differ for a file that was written again."""
    return {
        str(p.relative_to(folder)): (p.stat().st_ino, p.stat().st_mtime_ns) for p in folder.rglob("*") if p.is_file()
    }


def armed_workers(folder: Path, point: str) -> dict[str, str]:
    """Return the environment that installs a kill point in one of Beam's worker processes."""
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
    """Return the worker processes of the jobs with this mark in their environment."""
    found = []
    for process in psutil.process_iter():
        try:
            if "pipeline.local.worker" in " ".join(process.cmdline()) and process.environ().get("MARK") == mark:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return [process for process in found if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]


def wait_for(what):
    until = time.monotonic() + TIMEOUT_SECONDS
    while not what():
        assert time.monotonic() < until
        time.sleep(0.02)
