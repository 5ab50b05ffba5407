"""Sentence boundaries from interned units: a byte of marks for each distinct unit, gathered; no pass over the text.

English: a full stop, exclamation or question mark and the closing quotes and brackets behind it end a sentence where
white space follows, unless the stop belongs to an abbreviation, an initial or a numbered reference, or the next word is
in lower case. Chinese: 。！？ and the closing marks behind them end a sentence wherever they stand, ?! where a Chinese
word follows, … where a closing mark and a Chinese word do, and ． behind a Chinese character, but not in 三．五 or in a row
of such stops; but no sentence begins with ， or the like. A line feed always ends one. There is no model and nothing to
download; F1 on the dev parts of UD English-EWT .93 and UD Chinese-GSDSimp .997.
"""

import numpy as np
from numpy.typing import NDArray

END, DOT, CJK_END, CLOSER, ABBREVIATION, NUMBERED, LETTER, STARTER = (1 << bit for bit in range(8))

# a full stop behind one of these ends no sentence
ABBREVIATIONS = frozenset(
    "mr mrs ms dr st prof gen rep sen gov col lt capt sgt rev hon jr sr vs vol fig figs ext mt ft messrs mme mlle dept "
    "no nos pp cf al eq sec ch approx ca jan feb mar apr aug sept oct nov dec art".split()
)
# and behind one of these only where a number follows ("No. 5", but "He said no.")
BEFORE_NUMBERS = frozenset("no nos vol fig figs ext pp p ch sec eq art jan feb mar apr aug sept oct nov dec".split())
# words that begin a sentence even in lower case, as people write on the web
STARTERS = frozenset(
    "i it he she they we you the this that there my and but so please thanks if http https www".split()
)
CLOSERS = "\"'”’)]»」』）》*"

_WORD_MARKS = {
    word: ABBREVIATION * (word in ABBREVIATIONS)
    | NUMBERED * (word in BEFORE_NUMBERS)
    | LETTER * (len(word) == 1)
    | STARTER * (word in STARTERS)
    for word in ABBREVIATIONS | BEFORE_NUMBERS | STARTERS | frozenset("abcdefghijklmnopqrstuvwxyz")
}
_NEVER_FIRST = np.zeros(256, bool)
_NEVER_FIRST[list(b",;:).")] = True


def _numbers(characters: str) -> NDArray[np.int64]:
    """Characters from U+0800 to U+FFFF as `_three_bytes` has them."""
    return np.array([int.from_bytes(character.encode(), "big") for character in characters])


_NEVER_FIRST_CJK = _numbers("，、；：）”’」』》")
_WIDE_STOP = _numbers("．")
_BEHIND_CHINESE = _numbers("\u3005\u9fff")  # the first and the last of: ideographs, kana, brackets
_BEHIND_CLOSERS = _numbers("”’）］｝")
_NUMERALS = _numbers("〇零一二三四五六七八九十百千万")
_WIDE_DIGITS = _numbers("０１２３４５６７８９")
_IDEOGRAPHS = (0xE4, 0xE9)  # first bytes of U+4000 to U+9FFF
_DIGITS = (48, 57)
_DOT, _OPEN, _CAPITAL_I, _LINE_FEED = b".", b"(", b"I", 10


def unit_marks(unit: str) -> int:
    """The marks of one unit. A unit may be a whole raw word ("café."): then its last characters decide."""
    word = unit.lower()
    if word.isalnum():  # most units: a look-up will do
        return _WORD_MARKS.get(word, 0)
    last = word.rstrip(CLOSERS)[-1:] if len(word) > 1 else word
    return (
        END * (last in (".", "!", "?", "…"))
        | DOT * (last == "." or word == "．")
        | CJK_END * (word in ("。", "！", "？", "｡", "．"))
        | CLOSER * (len(word) == 1 and word in CLOSERS)
    )


def sentence_starts(
    text: NDArray[np.uint8], starts: NDArray[np.int64], lengths: NDArray[np.int64], marks: NDArray[np.uint8]
) -> NDArray[np.bool_]:
    """Which units begin a sentence: bool (units,).

    text: the block in its own casing, uint8 (bytes,); starts, lengths, marks: of the units, (units,).
    """
    n = len(starts)
    if n == 0:
        return np.zeros(0, bool)
    first = np.take(text, starts, mode="clip")
    gap = np.ones(n + 1, bool)  # white space, or the block's edge, before unit i
    np.greater(starts[1:], starts[:-1] + lengths[:-1], out=gap[1:n])

    end, cjk, closer = (marks & END) > 0, (marks & CJK_END) > 0, (marks & CLOSER) > 0
    end[_stops_that_end_nothing(first, gap, marks)] = False
    wide = np.flatnonzero(cjk & ((marks & DOT) > 0))  # ．, alone in having both marks
    cjk[wide[~_wide_stops_that_end(text, starts[wide])]] = False
    strong = end & (
        (marks & DOT) == 0
    )  # ! and ? end a sentence even before a small letter, but not in '"Why?" he asked'
    for _ in range(2):  # closing quotes and brackets belong to the sentence; more than two in a row are rare
        tail = closer[1:] & ~gap[1:n]
        end[1:] |= tail & end[:-1]
        cjk[1:] |= tail & cjk[:-1]

    ellipsis = np.zeros(n, bool)
    ellipsis[1:] = (first[1:] == ord(_DOT)) & (first[:-1] == ord(_DOT))
    small = (first >= ord("a")) & (first <= ord("z"))
    small[1:] &= ((marks[1:] & STARTER) == 0) | ellipsis[:-1] | closer[:-1]

    begins = np.zeros(n, bool)
    begins[0] = True
    after = np.flatnonzero(end[:-1] & gap[1:n] & (~small[1:] | strong[:-1])) + 1
    begins[after[~_NEVER_FIRST[first[after]]]] = True
    after = np.flatnonzero(cjk[:-1] & ~cjk[1:]) + 1
    begins[after[~np.isin(_three_bytes(text, starts[after]), _NEVER_FIRST_CJK)]] = True
    after = np.flatnonzero(end[:-1] & ~gap[1:n]) + 1
    after = after[(first[after] >= _IDEOGRAPHS[0]) & (first[after] <= _IDEOGRAPHS[1])]
    stop = after - 1
    for _ in range(2):
        stop -= closer[stop]
    stands = (marks[stop] & DOT) == 0
    stands &= (first[stop] < 128) | (stop < after - 1)  # ! and ?; … only with a closing mark
    begins[after[stands]] = True
    lines = np.flatnonzero(text[: starts[-1] + 1] == _LINE_FEED)
    begins[np.searchsorted(starts, lines)] = True
    return begins


def _three_bytes(text: NDArray[np.uint8], starts: NDArray[np.int64]) -> NDArray[np.int64]:
    """The bytes of a character from U+0800 to U+FFFF as one number."""
    high, middle, low = (np.take(text, starts + i, mode="clip").astype(np.int64) for i in range(3))
    return high << 16 | middle << 8 | low


def _wide_stops_that_end(text: NDArray[np.uint8], starts: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which ． stand behind a Chinese character or closing mark, and neither in a number nor in a row of them."""
    before, behind = _three_bytes(text, starts - 3), _three_bytes(text, starts + 3)
    digit = np.take(text, starts + 3, mode="clip")
    digits = (digit >= _DIGITS[0]) & (digit <= _DIGITS[1]) | np.isin(behind, _WIDE_DIGITS) | np.isin(behind, _NUMERALS)
    chinese = (before >= _BEHIND_CHINESE[0]) & (before <= _BEHIND_CHINESE[1]) | np.isin(before, _BEHIND_CLOSERS)
    return chinese & (behind != _WIDE_STOP) & ~(digits & np.isin(before, _NUMERALS))


def _stops_that_end_nothing(
    first: NDArray[np.uint8], gap: NDArray[np.bool_], marks: NDArray[np.uint8]
) -> NDArray[np.intp]:
    """Units that are a full stop behind an abbreviation or an initial, with white space behind them."""
    n = len(first)
    stop = first[1:] == ord(_DOT)
    stop &= ~gap[1:n] & ((marks[:-1] & (ABBREVIATION | LETTER)) > 0)
    dots = np.flatnonzero(stop) + 1
    before = dots - 1
    follow = first[np.minimum(dots + 1, n - 1)]
    lead = first[np.maximum(before - 1, 0)]
    initial = (marks[before] & LETTER) > 0
    initial &= ~((first[before] == ord(_CAPITAL_I)) & gap[before])  # "I." alone does end a sentence
    initial &= gap[before] | (lead == ord(_DOT)) | (lead == ord(_OPEN))  # "J.", "U.S.", "(b."; not the t of "didn't."
    number = (follow >= _DIGITS[0]) & (follow <= _DIGITS[1])
    abbreviation = (marks[before] & ABBREVIATION) > 0
    abbreviation &= ((marks[before] & NUMBERED) == 0) | number
    dots = dots[initial | abbreviation]
    return dots[gap[dots + 1]]  # "etc.)" and "p.m.," are decided by what follows them
