"""Compare `bertloom plan` with the real jobs: run both over each corpus, and print estimate, truth and ratio.

    python benchmarks/check_plan.py corpus_en corpus_zh --vocab vocab.txt --sample-mb 16

The exit status is 1 if a count, the tokens, the examples or the disk space differ by more than --most (15 %). Time and
memory are printed. With --quiet, for a machine that does nothing else, they count, too. CPU time is
summed over all processes. Memory is the largest resident set of one process. `--flags` takes further flags for both
commands, as one word.
"""

import argparse
import json
import os
import resource
import shlex
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil
from setting import ROOT, header, write_report

TIMES = ("CPU seconds", "seconds", "memory, MB")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", nargs="+", help="files or folders, each of them an --input")
    parser.add_argument("--vocab", nargs="+", required=True, help="one for all corpora, or one for each")
    parser.add_argument("--sample-mb", type=float, nargs="+", default=[16.0])
    parser.add_argument("--most", type=float, default=0.15, help="largest difference, as a share of the truth")
    parser.add_argument("--quiet", action="store_true", help="time and memory count, too")
    parser.add_argument("--flags", default="--max-seq-length 128 512 --dupe-factor 2", help="of both commands")
    parser.add_argument("--name", default="plan", help="name of the file in benchmarks/results/")
    arguments = parser.parse_args()
    vocabularies = arguments.vocab * (len(arguments.corpus) if len(arguments.vocab) == 1 else 1)
    flags = shlex.split(arguments.flags)
    rows, faults = list[str](), list[str]()
    for corpus, vocab in zip(arguments.corpus, vocabularies, strict=True):
        truth = run_job(corpus, vocab, flags)
        for sample in arguments.sample_mb:
            values, seconds = run_plan(corpus, vocab, flags, sample)
            title = f"{Path(corpus).name}, sample of {sample:g} MB, planned in {seconds:.1f} s"
            for name, value in values.items():
                ratio = value["value"] / max(1e-9, truth[name])
                is_wrong = abs(ratio - 1) > arguments.most and (arguments.quiet or name not in TIMES)
                faults += [f"{Path(corpus).name}: {name} {ratio:.2f}"] * is_wrong
                inside = value["low"] <= truth[name] <= value["high"] or ratio == 1
                where = "" if name in TIMES else ("yes" if inside else "no")
                rows.append(
                    f"| {title} | {name} | {value['value']:,.5g} | {truth[name]:,.5g} | {ratio:.3f} | {where} |"
                )
                title = ""
    what = (
        f"Each corpus is planned, and then preprocessed, with `{arguments.flags}`. The last column shows whether the truth "
        f"is in the range that the plan prints."
    )
    table = ["| corpus | quantity | plan | real job | ratio | in range |", "|---|---|---|---|---|---|", *rows]
    head = header("Plans and real jobs", what, "tokenizers", "apache-beam", "pyarrow", "numpy")
    write_report(arguments.name, [*head, *table], is_sample=False)
    for fault in faults:
        print(f"more than {arguments.most:.0%}: {fault}", file=sys.stderr)
    return 1 if faults else 0


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "jobs.cli", *words]


def run_plan(corpus: str, vocab: str, flags: list[str], sample: float) -> tuple[dict[str, Any], float]:
    """Return (quantity -> value and range, seconds of the command)."""
    words = command("plan", "--input", corpus, "--vocab", vocab, *flags, "--sample-mb", str(sample), "--json")
    start = time.perf_counter()
    output = subprocess.run(words, check=True, env=environment(), stdout=subprocess.PIPE, text=True).stdout
    seconds, found = time.perf_counter() - start, json.loads(output)["preprocess"]
    examples = {f"examples of {length}": added(splits) for length, splits in found["examples"].items()}
    memory = found["memory_per_worker"] / 1e6
    return {
        "documents": found["documents"]["in"],
        "documents used": found["documents"]["used"],
        "text bytes": found["text_bytes"],
        "sentences": found["sentences"],
        "tokens": found["tokens"],
        **examples,
        "bytes of the data set": found["disk"]["data_set"],
        "bytes of parts": found["disk"]["parts"],
        "CPU seconds": found["cpu_seconds"],
        "seconds": found["seconds"],
        "memory, MB": {"value": memory, "low": memory, "high": memory},
    }, seconds


def added(splits: dict[str, dict[str, int]]) -> dict[str, int]:
    """Return the examples of both splits together."""
    parts = [splits[name] for name in ("train", "validation") if name in splits]
    return {key: sum(part[key] for part in parts) for key in ("value", "low", "high")}


def run_job(corpus: str, vocab: str, flags: list[str]) -> dict[str, float]:
    """Run the job and return quantity -> its true value."""
    with tempfile.TemporaryDirectory() as folder:
        out, work = f"{folder}/out", f"{folder}/work"
        words = command("preprocess", "--input", corpus, "--vocab", vocab, *flags, "--out", out, "--work-dir", work)
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        process = subprocess.Popen([*words, "--gates.no-fail"], env=environment(), stdout=subprocess.DEVNULL)
        memory = largest_process(process)
        seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
        if process.returncode:
            raise SystemExit(f"preprocess ended with status {process.returncode}")
        counters = json.loads(Path(out, "manifest.json").read_text())["counters"]
        examples = {
            f"examples of {key.partition('/')[2]}": number
            for key, number in counters["pairs"].items()
            if key.startswith("pairs/")
        }
        return {
            "documents": counters["documents_in"],
            "documents used": counters["documents_used"],
            "text bytes": counters["text_bytes"],
            "sentences": counters["sentences"],
            "tokens": counters["tokens"],
            **examples,
            "bytes of the data set": size_below(out),
            "bytes of parts": size_below(work),
            "CPU seconds": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
            "seconds": seconds,
            "memory, MB": memory / 1e6,
        }


def largest_process(process: "subprocess.Popen[bytes]") -> int:
    """Wait for the process, and return the largest resident set that it or a process of its own had."""
    largest = 0

    def watch() -> None:
        nonlocal largest
        while process.poll() is None:
            try:
                tree = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
                largest = max(largest, *(one.memory_info().rss for one in tree))
            except psutil.Error:
                pass
            time.sleep(0.1)

    thread = threading.Thread(target=watch)
    thread.start()
    process.wait()
    thread.join()
    return largest


def size_below(folder: str) -> int:
    paths = [os.path.join(root, name) for root, _, names in os.walk(folder) for name in names]
    return sum(os.path.getsize(path) for path in paths if not path.endswith((".lock", "report.html")))


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


if __name__ == "__main__":
    sys.exit(main())
