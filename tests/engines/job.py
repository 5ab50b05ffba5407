"""The job that every engine runs: the shipped sample, English and Chinese, with all stages."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.engines.engines import environment
from tests.engines.places import Place
from tests.jobs.restartable_job import ROOT

FLAGS = (
    "--dupe-factor 2 --max-seq-length 128 512 --min-shards 6 --sample 260 --max-line-repeats 50 --near-duplicates 0.8 "
    "--split-mb 0.3 --gates.no-fail"
).split()


@dataclass(frozen=True)
class Job:
    """The job."""

    vocab: Path
    digest: str = ""
    """Digest of the shards from the embedded runner."""

    def start(self, place: Place, out: str, *beam_flags: str) -> subprocess.Popen[str]:
        """Start the job over the input of a place, with the flags of an engine."""
        places = ["--input", place.url("in"), "--vocab", str(self.vocab), "--out", place.url(out)]
        workers = ("--", *beam_flags, *place.flags) if beam_flags else ("--num-workers", "2")
        return bertloom("preprocess", *places, *FLAGS, *workers)


def bertloom(*arguments: str) -> subprocess.Popen[str]:
    """Start a command. Its output is one text."""
    command = [sys.executable, "-m", "jobs.cli", *arguments]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, env=environment(), stdout=pipe, stderr=subprocess.STDOUT, text=True)


def write_sample(place: Place) -> None:
    """Write the texts of the sample as the input of a place."""
    for name in ("en.jsonl", "zh.txt"):
        place.write(f"in/{name}", (ROOT / "jobs/sample" / name).read_bytes())
