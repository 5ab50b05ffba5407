"""The rows that all loaders read: token ids of varying length, from which the number of the row can be read.

row_tokens(1234) is [CLS] w1 w234 w… [SEP], where w… are words that follow from the number 1234.
"""

from collections.abc import Sequence

import numpy as np

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
CLS, SEP = 2, 3
NUM_WORDS = 1000
WORDS = [*SPECIAL, *(f"n{number:03d}" for number in range(NUM_WORDS))]
"""The vocabulary, in the order of the ids."""
SHORTEST, LONGEST = 5, 60
"""Tokens of a row."""


def row_tokens(row: int) -> np.ndarray:
    """Return the tokens of a row, uint16."""
    size = SHORTEST - 4 + (row * 37) % (LONGEST - SHORTEST + 1)
    words = [row // NUM_WORDS, row % NUM_WORDS, *((row * 31 + place * 7) % NUM_WORDS for place in range(size))]
    return np.array([CLS, *(word + len(SPECIAL) for word in words), SEP], np.uint16)


def row_of(tokens: Sequence[int] | np.ndarray) -> int:
    """Return the number of a row from its tokens.

    Raises:
        ValueError: a token is wrong, so the loader changed the row.
    """
    ids = np.asarray(tokens, np.int64)
    row = int((ids[1] - len(SPECIAL)) * NUM_WORDS + ids[2] - len(SPECIAL)) if len(ids) > 2 else -1
    if row < 0 or not np.array_equal(ids, row_tokens(row)):
        raise ValueError(f"the loader gave the tokens {ids.tolist()}, which do not belong to any row of the test")
    return row


def text_of(tokens: np.ndarray) -> str:
    """Return the words of a row, without [CLS] and [SEP]."""
    return " ".join(WORDS[token] for token in tokens[1:-1])
