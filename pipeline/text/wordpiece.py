"""Text to token ids, exactly those of `tokenizers`. Fast, because each distinct unit is tokenized only once.

`pieces` cuts short units of ASCII letters and digits. `tokenizers` itself cuts all others, which need the rules of Unicode.

The slow twin is `tokenizer.encode(text, add_special_tokens=False).ids` on the whole text, with
`encode_special_tokens=True`: a "[MASK]" in the text is text. So the ids differ from google-research/bert's in two cases:
words over 100 characters (200 there) are [UNK], and so are a few code points of newer Unicode.
"""

from itertools import chain, compress

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from bertloom.arrays import I64, id_type
from pipeline.text.blocks import Block, BlockTokens
from pipeline.text.pieces import GreedyPieces, is_short
from pipeline.text.units import Interner, Units


class WordPiece:
    """Token ids of blocks of text. Each worker has one; it remembers all units that it has seen, up to MAX_UNITS."""

    def __init__(self, tokenizer: Tokenizer, do_lower_case: bool, vocab_size: int, pieces: GreedyPieces | None = None):
        """
        Args:
            tokenizer: BERT's, with `encode_special_tokens` set.
            vocab_size: ids are uint16, or uint32 for 65,536 words and more.
            pieces: of the tokenizer's vocabulary; made here if another tokenizer has not made them.
        """
        assert tokenizer.encode_special_tokens, "a special token's name in the text would become that token"
        self.tokenizer, self.note = tokenizer, ""
        self.dtype = id_type(vocab_size)
        self.plain = pieces or GreedyPieces(tokenizer.get_vocab(with_added_tokens=False))
        self.interner = Interner(tokenizer, do_lower_case)
        self._clear()

    def _clear(self) -> None:
        self.ids = np.zeros(0, self.dtype)  # the ids of all units, end to end
        self.first = np.zeros(0, self.dtype)  # the first id of each unit; any number where it has none
        self.offsets = np.zeros(1, np.int32)
        self.sizes = np.zeros(0, np.int32)

    def units(self, block: bytes) -> tuple[Units, list[str]]:
        """Return the units of a block, and the text of the new ones, as `Interner.cut_and_name` does."""
        units, new = self.interner.cut_and_name(block)
        if len(self.sizes) + len(new) != len(self.interner.codes):  # the table of units was emptied
            self._clear()
        if new:
            ids, sizes = self._ids_of_units(new)
            first = np.append(ids, 0)[np.cumsum(sizes, dtype=np.int64) - sizes]
            self.first = np.concatenate([self.first, first.astype(self.dtype)])
            self.ids = np.concatenate([self.ids, ids.astype(self.dtype)])
            self.sizes = np.concatenate([self.sizes, sizes])
            self.offsets = np.concatenate([np.zeros(1, np.int32), np.cumsum(self.sizes, dtype=np.int32)])
        return units, new

    def _ids_of_units(self, units: list[str]) -> tuple[I64, NDArray[np.int32]]:
        """Return (ids end to end, number of ids of each unit)."""
        plain = np.fromiter(map(is_short, units), bool, len(units))
        plain_ids, plain_sizes = self.plain(list(compress(units, plain)))
        others = self.tokenizer.encode_batch_fast(list(compress(units, ~plain)), add_special_tokens=False)
        other_ids = [encoding.ids for encoding in others]
        sizes = np.empty(len(units), np.int32)
        sizes[plain] = plain_sizes
        sizes[~plain] = [len(ids) for ids in other_ids]
        ids = np.empty(int(sizes.sum()), np.int64)
        from_plain = np.repeat(plain, sizes)
        ids[from_plain] = plain_ids
        ids[~from_plain] = list(chain.from_iterable(other_ids))
        return ids, sizes

    def ids_of(self, codes: NDArray[np.int32]) -> tuple[NDArray[np.unsignedinteger], I64]:
        """Return (ids (tokens,), the first token of each unit and then the number of tokens: (units + 1,)).

        Most units are one token, so the first token of every unit is written at once, and then the others.
        """
        sizes = np.take(self.sizes, codes, mode="clip")
        edges = np.zeros(len(codes) + 1, np.int64)
        np.cumsum(sizes, out=edges[1:])
        ids = np.empty(edges[-1] + 1, self.dtype)  # one more: the last units may have no token
        ids[edges[:-1]] = np.take(self.first, codes, mode="clip")  # of two at one place the last one stays
        longer = np.flatnonzero(sizes > 1)
        left = sizes[longer] - 1
        starts = np.cumsum(left, dtype=np.int64) - left
        numbers = np.arange(int(left.sum()))
        sources = np.repeat(self.offsets[codes[longer]] + 1 - starts, left)
        sources += numbers
        places = np.repeat(edges[longer] + 1 - starts, left)
        places += numbers
        ids[places] = np.take(self.ids, sources, mode="clip")
        return ids[:-1], edges

    def tokens(self, block: Block) -> BlockTokens:
        """Return the tokens of a block whose units `units` has cut."""
        ids, edges = self.ids_of(block.units.codes)
        firsts, sentences = (
            edges[np.searchsorted(block.units.starts, places)] for places in (block.text_starts, block.borders)
        )
        inside = None if block.inside is None else np.repeat(block.inside, np.diff(edges))
        return BlockTokens(ids=ids, texts=firsts, sentences=sentences, inside=inside)
