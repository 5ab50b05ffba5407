"""Compare two workers with one, and both with plain calls without Beam: the whole job on a large text, with equal bytes.

    python benchmarks/bench_workers.py --input 'corpus_en/*.jsonl.gz' --vocab vocab.txt --megabytes 1000

`plain_job.py` runs the stages as plain calls in one process on one core and starts its clock after the imports. The job
itself is timed from outside, from the start of the command to its end: with one worker on one core, and with two on two.
Beam's share, 1 - plain / one worker, therefore includes the start of Python and all imports: it is an upper bound. Runs are
interleaved. The report also shows CPU seconds of all processes together: if they differ much from the clock, other work
disturbed the run. Without arguments the text is made from the shipped sample.
"""

import argparse
import json
import resource
import shutil
import statistics
import tempfile
import time
from pathlib import Path

from large_corpus import write_corpus
from plain_job import plain_job
from setting import (
    add_text_arguments,
    header,
    in_process,
    inputs_of,
    pin,
    run_command,
    spread,
    vocabulary_of,
    write_report,
)

PLAIN, ONE, TWO = (
    "the stages as plain calls, one core",
    "bertloom preprocess --num-workers 1, one core",
    "the same with --num-workers 2, two cores",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_text_arguments(parser)
    parser.add_argument("--megabytes", type=float, default=1000)
    parser.add_argument("--dupe-factor", type=int, default=1)
    parser.add_argument("--repeat", type=int, default=1, help="runs of each; the medians are compared")
    parser.add_argument("--name", default="workers", help="name of the file in benchmarks/results/")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        lines = measure(arguments, Path(folder))
    write_report(arguments.name, lines, not arguments.input)


def measure(arguments: argparse.Namespace, folder: Path) -> list[str]:
    vocab, text, size = vocabulary_of(arguments, folder), folder / "text.jsonl", arguments.megabytes
    write_corpus(text, inputs_of(arguments), size)
    seconds: dict[str, list[float]] = {PLAIN: [], ONE: [], TWO: []}
    busy: dict[str, list[float]] = {kind: [] for kind in seconds}
    digests = set()
    for _ in range(arguments.repeat):
        for kind, found in seconds.items():
            out, before = folder / "out", cpu_seconds()
            taken, digest = run(kind, str(text), vocab, str(out), arguments.dupe_factor)
            busy[kind].append(cpu_seconds() - before)
            found.append(taken)
            digests.add(digest)
            shutil.rmtree(out)
    if len(digests) != 1:
        raise SystemExit(f"the shards differ: {digests}")
    plain, one, two = middle = [statistics.median(found) for found in seconds.values()]
    what = (
        f"{size:g} MB of text, random paragraphs of the input, L=128, dupe factor {arguments.dupe_factor}; "
        f"seconds of {arguments.repeat} interleaved runs each, median [min, max]. The shards are the same, byte for byte."
    )
    return [
        *header("One worker, two workers, and no Beam", what, "apache-beam", "pyarrow", "numpy", "tokenizers"),
        "| what | seconds | MB/s | CPU seconds |",
        "|---|---|---|---|",
        *(
            f"| {kind} | {spread(found)} | {size / taken:.1f} | {statistics.median(busy[kind]):.1f} |"
            for (kind, found), taken in zip(seconds.items(), middle)
        ),
        "",
        f"Two workers are **{one / two:.2f}** times as fast as one. "
        f"Beam's share of the job with one worker is at most **{1 - plain / one:.1%}**: "
        f"{one - plain:.1f} s, which includes the start of Python and all imports.",
    ]


def cpu_seconds() -> float:
    """Return the CPU seconds of all child processes that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def run(kind: str, text: str, vocab: str, out: str, dupe: int) -> tuple[float, str]:
    """Run the job in new processes. Return (seconds, digest of the shards)."""
    pin(2 if kind == TWO else 1)
    if kind == PLAIN:
        return in_process(plain_job, text, vocab, out, dupe)
    words = ["--input", text, "--vocab", vocab, "--out", out, "--dupe-factor", str(dupe)]
    start = time.perf_counter()
    run_command("preprocess", *words, "--num-workers", "2" if kind == TWO else "1")
    seconds = time.perf_counter() - start
    return seconds, json.loads((Path(out) / "manifest.json").read_text())["shards_digest"]


if __name__ == "__main__":
    main()
