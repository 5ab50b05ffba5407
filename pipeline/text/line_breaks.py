"""What a single line break in a text is: a place where a long line was wrapped, or the end of a paragraph.

`is_wrapped` looks for the column at which a text was wrapped. A line is *full* if the first word of the next line would
not have fitted into the column. A full line whose sentence goes on in the next line is evidence of wrapped text. A line
that is not full and breaks off in a sentence is evidence against it, such as a heading or a list item, and so is a line
that is longer than the column. A short line that ends a sentence says little: in both kinds of text it ends a paragraph. In
Chinese verse the lines of one length that end with a mark say that the full lines are titles.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable
from itertools import accumulate, pairwise
from typing import Literal

LineBreaks = Literal["auto", "paragraph", "space"]

SAMPLE_BYTES = 65_536  # at the beginning of a text decide, because a long text is never held as a whole
LEAST_COLUMN, MOST_COLUMN = 30, 140  # where texts are wrapped; a Chinese character takes two columns
# what lines add to a sum; it is above 0 for a wrapped text
GOES_ON = 32  # full; the next line begins with a small letter, or with a letter of a script without capitals
MAY_GO_ON = 16  # full; the next line begins otherwise. Counts if blank lines end the paragraphs of the text
BREAKS_OFF = -16  # not full, and does not end a sentence
ENDS = -1  # ends with a mark that may end a sentence
TOO_LONG = -64  # longer than the column, although it has several words

_ENDS = frozenset(".!?…:;。！？：；．\"'”’)]»」』）》*\n") | {""}
_EAST_ASIAN = bytes(range(0xE3, 0xEE))  # first bytes of Chinese, Japanese and Korean characters
_WIDE = _EAST_ASIAN + b"\xef"  # and of their marks
_FIRST_WIDE = "\u2e80"
_NARROW_WORD = re.compile("[^\\s\u2e80-\U0010ffff]*")
_SPACES_AT_LINE_ENDS = re.compile(r"(?<![^\S\r\n])[^\S\r\n]++(?=[\r\n])")  # each run is looked at once
_NOT_SPACE = re.compile(rb"\S")

Measure = Callable[[str], int]


def decide(text: bytes, line_breaks: LineBreaks) -> LineBreaks:
    """Return `paragraph` or `space`: what the single line breaks of a reader's text are."""
    if line_breaks != "auto":
        return line_breaks
    return "space" if is_wrapped(sample_of(text)) else "paragraph"


def sample_of(text: bytes) -> bytes:
    """Return the part of a text that decides: its beginning, without a line that the limit cuts."""
    found = _NOT_SPACE.search(text)
    begin = found.start() if found else len(text)
    end = begin + SAMPLE_BYTES
    if _NOT_SPACE.search(text, end):
        end = max(text.rfind(b"\r", begin, end), text.rfind(b"\n", begin, end), begin)
    return text[begin:end].rstrip()


def is_wrapped(sample: bytes) -> bool:
    """Return whether single line breaks are where lines were wrapped.

    sample: UTF-8 in which a line feed ends a paragraph and a carriage return is a single line break.
    """
    num_breaks, num_paragraphs = sample.count(b"\r"), sample.count(b"\n") + 1
    text = sample.decode()
    if len(text) > MOST_COLUMN * (num_breaks + num_paragraphs):  # nearly all texts whose lines are paragraphs
        return False
    if b" \r" in sample or b" \n" in sample:
        text = _SPACES_AT_LINE_ENDS.sub("", text)
    lines = f"{text}\n".replace("\n", "\n\r").split("\r")[:-1]
    ended = [line[-1:] in _ENDS for line in lines]
    num_open = ended.count(False)
    total = ENDS * (num_breaks - num_open) + BREAKS_OFF * num_open
    if total + (GOES_ON - BREAKS_OFF) * num_open <= 0:
        return False
    has_wide = len(sample.translate(None, _EAST_ASIAN)) < len(sample)
    for measure in (_width, _twice) if has_wide else (len,):
        gains = list(accumulate(_gains(lines, ended, text.isupper(), num_paragraphs > 1, measure)))
        gain = max(gains[LEAST_COLUMN:])
        if total + gain <= 0:
            continue
        column = len(gains) - 1 - gains[::-1].index(gain)  # the last one
        if total + gain + TOO_LONG * _num_too_long(lines, column, measure) > 0:
            ends = (line for line, has_ended in zip(lines, ended, strict=True) if has_ended)
            return not (has_wide and num_paragraphs == 1 and _is_verse(ends, column))
    return False


def _gains(lines: list[str], ended: list[bool], caseless: bool, has_blank_lines: bool, measure: Measure) -> list[int]:
    """Return, for each column, the difference between what the full lines add there and at the column before.

    A line is full at the columns from its own width up to the last one at which the next word does not fit.
    """
    changes = [0] * (MOST_COLUMN + 2)
    otherwise = MAY_GO_ON if has_blank_lines else BREAKS_OFF
    for (line, following), has_ended in zip(pairwise(lines), ended, strict=False):
        if has_ended or (width := measure(line)) > MOST_COLUMN:
            continue
        first = following[:1]
        if first.isspace():
            following = following.lstrip()
            first = following[:1]
        goes_on = first.islower() or (
            first.isalpha() and line[-1].isalnum() and (caseless or line[-1] >= _FIRST_WIDE or not first.isupper())
        )
        gain = (GOES_ON if goes_on else otherwise) - BREAKS_OFF
        last = width + _room(following, measure)
        changes[width] += gain
        changes[(last if last < MOST_COLUMN else MOST_COLUMN) + 1] -= gain
    return changes


def _is_verse(ended: Iterable[str], column: int) -> bool:
    """Return whether half of the lines that end with a mark have one width that is not full. Full lines are titles then."""
    widths = Counter(_width(line.rstrip("\n")) for line in ended)
    [(width, number)] = widths.most_common(1)
    return number >= 3 and 2 * number >= widths.total() and width + 4 <= column


def _num_too_long(lines: list[str], column: int, measure: Measure) -> int:
    """Return how many lines of several words are longer than the column."""
    column += 1 if measure is len else 3  # the line feed, and a Chinese comma or full stop, may be after the column
    longer = [line for line in lines if measure(line) > column - (line[-1] != "\n")]
    return len(longer) if measure is not len else sum(" " in line for line in longer)


def _room(line: str, measure: Measure) -> int:
    """Return the most columns that may be free at the end of a full line if this line follows it."""
    if measure is len:
        size = line.find(" ")
        return size if size >= 0 else len(line.rstrip("\n"))
    word = _NARROW_WORD.match(line)
    assert word  # the pattern also matches the empty string
    return word.end() or 3  # a character and a mark that must not begin a line


def _width(line: str) -> int:
    raw = line.encode()
    return len(line) + len(raw) - len(raw.translate(None, _WIDE))


def _twice(line: str) -> int:
    """Return the columns of a line in a text that was wrapped at a number of characters of any width."""
    return 2 * len(line)
