"""What all tokenizer models share when they are trained on the counts of a text's words.

The same counts give the same tokenizer, in any process and whatever the order of the counts. What training needs grows with
the characters of all distinct words, so a large corpus is limited first, by arithmetic and hashes that depend on the words
alone.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.text.scripts import script_of
from pipeline.tokenizer_models.growth import model_alone, tokenized
from pipeline.vocabulary import SPECIAL_WORDS

if TYPE_CHECKING:
    from bertloom.tokenizer_files import TokenizerFile


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Options of the training of a tokenizer."""

    vocab_size: int
    """Number of words to make, including the five special ones."""
    do_lower_case: bool
    """Whether texts are lower-cased."""
    strip_accents: bool | None = None
    """Whether accents are removed; None removes them if texts are lower-cased."""
    min_frequency: int = 2
    """Number of times that a pair of pieces must occur to be merged."""
    character_coverage: float = 0.9995
    """Share of the text that the characters in the vocabulary make up."""
    chinese_frequency: int | None = None
    """Number of times that a Chinese character must occur to be kept whatever its share; None for no such rule."""

    @property
    def strips(self) -> bool:
        """Whether accents are removed."""
        return self.do_lower_case if self.strip_accents is None else self.strip_accents


def digest(word: str) -> int:
    """Return a number below 2^64 that a word alone decides."""
    return int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest())


def limited(counts: Mapping[str, int], most: int) -> dict[str, int]:
    """Return the most frequent words, with at most `most` characters in all.

    Of equally frequent words, hashes choose: in Chinese most runs between two marks occur once, and those that sort first
    would all begin with the same character.
    """
    if sum(map(len, counts)) <= most:
        return dict(counts)
    kept = {}
    for word in sorted(counts, key=lambda word: (-counts[word], digest(word))):
        most -= len(word)
        if most < 0:
            break
        kept[word] = counts[word]
    return kept


def scaled(counts: Mapping[str, int], most: int) -> Iterator[tuple[str, int]]:
    """Yield each word, sorted, and its count, scaled down so that the text has about `most` characters.

    A word whose share is a fraction of an occurrence has one or none, as its hash decides.
    """
    total = sum(len(word) * count for word, count in counts.items())
    for word in sorted(counts):
        if total <= most:
            yield word, counts[word]
            continue
        whole, rest = divmod(counts[word] * most, total)
        yield word, whole + (digest(word) * total >> 64 < rest)


def kept_characters(
    counts: Mapping[str, int], room: int, config: TrainingConfig, slots: Callable[[str], int] = lambda _: 1
) -> list[str]:
    """Return the most frequent characters that make up the text's share, and the Chinese ones, sorted.

    Args:
        room: number of words that they may take.
        slots: number of words that a character takes.
    """
    characters: Counter[str] = Counter()
    for word, count in counts.items():
        for character in word:
            characters[character] += count
    left = math.ceil(characters.total() * config.character_coverage)
    kept: list[str] = []
    for character, count in sorted(characters.items(), key=lambda item: (-item[1], item[0])):
        if slots(character) > room:
            break
        is_chosen = config.chinese_frequency is not None and count >= config.chinese_frequency
        if left > 0 or (is_chosen and script_of(character) == "Chinese characters"):
            kept.append(character)
            left, room = left - count, room - slots(character)
    return sorted(kept)


def made(parts: Mapping[str, Any], model: Mapping[str, Any], mask_takes_space: bool) -> TokenizerFile:
    """Return a new tokenizer from its parts and its model, in which the special words have the first ids.

    mask_takes_space: whether [MASK] in a text takes the space before it, as in RoBERTa, where words begin with a space.
    """
    from bertloom.special_tokens import BERT_NAMES
    from bertloom.tokenizer_files import added_token, parse_tokenizer

    added = [added_token(number, word) for number, word in enumerate(SPECIAL_WORDS)]
    added[SPECIAL_WORDS.index("[MASK]")]["lstrip"] = mask_takes_space
    content = {"added_tokens": added, **parts, "model": dict(model)}
    return parse_tokenizer(json.dumps(content).encode(), "the new tokenizer", BERT_NAMES)


def casing_steps(config: TrainingConfig) -> list[dict[str, str]]:
    """Return the steps of a normalizer that lower-case texts and remove their accents."""
    lower = [{"type": "Lowercase"}] if config.do_lower_case else []
    return lower + ([{"type": "NFD"}, {"type": "StripAccents"}] if config.strips else [])


@dataclass
class Coverage:
    """How a tokenizer splits the words of a text into tokens."""

    num_words: int = 0
    num_tokens: int = 0
    num_unknown: int = 0


def measure_coverage(
    tokenizer: TokenizerFile, counts: Mapping[str, int], readable: Callable[[str], str] = str
) -> dict[str, Coverage]:
    """Return script -> coverage of its words, for a text with these counts; the script with most words comes first."""
    found: dict[str, Coverage] = {}
    for word, count, ids in tokenized(model_alone(tokenizer.content), counts):
        coverage = found.setdefault(script_of(readable(word)), Coverage())
        coverage.num_words += count
        coverage.num_tokens += count * len(ids)
        coverage.num_unknown += count * sum(number == tokenizer.special.unk for number in ids)
    return dict(sorted(found.items(), key=lambda item: (-item[1].num_words, item[0])))
