"""Sentence boundaries from interned units. Each distinct unit has a byte of marks, so no pass over the text is needed.

English: a full stop, exclamation or question mark, with the closing quotes and brackets after it, ends a sentence when
white space follows, unless the stop belongs to an abbreviation, an initial or a numbered reference, or the next word is
in lower case. Chinese: 。！？ and the closing marks after them always end a sentence; ?! when a Chinese word follows; …
when a closing mark and a Chinese word follow; ． after a Chinese character, but not in 三．五 or in a row of such stops.
No sentence begins with ， and similar marks. A line feed always ends a sentence. There is no model and nothing to download.
F1 is .93 on the dev set of UD English-EWT and .997 on that of UD Chinese-GSDSimp.
"""

import numpy as np
from numpy.typing import NDArray

from bertloom.arrays import I64, Bools

END, DOT, CJK_END, CLOSER, ABBREVIATION, NUMBERED, LETTER, STARTER = (1 << bit for bit in range(8))

# a full stop after one of these does not end a sentence
ABBREVIATIONS = frozenset(
    "mr mrs ms dr st prof gen rep sen gov col lt capt sgt rev hon jr sr vs vol fig figs ext mt ft messrs mme mlle dept "
    "no nos pp cf al eq sec ch approx ca jan feb mar apr aug sept oct nov dec art".split()
)
# after one of these, only when a number follows ("No. 5", but "He said no.")
BEFORE_NUMBERS = frozenset("no nos vol fig figs ext pp p ch sec eq art jan feb mar apr aug sept oct nov dec".split())
# words that may begin a sentence in lower case, as in informal text
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


def _numbers(characters: str) -> I64:
    """Return characters from U+0800 to U+FFFF as `_three_bytes` gives them."""
    return np.array([int.from_bytes(character.encode(), "big") for character in characters])


_NEVER_FIRST_CJK = _numbers("，、；：）”’」』》")
_WIDE_STOP = _numbers("．")
_STOP_AFTER_CHINESE = _numbers("\u3005\u9fff")  # first and last: ideographs, kana, brackets
_STOP_AFTER_CLOSERS = _numbers("”’）］｝")
_NUMERALS = _numbers("〇零一二三四五六七八九十百千万")
_WIDE_DIGITS = _numbers("０１２３４５６７８９")
_IDEOGRAPHS = (0xE4, 0xE9)  # first bytes of U+4000 to U+9FFF
_DIGITS = (48, 57)
_DOT, _OPEN, _CAPITAL_I, _LINE_FEED = b".", b"(", b"I", 10


def unit_marks(unit: str) -> int:
    """Return the marks of a unit. When it is a whole raw word ("café."), its last characters decide."""
    word = unit.lower()
    if word.isalnum():  # most units
        return _WORD_MARKS.get(word, 0)
    last = word.rstrip(CLOSERS)[-1:] if len(word) > 1 else word
    return (
        END * (last in (".", "!", "?", "…"))
        | DOT * (last == "." or word == "．")
        | CJK_END * (word in ("。", "！", "？", "｡", "．"))
        | CLOSER * (len(word) == 1 and word in CLOSERS)
    )


def sentence_starts(text: NDArray[np.uint8], starts: I64, lengths: I64, marks: NDArray[np.uint8]) -> Bools:
    """Return which units begin a sentence: bool (units,).

    text: the block in its own casing, uint8 (bytes,); starts, lengths, marks: of the units, (units,).
    """
    n = len(starts)
    if n == 0:
        return np.zeros(0, bool)
    first = np.take(text, starts, mode="clip")
    gap = np.ones(n + 1, bool)  # white space, or the block's edge, before unit i
    np.greater(starts[1:], starts[:-1] + lengths[:-1], out=gap[1:n])

    end, cjk, closer = (marks & END) > 0, (marks & CJK_END) > 0, (marks & CLOSER) > 0
    end[_abbreviation_stops(first, gap, marks)] = False
    wide = np.flatnonzero(cjk & ((marks & DOT) > 0))  # only ． has both marks
    cjk[wide[~_wide_stops_that_end(text, starts[wide])]] = False
    strong = end & ((marks & DOT) == 0)  # ! and ? end a sentence before a small letter, but not in '"Why?" he asked'
    for _ in range(2):  # closing quotes and brackets belong to the sentence; three in a row are rare
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
    ends = (marks[stop] & DOT) == 0
    ends &= (first[stop] < 128) | (stop < after - 1)  # ! and ?, but … only before a closing mark
    begins[after[ends]] = True
    lines = np.flatnonzero(text[: starts[-1] + 1] == _LINE_FEED)
    begins[np.searchsorted(starts, lines)] = True
    return begins


def _three_bytes(text: NDArray[np.uint8], starts: I64) -> I64:
    """Return the bytes of characters from U+0800 to U+FFFF as one number each."""
    high, middle, low = (np.take(text, starts + i, mode="clip").astype(np.int64) for i in range(3))
    return high << 16 | middle << 8 | low


def _wide_stops_that_end(text: NDArray[np.uint8], starts: I64) -> Bools:
    """Return which ． follow a Chinese character or closing mark and are neither in a number nor in a row of stops."""
    before, following = _three_bytes(text, starts - 3), _three_bytes(text, starts + 3)
    digit = np.take(text, starts + 3, mode="clip")
    digits = (
        (digit >= _DIGITS[0]) & (digit <= _DIGITS[1]) | np.isin(following, _WIDE_DIGITS) | np.isin(following, _NUMERALS)
    )
    chinese = (before >= _STOP_AFTER_CHINESE[0]) & (before <= _STOP_AFTER_CHINESE[1]) | np.isin(
        before, _STOP_AFTER_CLOSERS
    )
    return chinese & (following != _WIDE_STOP) & ~(digits & np.isin(before, _NUMERALS))


def _abbreviation_stops(first: NDArray[np.uint8], gap: Bools, marks: NDArray[np.uint8]) -> NDArray[np.intp]:
    """Return the full stops of abbreviations and initials that are followed by white space."""
    n = len(first)
    stop = first[1:] == ord(_DOT)
    stop &= ~gap[1:n] & ((marks[:-1] & (ABBREVIATION | LETTER)) > 0)
    dots = np.flatnonzero(stop) + 1
    before = dots - 1
    follow = first[np.minimum(dots + 1, n - 1)]
    lead = first[np.maximum(before - 1, 0)]
    initial = (marks[before] & LETTER) > 0
    initial &= ~((first[before] == ord(_CAPITAL_I)) & gap[before])  # "I." ends a sentence
    initial &= gap[before] | (lead == ord(_DOT)) | (lead == ord(_OPEN))  # "J.", "U.S.", "(b."; not the t of "didn't."
    number = (follow >= _DIGITS[0]) & (follow <= _DIGITS[1])
    abbreviation = (marks[before] & ABBREVIATION) > 0
    abbreviation &= ((marks[before] & NUMBERED) == 0) | number
    dots = dots[initial | abbreviation]
    return dots[gap[dots + 1]]  # in "etc.)" and "p.m.," what follows decides
