"""Measure a job over many small files and the same job over one file with the same texts, whole processes in alternation.

    python benchmarks/bench_small_files.py --input 'corpus_en/*.jsonl.gz' --vocab vocab.txt --files 30000 --bytes 600

Each small file is one document of about `--bytes` bytes. The large file has the same documents between blank lines. The
data sets are compared.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

from large_corpus import documents, paragraphs_of
from setting import add_text_arguments, header, inputs_of, run_command, spread, vocabulary_of, write_report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_text_arguments(parser)
    parser.add_argument("--files", type=int, default=300)
    parser.add_argument("--bytes", type=int, default=600)
    parser.add_argument("--repeat", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        lines = measure(arguments, Path(folder))
    write_report("small_files", lines, not arguments.input)


def measure(arguments: argparse.Namespace, folder: Path) -> list[str]:
    vocab, num_bytes = vocabulary_of(arguments, folder), write_texts(arguments, folder)
    inputs = {"small files": folder / "in", "one file": folder / "in.txt"}
    seconds: dict[str, list[float]] = {name: [] for name in inputs}
    for i in range(arguments.repeat):
        for name, path in inputs.items():
            out = str(folder / f"{name} {i}")
            start = time.perf_counter()
            run_command(
                "preprocess", "--input", str(path), "--vocab", vocab, "--out", out, "--validation-fraction", "0"
            )
            seconds[name].append(time.perf_counter() - start)
        digests = {json.loads((folder / f"{name} {i}/manifest.json").read_text())["shards_digest"] for name in inputs}
        if len(digests) > 1:
            raise SystemExit("the data sets differ")
    ratio = statistics.median(seconds["small files"]) / statistics.median(seconds["one file"])
    what = (
        f"{arguments.files:,} files of one document each, {num_bytes / 1e6:.1f} MB, and one file with the same documents; "
        f"seconds of {arguments.repeat} alternating runs of `bertloom preprocess`, whole process, median [min, max]. Both "
        f"give the same shards."
    )
    return [
        *header("Many small files", what, "apache-beam", "pyarrow", "tokenizers"),
        "| input | seconds |",
        "|---|---|",
        *(f"| {name} | {spread(values)} |" for name, values in seconds.items()),
        "",
        f"The small files take **{ratio:.1f} times** as long.",
    ]


def write_texts(arguments: argparse.Namespace, folder: Path) -> int:
    """Write the documents as small files and as one file. Return their bytes."""
    paragraphs = (text.replace("\n", " ") for text in documents(paragraphs_of(inputs_of(arguments)), float("inf")))
    (folder / "in").mkdir()
    texts: list[str] = []
    while len(texts) < arguments.files:
        text = next(paragraphs)
        cuts = range(0, len(text) - arguments.bytes + 1, arguments.bytes)
        texts += [text[at : at + arguments.bytes].strip() for at in cuts][: arguments.files - len(texts)]
    for i, text in enumerate(texts):
        (folder / f"in/{i:06d}.txt").write_text(text, encoding="utf-8")
    (folder / "in.txt").write_text("\n\n".join(texts), encoding="utf-8")
    return sum(len(text.encode()) for text in texts)


if __name__ == "__main__":
    main()
