"""Where the tokens of a text are in it.

`tokenizers` needs about 750 bytes of memory for each token of a call. A long text is therefore cut where a cut rarely
changes a token. The known ids of the tokens show whether it did.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bertloom.arrays import I64

Encode = Callable[[str], tuple[Sequence[int], Sequence[tuple[int, int]]]]
"""A text -> ids of its tokens, and (first character, end) of each."""
PART = 100_000
"""Characters that are encoded at a time."""
_SPACE = re.compile(r"(?<=\S)(?=\s\S)")
_MARK = re.compile(r"(?<=[。！？；，、])(?=\w)")


def token_offsets(text: str, ids: NDArray[Any], encode: Encode, part: int = PART) -> I64:
    """Return (first character, end) of each token of a text: int64 (tokens, 2).

    ids: of the tokens of the whole text.
    """
    found: list[I64] = []
    begin = at = 0
    size = part
    while begin < len(text):
        cut = _SPACE.search(text, begin + size, begin + 2 * size) or _MARK.search(text, begin + size)
        end = cut.start() if cut else len(text)
        is_whole = begin == 0 and end == len(text)
        tokens, offsets = encode(text[begin:end])
        after = at + len(tokens)
        is_right = np.array_equal(ids[at:after], tokens) and (end < len(text) or after == len(ids))
        if is_right or is_whole:
            found.append(np.array(offsets, np.int64).reshape(-1, 2) + begin)
            begin, at, size = end, after, part
        elif end < len(text):
            size *= 2
        else:  # the cuts before this one changed a token
            found, begin, at, size = [], 0, 0, len(text)
    return np.concatenate(found) if found else np.zeros((0, 2), np.int64)
