"""Is preprocessing's memory flat? Peak of all its processes together on a small and on a large corpus.

    python benchmarks/bench_memory.py --input 'corpus_en/*.jsonl.gz' --vocab vocab.txt --megabytes 200 2000 --num-workers 2

Also one .gz of the large size, and one document of 300 MB, with --extremes. Counted is the proportional set size of the
process tree, sampled ten times a second: pages that processes share count once. Without arguments: a quick look at 4 and
16 MB of the shipped sample.
"""

import argparse
import gzip
import json
import subprocess
import sys
import tempfile
import threading
import time
from importlib.resources import files
from pathlib import Path

import psutil
from large_corpus import paragraphs_of, write_corpus


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", nargs="*")
    parser.add_argument("--vocab")
    parser.add_argument("--megabytes", type=float, nargs="+", default=[4, 16])
    parser.add_argument("--num-workers", type=int, default=2)
    parser.add_argument("--dupe-factor", type=int, default=1)
    parser.add_argument("--extremes", action="store_true", help="one .gz of the large size, one document of 300 MB")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        report = measure(arguments, Path(name))
    print(report)
    if arguments.input:
        (Path(__file__).parent / "results" / "memory.md").write_text(report)


def measure(arguments: argparse.Namespace, folder: Path) -> str:
    inputs = arguments.input or [str(files("jobs") / "sample")]
    vocab = arguments.vocab or str(folder / "vocab.txt")
    if not arguments.vocab:
        words = ["build-vocab", "--input", *inputs, "--vocab-size", "8000", "--out", vocab]
        subprocess.run([sys.executable, "-m", "jobs.cli", *words], check=True, stdout=subprocess.DEVNULL)
    lines = [
        f"# Peak memory of preprocessing, {time.strftime('%Y-%m-%d')}",
        "",
        f"{arguments.num_workers} workers, L=128, dupe factor {arguments.dupe_factor}; proportional set size of all "
        "processes.",
        "",
        "| corpus | peak MB | ratio to the first | seconds | MB of text/s |",
        "|---|---|---|---|---|",
    ]
    first = 0.0
    cases = [(f"{size:g} MB, one .jsonl", size, "plain") for size in arguments.megabytes]
    if arguments.extremes:
        largest = arguments.megabytes[-1]
        cases.append((f"{largest / 2:g} MB in one .jsonl.gz", largest / 2, "gz"))
        cases.append(("one document of 300 MB, .txt", 300, "document"))
    for title, size, kind in cases:
        path = make(kind, folder, inputs, size)
        peak, seconds = run(path, vocab, folder / "out", arguments)
        first = first or peak
        lines.append(f"| {title} | {peak:,.0f} | {peak / first:.2f} | {seconds:.0f} | {size / seconds:.1f} |")
        path.unlink()
    return "\n".join(lines) + "\n"


def make(kind: str, folder: Path, inputs: list[str], megabytes: float) -> Path:
    path = folder / "corpus.jsonl"
    if kind == "document":
        path, paragraphs, size = folder / "corpus.txt", paragraphs_of(inputs), 0
        with path.open("w") as file:
            file.writelines(f"A document {i} of its own.\nIt has two sentences.\n\n" for i in range(20_000))
            while size < megabytes * 1e6:
                for paragraph in paragraphs:
                    size += file.write(f"{size} {paragraph}\n")
        return path
    write_corpus(path, inputs, megabytes)
    if kind == "gz":
        packed = folder / "corpus.jsonl.gz"
        with path.open("rb") as plain, gzip.open(packed, "wb", 1) as file:
            while chunk := plain.read(1 << 22):
                file.write(chunk)
        path.unlink()
        return packed
    return path


def run(path: Path, vocab: str, out: Path, arguments: argparse.Namespace) -> tuple[float, float]:
    """(peak MB, seconds) of one job."""
    words = [
        sys.executable, "-m", "jobs.cli", "preprocess", "--input", str(path), "--vocab", vocab, "--out", str(out),
        "--num-workers", str(arguments.num_workers), "--dupe-factor", str(arguments.dupe_factor),
    ]  # fmt: skip
    start = time.perf_counter()
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    peak, done = [0.0], threading.Event()
    sampler = threading.Thread(target=sample, args=(process.pid, peak, done))
    sampler.start()
    _, errors = process.communicate()
    done.set()
    sampler.join()
    if process.returncode:
        raise SystemExit(errors)
    seconds = time.perf_counter() - start
    manifest = json.loads((out / "manifest.json").read_text())
    assert sum(manifest["counters"]["examples"].values()) > 0
    subprocess.run(["rm", "-rf", str(out)], check=True)
    return peak[0] / 1e6, seconds


def sample(pid: int, peak: list[float], done: threading.Event) -> None:
    while not done.wait(0.1):
        total = 0
        try:
            for process in (parent := psutil.Process(pid), *parent.children(recursive=True)):
                total += process.memory_full_info().pss
        except psutil.Error:
            continue
        peak[0] = max(peak[0], total)


if __name__ == "__main__":
    main()
