"""Compare the preprocessing job with `tokenizers` alone and with a plain twin of Google's script, on one core.

    python benchmarks/bench_preprocess.py --input 'corpus_en/*.jsonl.gz' --vocab vocab.txt --dupe-factor 1 5 10

All of them read the same documents, from a plain .jsonl file that is made first.

- `tokenizers` encodes every document once with encode_batch_fast and drops the result.
- The twin makes Google's examples one at a time (`tests/pipeline/google_twin.py`), from sentences cut by a regular
  expression and tokenized by `tokenizers`, because Google's own tokenizer is slower. It writes nothing.
- The job reads, cuts sentences, tokenizes, makes pairs and masks, writes shards and computes their checksums.

The job is measured with two clocks: the command from the start of its process to its end, with imports and the report,
and the work alone, after the imports. Every run has its own process, so its word table starts empty. Runs are interleaved,
and medians are shown; the twin takes minutes and runs once. Without arguments the text is made from the shipped sample.
"""

import argparse
import json
import os
import re
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from random import Random

from large_corpus import write_corpus
from setting import (
    ROOT,
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

PACKAGES = ("tokenizers", "apache-beam", "pyarrow", "numpy")
SENTENCE_END = re.compile(r"\n+|(?<=[.!?])\s+|(?<=[。！？])")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_text_arguments(parser)
    parser.add_argument(
        "--megabytes", type=float, help="make a text of this size from the paragraphs; default for the sample: 40"
    )
    parser.add_argument("--cased", action="store_true")
    parser.add_argument("--dupe-factor", type=int, nargs="+", default=[1, 5, 10])
    parser.add_argument("--max-seq-length", type=int, default=128)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--name", default="preprocess", help="name of the file in benchmarks/results/")
    arguments = parser.parse_args()
    os.environ |= {"TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}
    pin(1)
    with tempfile.TemporaryDirectory() as folder:
        lines = measure(arguments, Path(folder))
    write_report(arguments.name, lines, not arguments.input)


def measure(arguments: argparse.Namespace, folder: Path) -> list[str]:
    text, out = str(folder / "text.jsonl"), str(folder / "out")
    size = write_text(Path(text), inputs_of(arguments), arguments.megabytes or (0 if arguments.input else 40))
    vocab, lower, length = vocabulary_of(arguments, folder), not arguments.cased, arguments.max_seq_length
    twin = in_process(run_twin, text, vocab, lower, arguments.dupe_factor, length)
    alone: list[float] = []
    work: dict[int, list[float]] = {dupe: [] for dupe in arguments.dupe_factor}
    whole: dict[int, list[float]] = {dupe: [] for dupe in arguments.dupe_factor}
    examples: dict[int, int] = {}
    for _ in range(arguments.repeat):
        alone.append(in_process(run_tokenizers, text, vocab, lower))
        for dupe in arguments.dupe_factor:
            seconds, examples[dupe] = in_process(run_bertloom, text, vocab, lower, dupe, length, out)
            work[dupe].append(seconds)
            shutil.rmtree(out)
            whole[dupe].append(time_command(text, vocab, lower, dupe, length, out))
            shutil.rmtree(out)
    base = statistics.median(alone)
    what = (
        f"{size:.1f} MB of text, L={length}, one process on one core, {arguments.repeat} interleaved runs each (the twin: "
        "one), median [min, max]. The word table is empty at the start of every run."
    )
    lines = [
        *header("The whole job against tokenizers alone, and a twin of Google's script", what, *PACKAGES),
        "| what | seconds | MB/s | times as fast as tokenizers | as the twin | examples/s |",
        "|---|---|---|---|---|---|",
        f"| tokenizers.encode_batch_fast, each text once, nothing written | {spread(alone)} | {size / base:.2f} | 1 | | |",
    ]
    for dupe, (seconds, number) in twin.items():
        lines.append(
            f"| twin of Google's script, dupe factor {dupe}, nothing written | {seconds:.1f} | {size / seconds:.2f} | "
            f"{base / seconds:.2f} | 1 | {number / seconds:,.0f} |"
        )
    for name, times in ("from process start", whole), ("the work alone", work):
        for dupe, found in times.items():
            middle = statistics.median(found)
            lines.append(
                f"| bertloom preprocess, dupe factor {dupe}, {name} | {spread(found)} | {size / middle:.2f} | "
                f"**{base / middle:.2f}** | {twin[dupe][0] / middle:.1f} | {examples[dupe] / middle:,.0f} |"
            )
    return lines


def write_text(path: Path, inputs: list[str], megabytes: float) -> float:
    """Write the documents of the inputs, or text of this size made from their paragraphs. Return the megabytes written."""
    from pipeline.inputs.discovery import find_sources
    from pipeline.inputs.documents import read_documents
    from pipeline.inputs.sources import Split
    from pipeline.text.records import Document

    if megabytes:
        write_corpus(path, inputs, megabytes)
        return megabytes
    size = 0
    with path.open("w", encoding="utf-8") as file:
        for source in find_sources(inputs):
            for item in read_documents(Split(source, 0, None)):
                if isinstance(item, Document):
                    size += len(item.text)
                    file.write(
                        json.dumps({"text": item.text.decode().replace("\n", "\n\n")}, ensure_ascii=False) + "\n"
                    )
    return size / 1e6


def time_command(path: str, vocab: str, lower: bool, dupe: int, length: int, out: str) -> float:
    """Return the seconds of `bertloom preprocess`, from the start of its process to its end."""
    case = [] if lower else ["--no-do-lower-case"]
    lengths = ["--max-seq-length", str(length), "--dupe-factor", str(dupe), "--gates.no-fail"]
    start = time.perf_counter()
    run_command("preprocess", "--input", path, "--vocab", vocab, "--out", out, *lengths, *case)
    return time.perf_counter() - start


# ---- each in its own process


def run_tokenizers(path: str, vocab: str, lower: bool) -> float:
    """Return the seconds to encode every document once."""
    from pipeline.vocabulary import make_tokenizer
    from pipeline.vocabulary_files import read_vocabulary

    tokenizer, texts = make_tokenizer(read_vocabulary(vocab), lower, None), read_texts(path)
    start = time.perf_counter()
    for i in range(0, len(texts), 256):
        tokenizer.encode_batch_fast(texts[i : i + 256], add_special_tokens=False)
    return time.perf_counter() - start


def run_twin(path: str, vocab: str, lower: bool, dupes: list[int], length: int) -> dict[int, tuple[float, int]]:
    """Return dupe factor -> (seconds, examples), from one run that continues to the largest."""
    sys.path.insert(0, str(ROOT))
    from pipeline.vocabulary import make_tokenizer
    from pipeline.vocabulary_files import read_vocabulary
    from tests.pipeline.google_twin import Options, make_examples

    words = read_vocabulary(vocab)
    tokenizer, rng, options = make_tokenizer(words, lower, None), Random(12345), Options(max_seq_length=length)
    start = time.perf_counter()
    documents = []
    for text in read_texts(path):
        encoded = tokenizer.encode_batch_fast(SENTENCE_END.split(text), add_special_tokens=False)
        documents.append([[words.words[i] for i in sentence.ids] for sentence in encoded if len(sentence.ids)])
    documents = [document for document in documents if document]
    number, found = 0, {}
    for copy in range(1, max(dupes) + 1):
        number += sum(1 for _ in make_examples(documents, words.words, options, rng))
        if copy in dupes:
            found[copy] = time.perf_counter() - start, number
    return found


def run_bertloom(path: str, vocab: str, lower: bool, dupe: int, length: int, out: str) -> tuple[float, int]:
    """Return the seconds of the job without its imports, and the number of examples."""
    from pipeline.local.beam_import import import_beam

    import_beam(connectors=False)
    import pipeline.execution
    import pipeline.preprocess  # noqa: F401  (as the command does, but before the clock starts)
    from jobs.preprocess import PreprocessConfig, preprocess
    from pipeline.examples.configuration import ExamplesConfig
    from pipeline.tokenizer import TokenizeConfig

    config = PreprocessConfig(
        input=(path,),
        vocab=vocab,
        out=out,
        tokenize=TokenizeConfig(do_lower_case=lower),
        examples=ExamplesConfig(dupe_factor=dupe, max_seq_length=(length,)),
    )
    start = time.perf_counter()
    manifest = preprocess(config)
    return time.perf_counter() - start, sum(manifest["counters"]["examples"].values())


def read_texts(path: str) -> list[str]:
    with open(path, encoding="utf-8") as file:
        return [json.loads(line)["text"] for line in file]


if __name__ == "__main__":
    main()
