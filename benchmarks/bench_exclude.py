"""Measure what the search for test sets costs a job: its processor time and peak memory with and without --exclude.

    python benchmarks/bench_exclude.py --input corpus_en --vocab vocab.txt --exclude 'tasks/*_en/*.json*'

The job runs alternately with and without --exclude, each time in new processes. The report has the
processor time of all its processes together and the memory of the largest one. Without arguments the text is the shipped
sample, and a part of it is the test set.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from setting import ROOT, SAMPLE, add_text_arguments, header, in_process, inputs_of, spread, vocabulary_of, write_report

from bertloom.counts import counted
from jobs.support.exclude import ExcludeConfig
from jobs.support.excluded_texts import read_excluded
from pipeline.inputs.discovery import find_sources
from pipeline.inputs.documents import read_documents
from pipeline.inputs.splitting import split_source
from pipeline.stages.exclusion import without_test_sets

NUM_SAMPLE = 3
"""Texts of the shipped sample that are the test set without --exclude."""


def run_job(arguments: argparse.Namespace, vocab: str, folder: Path, exclude: list[str]) -> tuple[float, float, dict]:
    """Run the job in new processes. Return (seconds of processor time, peak megabytes of one process, manifest)."""
    out = str(folder / "out")
    words = ["preprocess", "--input", *inputs_of(arguments), "--vocab", vocab, "--out", out, "--gates.no-fail"]
    words += ["--max-seq-length", "128", "--dupe-factor", str(arguments.dupe_factor), "--num-workers", "1"]
    words += ["--exclude", *exclude] if exclude else []
    child = (
        "import json, resource, subprocess, sys\n"
        "subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)\n"
        "used = resource.getrusage(resource.RUSAGE_CHILDREN)\n"
        "print(json.dumps([used.ru_utime + used.ru_stime, used.ru_maxrss]))\n"
    )
    command = [sys.executable, "-c", child, sys.executable, "-m", "jobs.cli", *words]
    ran = subprocess.run(
        command, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True
    )
    seconds, peak = json.loads(ran.stdout)
    manifest = json.loads((folder / "out/manifest.json").read_text(encoding="utf-8"))
    subprocess.run(["rm", "-r", out], check=True)
    return seconds, peak * 1024 / 1e6, manifest


def search_alone(patterns: list[str], exclude: list[str]) -> tuple[float, float]:
    """Return the seconds of processor time to read the test sets, and to search all documents for them."""
    start = time.process_time()
    index = read_excluded(ExcludeConfig(exclude=tuple(exclude)), [])
    assert index
    read_seconds, search_seconds = time.process_time() - start, 0.0
    for source in find_sources(patterns, []):
        records = [(0, record) for split in split_source(source, 1 << 23) for record in read_documents(split)]
        start = time.process_time()
        for _ in without_test_sets(records, index):
            pass
        search_seconds += time.process_time() - start
    return read_seconds, search_seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_text_arguments(parser)
    parser.add_argument("--exclude", nargs="*", help="files of test sets; default: a few texts of the shipped sample")
    parser.add_argument("--dupe-factor", type=int, default=5)
    parser.add_argument("--runs", type=int, default=5, help="of each kind")
    parser.add_argument("--name", default="exclude", help="name of the file in benchmarks/results/")
    arguments = parser.parse_args()
    found: dict[bool, list[tuple[float, float, dict]]] = {False: [], True: []}
    with tempfile.TemporaryDirectory() as folder:
        vocab = vocabulary_of(arguments, Path(folder))
        exclude = arguments.exclude or [str(Path(folder, "test.jsonl"))]
        if not arguments.exclude:
            lines = Path(SAMPLE).read_text(encoding="utf-8").splitlines()[:NUM_SAMPLE]
            Path(exclude[0]).write_text("\n".join(lines), encoding="utf-8")
        for number in range(2 * arguments.runs):
            is_searched = number % 2 == 1
            found[is_searched].append(run_job(arguments, vocab, Path(folder), exclude if is_searched else []))
        alone = [in_process(search_alone, inputs_of(arguments), exclude) for _ in range(arguments.runs)]
    write_report(arguments.name, report(arguments, found, alone), is_sample=not arguments.input)


def report(
    arguments: argparse.Namespace, found: dict[bool, list[tuple[float, float, dict]]], alone: list[tuple[float, float]]
) -> list[str]:
    """Return the lines of the report. found: runs of the job without and with --exclude. alone: see `search_alone`."""
    manifest = found[True][0][2]
    counters, sets = manifest["counters"], manifest["excluded"]["sets"]
    runs, records = (sum(one[name] for one in sets) for name in ("runs", "records"))
    text_bytes = found[False][0][2]["counters"]["text_bytes"]
    lines = header(
        "Searching for test sets",
        f"{counters['documents_in']:,} documents, {text_bytes / 1e6:.1f} MB; "
        f"{counted(len(sets), 'test set')} with {records:,} records "
        f"and {runs:,} runs of 13 words. L=128, dupe factor {arguments.dupe_factor}, one worker process. "
        f"{counters['rejected'].get('in-test-set', 0):,} documents are left out. {arguments.runs} alternating runs of each, "
        f"median [min, max]; processor time of all processes, peak memory of the largest process.",
        *("numpy", "tokenizers", "apache-beam"),
    )
    lines += ["| job | processor seconds | peak memory, MB |", "|---|---|---|"]
    for is_searched, name in ((False, "without --exclude"), (True, "with --exclude")):
        seconds, peaks = ([one[i] for one in found[is_searched]] for i in (0, 1))
        lines.append(f"| {name} | {spread(seconds)} | {statistics.median(peaks):.0f} |")
    for name, values in zip(("reading the test sets", "searching all documents"), zip(*alone), strict=True):
        lines.append(f"| {name}, alone | {spread(list(values))} | |")
    pairs = statistics.median(more[0] / less[0] for less, more in zip(found[False], found[True]))
    share = statistics.median(seconds for _, seconds in alone) / statistics.median(one[0] for one in found[False])
    return [
        *lines,
        "",
        f"The job with --exclude takes **{pairs:.3f}** times the processor time (median of the pairs). The test sets are "
        f"read once, however large the corpus is. Searching the documents is **{100 * share:.1f} %** of the job without it.",
    ]


if __name__ == "__main__":
    main()
