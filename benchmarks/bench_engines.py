"""Compare the job on other engines with the embedded runner: seconds, the ratio, and where the time goes.

    python benchmarks/bench_engines.py --input 'corpus_en/*.jsonl.gz' --vocab vocab.txt --megabytes 1000

Runs the job on two workers of the embedded runner and on every engine that `make test-engines` finds, each on the same
cores. Where an engine has one worker, compare it with the embedded runner's one worker. The engine's own start (scheduler,
job server, worker pool) is not part of the time. Runs are interleaved. Without arguments the text is made from the shipped
sample.

The time of a job is cut at two files. "start" ends with the first line of the log of finished work
(pipeline/stages/work_log.py), so it includes the imports of the launcher and of a new worker. "stages" end with the last
shard. "end" is the rest.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from large_corpus import write_corpus
from setting import ROOT, add_text_arguments, header, inputs_of, spread, vocabulary_of, write_report

sys.path.insert(0, str(ROOT))

from tests.engines.engines import ENGINES, environment

EMBEDDED = {"embedded, 1 worker": ("--num-workers", "1"), "embedded, 2 workers": ("--num-workers", "2")}


@dataclass
class Times:
    """Seconds of some runs."""

    whole: list[float] = field(default_factory=list)
    start: list[float] = field(default_factory=list)
    stages: list[float] = field(default_factory=list)
    end: list[float] = field(default_factory=list)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_text_arguments(parser)
    parser.add_argument("--megabytes", type=float, default=1000)
    parser.add_argument("--repeat", type=int, default=1, help="runs of each; the medians are compared")
    parser.add_argument("--name", default="engines", help="name of the file in benchmarks/results/")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        lines = measure(arguments, Path(folder))
    write_report(arguments.name, lines, not arguments.input)


def measure(arguments: argparse.Namespace, folder: Path) -> list[str]:
    vocab, text = vocabulary_of(arguments, folder), folder / "text.jsonl"
    write_corpus(text, inputs_of(arguments), arguments.megabytes)
    digests, missing = set(), []
    with ExitStack() as running:
        kinds = dict(EMBEDDED)
        for name, start in ENGINES.items():
            (folder / name).mkdir()
            try:
                engine = running.enter_context(start(folder / name))
            except pytest.skip.Exception as reason:
                missing.append(f"{name}: {reason}")
            else:
                kinds[f"{engine.name}, {engine.workers}"] = ("--", *engine.flags)
        times = {kind: Times() for kind in kinds}
        for _ in range(arguments.repeat):
            for kind, words in kinds.items():
                digests.add(run(text, vocab, folder / "out", words, times[kind]))
    if len(digests) != 1:
        raise SystemExit(f"the shards differ: {digests}")
    two = statistics.median(times["embedded, 2 workers"].whole)
    what = (
        f"{arguments.megabytes:g} MB of text, random paragraphs of the input; seconds of {arguments.repeat} interleaved "
        "runs each, median [min, max]. The shards are the same, byte for byte."
    )
    return [
        *header("The job on each engine", what, "apache-beam", "pyarrow", "numpy", "tokenizers"),
        "| runner, workers | seconds | of the embedded runner's, 2 workers | start | stages | end |",
        "|---|---|---|---|---|---|",
        *(
            f"| {kind} | {spread(found.whole)} | {statistics.median(found.whole) / two:.2f} | "
            f"{statistics.median(found.start):.1f} | {statistics.median(found.stages):.1f} | "
            f"{statistics.median(found.end):.1f} |"
            for kind, found in times.items()
        ),
        *(["", "Not here: " + "; ".join(missing) + "."] if missing else []),
    ]


def run(text: Path, vocab: str, out: Path, words: tuple[str, ...], times: Times) -> str:
    """Run the job in a new process, add its times, and return the digest of the shards."""
    command = ["preprocess", "--input", str(text), "--vocab", vocab, "--out", str(out), "--gates.no-fail", *words]
    began = time.time()
    process = subprocess.Popen(
        [sys.executable, "-m", "jobs.cli", *command],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    first = last = 0.0
    while process.poll() is None:
        first = first or newest(out / ".work/work-log")
        last = max(last, newest(out / "train"))
        time.sleep(0.02)
    whole = time.time() - began
    if process.returncode:
        raise SystemExit(f"bertloom {' '.join(command)} failed")
    times.whole.append(whole)
    times.start.append(first - began)
    times.stages.append(last - first)
    times.end.append(whole - (last - began))
    digest = json.loads((out / "manifest.json").read_text())["shards_digest"]
    shutil.rmtree(out)
    return str(digest)


def newest(folder: Path) -> float:
    """Return when the newest file below a folder was written; 0 if there is none."""
    try:
        return max((path.stat().st_mtime for path in folder.rglob("*") if path.is_file()), default=0.0)
    except FileNotFoundError:  # removed since it was listed
        return 0.0


if __name__ == "__main__":
    main()
