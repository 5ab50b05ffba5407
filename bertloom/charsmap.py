"""The table of replacements of a SentencePiece normalizer ("Precompiled"), checked: the library does not check it.

It holds the size of a trie in bytes (4 bytes), the trie, whose units have 4 bytes, and texts that end in a zero byte. All
numbers are little-endian. The keys of the trie are UTF-8, and their values are the places of texts. A unit has a label
(bits 0 to 7), whether a key ends there (bit 8), and the distance to the units after it (bits 9 to 31).
"""

import base64
import binascii

import numpy as np

MAX_BYTES = 1 << 20
"""Largest table. The largest of SentencePiece itself, nmt_nfkc_cf, has 0.4 MB."""
MAX_KEY = 64
"""Most bytes of a key: a text is looked up from each of its characters."""
MAX_TEXT = 64
"""Most bytes of a replacement. The longest of NFKC has 33."""
MAX_STATES = 1 << 20
"""Most states that the check visits."""
_FOLLOWING = np.full(256, -1, np.int8)  # bytes after the first one of a character; -1: no first byte
_FOLLOWING[1:0x80], _FOLLOWING[0xC2:0xE0], _FOLLOWING[0xE0:0xF0], _FOLLOWING[0xF0:0xF5] = 0, 1, 2, 3


def check_charsmap(encoded: str) -> None:
    """Raise ValueError unless a table in base64 can be looked up for any text, in a short time."""
    try:
        content = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("it is not base64") from None
    if len(content) > MAX_BYTES:
        raise ValueError(f"it has {len(content):,} bytes, expected at most {MAX_BYTES:,}")
    num_bytes = int.from_bytes(content[:4], "little")
    if len(content) < 8 or num_bytes % 4 or not 4 <= num_bytes <= len(content) - 4:
        raise ValueError("its trie is not whole")
    units, texts = np.frombuffer(content, "<u4", num_bytes // 4, 4).astype(np.int64), content[4 + num_bytes :]
    try:
        texts.decode()
    except UnicodeDecodeError:
        raise ValueError("its replacements are not UTF-8") from None
    _check_places(_reachable_places(units), texts)


def _reachable_places(units: np.ndarray) -> np.ndarray:
    """Return the places of all texts that a look-up can find; ValueError if it could leave the trie, or takes too long."""
    after = np.arange(len(units)) ^ ((units >> 10) << ((units & 512) >> 6))  # where the units after each unit begin
    labels = np.arange(1, 256)
    found, visited = [], 0
    states = np.array([after[0] * 4])  # a state: where the next units begin · 4 + bytes that the character still has
    for _ in range(MAX_KEY):
        visited += len(states)
        if visited > MAX_STATES:
            raise ValueError(f"its trie has more than {MAX_STATES:,} states")
        begins, left = states[:, None] >> 2, states[:, None] & 3
        places = begins ^ labels
        _check_inside(places, units)
        left = np.where(left == 0, _FOLLOWING[labels], np.where((labels >= 0x80) & (labels < 0xC0), left - 1, -1))
        is_next = ((units[places] & 0x800000FF) == labels) & (left >= 0)
        places, left = places[is_next], left[is_next]
        _check_inside(after[places], units)
        ends = after[places][(units[places] >> 8) & 1 == 1]
        if np.any(left[(units[places] >> 8) & 1 == 1]):
            raise ValueError("a key of its trie ends inside a character")
        found.append(units[ends] & 0x7FFFFFFF)
        states = np.unique(after[places] * 4 + left)
        if not len(states):
            return np.unique(np.concatenate(found))
    raise ValueError(f"its trie has keys of more than {MAX_KEY} bytes")


def _check_inside(places: np.ndarray, units: np.ndarray) -> None:
    if places.size and places.max() >= len(units):
        raise ValueError("its trie refers to units that it does not have")


def _check_places(places: np.ndarray, texts: bytes) -> None:
    for place in places.tolist():
        if place >= len(texts) or texts[place] & 0xC0 == 0x80:
            raise ValueError(f"its trie refers to byte {place} of the replacements, where no character begins")
        if texts.find(b"\0", place, place + MAX_TEXT + 1) < 0:
            raise ValueError(f"its replacement at byte {place} has more than {MAX_TEXT} bytes, or no end")
