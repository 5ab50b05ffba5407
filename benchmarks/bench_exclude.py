"""Measure what the search for test sets costs a job: its processor time and peak memory with and without --exclude.

    python benchmarks/bench_exclude.py --input corpus_en --vocab vocab.txt --exclude 'tasks/*_en/*.json*'

The job runs alternately with and without --exclude, each time in new processes. The time is that of all its processes, and
the memory that of its largest process. Without arguments the text is the shipped sample, which is its own test set.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from setting import ROOT, add_text_arguments, header, inputs_of, spread, vocabulary_of, write_report


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_text_arguments(parser)
    parser.add_argument("--exclude", nargs="*", help="files of test sets; default: the shipped sample")
    parser.add_argument("--dupe-factor", type=int, default=5)
    parser.add_argument("--runs", type=int, default=5, help="of each kind")
    parser.add_argument("--name", default="exclude", help="name of the file in benchmarks/results/")
    arguments = parser.parse_args()
    exclude = arguments.exclude or inputs_of(arguments)
    found: dict[bool, list[tuple[float, float, dict]]] = {False: [], True: []}
    with tempfile.TemporaryDirectory() as folder:
        vocab = vocabulary_of(arguments, Path(folder))
        for number in range(2 * arguments.runs):
            is_searched = number % 2 == 1
            found[is_searched].append(run_job(arguments, vocab, Path(folder), exclude if is_searched else []))
    write_report(arguments.name, report(arguments, found), is_sample=not arguments.input)


def report(arguments: argparse.Namespace, found: dict[bool, list[tuple[float, float, dict]]]) -> list[str]:
    """Return the lines of the report."""
    manifest = found[True][0][2]
    counters, sets = manifest["counters"], manifest["excluded"]["sets"]
    runs, records = (sum(one[name] for one in sets) for name in ("runs", "records"))
    text_bytes = found[False][0][2]["counters"]["text_bytes"]
    lines = header(
        "Searching for test sets",
        f"{counters['documents_in']:,} documents, {text_bytes / 1e6:.1f} MB; {len(sets)} test sets with {records:,} records "
        f"and {runs:,} runs of 13 words. L=128, dupe factor {arguments.dupe_factor}, one worker process. "
        f"{counters['rejected'].get('in-test-set', 0):,} documents are left out. {arguments.runs} alternating runs each, "
        f"median [min, max]; processor time of all processes, peak memory of the largest process.",
        *("numpy", "tokenizers", "apache-beam"),
    )
    lines += ["| job | processor seconds | peak memory, MB |", "|---|---|---|"]
    for is_searched, name in ((False, "without --exclude"), (True, "with --exclude")):
        seconds, peaks = ([one[i] for one in found[is_searched]] for i in (0, 1))
        lines.append(f"| {name} | {spread(seconds)} | {statistics.median(peaks):.0f} |")
    pairs = [more[0] / less[0] for less, more in zip(found[False], found[True])]
    return [*lines, "", f"Ratio of processor time, median of the pairs: **{statistics.median(pairs):.3f}**."]


if __name__ == "__main__":
    main()
