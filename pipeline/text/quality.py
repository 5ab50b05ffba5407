"""Quality filters with their published thresholds: C4 (Raffel et al. 2020, section 2.2, and its code in
tensorflow_datasets) and Gopher (Rae et al. 2021, appendix A1.1).

Both separate words by white space and are made for English: they reject nearly all Chinese text. Two rules of C4 are left
out: the list of bad words, and the removal of repeated spans of three sentences (see --max-line-repeats).
"""

import re
from collections.abc import Sequence

import numpy as np

from bertloom.arrays import I64

C4_END_MARKS = (".", "?", "!", '"')
C4_POLICY = ("terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies")
C4_MIN_WORDS, C4_MIN_SENTENCES = 5, 3

GOPHER_WORDS = (50, 100_000)
GOPHER_WORD_LENGTH = (3, 10)
GOPHER_MAX_SYMBOLS, GOPHER_MAX_BULLETS, GOPHER_MAX_ELLIPSES, GOPHER_MAX_BARE_WORDS = 0.1, 0.9, 0.3, 0.2
GOPHER_STOP_WORDS = frozenset("the be to of and that have with".split())
GOPHER_MIN_STOP_WORDS = 2
GOPHER_MAX_REPEATED_LINES, GOPHER_MAX_REPEATED_LINE_CHARACTERS = 0.3, 0.2
GOPHER_MAX_TOP_NGRAM = {2: 0.2, 3: 0.18, 4: 0.16}
GOPHER_MAX_REPEATED_NGRAMS = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.1}

_CITATION = re.compile(r"\[\d*\]|\[edit\]|\[citation needed\]")
_SENTENCE_END = re.compile(r"(?<![.?!])[.?!]++[\"”’)\]]*+(?:\s|$)")
_BULLETS = ("•", "‣", "◦", "-", "*", "·", "–")
_FACTOR = np.uint64(0x9E3779B97F4A7C15)


def lines_of(text: str) -> list[str]:
    """Return the lines of a text, in which a line feed ends a paragraph and a carriage return is a line break within one."""
    return text.replace("\r", "\n").split("\n")


def with_lines(text: str, lines: Sequence[str | None]) -> str:
    """Replace the lines of a text and remove those that are None. The end of a paragraph between two lines is kept."""
    breaks = re.findall("[\r\n]", text)
    kept: list[str] = []
    between = ""  # the break between the line kept last and this one
    for line, before in zip(lines, ["", *breaks], strict=True):
        between = between if between == "\n" else before
        if line is not None:
            kept += [between, line] if kept else [line]
            between = ""
    return "".join(kept)


def c4_lines(text: str) -> str:
    """Return the text without citation marks and without the lines that C4 removes.

    Those are lines that do not end like a sentence, have fewer than five words, or are about Javascript, cookies or terms
    of use.
    """
    lines: list[str | None] = []
    for line in lines_of(text):
        line = _CITATION.sub("", line).strip()
        lower = line.lower()
        ends = line.endswith(C4_END_MARKS) and not line.endswith("...")
        is_text = ends and len(line.split()) >= C4_MIN_WORDS
        lines.append(line if is_text and not any(word in lower for word in ("javascript", *C4_POLICY)) else None)
    return with_lines(text, lines)


def c4_fault(text: str) -> str:
    """Return why C4 rejects a page of these lines, or an empty string."""
    if "lorem ipsum" in text.lower():
        return "lorem ipsum"
    if "{" in text:
        return "a curly bracket"
    num_sentences = len(_SENTENCE_END.findall(text))
    return f"{num_sentences} sentences" if num_sentences < C4_MIN_SENTENCES else ""


def gopher_fault(text: str) -> str:
    """Return why Gopher rejects a document, or an empty string."""
    words, lines = text.split(), lines_of(text)
    lengths = np.array([len(word) for word in words], np.int64)
    if not GOPHER_WORDS[0] <= len(words) <= GOPHER_WORDS[1]:
        return f"{len(words)} words"
    mean = int(lengths.sum()) / len(words)
    if not GOPHER_WORD_LENGTH[0] <= mean <= GOPHER_WORD_LENGTH[1]:
        return f"words of {mean:.1f} characters"
    num_bullets = sum(line.lstrip().startswith(_BULLETS) for line in lines)
    num_ellipses = sum(line.rstrip().endswith(("...", "…")) for line in lines)
    num_bare = sum(not any(map(str.isalpha, word)) for word in words)
    for what, number, total, most in (
        ("hash marks a word", text.count("#"), len(words), GOPHER_MAX_SYMBOLS),
        ("ellipses a word", text.count("...") + text.count("…"), len(words), GOPHER_MAX_SYMBOLS),
        ("of the lines begin with a bullet", num_bullets, len(lines), GOPHER_MAX_BULLETS),
        ("of the lines end in an ellipsis", num_ellipses, len(lines), GOPHER_MAX_ELLIPSES),
        ("of the words have no letter", num_bare, len(words), GOPHER_MAX_BARE_WORDS),
    ):
        if number > most * total:
            return f"{number / total:.0%} {what}"
    if len(GOPHER_STOP_WORDS.intersection(map(str.lower, words))) < GOPHER_MIN_STOP_WORDS:
        return "fewer than two of the words the, be, to, of, and, that, have, with"
    return _repetition(words, lines, lengths)


def _repetition(words: list[str], lines: list[str], lengths: I64) -> str:
    """Return what is repeated too often in a text, or an empty string."""
    num_characters = int(lengths.sum())
    num_repeated, repeated_characters = _repeated_lines(lines)
    if num_repeated > GOPHER_MAX_REPEATED_LINES * len(lines):
        return f"{num_repeated / len(lines):.0%} lines repeat another"
    if repeated_characters > GOPHER_MAX_REPEATED_LINE_CHARACTERS * num_characters:
        return f"{repeated_characters / num_characters:.0%} of the characters are in lines that repeat another"
    table: dict[str, int] = {}
    ids = np.array([table.setdefault(word, len(table)) for word in words], np.uint64)
    ends = np.cumsum(lengths)
    for n in (*GOPHER_MAX_TOP_NGRAM, *GOPHER_MAX_REPEATED_NGRAMS):
        hashes = np.zeros(max(0, len(ids) - n + 1), np.uint64)
        for k in range(n):
            hashes = hashes * _FACTOR + ids[k : len(ids) - n + 1 + k]
        _, first, place, counts = np.unique(hashes, return_index=True, return_inverse=True, return_counts=True)
        if n in GOPHER_MAX_TOP_NGRAM:
            of_ngram = ends[first + n - 1] - ends[first] + lengths[first]
            share = float((counts * of_ngram)[(counts == counts.max()) & (counts > 1)].max(initial=0)) / num_characters
            if share > GOPHER_MAX_TOP_NGRAM[n]:
                return f"{share:.0%} of the characters are in the most frequent run of {n} words"
        else:
            begins = np.flatnonzero(counts[place] > 1)
            inside = np.zeros(len(ids) + 1, np.int64)  # number of repeated runs that begin, minus those that end
            inside[begins] += 1
            np.subtract.at(inside, begins + n, 1)
            share = float(lengths[np.cumsum(inside)[:-1] > 0].sum()) / num_characters
            if share > GOPHER_MAX_REPEATED_NGRAMS[n]:
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
