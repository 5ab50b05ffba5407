"""The filter of Gopher (Rae et al. 2021, appendix A1.1): lengths, symbols, stop words and repetition.

It separates words by white space and is made for English: it rejects nearly all Chinese text.
"""

import numpy as np

from bertloom.arrays import I64
from pipeline.text.filters.filter import QualityFilter
from pipeline.text.lines import lines_of

WORDS = (50, 100_000)
WORD_LENGTH = (3, 10)
MAX_SYMBOLS, MAX_BULLETS, MAX_ELLIPSES, MAX_BARE_WORDS = 0.1, 0.9, 0.3, 0.2
STOP_WORDS = frozenset("the be to of and that have with".split())
MIN_STOP_WORDS = 2
MAX_REPEATED_LINES, MAX_REPEATED_LINE_CHARACTERS = 0.3, 0.2
MAX_TOP_NGRAM = {2: 0.2, 3: 0.18, 4: 0.16}
MAX_REPEATED_NGRAMS = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.1}

_BULLETS = ("•", "‣", "◦", "-", "*", "·", "–")
_FACTOR = np.uint64(0x9E3779B97F4A7C15)


def gopher_fault(text: str) -> str:
    """Return why Gopher rejects a document, or an empty string."""
    words, lines = text.split(), lines_of(text)
    lengths = np.array([len(word) for word in words], np.int64)
    if not WORDS[0] <= len(words) <= WORDS[1]:
        return f"{len(words)} words"
    mean = int(lengths.sum()) / len(words)
    if not WORD_LENGTH[0] <= mean <= WORD_LENGTH[1]:
        return f"words of {mean:.1f} characters"
    num_bullets = sum(line.lstrip().startswith(_BULLETS) for line in lines)
    num_ellipses = sum(line.rstrip().endswith(("...", "…")) for line in lines)
    num_bare = sum(not any(map(str.isalpha, word)) for word in words)
    for what, number, total, most in (
        ("hash marks a word", text.count("#"), len(words), MAX_SYMBOLS),
        ("ellipses a word", text.count("...") + text.count("…"), len(words), MAX_SYMBOLS),
        ("of the lines begin with a bullet", num_bullets, len(lines), MAX_BULLETS),
        ("of the lines end in an ellipsis", num_ellipses, len(lines), MAX_ELLIPSES),
        ("of the words have no letter", num_bare, len(words), MAX_BARE_WORDS),
    ):
        if number > most * total:
            return f"{number / total:.0%} {what}"
    if len(STOP_WORDS.intersection(map(str.lower, words))) < MIN_STOP_WORDS:
        return "fewer than two of the words the, be, to, of, and, that, have, with"
    return _repetition(words, lines, lengths)


def _repetition(words: list[str], lines: list[str], lengths: I64) -> str:
    """Return what is repeated too often in a text, or an empty string."""
    num_characters = int(lengths.sum())
    num_repeated, repeated_characters = _repeated_lines(lines)
    if num_repeated > MAX_REPEATED_LINES * len(lines):
        return f"{num_repeated / len(lines):.0%} of the lines repeat another"
    if repeated_characters > MAX_REPEATED_LINE_CHARACTERS * num_characters:
        return f"{repeated_characters / num_characters:.0%} of the characters are in lines that repeat another"
    table: dict[str, int] = {}
    ids = np.array([table.setdefault(word, len(table)) for word in words], np.uint64)
    ends = np.cumsum(lengths)
    for n in (*MAX_TOP_NGRAM, *MAX_REPEATED_NGRAMS):
        hashes = np.zeros(max(0, len(ids) - n + 1), np.uint64)
        for k in range(n):
            hashes = hashes * _FACTOR + ids[k : len(ids) - n + 1 + k]
        _, first, place, counts = np.unique(hashes, return_index=True, return_inverse=True, return_counts=True)
        if n in MAX_TOP_NGRAM:
            of_ngram = ends[first + n - 1] - ends[first] + lengths[first]
            share = float((counts * of_ngram)[(counts == counts.max()) & (counts > 1)].max(initial=0)) / num_characters
            if share > MAX_TOP_NGRAM[n]:
                return f"{share:.0%} of the characters are in the most frequent run of {n} words"
        else:
            begins = np.flatnonzero(counts[place] > 1)
            inside = np.zeros(len(ids) + 1, np.int64)  # number of repeated runs that begin, minus those that end
            inside[begins] += 1
            np.subtract.at(inside, begins + n, 1)
            share = float(lengths[np.cumsum(inside)[:-1] > 0].sum()) / num_characters
            if share > MAX_REPEATED_NGRAMS[n]:
                return f"{share:.0%} of the characters are in runs of {n} words that occur again"
    return ""


def _repeated_lines(lines: list[str]) -> tuple[int, int]:
    """Return (lines that repeat an earlier one, their characters without white space)."""
    seen: set[str] = set()
    number = size = 0
    for line in lines:
        if line in seen:
            number += 1
            size += sum(map(len, line.split()))
        seen.add(line)
    return number, size


GOPHER = QualityFilter(
    name="gopher",
    summary="for English web pages; rejects texts by the lengths of text and words, symbols, stop words and repetition.",
    find_fault=gopher_fault,
)
