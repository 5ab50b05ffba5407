"""Characters that a BPE never merges: between these a text may be cut even within a word.

A merge across a place gives a token with the characters, or bytes, at both of its sides. If no merge gives such a token,
what is before the place and what is after it are merged as if they were alone.
"""

from typing import Any

import numpy as np

from bertloom.arrays import U64, Bools
from pipeline.text.pieces import slots
from pipeline.text.readable import BYTE_LETTERS

SLOT_BITS = 20


class Merges:
    """The merges of a BPE."""

    def __init__(self, model: dict[str, Any], is_bytes: bool):
        """
        Args:
            model: of a tokenizer.json.
            is_bytes: whether its characters stand for bytes.
        """
        self.vocabulary, self.is_bytes = model["vocab"], is_bytes
        self.are_all = False  # whether nothing else decides the tokens
        if model["type"] == "BPE" and not (model["ignore_merges"] or model["dropout"]):
            known = set(BYTE_LETTERS) if is_bytes else {f"<0x{byte:02X}>" for byte in range(256)}
            has_bytes = (is_bytes or model["byte_fallback"]) and known <= self.vocabulary.keys()
            # without, an unknown character vanishes, and then what is before it may merge with what is after it
            has_unknown = has_bytes or model["unk_token"] in self.vocabulary
            self.are_all = has_unknown and not (model["continuing_subword_prefix"] or model["end_of_word_suffix"])
        pairs = model["merges"] if self.are_all else []
        self.merged = ["".join(pair) if isinstance(pair, list) else pair.replace(" ", "") for pair in pairs]

    def never_before(self, space: str) -> bool:
        """Return whether no space merges with another character before it."""
        if self.is_bytes:
            space = "Ġ" if space == " " else ""
        if not self.are_all or space not in self.vocabulary:
            return False
        return not any(space in word.lstrip(space) for word in self.merged)


class IdeographPairs:
    """Which pairs of ideographs (of three bytes each) a byte-level BPE never merges, nor any of their bytes."""

    def __init__(self, merges: Merges):
        self.may_merge = np.zeros(1 << SLOT_BITS, bool)  # by a hash: a few pairs are taken for others
        self.shapes: set[tuple[int, int]] = set()  # bytes before and after a place within a token, up to three
        for word in merges.merged:
            if not all(letter in BYTE_LETTERS for letter in word):
                continue  # no text has it: a byte-level tokenizer writes every byte as one of these letters
            text = bytes(BYTE_LETTERS[letter] for letter in word)
            for at in range(1, len(text)):
                if 0xE4 <= text[at] <= 0xE9 and 0x80 <= text[at - 1] < 0xC0:
                    left, right = text[max(0, at - 3) : at], text[at : at + 3]
                    self.shapes.add((len(left), len(right)))
                    numbers = (np.array([int.from_bytes(side, "big")], np.uint64) for side in (left, right))
                    self.may_merge[slots(tuple(numbers), SLOT_BITS)] = True

    def __call__(self, left: U64, right: U64) -> Bools:
        """Return whether a cut between ideographs is possible. They are UTF-8 as integers, the first byte the highest."""
        may = np.zeros(len(left), bool)
        for before, after in self.shapes:
            end = left & np.uint64((1 << 8 * before) - 1)
            may |= np.take(self.may_merge, slots((end, right >> np.uint64(8 * (3 - after))), SLOT_BITS))
        return ~may
