"""Show that the same texts in the shapes of well-known corpora give the same shards, and how fast each shape is read.

    python benchmarks/bench_shapes.py SHAPES --vocab vocab.txt

Each folder SHAPES/NAME holds `corpus/` (files as that corpus has them), `flags` (for `bertloom preprocess`) and
`expected.jsonl` (the documents that a reader must find). A shape is right if the digest of all shards equals that of
expected.jsonl: with one worker, and with two workers and splits of 0.3 MB. The speed is that of reading alone, in one
process, in megabytes of text per second. The last column is the speed for expected.jsonl. Both are medians of --repeat
interleaved runs.
"""

import argparse
import json
import shlex
import statistics
import tempfile
import time
from pathlib import Path

from setting import header, run_command, write_report

from jobs.preprocess import PreprocessConfig
from jobs.support.config import parse
from pipeline.inputs.discovery import find_sources
from pipeline.inputs.documents import read_documents
from pipeline.inputs.sources import ReadConfig, Source, Split
from pipeline.text.records import Document

SIZES = ("--max-seq-length", "128", "--dupe-factor", "1")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shapes", type=Path)
    parser.add_argument("--vocab", required=True)
    parser.add_argument("--repeat", type=int, default=5)
    arguments = parser.parse_args()
    lines = header(
        "The shapes of well-known corpora", __doc__.split("\n\n")[2].replace("\n", " "), "pyarrow", "apache-beam"
    )
    lines += [
        "| shape | flags | digest | documents | MB of text | MB/s | expected.jsonl |",
        "|---|---|---|---|---|---|---|",
    ]
    for shape in sorted(path for path in arguments.shapes.iterdir() if (path / "flags").exists()):
        lines.append(measure(shape, arguments.vocab, arguments.repeat))
        print(lines[-1], flush=True)
    write_report("shapes", lines, is_sample=False)


def measure(shape: Path, vocab: str, repeat: int) -> str:
    """Return the row of a shape."""
    flags = shlex.split((shape / "flags").read_text())
    of_texts = [flag for flag in flags if flag in ("nsp", "sop", "none", "rule") or flag in ("--pairs", "--sentences")]
    with tempfile.TemporaryDirectory() as folder:
        expected = digest(Path(folder), "expected", shape / "expected.jsonl", vocab, *of_texts)
        corpus = str(shape / "corpus")
        one = digest(Path(folder), "one", corpus, vocab, *flags)
        two = digest(Path(folder), "two", corpus, vocab, *flags, "--split-mb", "0.3", "--num-workers", "2")
    digests = [found["digest"][:8] for found in (expected, one, two)]
    equal = "equal" if expected == one == two else f"DIFFERS: {' '.join(digests)}"
    sources, plain = sources_of(corpus, flags), sources_of(str(shape / "expected.jsonl"), [])
    speeds: list[list[float]] = [[], []]
    for _ in range(repeat):
        for found, files in zip(speeds, (sources, plain)):
            start = time.perf_counter()
            found.append(read(files) / 1e6 / (time.perf_counter() - start))
    speed, plain_speed = (f"{statistics.median(found):.0f}" for found in speeds)
    size = read(sources) / 1e6
    text = shlex.join(flags).replace("|", "\\|")
    return f"| {shape.name} | `{text or ' '}` | {equal} | {one['documents']} | {size:.1f} | {speed} | {plain_speed} |"


def digest(folder: Path, name: str, source: str | Path, vocab: str, *flags: str) -> dict[str, str]:
    """Preprocess and return the digest of all shards and the number of documents."""
    out = folder / name
    run_command("preprocess", "--input", str(source), "--vocab", vocab, "--out", str(out), *SIZES, *flags)
    manifest = json.loads((out / "manifest.json").read_text("utf-8"))
    return {"digest": manifest["shards_digest"], "documents": f"{manifest['counters']['documents_used']:,}"}


def sources_of(path: str, flags: list[str]) -> list[Source]:
    words = ["--input", path, "--vocab", "v", "--out", "o", *flags]
    config: ReadConfig = parse(PreprocessConfig, words, "bertloom preprocess").tokenize.text.read
    return find_sources([path], [], config)


def read(sources: list[Source]) -> int:
    """Read all documents and return the bytes of their texts."""
    items = (item for source in sources for item in read_documents(Split(source, 0, None)))
    return sum(len(item.text) for item in items if isinstance(item, Document))


if __name__ == "__main__":
    main()
