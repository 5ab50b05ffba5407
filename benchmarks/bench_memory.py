"""Measure the peak memory of preprocessing, all processes together, on a small and on a large corpus.

    python benchmarks/bench_memory.py --input 'corpus_en/*.jsonl.gz' --vocab vocab.txt --megabytes 200 2000 --extremes

--extremes adds one .gz of half the large size, one document of 300 MB, and one line of 20 MB in each of two formats, or only
the cases that are named after it. Memory is the proportional set size of the process tree, sampled ten times a second, so
pages that processes share count once. Without arguments: a quick look at 4 and 16 MB of the shipped sample.
"""

import argparse
import gzip
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
from large_corpus import paragraphs_of, write_corpus
from setting import add_text_arguments, header, inputs_of, vocabulary_of, write_report

EXTREMES = ("gz", "document", "txt-line", "jsonl-line")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_text_arguments(parser)
    parser.add_argument("--megabytes", type=float, nargs="+", default=[4, 16])
    parser.add_argument("--extremes", nargs="*", choices=EXTREMES, help="default: all of them")
    parser.add_argument("--num-workers", type=int, default=2)
    parser.add_argument("--dupe-factor", type=int, default=1)
    parser.add_argument("--name", default="memory", help="name of the file in benchmarks/results/")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        lines = measure(arguments, Path(name))
    write_report(arguments.name, lines, not arguments.input)


def measure(arguments: argparse.Namespace, folder: Path) -> list[str]:
    inputs, vocab = inputs_of(arguments), vocabulary_of(arguments, folder)
    half = arguments.megabytes[-1] / 2
    extremes = {
        "gz": (f"{half:g} MB in one .jsonl.gz", half),
        "document": ("one document of 300 MB, .txt", 300),
        "txt-line": ("one line of 20 MB, .txt", 20),
        "jsonl-line": ("one line of 20 MB, .jsonl", 20),
    }
    chosen = [] if arguments.extremes is None else arguments.extremes or EXTREMES
    cases = [(f"{size:g} MB, one .jsonl", size, "jsonl") for size in arguments.megabytes]
    cases += [(*extremes[kind], kind) for kind in chosen]
    what = (
        f"{arguments.num_workers} workers, L=128, dupe factor {arguments.dupe_factor}; proportional set size of all "
        "processes."
    )
    lines = [
        *header("Peak memory of preprocessing", what, "apache-beam", "pyarrow", "numpy", "tokenizers"),
        "| corpus | peak MB | ratio to the first | seconds | MB of text/s |",
        "|---|---|---|---|---|",
    ]
    first = 0.0
    for title, size, kind in cases:
        path = make(kind, folder, inputs, size)
        peak, seconds = run(path, vocab, folder / "out", arguments)
        first = first or peak
        lines.append(f"| {title} | {peak:,.0f} | {peak / first:.2f} | {seconds:.0f} | {size / seconds:.1f} |")
        path.unlink()
    return lines


def make(kind: str, folder: Path, inputs: list[str], megabytes: float) -> Path:
    """Write the corpus of one case. One document or line gets others in addition, because pairs need several texts."""
    if kind in ("jsonl", "gz"):
        path = folder / "corpus.jsonl"
        write_corpus(path, inputs, megabytes)
        return path if kind == "jsonl" else pack(path)
    path = folder / ("corpus.jsonl" if kind == "jsonl-line" else "corpus.txt")
    with path.open("w", encoding="utf-8") as file:
        for i in range(20_000):
            short = (f"A document {i} of its own.", "It has two sentences.")
            file.write(
                json.dumps({"text": " ".join(short)}) + "\n" if kind == "jsonl-line" else "\n".join(short) + "\n\n"
            )
        text = numbered(paragraphs_of(inputs), megabytes)
        if kind == "document":
            file.writelines(f"{paragraph}\n" for paragraph in text)
        elif kind == "txt-line":
            file.write(" ".join(text) + "\n")
        else:
            file.write(json.dumps({"text": " ".join(text)}, ensure_ascii=False) + "\n")
    return path


def numbered(paragraphs: list[str], megabytes: float) -> Iterator[str]:
    """Yield the paragraphs repeatedly, each with its own number, until they have this many megabytes."""
    size = 0
    while size < megabytes * 1e6:
        for paragraph in paragraphs:
            yield f"{size} {paragraph}"
            size += len(paragraph.encode()) + 8
            if size >= megabytes * 1e6:
                break


def pack(path: Path) -> Path:
    packed = path.with_name(f"{path.name}.gz")
    with path.open("rb") as plain, gzip.open(packed, "wb", 1) as file:
        shutil.copyfileobj(plain, file, 1 << 22)
    path.unlink()
    return packed


def run(path: Path, vocab: str, out: Path, arguments: argparse.Namespace) -> tuple[float, float]:
    """Run one job and return (peak MB, seconds)."""
    words = [
        sys.executable,
        "-m",
        "jobs.cli",
        "preprocess",
        "--input",
        str(path),
        "--vocab",
        vocab,
        "--out",
        str(out),
        "--num-workers",
        str(arguments.num_workers),
        "--dupe-factor",
        str(arguments.dupe_factor),
        "--gates.no-fail",
    ]
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
    shutil.rmtree(out)
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
