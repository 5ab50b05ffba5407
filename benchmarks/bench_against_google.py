"""Pairs and masks: our kernels against Google's algorithm, one example at a time, on the same documents, in one run.

    python benchmarks/bench_against_google.py --input 'corpus_en/*.jsonl.gz' --vocab vocab.txt --dupe-factor 1 10

The twin is plain Python (`tests/pipeline/google_twin.py`) over words that are strings, as google-research/bert has them.
The kernels also permute the examples and write them to shards in a temporary folder; the twin writes nothing. Sentences
and tokens are there before the clock starts, for both. Without arguments it runs on the shipped sample.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).parent.parent))

from pipeline.documents import Document, read_documents
from pipeline.examples import WeaveConfig
from pipeline.inputs import Split, find_sources
from pipeline.shards import ShardName, write_shard
from pipeline.tokens import DocumentTokenizer, TokenBlock
from pipeline.vocabulary import Vocabulary, count_words, make_tokenizer, read_vocabulary, train_vocabulary
from pipeline.wordpiece import WordPiece
from tests.pipeline import google_twin

LENGTH = 128


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", nargs="*", help="text, as for `bertloom preprocess`; default: the shipped sample")
    parser.add_argument("--vocab", help="vocabulary; default: one made from the input")
    parser.add_argument("--dupe-factor", type=int, nargs="+", default=[1, 10])
    parser.add_argument("--repeat", type=int, default=3, help="runs of each; the median is printed")
    arguments = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    texts = read_texts(arguments.input or [str(files("jobs") / "sample")])
    vocabulary = read_vocabulary(arguments.vocab) if arguments.vocab else make_vocabulary(texts)
    tokenizer = make_tokenizer(vocabulary, True, None)
    block = DocumentTokenizer(WordPiece(tokenizer, True, len(vocabulary.words)))([Document(text, 0) for text in texts])
    print(f"{len(texts):,} documents, {len(block.ids):,} tokens, L={LENGTH}, one core, median of {arguments.repeat} runs")
    print(f"{'':34}{'examples':>10}{'seconds':>10}{'examples/s':>12}{'ratio':>8}")
    for dupe in arguments.dupe_factor:
        for whole_words in (False, True):
            compare(block, vocabulary, dupe, whole_words, arguments.repeat)


def compare(block: TokenBlock, vocabulary: Vocabulary, dupe: int, whole_words: bool, repeat: int) -> None:
    """Prints a line for each of the three; of all runs the k-th of each follow each other."""
    documents = as_strings(block, vocabulary)

    def twin() -> int:
        rng, options = Random(12345), google_twin.Options(max_seq_length=LENGTH, do_whole_word_mask=whole_words)
        examples = (google_twin.make_examples(documents, vocabulary.words, options, rng) for _ in range(dupe))
        return sum(1 for one in examples for _ in one)

    kinds = {
        "twin of Google's script": twin,
        "--compat google": lambda: weave(block, vocabulary, dupe, whole_words, "google"),
        "default": lambda: weave(block, vocabulary, dupe, whole_words, None),
    }
    times: dict[str, list[float]] = {name: [] for name in kinds}
    number: dict[str, int] = {}
    for _ in range(repeat if dupe == 1 else 1):  # ten copies are enough for a steady figure
        for name, run in kinds.items():
            seconds, number[name] = timed(run)
            times[name].append(seconds)
    print(f"dupe factor {dupe}{', whole words' * whole_words}")
    base = 0.0
    for name in kinds:
        seconds = statistics.median(times[name])
        rate = number[name] / seconds
        base = base or rate
        print(f"  {name:32}{number[name]:10,}{seconds:10.3f}{rate:12,.0f}{rate / base:8.1f}")


def weave(block: TokenBlock, vocabulary: Vocabulary, dupe: int, whole_words: bool, compat) -> int:
    config = WeaveConfig(max_seq_length=(LENGTH,), dupe_factor=dupe, do_whole_word_mask=whole_words, compat=compat)
    sentences, number = config.sentences(block, vocabulary.continuation, LENGTH), 0
    masking = config.masking(LENGTH, vocabulary)
    with tempfile.TemporaryDirectory() as folder:
        for copy in range(dupe):
            pairs, _ = config.make_pairs(sentences, LENGTH, copy)
            name = ShardName(split="train", max_seq_length=LENGTH, copy=copy, number=0)
            number += write_shard(folder, name, sentences, pairs, config.seed, masking)["examples"]
    return number


def timed(run: Callable[[], int]) -> tuple[float, int]:
    start = time.perf_counter()
    number = run()
    return time.perf_counter() - start, number


def read_texts(inputs: list[str]) -> list[bytes]:
    splits = (Split(source, 0, None) for source in find_sources(inputs))
    return [item.text for split in splits for item in read_documents(split) if isinstance(item, Document)]


def make_vocabulary(texts: list[bytes]) -> Vocabulary:
    return Vocabulary(tuple(train_vocabulary(count_words(texts, True, None), 8000)))


def as_strings(block: TokenBlock, vocabulary: Vocabulary) -> list[list[list[str]]]:
    """Documents as lists of sentences as lists of words, those without a token left out."""
    words, lengths = iter([vocabulary.words[i] for i in block.ids]), iter(block.sentence_lengths.tolist())
    documents = [[[next(words) for _ in range(next(lengths))] for _ in range(n)] for n in block.documents["num_sentences"]]
    return [document for document in documents if document]


if __name__ == "__main__":
    main()
