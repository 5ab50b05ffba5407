"""CRC-32C (Castagnoli) of many megabytes with numpy.

A CRC is linear. To move a remainder past n bytes is to append n zero bytes to its data. The remainder of A followed by B is
the remainder of A, moved past the length of B, xor the remainder of B. So the data are cut into rows of words: the sum is
moved past one row, the next row is added by xor, and so on. The last sum is one row, which shorter rows reduce to one word.

>>> hex(crc32c(b"123456789"))
'0xe3069283'
"""

from functools import cache

import numpy as np

POLYNOMIAL = 0x82F63B78
PREFIX = bytes.fromhex("54641f64")
"""Four bytes whose remainder is 0xffffffff, the value that a CRC begins with."""
WIDTHS = (1 << 14, 1 << 7, 1)
"""Words in a row, of each pass; the last one leaves a single word."""


def crc32c(data: bytes | bytearray) -> int:
    """Return the CRC-32C of the data."""
    words = np.frombuffer(data, np.uint8)
    words = np.concatenate([np.frombuffer(PREFIX, np.uint8), words])
    for width in WIDTHS:
        words = fold_rows(words, width).view(np.uint8)
    [word] = words.view("<u4")
    low, high = tables(4)
    return int(low[word & 0xFFFF] ^ high[word >> 16]) ^ 0xFFFFFFFF


def fold_rows(data: np.ndarray, width: int) -> np.ndarray:
    """Return `width` words, uint32, with the same remainder as the data, uint8."""
    first = len(data) % (4 * width)
    total = np.zeros(4 * width, np.uint8)  # zeros before the data do not change its remainder
    total[4 * width - first :] = data[:first]
    total = total.view("<u4")
    low, high = tables(4 * width)
    for row in data[first:].reshape(-1, 4 * width):
        total = low[total & 0xFFFF] ^ high[total >> 16] ^ row.view("<u4")
    return total


@cache
def tables(num_bytes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the remainders of all lower and of all upper halves of a word, moved past this many bytes, a power of two."""
    columns = 1 << np.arange(32, dtype=np.uint32)  # of the identity
    for _ in range(8):
        columns = (columns >> 1) ^ np.where(columns & 1, np.uint32(POLYNOMIAL), np.uint32(0))
    low, high = (spread(columns[:16]), spread(columns[16:]))
    for _ in range(num_bytes.bit_length() - 1):
        columns = low[columns & 0xFFFF] ^ high[columns >> 16]
        low, high = (spread(columns[:16]), spread(columns[16:]))
    return low, high


def spread(columns: np.ndarray) -> np.ndarray:
    """Return the xor of the columns at the set bits of each number of 16 bits."""
    table = np.zeros(1, np.uint32)
    for column in columns:
        table = np.concatenate([table, table ^ column])
    return table
