"""Compare the kernels that make pairs, masks and shards from tokens with Google's algorithm, one example at a time.

    python benchmarks/bench_examples.py --input 'corpus_en/*.jsonl.gz' --vocab vocab.txt --dupe-factor 1 10

The twin is plain Python (`tests/pipeline/google_twin.py`) and works on words as strings, like google-research/bert. The
kernels also permute the examples and write them to shards in a temporary folder; the twin writes nothing. Both get sentences
and tokens that were made before the clock starts. Without arguments the text is made from the shipped sample.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from large_corpus import documents, paragraphs_of
from setting import ROOT, add_text_arguments, header, inputs_of, pin, vocabulary_of, write_report

sys.path.insert(0, str(ROOT))

from bertloom.shards import ShardName
from pipeline.examples.configuration import ExamplesConfig
from pipeline.examples.shards import write_shard
from pipeline.inputs.discovery import find_sources
from pipeline.inputs.documents import read_documents
from pipeline.inputs.sources import Split
from pipeline.text.records import Document
from pipeline.tokenizer import TokenizeConfig, make_document_tokenizer
from pipeline.tokens import TokenBlock
from pipeline.vocabulary import Vocabulary
from pipeline.vocabulary_files import read_vocabulary
from tests.pipeline.google_twin import Options, make_examples

LENGTH = 128
TOKENS, WORDS = "twin of Google's script", "twin of Google's script, whole words"
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "--compat google": (TOKENS, {"compat": "google"}),
    "default": (TOKENS, {}),
    "--compat google --do-whole-word-mask": (WORDS, {"compat": "google", "do_whole_word_mask": True}),
    "--do-whole-word-mask": (WORDS, {"do_whole_word_mask": True}),
    "--mask-spans": (WORDS, {"mask_spans": True}),
}
"""Name -> (the twin to compare with, options)."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_text_arguments(parser)
    parser.add_argument(
        "--megabytes", type=float, help="make a text of this size from the paragraphs; default for the sample: 10"
    )
    parser.add_argument("--dupe-factor", type=int, nargs="+", default=[1, 10])
    parser.add_argument("--repeat", type=int, default=3, help="runs of each except the twin; the median is printed")
    parser.add_argument("--name", default="examples", help="name of the file in benchmarks/results/")
    arguments = parser.parse_args()
    pin(1)
    with tempfile.TemporaryDirectory() as folder:
        lines = measure(arguments, Path(folder))
    write_report(arguments.name, lines, not arguments.input)


def measure(arguments: argparse.Namespace, folder: Path) -> list[str]:
    vocabulary = read_vocabulary(vocabulary_of(arguments, folder))
    texts = read_texts(inputs_of(arguments), arguments.megabytes or (0 if arguments.input else 10))
    block = make_document_tokenizer(TokenizeConfig(), vocabulary)(texts)
    strings = as_strings(block, vocabulary)
    what = (
        f"{len(texts):,} documents, {len(block.ids):,} tokens, L={LENGTH}, one core, median of {arguments.repeat} "
        "interleaved runs (the twin: one, of one copy)."
    )
    lines = header("Pairs, masks and shards of tokens, against a twin of Google's script", what, "pyarrow", "numpy")
    lines += [
        "| what | dupe factor | examples | seconds | examples/s | ratio to its twin |",
        "|---|---|---|---|---|---|",
    ]
    rates = {}
    for name in (TOKENS, WORDS):
        options = Options(max_seq_length=LENGTH, do_whole_word_mask=name == WORDS)
        seconds, number = timed(
            lambda o=options: sum(1 for _ in make_examples(strings, vocabulary.words, o, Random(12345)))
        )
        rates[name] = number / seconds
        lines.append(f"| {name} | 1 | {number:,} | {seconds:.3f} | {rates[name]:,.0f} | 1 |")
    for dupe in arguments.dupe_factor:
        times: dict[str, list[float]] = {kind: [] for kind in KINDS}
        made: dict[str, int] = {}
        for _ in range(arguments.repeat):
            for kind, (_, options) in KINDS.items():
                config = ExamplesConfig(max_seq_length=(LENGTH,), dupe_factor=dupe, **options)
                seconds, made[kind] = timed(lambda c=config: weave(block, vocabulary, c, folder))
                times[kind].append(seconds)
        for kind, (twin, _) in KINDS.items():
            seconds = statistics.median(times[kind])
            rate = made[kind] / seconds
            lines.append(
                f"| {kind} | {dupe} | {made[kind]:,} | {seconds:.3f} | {rate:,.0f} | {rate / rates[twin]:.1f} |"
            )
    return lines


def weave(block: TokenBlock, vocabulary: Vocabulary, config: ExamplesConfig, folder: Path) -> int:
    """Write the shards and return the number of examples."""
    sentences, number = config.sentences(block, vocabulary.kinds, LENGTH), 0
    masking = config.masking(LENGTH, vocabulary)
    for copy in range(config.dupe_factor):
        pairs, _ = config.make_pairs(sentences, LENGTH, copy)
        name = ShardName(split="train", max_seq_length=LENGTH, copy=copy, number=0)
        number += write_shard(str(folder), name, sentences, pairs, config.seed, masking)["examples"]
    return number


def read_texts(inputs: list[str], megabytes: float) -> list[Document]:
    """Return the documents of the inputs, or this many megabytes made from their paragraphs."""
    if megabytes:
        return [
            Document(text.replace("\n\n", "\n").encode(), 0) for text in documents(paragraphs_of(inputs), megabytes)
        ]
    splits = (Split(source, 0, None) for source in find_sources(inputs))
    return [item for split in splits for item in read_documents(split) if isinstance(item, Document)]


def timed(run: Callable[[], int]) -> tuple[float, int]:
    start = time.perf_counter()
    number = run()
    return time.perf_counter() - start, number


def as_strings(block: TokenBlock, vocabulary: Vocabulary) -> list[list[list[str]]]:
    """Return documents as lists of sentences, each a list of words, without documents that have no token."""
    words, lengths = iter([vocabulary.words[i] for i in block.ids]), iter(block.sentence_lengths.tolist())
    documents = [
        [[next(words) for _ in range(next(lengths))] for _ in range(n)] for n in block.documents["num_sentences"]
    ]
    return [document for document in documents if document]


if __name__ == "__main__":
    main()
