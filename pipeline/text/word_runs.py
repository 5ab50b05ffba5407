"""Runs of RUN_WORDS words that test sets hold, and the search for them in texts.

A run has two independent 64-bit hashes. The first is looked up for every run of a text: in a Bloom filter, which most runs
do not pass, then in the sorted hashes. The second confirms, so that a text is never left out by a chance of one hash. A run
never reaches from one text into another, except between the pieces of one document.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from bertloom.arrays import I64, U64
from bertloom.draws import mix_in_place
from pipeline.text.words import Words

RUN_WORDS = 13
"""Words of a run, as in the training data of GPT-3 (Brown et al. 2020, appendix C)."""
VERSION = 1  # raise it with any change in what is found in the same texts
FIRST, SECOND = np.uint64(0x72756E2031202020), np.uint64(0x72756E2032202020)
"""Seeds of the hashes: "run 1   " and "run 2   " in ASCII."""
RUNS_PER_WORD = 4  # of the Bloom filter, at most; about one run in a hundred passes it by chance
LEAST_WORDS = 1 << 10  # of the filter
_ONE, _LOW = np.uint64(1), np.uint64(63)

_FACTORS = {FIRST: 0x9E3779B97F4A7C15, SECOND: 0xBF58476D1CE4E5B9}
"""The hash of a run is a polynomial in its words' hashes. This is its factor, by the seed of the hashes."""

RUN = np.dtype([("first", "<u8"), ("second", "<u8"), ("text", "<u4")])


@dataclass(frozen=True)
class ExcludedSet:
    """A test set, and how much of it can be found."""

    name: str
    first_text: int
    """Number of its first text: the texts of all sets that have a run are counted together."""
    num_records: int
    num_without_run: int
    """Records in which no text has RUN_WORDS words, so that nothing of them can be found."""


@dataclass(frozen=True)
class Found:
    """A run of a document that a test set holds."""

    text: int
    """Number of the document's text, in the words that were searched."""
    set: int
    """Number of the test set."""
    at: int
    """Number of the first text of the set that holds the run."""
    word: int
    """Number of the first word of the run, in the words that were searched."""


def run_hashes(hashes: U64, seed: np.uint64) -> U64:
    """Return a hash of each run of RUN_WORDS words, from the words' hashes with this seed: (words,) -> (words - 12,).

    It is mixed from the sum of hash j times factor^(12 - j), which doubling computes in five steps.
    """
    if len(hashes) < RUN_WORDS:
        return np.zeros(0, np.uint64)
    power = {n: np.uint64(pow(_FACTORS[seed], n, 1 << 64)) for n in (1, 2, 4)}
    two = _joined(hashes, hashes, 1, power[1])
    four = _joined(two, two, 2, power[2])
    eight = _joined(four, four, 4, power[4])
    twelve = _joined(eight, four, 8, power[4])
    return mix_in_place(_joined(twelve, hashes, 12, power[1]))


def _joined(left: U64, right: U64, distance: int, power: np.uint64) -> U64:
    """Return left * power + right. `right` begins `distance` words later."""
    right = right[distance:]
    joined = left[: len(right)] * power
    joined += right[: len(joined)]
    return joined


def _second_hashes(words: Words, begins: NDArray[np.intp]) -> U64:
    """Return the second hash of the runs that begin at these words."""
    is_inside = np.zeros(len(words.starts), bool)
    for i in range(RUN_WORDS):
        is_inside[begins + i] = True
    inside = np.flatnonzero(is_inside)
    hashes = mix_in_place(words.hashes(SECOND, inside) ^ SECOND)
    numbers = np.cumsum(is_inside) - 1
    total, factor = np.zeros(len(begins), np.uint64), np.uint64(_FACTORS[SECOND])
    for i in range(RUN_WORDS):
        total *= factor
        total += hashes[numbers[begins + i]]
    return mix_in_place(total)


def runs_of(words: Words, numbers: NDArray[np.integer]) -> NDArray[np.void]:
    """Return RUN rows of all runs of some texts, in order. numbers: in the rows, of each of the texts."""
    first = run_hashes(words.hashes(FIRST), FIRST)
    begins = np.flatnonzero(words.texts[: len(first)] == words.texts[len(words.texts) - len(first) :])
    rows = np.empty(len(begins), RUN)
    rows["first"], rows["second"] = (
        first[begins],
        run_hashes(mix_in_place(words.hashes(SECOND) ^ SECOND), SECOND)[begins],
    )
    rows["text"] = numbers[words.texts[begins]]
    return rows


@dataclass(frozen=True, eq=False)
class RunIndex:
    """The runs of some test sets."""

    sets: tuple[ExcludedSet, ...]
    places: tuple[str, ...]
    """Where each text is in its set, such as "line 12, question": (texts,)."""
    first: U64 = field(repr=False)
    """First hash of each run, in ascending order; a run is there once for each set that holds it: (runs,)."""
    second: U64 = field(repr=False)
    """Second hash of each run: (runs,)."""
    texts: NDArray[np.uint32] = field(repr=False)
    """Number of the first text of the set that holds the run: (runs,)."""

    @classmethod
    def of(cls, sets: Sequence[ExcludedSet], places: Sequence[str], rows: NDArray[np.void]) -> "RunIndex":
        """Return the index of RUN rows in the order of texts."""
        rows = rows[np.argsort(rows["first"], kind="stable")]
        first, second, texts = (np.ascontiguousarray(rows[name]) for name in RUN.names or ())
        of_set = _set_of(sets, texts)
        is_new = np.ones(len(rows), bool)
        is_new[1:] = (first[1:] != first[:-1]) | (second[1:] != second[:-1]) | (of_set[1:] != of_set[:-1])
        return cls(tuple(sets), tuple(places), first[is_new], second[is_new], texts[is_new])

    @property
    def num_runs(self) -> list[int]:
        """Number of different runs of each set."""
        counts = np.bincount(_set_of(self.sets, self.texts), minlength=len(self.sets))
        return [int(count) for count in counts]

    @cached_property
    def _table(self) -> tuple[U64, np.uint64]:
        """A Bloom filter: words with the bits of all hashes, and by how much a hash is shifted to find its word."""
        size = max(LEAST_WORDS, len(self.first) // RUNS_PER_WORD)
        shift = np.uint64(64 - size.bit_length())
        table = np.zeros(1 << size.bit_length(), np.uint64)
        np.bitwise_or.at(table, (self.first >> shift).view(np.int64), _bits(self.first))
        return table, shift

    def search(self, words: Words, chains: I64 | None = None) -> list[Found]:
        """Return the first run of each text that each set holds, by text and set.

        chains: number of each text, the same for pieces of one document, between which a run may reach. Such a run is in
            each piece that it touches. By default all texts are apart.
        """
        if not len(self.first):
            return []
        hashes = run_hashes(words.hashes(FIRST), FIRST)
        table, shift = self._table
        bits = _bits(hashes)
        found = table[(hashes >> shift).view(np.int64)]
        found &= bits
        candidates = np.flatnonzero(found == bits)
        low = np.searchsorted(self.first, hashes[candidates])
        is_hit = self.first[np.minimum(low, len(self.first) - 1)] == hashes[candidates]
        first, last = words.texts[candidates], words.texts[candidates + RUN_WORDS - 1]
        is_hit &= first == last if chains is None else chains[first] == chains[last]
        candidates, low = candidates[is_hit], low[is_hit]
        if not len(candidates):
            return []
        counts = np.searchsorted(self.first, hashes[candidates], side="right") - low
        rows = _ranges(low, counts)
        begins = np.repeat(candidates, counts)
        is_equal = self.second[rows] == np.repeat(_second_hashes(words, candidates), counts)
        rows, begins = rows[is_equal], begins[is_equal]
        first, last = words.texts[begins], words.texts[begins + RUN_WORDS - 1]
        touched = last - first + 1
        texts, rows, begins = _ranges(first, touched), np.repeat(rows, touched), np.repeat(begins, touched)
        at = self.texts[rows]
        sets = _set_of(self.sets, at)
        one = np.unique(texts * len(self.sets) + sets, return_index=True)[1]  # the first of each; begins do not fall
        return [Found(int(texts[i]), int(sets[i]), int(at[i]), int(begins[i])) for i in one]

    @cached_property
    def sha256(self) -> str:
        """Digest of everything that decides what is found and what it is called."""
        digest = hashlib.sha256()
        for chunk in self.to_chunks():
            digest.update(chunk)
        return digest.hexdigest()

    def to_chunks(self) -> list[bytes]:
        """Return the content of a file, for `from_bytes`."""
        text = json.dumps([list(map(vars, self.sets)), self.places]).encode()
        text += b" " * (-len(text) % 8)
        return [
            len(text).to_bytes(8, "little"),
            text,
            self.first.tobytes(),
            self.second.tobytes(),
            self.texts.tobytes(),
        ]

    @classmethod
    def from_bytes(cls, content: bytes) -> "RunIndex":
        """Return the index in the content of a file."""
        end = 8 + int.from_bytes(content[:8], "little")
        sets, places = json.loads(content[8:end])
        number = (len(content) - end) // 20
        first = np.frombuffer(content, np.uint64, number, end)
        second = np.frombuffer(content, np.uint64, number, end + 8 * number)
        texts = np.frombuffer(content, np.uint32, number, end + 16 * number)
        return cls(tuple(ExcludedSet(**one) for one in sets), tuple(places), first, second, texts)


def _set_of(sets: Sequence[ExcludedSet], texts: NDArray[np.integer]) -> I64:
    """Return the number of the set of each of these texts of sets."""
    return np.searchsorted([one.first_text for one in sets], texts, side="right") - 1


def _bits(hashes: U64) -> U64:
    """Return three bits for each hash, by its lowest 18 bits."""
    bits = _ONE << (hashes & _LOW)
    for shift in (np.uint64(6), np.uint64(12)):
        bits |= _ONE << ((hashes >> shift) & _LOW)
    return bits


def _ranges(starts: NDArray[np.integer], counts: NDArray[np.integer]) -> I64:
    """Return starts[0], starts[0] + 1, … (counts[0] numbers), then the same of the next start, and so on."""
    ends = np.cumsum(counts, dtype=np.int64)
    return np.arange(int(counts.sum())) + np.repeat(starts - (ends - counts), counts)
