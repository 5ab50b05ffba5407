"""Slow, obvious twins of the array kernels: one item at a time, Python integers and lists, no NumPy.

Each says again, from docs/shard-format.md and the docstrings, what its kernel must do. A kernel is right where it
equals its twin; none of these is ever to be made fast.
"""

import hashlib
from dataclasses import dataclass
from fractions import Fraction

# ---------------------------------------------------------------------------------------------------- draws

WRAP = 2**64 - 1
GOLDEN = 0x9E3779B97F4A7C15
PAIRS, MASKS, SHARD_ORDER, SURPLUS = 1, 2, 3, 5


def mix(x: int) -> int:
    x ^= x >> 30
    x = x * 0xBF58476D1CE4E5B9 & WRAP
    x ^= x >> 27
    x = x * 0x94D049BB133111EB & WRAP
    return x ^ x >> 31


def fold(*values: int) -> int:
    key = 0
    for value in values:
        key = mix((key ^ value) + GOLDEN & WRAP)
    return key


def slow_permute(i: int, size: int, *key: int) -> int:
    """Return the place of number i, word for word as docs/shard-format.md has it."""
    h = next(h for h in range(33) if 4**h >= size)
    low = 2**h - 1
    keys = [fold(*key, r) for r in range(6)]
    while True:
        left, right = i >> h, i & low
        for key_of_round in keys:
            left, right = right, left ^ (mix(key_of_round ^ right) & low)
        i = left << h | right
        if i < size:
            return i


def draw(key: int, j: int) -> int:
    return mix(key + (j + 1) * GOLDEN & WRAP)


def bounded(d: int, n: int) -> int:
    return (d >> 32) * n >> 32


def bounded_low(d: int, n: int) -> int:
    return (d & 0xFFFFFFFF) * n >> 32


def chance(d: int, p: float) -> bool:
    return d >> 32 < int(Fraction(str(p)) * 2**32)


def is_validation(document: int, fraction: float) -> bool:
    return mix(document ^ int.from_bytes(b"validate", "big")) < int(Fraction(str(fraction)) * 2**64)


# ---------------------------------------------------------------------------------------------------- documents

BLANK = "".join(c for c in map(chr, range(0x10000)) if c.isspace() and c not in "\r\n")
WHITE = b" \t\n\r\v\f"


def lines_of(raw: bytes) -> list[tuple[int, bytes]]:
    """(position, bytes without the line break) of every line; CRLF, LF and CR each end one."""
    lines, start, i = [], 0, 0
    while i < len(raw):
        width = 2 if raw[i : i + 2] == b"\r\n" else 1 if raw[i : i + 1] in (b"\r", b"\n") else 0
        if width:
            lines.append((start, raw[start:i]))
            start = i + width
        i += width or 1
    return [*lines, (start, raw[start:])]


def text_documents(raw: bytes, most: int) -> list[tuple[bytes, int, int, int]]:
    """(text, position, piece, source key) of the documents of a plain text file; `most`: bytes of the longest one."""
    begin = 3 if raw.startswith(b"\xef\xbb\xbf") else 0
    documents, held, position = [], [], 0
    for at, line in [*lines_of(raw[begin:]), (0, b"")]:
        line_text = line.decode(errors="replace")
        if line_text.strip(BLANK):
            position = position if held else begin + at
            held.append(line_text)
        elif held:
            text = "\n".join(held).encode().strip(WHITE)
            pieces = cut_text(text, most)
            key = identity(pieces[0]) if pieces else 0
            documents += [(piece, position, number, key) for number, piece in enumerate(pieces)]
            held = []
    return documents


def cut_text(text: bytes, most: int) -> list[bytes]:
    """Pieces of at most `most` bytes: to the last line's end, else sentence's, else word's, else character's."""
    pieces = []
    while len(text) > most:
        window = text[:most]
        ends = [i for i in range(1, most) if window[i : i + 1] == b"\n"]
        if not ends:
            marks = [mark.encode() for mark in (". ", "! ", "? ", "。", "！", "？")]
            ends = [i + len(mark) for mark in marks for i in range(most) if window[i:].startswith(mark)]
        if not ends:
            ends = [i for i in range(1, most) if window[i : i + 1] == b" "]
        if not ends:
            ends = [i for i in range(1, most) if window[i] & 0xC0 != 0x80]  # first bytes of characters
        pieces.append(text[: max(ends)].strip(WHITE))
        text = text[max(ends) :].strip(WHITE)
    return [piece for piece in [*pieces, text] if piece]


def identity(text: bytes) -> int:
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big")


# ---------------------------------------------------------------------------------------------------- units, sentences


@dataclass
class Unit:
    text: str
    gap: str
    """White space before it."""


def isolates(tokenizer, character: str) -> bool:
    """Return whether a character is always a separate pre-token. Only characters of three bytes can be."""
    if not 0x800 <= ord(character) < 0x10000:
        return False
    text = tokenizer.normalizer.normalize_str(f"a{character}b")
    pieces = [piece for piece, _ in tokenizer.pre_tokenizer.pre_tokenize_str(text)]
    return len(pieces) == 3 and pieces[0] == "a" and pieces[2] == "b"


def cut_units(text: str, tokenizer) -> list[Unit]:
    """The units of a text: letters and digits, single marks, isolated characters, and raw words."""
    units: list[Unit] = []
    gap, segment = "", ""

    def close() -> None:
        nonlocal gap, segment
        if all(" " < c < "\x7f" for c in segment):
            run = ""
            for c in segment:
                if not c.isalnum() or not run:
                    if run:
                        units.append(Unit(run, gap))
                        gap = ""
                    run = ""
                run += c
                if not c.isalnum():
                    units.append(Unit(c, gap))
                    gap, run = "", ""
            if run:
                units.append(Unit(run, gap))
                gap = ""
        elif segment:
            units.append(Unit(segment, gap))
            gap = ""
        segment = ""

    for c in text:
        if c in " \t\n\r":
            close()
            gap += c
        elif isolates(tokenizer, c):
            close()
            units.append(Unit(c, gap))
            gap = ""
        else:
            segment += c
    close()
    return units


ABBREVIATIONS = (
    "mr mrs ms dr st prof gen rep sen gov col lt capt sgt rev hon jr sr vs vol fig figs ext mt ft messrs mme mlle dept "
    "no nos pp cf al eq sec ch approx ca jan feb mar apr aug sept oct nov dec art"
).split()
BEFORE_NUMBERS = "no nos vol fig figs ext pp p ch sec eq art jan feb mar apr aug sept oct nov dec".split()
STARTERS = "i it he she they we you the this that there my and but so please thanks if http https www".split()
CLOSERS = "\"'”’)]»」』）》*"
NUMERALS = "〇零一二三四五六七八九十百千万"


def sentence_starts(units: list[Unit]) -> list[bool]:
    """Return whether a sentence begins at this unit, decided for each unit alone."""
    count = len(units)

    def spaced(i: int) -> bool:
        return i == 0 or i == count or units[i].gap != ""

    def word(i: int) -> str:
        return units[i].text.rstrip("\0").lower()

    def is_stop(i: int) -> bool:
        return i >= 0 and units[i].text[0] == "."

    def ends_nothing(i: int) -> bool:
        """The full stop of an abbreviation, an initial or a numbered reference."""
        if i == 0 or not is_stop(i) or spaced(i) or not spaced(i + 1):
            return False
        before = word(i - 1)
        if len(before) == 1 and "a" <= before <= "z":
            if spaced(i - 1):
                return units[i - 1].text.rstrip("\0") != "I"
            return units[i - 2].text[0] in ".("
        if before in BEFORE_NUMBERS and before in ABBREVIATIONS:
            return i + 1 < count and units[i + 1].text[0] in "0123456789"
        return before in ABBREVIATIONS

    def is_end(i: int) -> bool:
        last = word(i).rstrip(CLOSERS)[-1:] if len(word(i)) > 1 else word(i)
        return last in tuple(".!?…") and not ends_nothing(i)

    def is_chinese_end(i: int) -> bool:
        return word(i) in tuple("。！？｡") or (word(i) == "．" and is_wide_stop(i))

    def is_wide_stop(i: int) -> bool:
        """Return whether a full-width stop follows a Chinese character and is neither in a number nor in a row of stops."""
        if spaced(i):
            return False
        before = units[i - 1].text[-1]
        behind = "" if spaced(i + 1) else units[i + 1].text[0]
        in_number = before in NUMERALS and behind in tuple(NUMERALS + "0123456789０１２３４５６７８９")
        chinese = 0x3005 <= ord(before) <= 0x9FFF or before in "”’）］｝"
        return chinese and behind != "．" and not in_number

    def is_closer(i: int) -> bool:
        return word(i) in tuple(CLOSERS)

    def behind_closers(i: int, holds) -> bool:
        """Return whether it holds for this unit, or for the unit before this and at most one other closing mark."""
        for _ in range(2):
            if i < 0 or holds(i):
                break
            if spaced(i) or not is_closer(i):
                return False
            i -= 1
        return i >= 0 and holds(i)

    def begins(i: int) -> bool:
        if i == 0 or "\n" in units[i].gap:
            return True
        first = units[i].text[0]
        behind_chinese = behind_closers(i - 1, is_chinese_end) and not behind_closers(i, is_chinese_end)
        if behind_chinese and first not in "，、；：）”’」』》":
            return True
        if not spaced(i) and 0x4000 <= ord(first) < 0xA000 and behind_closers(i - 1, is_end):
            stop = next(j for j in range(i - 1, -1, -1) if is_end(j))
            last = word(stop).rstrip(CLOSERS)[-1]
            return last != "." and (units[stop].text[0] < "\x80" or stop < i - 1)
        if not spaced(i) or first in ",;:)." or not behind_closers(i - 1, is_end):
            return False
        ellipsis = is_stop(i - 1) and is_stop(i - 2)
        if "a" <= first <= "z" and (word(i) not in STARTERS or ellipsis or is_closer(i - 1)):
            return is_end(i - 1) and not word(i - 1).rstrip(CLOSERS).endswith(".")
        return True

    return [begins(i) for i in range(count)]


# ---------------------------------------------------------------------------------------------------- tokens


def tokenize(text: str, tokenizer) -> tuple[list[int], list[int]]:
    """(ids of the whole text, tokens of each sentence that has any)."""
    units = cut_units(text, tokenizer)
    sizes: list[int] = []
    for unit, begins in zip(units, sentence_starts(units)):
        if begins:
            sizes.append(0)
        sizes[-1] += len(tokenizer.encode(unit.text, add_special_tokens=False).ids)
    return tokenizer.encode(text, add_special_tokens=False).ids, [size for size in sizes if size]
