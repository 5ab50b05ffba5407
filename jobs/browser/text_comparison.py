"""The differences between two texts, on words or, in Chinese and Japanese, on characters.

`difflib` takes quadratic time, which is too long for texts of 4 MB. Passages that occur exactly once in each text are
therefore matched first, as in the patience diff of version control, and `difflib` compares the stretches between them. A
stretch that is still too long is shown as one difference. Time and memory grow in proportion to the length of the texts.
"""

from __future__ import annotations

import difflib
import re
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from bertloom.arrays import I64, U64
from bertloom.draws import mix

PASSAGE = 8
"""Units of a passage. White space between two words is a unit."""
MOST_PAIRS = 250_000
"""Product of the lengths of two stretches that `difflib` compares."""
ALL_PAIRS = 10_000_000
"""The same for all stretches of two texts together."""
CONTEXT = 20
"""Units shown before and after a difference."""
SHOWN_DIFFERENCES = 50
"""Differences on a page."""
SHOWN_CHARACTERS = 1500
"""Characters shown of one difference."""

_IDEOGRAPHS = "\u2e80-\u9fff\uf900-\ufaff\uff00-\uff60\U00020000-\U0003ffff"  # with kana and the marks of both
_UNIT = re.compile(rf"\s+|[{_IDEOGRAPHS}]|[^\W{_IDEOGRAPHS}]{{1,64}}|[^\w\s]")


class Difference(NamedTuple):
    """A stretch of units of either text that the other does not have at this place."""

    a_start: int
    a_end: int
    b_start: int
    b_end: int


class Piece(NamedTuple):
    """A piece of a text as a page shows it."""

    text: str
    is_different: bool
    hidden: int
    """Characters of it that are not shown."""


class Row(NamedTuple):
    """A place where the texts differ, with some context."""

    skipped: int
    """Characters before it, after the row above, that both texts have."""
    a: list[Piece]
    b: list[Piece]


@dataclass(frozen=True)
class Comparison:
    """Two texts and where they differ."""

    a: str
    b: str
    a_ends: I64
    """The character after each unit of `a`, with a 0 before the first: (units + 1,)."""
    b_ends: I64
    differences: list[Difference]

    @property
    def only_a(self) -> int:
        """Characters that only `a` has."""
        return sum(int(self.a_ends[d.a_end] - self.a_ends[d.a_start]) for d in self.differences)

    @property
    def only_b(self) -> int:
        """Characters that only `b` has."""
        return sum(int(self.b_ends[d.b_end] - self.b_ends[d.b_start]) for d in self.differences)

    def rows(self, first: int) -> Iterator[Row]:
        """Yield the places of SHOWN_DIFFERENCES differences from this one on. Near ones share a row.

        After the last difference of the texts comes a row without pieces, for what both have after it.
        """
        stop = min(first + SHOWN_DIFFERENCES, len(self.differences))
        bounds = [0, *(d.a_start for d in self.differences), len(self.a_ends) - 1]  # number n begins at bounds[n + 1]
        end = min(self.differences[first - 1].a_end + CONTEXT, bounds[first + 1]) if first else 0
        while first < stop:
            last = first + 1
            while last < stop and bounds[last + 1] - self.differences[last - 1].a_end <= 2 * CONTEXT:
                last += 1
            group = self.differences[first:last]
            start = max(end, group[0].a_start - CONTEXT)
            skipped = int(self.a_ends[start] - self.a_ends[end])
            after = min(CONTEXT, bounds[last + 1] - group[-1].a_end)
            end = group[-1].a_end + after
            b_start, b_end = group[0].b_start - (group[0].a_start - start), group[-1].b_end + after
            yield Row(
                skipped,
                _pieces(self.a, self.a_ends, start, [(d.a_start, d.a_end) for d in group], end),
                _pieces(self.b, self.b_ends, b_start, [(d.b_start, d.b_end) for d in group], b_end),
            )
            first = last
        if stop == len(self.differences):
            yield Row(int(self.a_ends[-1] - self.a_ends[end]), [], [])


def _pieces(text: str, ends: I64, start: int, spans: list[tuple[int, int]], end: int) -> list[Piece]:
    """Return a stretch of units as pieces. spans: the units that differ."""
    found: list[Piece] = []
    for first, last in [*spans, (end, end)]:
        for begin, stop, is_different in ((start, first, False), (first, last, True)):
            piece = text[ends[begin] : ends[stop]]
            if piece:
                shown = piece[:SHOWN_CHARACTERS]
                found.append(Piece(shown, is_different, len(piece) - len(shown)))
        start = last
    return found


def compare(a: str, b: str) -> Comparison:
    """Return where two texts differ."""
    numbers: dict[str, int] = {}
    (a_units, a_ends), (b_units, b_ends) = _units(a, numbers), _units(b, numbers)
    spaces = np.array([unit.isspace() for unit in numbers], bool)
    found: list[Difference] = []
    for difference in _differences(a_units, b_units):
        if found and spaces[a_units[found[-1].a_end : difference.a_start]].all():  # one change of several words
            last = found.pop()
            difference = Difference(last.a_start, difference.a_end, last.b_start, difference.b_end)
        found.append(difference)
    return Comparison(a, b, a_ends, b_ends, found)


def _units(text: str, numbers: dict[str, int]) -> tuple[I64, I64]:
    """Return (number of each unit, the character after each, with a 0 before the first). `numbers` grows."""
    units = _UNIT.findall(text)
    ids = np.fromiter((numbers.setdefault(unit, len(numbers)) for unit in units), np.int64, len(units))
    ends = np.cumsum(np.fromiter(map(len, units), np.int64, len(units)))
    return ids, np.concatenate([np.zeros(1, np.int64), ends])


def _differences(a: I64, b: I64) -> Iterator[Difference]:
    """Yield the stretches that differ, in order."""
    left = ALL_PAIRS
    a_start = b_start = 0
    for a_next, b_next, size in [*_common_passages(a, b), (len(a), len(b), 0)]:
        first, last = _trim(a[a_start:a_next], b[b_start:b_next])
        gap = Difference(a_start + first, a_next - last, b_start + first, b_next - last)
        a_size, b_size = gap.a_end - gap.a_start, gap.b_end - gap.b_start
        pairs = a_size * b_size
        if 0 < pairs <= min(MOST_PAIRS, left):
            left -= pairs
            mine, other = a[gap.a_start : gap.a_end].tolist(), b[gap.b_start : gap.b_end].tolist()
            matcher = difflib.SequenceMatcher(None, mine, other, autojunk=False)
            for kind, i, j, k, m in matcher.get_opcodes():
                if kind != "equal":
                    yield Difference(gap.a_start + i, gap.a_start + j, gap.b_start + k, gap.b_start + m)
        elif a_size or b_size:
            yield gap
        a_start, b_start = a_next + size, b_next + size


def _trim(a: I64, b: I64) -> tuple[int, int]:
    """Return how many units are equal at the beginning and, after these, at the end."""
    size = min(len(a), len(b))
    first = _num_equal(a[:size], b[:size])
    rest = size - first
    return first, _num_equal(a[len(a) - rest :][::-1], b[len(b) - rest :][::-1])


def _num_equal(a: I64, b: I64) -> int:
    differ = a != b
    return int(differ.argmax()) if differ.any() else len(a)


def _common_passages(a: I64, b: I64) -> Iterator[tuple[int, int, int]]:
    """Yield (start in a, start in b, units) of equal stretches, in the order of both texts.

    They are those with a passage that occurs once in each text; of stretches that changed places, some are left out.
    """
    (a_hashes, a_at), (b_hashes, b_at) = _single_passages(a), _single_passages(b)
    _, i, j = np.intersect1d(a_hashes, b_hashes, assume_unique=True, return_indices=True)
    at_a, at_b = a_at[i], b_at[j]
    order = np.argsort(at_a)
    at_a, at_b = at_a[order], at_b[order]
    equal = np.ones(len(at_a), bool)
    for k in range(PASSAGE):
        equal &= a[at_a + k] == b[at_b + k]  # and not their hashes alone
    at_a, at_b = at_a[equal], at_b[equal]
    begins = np.ones(len(at_a), bool)
    begins[1:] = (np.diff(at_a) != 1) | (np.diff(at_b) != 1)
    starts = np.flatnonzero(begins)
    sizes = np.diff(starts, append=len(at_a)) + PASSAGE - 1
    at_a, at_b = at_a[starts], at_b[starts]
    a_end = b_end = 0
    for n in _longest_increasing(at_b.tolist()):
        a_start, b_start, size = int(at_a[n]), int(at_b[n]), int(sizes[n])
        overlap = max(0, a_end - a_start, b_end - b_start)
        if overlap < size:
            yield a_start + overlap, b_start + overlap, size - overlap
            a_end, b_end = a_start + size, b_start + size


def _single_passages(units: I64) -> tuple[U64, I64]:
    """Return (hashes of the passages that occur once, where they begin), by hash."""
    num = max(0, len(units) - PASSAGE + 1)
    hashes = np.zeros(num, np.uint64)
    for k in range(PASSAGE):
        hashes = mix(hashes ^ units[k : k + num].astype(np.uint64)) + np.uint64(k)
    values, at, counts = np.unique(hashes, return_index=True, return_counts=True)
    return values[counts == 1], at[counts == 1]


def _longest_increasing(values: list[int]) -> list[int]:
    """Return the indexes of a longest increasing subsequence.

    >>> _longest_increasing([5, 1, 2, 9, 3])
    [1, 2, 4]
    """
    last: list[int] = []
    last_values: list[int] = []
    before = [-1] * len(values)
    for i, value in enumerate(values):
        at = bisect_left(last_values, value)
        before[i] = last[at - 1] if at else -1
        last[at : at + 1], last_values[at : at + 1] = [i], [value]
    chain = []
    i = last[-1] if last else -1
    while i >= 0:
        chain.append(i)
        i = before[i]
    return chain[::-1]
