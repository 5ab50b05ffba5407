"""How texts are cut into words that are counted: as BERT does, quickly, or as any other tokenizer does."""

import hashlib
import json
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from tokenizers import Tokenizer
from tokenizers.models import WordPiece

from bertloom.arrays import I64
from bertloom.tokenizer_parts import bert_casing
from pipeline.text.units import MAX_UNITS, Interner
from pipeline.vocabulary import MAX_WORD_CHARACTERS, cut_as_bert

BLOCK_BYTES = 1 << 20
BLOCK_CHARACTERS = 1 << 20
LONGEST = 256
"""Longest word of other tokenizers than BERT's. Longer ones, such as runs of Chinese, are counted in pieces."""
MAX_COUNTED_CHARACTERS = 1 << 24
"""Most characters of distinct words that a counter holds: about 100 MB."""


class WordCounter(ABC):
    """Counts the words of texts. One per bundle."""

    @abstractmethod
    def add(self, text: bytes) -> None:
        """Count the words of a text."""

    @property
    @abstractmethod
    def is_full(self) -> bool:
        """Whether it should give its counts."""

    @abstractmethod
    def take(self) -> Counter[str]:
        """Return the counts since the last call."""


class WordCut(ABC):
    """How a text is cut into words; it goes to the workers."""

    longest: ClassVar[int]
    """Most characters of a word that is used; a longer one is a stand-in."""

    @abstractmethod
    def counter(self) -> WordCounter:
        """Return a new counter of such words."""

    @abstractmethod
    def rank(self, word: str) -> Any:
        """Return what decides which of equally frequent words are used, if there are too many: those of the first ranks."""


@dataclass(frozen=True)
class BertWords(WordCut):
    """Words as BERT separates them: punctuation and Chinese characters are single words."""

    do_lower_case: bool
    strip_accents: bool | None
    longest = MAX_WORD_CHARACTERS

    def counter(self) -> WordCounter:
        return BertWordCounter(self.do_lower_case, self.strip_accents)

    def rank(self, word: str) -> str:
        return word


@dataclass(frozen=True)
class PreTokenWords(WordCut):
    """Words as the pre-tokenizer of any tokenizer separates them."""

    tokenizer: str
    """The content of its tokenizer.json."""
    longest = LONGEST

    def counter(self) -> WordCounter:
        return PreTokenCounter(Tokenizer.from_str(self.tokenizer))

    def rank(self, word: str) -> bytes:
        """A hash: most runs of Chinese occur once, and those that sort first would all begin with the same character."""
        return hashlib.blake2b(word.encode(), digest_size=8).digest()


def cut_of(content: Mapping[str, Any]) -> WordCut:
    """Return how a tokenizer.json separates words."""
    if casing := bert_casing(content):
        return BertWords(*casing)
    no_model = {"type": "WordLevel", "vocab": {}, "unk_token": ""}
    return PreTokenWords(json.dumps({**content, "model": no_model, "added_tokens": [], "post_processor": None}))


class PreTokenCounter(WordCounter):
    """Counts what a tokenizer's normalizer and pre-tokenizer make of texts, with line feeds as spaces."""

    def __init__(self, tokenizer: Tokenizer):
        normalizer, pre_tokenizer = tokenizer.normalizer, tokenizer.pre_tokenizer
        self.normalize = normalizer.normalize_str if normalizer else str
        self.cut = pre_tokenizer.pre_tokenize_str if pre_tokenizer else lambda text: [(text, (0, len(text)))]
        self.counts: Counter[str] = Counter()
        self.num_characters = 0

    def add(self, text: bytes) -> None:
        for block in _blocks(text.decode().replace("\n", " ")):
            for found, _ in self.cut(self.normalize(block)):
                for start in range(0, len(found), LONGEST):
                    word = found[start : start + LONGEST]
                    self.counts[word] += 1
                    if self.counts[word] == 1:
                        self.num_characters += len(word)

    @property
    def is_full(self) -> bool:
        return len(self.counts) > MAX_UNITS or self.num_characters > MAX_COUNTED_CHARACTERS

    def take(self) -> Counter[str]:
        counts, self.counts, self.num_characters = self.counts, Counter(), 0
        return counts


def _blocks(text: str) -> Iterator[str]:
    """Yield the parts of a text, cut before a space that a word follows, where no pre-token is cut, or else anywhere."""
    start = 0
    while len(text) - start > BLOCK_CHARACTERS:
        limit = start + BLOCK_CHARACTERS
        space = text.rfind(" ", start + 1, limit)
        while space > 0 and text[space + 1].isspace():
            space = text.rfind(" ", start + 1, space)
        end = space if space > 0 else limit
        yield text[start:end]
        start = end
    yield text[start:]


class BertWordCounter(WordCounter):
    """Counts words as BERT separates them, in blocks."""

    def __init__(self, do_lower_case: bool, strip_accents: bool | None):
        self.tokenizer = Tokenizer(WordPiece(unk_token="[UNK]"))
        cut_as_bert(self.tokenizer, do_lower_case, strip_accents)
        self.interner = Interner(self.tokenizer, do_lower_case)
        self._clear()

    def _clear(self) -> None:
        self.interner.codes.clear()
        self.unit_counts = np.zeros(0, np.int64)
        self.pending: list[bytes] = []
        self.pending_bytes = 0

    def add(self, text: bytes) -> None:
        self.pending.append(text)
        self.pending_bytes += len(text)
        if self.pending_bytes >= BLOCK_BYTES:
            self._count()

    def _count(self) -> None:
        codes = self.interner.cut(b"\n".join(self.pending)).codes
        seen: I64 = np.bincount(codes, minlength=len(self.interner.codes))
        seen[: len(self.unit_counts)] += self.unit_counts
        self.unit_counts, self.pending, self.pending_bytes = seen, [], 0

    @property
    def is_full(self) -> bool:
        return len(self.interner.codes) > MAX_UNITS

    def take(self) -> Counter[str]:
        self._count()
        counts: Counter[str] = Counter()
        normalize, cut = self.tokenizer.normalizer.normalize_str, self.tokenizer.pre_tokenizer.pre_tokenize_str
        for unit, count in zip(self.interner.take_new(), self.unit_counts.tolist(), strict=True):
            for word, _ in cut(normalize(unit)):
                counts[word if len(word) <= MAX_WORD_CHARACTERS else _too_long(word)] += count
        self._clear()
        return counts


def _too_long(word: str) -> str:
    """Return a stand-in for a word that is too long: only the script of such words is reported, and most differ."""
    letter = next(filter(str.isalpha, word), None) or next(filter(str.isdigit, word), word[0])
    return letter * (MAX_WORD_CHARACTERS + 1)


def count_words(texts: Iterable[bytes], do_lower_case: bool, strip_accents: bool | None) -> Counter[str]:
    """Return how often each word occurs. Words of more than MAX_WORD_CHARACTERS count as one per first letter.

    >>> count_words([b"The cat, the hat."], do_lower_case=True, strip_accents=None)
    Counter({'the': 2, 'cat': 1, ',': 1, 'hat': 1, '.': 1})
    """
    counter = BertWordCounter(do_lower_case, strip_accents)
    counts: Counter[str] = Counter()
    for text in texts:
        counter.add(text)
        if counter.is_full:
            counts.update(counter.take())
    return counts + counter.take()
