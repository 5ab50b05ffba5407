"""The whole preprocessing job against `tokenizers` alone, on the same documents, on one core, in one run.

    python benchmarks/bench_preprocess.py --input 'corpus_en/*.jsonl.gz' --vocab vocab.txt --dupe-factor 1 5 10

Both read the text from a plain .jsonl file made first. `tokenizers` encodes every document once with encode_batch_fast and
throws the result away; the job reads, cuts sentences, tokenizes, makes pairs and masks, writes shards and checksums them.
The word table starts empty in every figure: each run is a process of its own. Runs are interleaved; medians are quoted.
Without arguments it runs on the shipped sample, which is too small for a fair figure: start-up is most of it.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

THEIRS = """
import json, sys, time
from pipeline.vocabulary import make_tokenizer, read_vocabulary
path, vocab, lower = sys.argv[1], sys.argv[2], sys.argv[3] == "True"
tokenizer = make_tokenizer(read_vocabulary(vocab), lower, None)
begin = time.perf_counter()
with open(path) as file:
    texts = [json.loads(line)["text"] for line in file]
start = time.perf_counter()
for i in range(0, len(texts), 256):
    tokenizer.encode_batch_fast(texts[i : i + 256], add_special_tokens=False)
print(json.dumps({"seconds": time.perf_counter() - start, "with_reading": time.perf_counter() - begin}))
"""
OURS = """
import json, sys, time
from jobs.preprocess import PreprocessConfig, preprocess
path, vocab, lower, out, dupe, length = sys.argv[1:]
config = PreprocessConfig(input=(path,), vocab=vocab, out=out, do_lower_case=lower == "True",
                          dupe_factor=int(dupe), max_seq_length=(int(length),))
start = time.perf_counter()
manifest = preprocess(config)
print(json.dumps({"seconds": time.perf_counter() - start, "examples": sum(manifest["counters"]["examples"].values())}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", nargs="*", help="text, as for `bertloom preprocess`; default: the shipped sample")
    parser.add_argument("--vocab", help="vocabulary; default: one made from the input")
    parser.add_argument("--cased", action="store_true")
    parser.add_argument("--dupe-factor", type=int, nargs="+", default=[1, 5, 10])
    parser.add_argument("--max-seq-length", type=int, default=128)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--name", default="preprocess", help="of the file in benchmarks/results/")
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as folder:
        report = measure(arguments, Path(folder))
    print(report)
    if arguments.input:
        path = Path(__file__).parent / "results" / f"{arguments.name}.md"
        path.write_text(report)


def measure(arguments: argparse.Namespace, folder: Path) -> str:
    from pipeline.documents import Document, read_documents
    from pipeline.inputs import Split, find_sources

    inputs = arguments.input or [str(files("jobs") / "sample")]
    text, size = folder / "text.jsonl", 0
    with text.open("w") as file:
        for source in find_sources(inputs):
            for item in read_documents(Split(source, 0, None)):
                if isinstance(item, Document):
                    size += len(item.text)
                    file.write(json.dumps({"text": item.text.decode().replace("\n", "\n\n")}, ensure_ascii=False) + "\n")
    vocab = arguments.vocab or str(folder / "vocab.txt")
    if not arguments.vocab:
        words = ["build-vocab", "--input", str(text), "--vocab-size", "8000", "--out", vocab]
        subprocess.run([sys.executable, "-m", "jobs.cli", *words], check=True, stdout=subprocess.DEVNULL)
    lower = str(not arguments.cased)
    theirs: list[float] = []
    ours: dict[int, list[float]] = {dupe: [] for dupe in arguments.dupe_factor}
    examples: dict[int, int] = {}
    for _ in range(arguments.repeat):
        theirs.append(_run(THEIRS, str(text), vocab, lower)["seconds"])
        for dupe in arguments.dupe_factor:
            out = folder / f"out-{time.monotonic_ns()}"
            found = _run(OURS, str(text), vocab, lower, str(out), str(dupe), str(arguments.max_seq_length))
            subprocess.run(["rm", "-rf", str(out)], check=True)
            ours[dupe].append(found["seconds"])
            examples[dupe] = int(found["examples"])
    base = statistics.median(theirs)
    lines = [
        f"# The whole job against tokenizers alone, {time.strftime('%Y-%m-%d')}",
        "",
        f"{size / 1e6:.1f} MB of text, L={arguments.max_seq_length}, one process on one core, "
        f" {arguments.repeat} interleaved runs each, median [min, max]. Word table empty at the start of every run.",
        f"Python {platform.python_version()}, {platform.machine()}; "
        + ", ".join(f"{name} {version(name)}" for name in ("tokenizers", "apache-beam", "pyarrow", "numpy")),
        "",
        "| what | seconds | MB/s | ratio to tokenizers | examples/s |",
        "|---|---|---|---|---|",
        f"| tokenizers.encode_batch_fast, text encoded once, nothing written | {_spread(theirs)} | "
        f"{size / 1e6 / base:.2f} | 1 | |",
    ]
    for dupe, seconds in ours.items():
        middle = statistics.median(seconds)
        lines.append(
            f"| bertloom preprocess, dupe factor {dupe} | {_spread(seconds)} | {size / 1e6 / middle:.2f} | "
            f"**{base / middle:.2f}** | {examples[dupe] / middle:,.0f} |"
        )
    return "\n".join(lines) + "\n"


def _run(code: str, *words: str) -> dict[str, float]:
    environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code, *words], check=True, stdout=subprocess.PIPE, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} [{min(values):.2f}, {max(values):.2f}]"


if __name__ == "__main__":
    main()
