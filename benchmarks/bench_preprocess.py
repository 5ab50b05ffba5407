"""Compare the preprocessing job with `tokenizers` and nanotoken alone and with a plain twin of Google's script, on one core.

    python benchmarks/bench_preprocess.py --input 'corpus_en/*.jsonl.gz' --vocab vocab.txt --dupe-factor 1 5 10

All of them read the same documents, from a plain .jsonl file that is made first.

- `tokenizers` encodes every document once with encode_batch_fast and drops the result.
- nanotoken does the same with encode_batch. It reads the same tokenizer.json, without its added tokens, so that "[MASK]" in
  a text is text. Before anything is timed, its ids are compared with those of `tokenizers` for every document.
- The twin makes Google's examples one at a time (`tests/pipeline/google_twin.py`), from sentences cut by a regular
  expression and tokenized by `tokenizers`, because Google's own tokenizer is slower. It writes nothing.
- The job reads, cuts sentences, tokenizes, makes pairs and masks, writes shards and computes their checksums.

The job is measured with two clocks: the command from the start of its process to its end, with imports and the report,
and the work alone, after the imports. Every run has its own process, so its word table starts empty. Runs are interleaved,
and medians are shown; the twin takes minutes and runs once, or not at all with --no-twin. Without arguments the text is
made from the shipped sample.
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
from typing import Any

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

PACKAGES = ("tokenizers", "nanotoken", "apache-beam", "pyarrow", "numpy")
BATCH_TEXTS = 256
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
    parser.add_argument("--twin", action=argparse.BooleanOptionalAction, default=True, help="run Google's script, too")
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
    if num_differ := in_process(count_differing, text, vocab, lower):
        raise SystemExit(f"the ids of nanotoken differ from those of tokenizers in {num_differ} documents")
    twin = in_process(run_twin, text, vocab, lower, arguments.dupe_factor, length) if arguments.twin else {}
    alone: list[float] = []
    nano: list[float] = []
    work: dict[int, list[float]] = {dupe: [] for dupe in arguments.dupe_factor}
    whole: dict[int, list[float]] = {dupe: [] for dupe in arguments.dupe_factor}
    examples: dict[int, int] = {}
    for _ in range(arguments.repeat):
        alone.append(in_process(run_tokenizers, text, vocab, lower))
        nano.append(in_process(run_nanotoken, text, vocab, lower))
        for dupe in arguments.dupe_factor:
            seconds, examples[dupe] = in_process(run_bertloom, text, vocab, lower, dupe, length, out)
            work[dupe].append(seconds)
            shutil.rmtree(out)
            whole[dupe].append(time_command(text, vocab, lower, dupe, length, out))
            shutil.rmtree(out)
    what = (
        f"{size:.1f} MB of text, L={length}, one process on one core, {arguments.repeat} interleaved runs each"
        f"{' (the twin: one)' if twin else ''}, median [min, max]. The word table is empty at the start of every run. "
        "nanotoken gives the ids of `tokenizers` for every document."
    )
    jobs = {"from process start": whole, "the work alone": work}
    return [
        *header("The whole job against tokenizers alone, and a twin of Google's script", what, *PACKAGES),
        *table(size, alone, nano, twin, jobs, examples),
    ]


def table(
    size: float,
    alone: list[float],
    nano: list[float],
    twin: dict[int, tuple[float, int]],
    jobs: dict[str, dict[int, list[float]]],
    examples: dict[int, int],
) -> list[str]:
    """Return the lines of the table.

    Args:
        size: megabytes of text.
        alone, nano: seconds of `tokenizers` and of nanotoken.
        twin: dupe factor -> (seconds, examples); empty if it did not run.
        jobs: what was timed -> dupe factor -> seconds.
        examples: dupe factor -> examples of the job.
    """
    base, least = statistics.median(alone), statistics.median(nano)

    def line(what: str, shown: str, seconds: float, mark: str, dupe: int, number: int) -> str:
        as_twin = f"{twin[dupe][0] / seconds:.1f}" if dupe in twin else ""
        rate = f"{number / seconds:,.0f}" if number else ""
        ratios = f"{mark}{base / seconds:.2f}{mark} | {mark}{seconds / least:.1f}{mark}"
        return f"| {what} | {shown} | {size / seconds:.2f} | {ratios} | {as_twin} | {rate} |"

    lines = [
        "| what | seconds | MB/s | times as fast as tokenizers | times nanotoken's time | times as fast as the twin "
        "| examples/s |",
        "|---|---|---|---|---|---|---|",
        line("tokenizers.encode_batch_fast, each text once, nothing written", spread(alone), base, "", 0, 0),
        line("nanotoken.encode_batch, each text once, nothing written", spread(nano), least, "", 0, 0),
    ]
    for dupe, (seconds, number) in twin.items():
        what = f"twin of Google's script, dupe factor {dupe}, nothing written"
        lines.append(line(what, f"{seconds:.1f}", seconds, "", dupe, number))
    for name, times in jobs.items():
        for dupe, found in times.items():
            what = f"bertloom preprocess, dupe factor {dupe}, {name}"
            lines.append(line(what, spread(found), statistics.median(found), "**", dupe, examples[dupe]))
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


def count_differing(path: str, vocab: str, lower: bool) -> int:
    """Return the number of documents for which nanotoken gives other ids than `tokenizers`."""
    reference, nano = tokenizers_tokenizer(vocab, lower), nanotoken_tokenizer(vocab, lower)
    num_differ = 0
    for texts in batches(read_texts(path)):
        rows = nano.encode_batch(texts, add_special_tokens=False)
        expected = reference.encode_batch_fast(texts, add_special_tokens=False)
        num_differ += sum(row.tolist() != other.ids for row, other in zip(rows, expected, strict=True))
    return num_differ


def run_tokenizers(path: str, vocab: str, lower: bool) -> float:
    """Return the seconds to encode every document once."""
    tokenizer, texts = tokenizers_tokenizer(vocab, lower), batches(read_texts(path))
    start = time.perf_counter()
    for some in texts:
        tokenizer.encode_batch_fast(some, add_special_tokens=False)
    return time.perf_counter() - start


def run_nanotoken(path: str, vocab: str, lower: bool) -> float:
    """Return the seconds to encode every document once."""
    tokenizer, texts = nanotoken_tokenizer(vocab, lower), batches(read_texts(path))
    start = time.perf_counter()
    for some in texts:
        tokenizer.encode_batch(some, add_special_tokens=False, parallel=False)
    return time.perf_counter() - start


def tokenizers_tokenizer(vocab: str, lower: bool) -> Any:
    """Return bertloom's reference: BERT's tokenizer, for which "[MASK]" in a text is text."""
    from pipeline.vocabulary import make_tokenizer
    from pipeline.vocabulary_files import read_vocabulary

    return make_tokenizer(read_vocabulary(vocab), lower, None)


def nanotoken_tokenizer(vocab: str, lower: bool) -> Any:
    """Return nanotoken's tokenizer with the same rules."""
    import nanotoken

    content = json.loads(tokenizers_tokenizer(vocab, lower).to_str())
    return nanotoken.Tokenizer.from_json(json.dumps(content | {"added_tokens": []}))


def run_twin(path: str, vocab: str, lower: bool, dupes: list[int], length: int) -> dict[int, tuple[float, int]]:
    """Return dupe factor -> (seconds, examples), from one run that continues to the largest."""
    sys.path.insert(0, str(ROOT))
    from pipeline.vocabulary_files import read_vocabulary
    from tests.pipeline.google_twin import Options, make_examples

    words = read_vocabulary(vocab)
    tokenizer, rng, options = tokenizers_tokenizer(vocab, lower), Random(12345), Options(max_seq_length=length)
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


def batches(texts: list[str]) -> list[list[str]]:
    return [texts[i : i + BATCH_TEXTS] for i in range(0, len(texts), BATCH_TEXTS)]


if __name__ == "__main__":
    main()
