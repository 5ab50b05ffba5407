"""Text to token ids, exactly those of `tokenizers`, at memory speed: each distinct unit is tokenized once.

Units of ASCII letters and digits are cut here, by BERT's greedy longest match; `tokenizers` itself is asked for all others,
which need Unicode's rules.

The slow twin is `tokenizer.encode(text, add_special_tokens=False).ids` on the whole text, with
`encode_special_tokens=True`: a "[MASK]" in the text is text. Differences from google-research/bert follow from that
choice of reference: words over 100 characters (200 there) are [UNK], and so are a few code points of newer Unicode.
"""

from collections.abc import Sequence
from itertools import chain

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from tokenizers import Tokenizer

from pipeline.units import MAX_UNITS, Interner, Units


class GreedyPieces:
    """The ids of a word that no rule of Unicode changes: the longest piece of the vocabulary, again and again."""

    def __init__(self, ids: dict[str, int], max_characters: int):
        """Words of more characters are [UNK]."""
        self.first = {word: i for word, i in ids.items() if not word.startswith("##")}
        self.inside = {word[2:]: i for word, i in ids.items() if word.startswith("##")}
        self.longest = max(map(len, ids))
        self.max_characters = max_characters
        self.unknown = (ids["[UNK]"],)

    def __call__(self, word: str) -> Sequence[int]:
        whole = self.first.get(word)
        if len(word) > self.max_characters:
            return self.unknown
        if whole is not None:
            return (whole,)
        ids, start, table = [], 0, self.first
        while start < len(word):
            end = min(len(word), start + self.longest)
            while (found := table.get(word[start:end])) is None:
                end -= 1
                if end == start:
                    return self.unknown
            ids.append(found)
            start, table = end, self.inside
        return ids


class WordPiece:
    """Token ids of blocks of text. One a worker: it remembers every unit that it has met, up to MAX_UNITS."""

    def __init__(self, tokenizer: Tokenizer, do_lower_case: bool, vocab_size: int):
        """tokenizer: BERT's, with `encode_special_tokens` set. Ids are uint16, or uint32 from 65,536 words on."""
        assert tokenizer.encode_special_tokens, "a special token's name in the text would become that token"
        self.tokenizer = tokenizer
        self.dtype = np.dtype(np.uint16 if vocab_size < 65536 else np.uint32)
        self.plain = GreedyPieces(tokenizer.get_vocab(with_added_tokens=False), tokenizer.model.max_input_chars_per_word)
        self.interner = Interner(tokenizer, do_lower_case)
        self._clear()

    def _clear(self) -> None:
        self.interner.clear()
        self.ids = np.zeros(0, self.dtype)  # the ids of all units, end to end
        self.offsets = np.zeros(1, np.int32)
        self.sizes = np.zeros(0, np.int32)

    def units(self, block: bytes) -> tuple[Units, list[str]]:
        """The units of a block, and the text of those met for the first time since the table was last emptied.

        Where the first code of the new units is 0 the table was emptied: tables beside it must be too.
        """
        if len(self.interner) > MAX_UNITS:
            self._clear()
        units = self.interner.cut(block)
        new, self.interner.new_units = self.interner.new_units, []
        if new:
            ids = self._ids_of_units(new)
            sizes = np.fromiter(map(len, ids), np.int32, len(ids))
            flat = np.fromiter(chain.from_iterable(ids), self.dtype, int(sizes.sum()))
            self.ids = np.concatenate([self.ids, flat])
            self.sizes = np.concatenate([self.sizes, sizes])
            self.offsets = np.concatenate([np.zeros(1, np.int32), np.cumsum(self.sizes, dtype=np.int32)])
        return units, new

    def _ids_of_units(self, units: list[str]) -> list[Sequence[int]]:
        plain = self.plain
        ids: list[Sequence[int]] = [plain(unit) if unit.isascii() and unit.isalnum() else () for unit in units]
        other = [i for i, unit in enumerate(units) if not (unit.isascii() and unit.isalnum())]
        found = self.tokenizer.encode_batch_fast([units[i] for i in other], add_special_tokens=False)
        for i, encoding in zip(other, found, strict=True):
            ids[i] = encoding.ids
        return ids

    def ids_of(self, codes: NDArray[np.int32]) -> tuple[NDArray, NDArray[np.int32]]:
        """(ids (tokens,), number of tokens of each unit: int32 (units,))."""
        table = pa.ListArray.from_arrays(self.offsets, self.ids)
        return table.take(pa.array(codes)).flatten().to_numpy(), np.take(self.sizes, codes, mode="clip")
