"""New words for a tokenizer: which words a text needs most, and the ids that they get.

The value of a word is its number of occurrences, multiplied by the number of tokens that each occurrence saves. A word that
the tokenizer cannot spell counts as one token more, because its text is lost; it may have any characters. Other words need a
letter, and more letters than digits, so numbers and hashes are left out.

New words first take the places of `[unusedN]` words, as google-research/bert advises, then rows that only pad the model's
vectors, and then new rows.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from bertloom.special_tokens import UNUSED_OF_BERT

if TYPE_CHECKING:
    from tokenizers import Tokenizer

WORDS_AT_ONCE = 65_536
MAX_NEW_WORDS = 1 << 20

Ids = Mapping[str, int]
"""Word -> id."""


@dataclass(frozen=True, kw_only=True)
class GrowthConfig:
    """Which words a tokenizer gets."""

    num_words: int = 1000
    """Number of words to add."""
    min_frequency: int = 5
    """Number of times that a new word must occur in the text. The model learns little about rarer ones."""
    keep_unused: bool = False
    """Keep the [unusedN] words of the vocabulary, if you gave them a meaning. By default new words take their places, so
    that the model does not become larger."""

    def __post_init__(self) -> None:
        if not 1 <= self.num_words <= MAX_NEW_WORDS:
            raise ValueError(f"num_words={self.num_words:,}: expected 1 to {MAX_NEW_WORDS:,}, such as 1000")
        if self.min_frequency < 1:
            raise ValueError(f"min_frequency={self.min_frequency}: expected 1 or more")


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A word that the tokenizer could get."""

    word: str
    """The word, as it is in the tokenizer's vocabulary."""
    count: int
    """Number of times that the text has it."""
    saved: int
    """Number of tokens that it saves there."""
    pieces: tuple[int, ...]
    """Ids of the tokens that it has now."""


@dataclass(frozen=True, kw_only=True)
class Growth:
    """A tokenizer with new words."""

    content: dict[str, Any]
    """Its tokenizer.json."""
    words: dict[int, Candidate]
    """The new words by id."""
    replaced: tuple[str, ...]
    """The [unusedN] words whose places they took."""


@dataclass(frozen=True)
class TokenCount:
    """The tokens of a text."""

    num_tokens: int
    num_unknown: int


def model_alone(content: Mapping[str, Any]) -> Tokenizer:
    """Return the model of a tokenizer.json as a tokenizer of single words, which are already normalized and separated."""
    from tokenizers import Tokenizer

    others = ("normalizer", "pre_tokenizer", "post_processor", "decoder", "truncation", "padding")
    return Tokenizer.from_str(json.dumps({**content, **dict.fromkeys(others), "added_tokens": []}))


def tokenized(model: Tokenizer, counts: Mapping[str, int]) -> Iterator[tuple[str, int, list[int]]]:
    """Yield each word, its count and the ids of its tokens."""
    words = list(counts)
    for start in range(0, len(words), WORDS_AT_ONCE):
        batch = words[start : start + WORDS_AT_ONCE]
        for word, encoding in zip(batch, model.encode_batch_fast(batch, add_special_tokens=False), strict=True):
            yield word, counts[word], encoding.ids


def count_tokens(content: Mapping[str, Any], counts: Mapping[str, int], unk: int | None) -> TokenCount:
    """Return the number of tokens of a text whose words have these counts."""
    num_tokens = num_unknown = 0
    for _, count, ids in tokenized(model_alone(content), counts):
        num_tokens += count * len(ids)
        num_unknown += count * ids.count(unk)  # type: ignore[arg-type]  # None is in no list of ids
    return TokenCount(num_tokens, num_unknown)


def is_word(text: str) -> bool:
    """Return whether a text has more letters than digits, and not only marks.

    >>> [is_word(text) for text in ("cpython", "abi3", "2024", "27c0d9b5", "=====")]
    [True, True, False, False, False]
    """
    letters = sum(map(str.isalpha, text))
    return letters > sum(map(str.isdigit, text))


def best(candidates: Sequence[Candidate], config: GrowthConfig) -> list[Candidate]:
    """Return the words that save most; of equal ones, those that sort first. ValueError if there are too few."""
    useful = [candidate for candidate in candidates if candidate.count >= config.min_frequency and candidate.saved]
    check_number(len(useful), config)
    return sorted(useful, key=lambda candidate: (-candidate.saved, candidate.word))[: config.num_words]


def check_number(found: int, config: GrowthConfig) -> None:
    """Raise ValueError if a text has fewer words than are asked for."""
    if found < config.num_words:
        last = f", or --num-words {found}" if found else ""
        raise ValueError(
            f"num_words={config.num_words:,}: the text has {found:,} words that occur {config.min_frequency} times "
            f"and that the tokenizer splits or cannot spell: give more text, or a smaller --min-frequency{last}"
        )


def free_ids(words: Mapping[str, int], keep_unused: bool) -> Iterator[tuple[int, str | None]]:
    """Yield (an id for a new word, the [unusedN] word that has it now or None), without end."""
    if not keep_unused:
        yield from sorted((number, word) for word, number in words.items() if UNUSED_OF_BERT.fullmatch(word))
    used = set(words.values())
    yield from ((number, None) for number in itertools.count() if number not in used)


def grown(
    content: Mapping[str, Any],
    new: Sequence[Candidate],
    config: GrowthConfig,
    model_with: Callable[[Ids, Ids, Collection[str]], dict[str, Any]],
) -> Growth:
    """Return a tokenizer with new words.

    Args:
        model_with: returns the model of the tokenizer.json for the ids of the new words, those of added tokens that the
            model does not know, and the words that the new ones replace.
    """
    known = model_alone(content).get_vocab()
    added = {token["content"]: token["id"] for token in content["added_tokens"]}
    free = free_ids(known | added, config.keep_unused)
    places = dict(zip((candidate.word for candidate in new), free, strict=False))
    numbers = {word: number for word, (number, _) in places.items()}
    replaced = {unused for _, unused in places.values() if unused is not None}
    kept = [token for token in content["added_tokens"] if token["content"] not in replaced]
    # The library numbers added tokens that the model does not know after those that it knows.
    outside = {token["content"]: token["id"] for token in kept if token["content"] not in known}
    model = model_with(numbers, outside, replaced)
    words = {numbers[candidate.word]: candidate for candidate in new}
    names = tuple(unused for _, unused in places.values() if unused is not None)
    return Growth(content={**content, "model": model, "added_tokens": kept}, words=words, replaced=names)


def measured(growth: Growth, counts: Mapping[str, int]) -> Growth:
    """Return the same with the number of times that a text has each new word as a token, and the tokens that it saves."""
    found: Counter[int] = Counter()
    for _, count, ids in tokenized(model_alone(growth.content), counts):
        for number in ids:
            found[number] += count
    words = {
        number: replace(word, count=found[number], saved=found[number] * (len(word.pieces) - 1))
        for number, word in growth.words.items()
    }
    return replace(growth, words=words)
