"""Tokens of blocks by any tokenizer of the library `tokenizers`: which sentence and which word each token belongs to.

A token that crosses the border of a sentence belongs to the earlier one. Words are pre-tokens. In addition a Chinese
character begins a word, and so does what follows it, because most tokenizers cut Chinese text only at punctuation. With a
segmenter, a token that begins inside a Chinese word continues it.
"""

import numpy as np
from tokenizers import Tokenizer

from bertloom.arrays import I64, Bools
from pipeline.text.blocks import Block, BlockTokens
from pipeline.text.chinese import chinese_characters
from pipeline.text.pretokens import PreTokens, TextTokens
from pipeline.text.units import Interner, Units


class PreTokenBlocks:
    """Makes tokens of blocks. One per worker process."""

    def __init__(self, tokenizer: Tokenizer, bert: Tokenizer, vocab_size: int):
        """
        Args:
            tokenizer: with `encode_special_tokens` set.
            bert: cuts texts as BERT does. Sentences are found in its units.
        """
        self.pre_tokens = PreTokens(tokenizer, vocab_size)
        self.dtype, self.note = self.pre_tokens.dtype, self.pre_tokens.note
        self.interner = Interner(bert, lower=True)

    def units(self, content: bytes) -> tuple[Units, list[str]]:
        """Return the units of the content of a block, and the text of the new ones."""
        return self.interner.cut_and_name(content)

    def tokens(self, block: Block) -> BlockTokens:
        """Return the tokens of a block."""
        found = self.pre_tokens(block.texts)
        places = _places(block, found)
        return BlockTokens(
            ids=found.ids,
            texts=np.cumsum(found.counts) - found.counts,
            sentences=np.searchsorted(places, block.borders),
            inside=_inside(block, found.inside, places),
        )


def _places(block: Block, tokens: TextTokens) -> I64:
    """Return the byte of the block's content where each token begins: (tokens,)."""
    sizes = np.array([len(text) + 1 for text in block.texts], np.int64)
    places = np.repeat(np.cumsum(sizes) - sizes, tokens.counts) + tokens.starts
    places += np.searchsorted(block.added, places, side="right")
    return places


def _inside(block: Block, inside: Bools, places: I64) -> Bools:
    """Return whether each token continues a word: (tokens,).

    Args:
        inside: whether it continues a pre-token.
        places: where it begins.
    """
    is_chinese = chinese_characters(block.content, block.units)
    if not is_chinese.any():
        return inside
    begins = is_chinese.copy()  # whether a word begins with this unit
    begins[1:] |= is_chinese[:-1]
    starts = block.units.starts
    unit = np.minimum(np.searchsorted(starts, places), len(starts) - 1)
    at_unit = starts[unit] == places
    at_unit &= np.diff(places, prepend=-1) > 0  # the first of the tokens that are parts of one character
    if block.inside is not None:
        begins &= ~block.inside
        inside = inside | (at_unit & block.inside[unit])
    found: Bools = inside & ~(at_unit & begins[unit])
    return found
