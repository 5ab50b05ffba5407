"""Chinese words for whole-word masking: which characters continue the word before them.

BERT reads Chinese character by character, so a segmenter has to find the words: jieba-rs (MIT), by the package rjieba,
which the extra `chinese` installs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from bertloom.arrays import Bools
from bertloom.extras import needed_by

if TYPE_CHECKING:
    from pipeline.text.units import Units

Segment = Callable[[str], list[str]]
_IDEOGRAPH_LEAD = 0xE3  # first byte of U+3000 and above, where ideographs begin; they take three bytes


def load_segmenter() -> Segment:
    """Return a function text -> its words, end to end. Raises ValueError when rjieba is not installed."""
    with needed_by("--chinese-words"):
        import rjieba
    return rjieba.cut


def inside_words(block: bytes, units: Units, segment: Segment) -> Bools:
    """Return which units are characters that continue a word: bool (units,)."""
    words = segment(block.decode())
    ends = np.cumsum(np.fromiter((len(word.encode()) for word in words), np.int64, len(words)))
    assert len(words) == 0 or ends[-1] == len(block), "the segmenter lost text"
    begins = np.zeros(len(block) + 1, bool)
    begins[0] = True
    begins[ends] = True
    return ~begins[units.starts] & chinese_characters(block, units)


def chinese_characters(block: bytes, units: Units) -> Bools:
    """Return which units are Chinese characters or marks, or others from U+3000 on that BERT isolates: bool (units,)."""
    first = np.frombuffer(block, np.uint8)[units.starts]
    found: Bools = (units.lengths == 3) & (first >= _IDEOGRAPH_LEAD)
    return found
