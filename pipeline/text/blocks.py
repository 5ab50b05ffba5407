"""Texts end to end, cut into units and sentences, and their tokens: what a tokenizer of blocks takes and returns."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bertloom.arrays import I64, Bools
from pipeline.text.units import Interner, Units


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Texts end to end."""

    texts: Sequence[bytes]
    content: bytes
    """The texts, each with a line feed after it. A space is added where `Interner.with_spaces` adds one."""
    added: I64
    """The bytes before which a space was added, counted without the added ones."""
    text_starts: I64
    """First byte of each text in the content: (texts,)."""
    borders: I64
    """First byte of each sentence, sorted; a text begins one. Some sentences may have no token: (sentences,)."""
    units: Units
    inside: Bools | None
    """Whether a unit is a character that continues a Chinese word: (units,). None without a segmenter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockTokens:
    """The tokens of a block."""

    ids: NDArray[np.unsignedinteger]
    """uint16 or uint32 (tokens,)."""
    texts: I64
    """First token of each text: (texts,)."""
    sentences: I64
    """First token of each sentence: (sentences,)."""
    inside: Bools | None
    """Whether a token continues a word, where the tokens themselves do not say so: (tokens,)."""


class BlockTokenizer(Protocol):
    """Makes tokens of blocks. One per worker process."""

    interner: Interner
    dtype: np.dtype[Any]
    """Of its ids."""
    note: str
    """What the user should know about its speed, or ""."""

    def units(self, content: bytes, /) -> tuple[Units, list[str]]:
        """Return the units of the content of a block, and the text of the new ones; see `Interner.cut_and_name`."""

    def tokens(self, block: Block, /) -> BlockTokens:
        """Return the tokens of a block."""
