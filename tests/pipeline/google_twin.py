"""Google's way to make examples, plain and one at a time: a twin in distribution of `--compat google`.

What create_pretraining_data.py of google-research/bert (revision eedf571) does with documents that are tokenized already,
written anew from its semantics: documents are lists of sentences, sentences are lists of words, `##` pieces among them.
`benchmarks/` measures against it, too.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random

Sentence = list[str]
TRIES = 10


@dataclass
class Example:
    tokens: list[str]
    """[CLS] A [SEP] B [SEP], with the masks applied."""
    b_start: int
    is_random: bool
    positions: list[int]
    labels: list[str]
    """The words that were at these positions."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Flags of that script."""

    max_seq_length: int = 128
    short_seq_prob: float = 0.1
    masked_lm_prob: float = 0.15
    max_predictions_per_seq: int = 20
    do_whole_word_mask: bool = False


def make_examples(
    documents: Sequence[list[Sentence]], vocabulary: Sequence[str], options: Options, rng: Random
) -> Iterator[Example]:
    """One pass over all documents (dupe_factor 1)."""
    for number in range(len(documents)):
        for a, b, is_random in pairs_of(documents, number, options, rng):
            tokens = ["[CLS]", *a, "[SEP]", *b, "[SEP]"]
            positions, labels = mask(tokens, vocabulary, options, rng)
            yield Example(tokens, len(a) + 2, is_random, positions, labels)


def pairs_of(
    documents: Sequence[list[Sentence]], number: int, options: Options, rng: Random
) -> Iterator[tuple[list[str], list[str], bool]]:
    """(A, B, is B random) of every example of one document."""
    document = documents[number]
    room = options.max_seq_length - 3
    target = rng.randint(2, room) if rng.random() < options.short_seq_prob else room  # once for the whole document
    at = 0
    while at < len(document):
        end, size = at, 0
        while end < len(document) and size < target:
            size += len(document[end])
            end += 1
        middle = at + 1 if end - at == 1 else rng.randint(at + 1, end - 1)
        a = [word for sentence in document[at:middle] for word in sentence]
        is_random = end - at == 1 or rng.random() < 0.5
        if is_random:
            b = random_b(documents, number, target - len(a), rng)
            at = middle  # the sentences that were not used begin the next chunk
        else:
            b = [word for sentence in document[middle:end] for word in sentence]
            at = end
        truncate(a, b, room, rng)
        yield a, b, is_random


def random_b(documents: Sequence[list[Sentence]], number: int, wanted: int, rng: Random) -> list[str]:
    """Sentences of a document, another one if ten tries find it, from any of its sentences on until there are enough."""
    for _ in range(TRIES):
        other = rng.randint(0, len(documents) - 1)
        if other != number:
            break
    document, b = documents[other], []
    for sentence in document[rng.randint(0, len(document) - 1) :]:
        b += sentence
        if len(b) >= wanted:
            break
    return b


def truncate(a: list[str], b: list[str], room: int, rng: Random) -> None:
    """Takes a word from the front or the back of the longer one, of B where they are equal, until both fit."""
    while len(a) + len(b) > room:
        longer = a if len(a) > len(b) else b
        del longer[0 if rng.random() < 0.5 else -1]


def mask(tokens: list[str], vocabulary: Sequence[str], options: Options, rng: Random) -> tuple[list[int], list[str]]:
    """(positions, the words that were there) after masking in place."""
    groups: list[list[int]] = []
    for at, word in enumerate(tokens):
        if word in ("[CLS]", "[SEP]"):
            continue
        if options.do_whole_word_mask and groups and word.startswith("##"):
            groups[-1].append(at)  # also across [SEP]
        else:
            groups.append([at])
    rng.shuffle(groups)
    wanted = min(options.max_predictions_per_seq, max(1, round(len(tokens) * options.masked_lm_prob)))
    found: dict[int, str] = {}
    for group in groups:
        if len(found) == wanted:
            break
        if len(found) + len(group) > wanted:
            continue
        for at in group:
            found[at] = tokens[at]
            if rng.random() < 0.8:
                tokens[at] = "[MASK]"
            elif rng.random() < 0.5:
                tokens[at] = vocabulary[rng.randint(0, len(vocabulary) - 1)]
    positions = sorted(found)
    return positions, [found[at] for at in positions]
