"""Text to token ids, exactly those of `tokenizers`, for tokenizers other than BERT's own: BPE, Unigram, other WordPiece.

The slow twin is `tokenizer.encode(text.replace("\n", " "), add_special_tokens=False)` on the whole text, with
`encode_special_tokens=True`: a "<mask>" in the text is text. A *word* is a pre-token; a space also begins one, for
tokenizers that cut no pre-tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from bertloom.arrays import I64, Bools, id_type

WHITE_SPACE = np.array([point for point in range(0x3001) if chr(point).isspace()])


@dataclass(frozen=True, slots=True)
class TextTokens:
    """The tokens of some texts, end to end."""

    ids: NDArray[np.unsignedinteger]
    """uint16, or uint32 for 65,536 words and more: (tokens,)."""
    counts: I64
    """Tokens of each text: int64 (texts,)."""
    starts: I64
    """Byte of the text where each token begins: int64 (tokens,). White space before a word counts with the word, so " word"
    and the first token of "▁" "word" begin at the w. A token that is a part of a character begins with it."""
    inside: Bools
    """Whether a token continues the word of the token before it: (tokens,)."""


class PreTokens:
    """Token ids of lists of texts."""

    def __init__(self, tokenizer: Tokenizer, vocab_size: int):
        """vocab_size: the number of words, which decides the type of the ids."""
        self.tokenizer = plain_tokenizer(tokenizer)
        self.dtype = id_type(vocab_size)

    def __call__(self, texts: Sequence[bytes]) -> TextTokens:
        """Tokenize texts: valid UTF-8, in which a line feed counts as a space."""
        ids, counts, starts, inside = [np.zeros(0, self.dtype)], [], [np.zeros(0, np.int64)], [np.zeros(0, bool)]
        for text in texts:
            string = text.decode().replace("\n", " ")
            encoding = self.tokenizer.encode(string, add_special_tokens=False)
            ids.append(np.array(encoding.ids, self.dtype))
            counts.append(len(encoding))
            its_starts, its_inside = places(string, encoding)
            starts.append(its_starts)
            inside.append(its_inside)
        return TextTokens(
            np.concatenate(ids), np.array(counts, np.int64), np.concatenate(starts), np.concatenate(inside)
        )


def plain_tokenizer(tokenizer: Tokenizer) -> Tokenizer:
    """Return a copy that reads special tokens as text, and that neither adds, pads, truncates nor trims."""
    copy = Tokenizer.from_str(tokenizer.to_str())
    copy.encode_special_tokens = True
    copy.post_processor = None  # it may trim the spans of tokens
    copy.no_padding()
    copy.no_truncation()
    return copy


def places(text: str, encoding: Encoding) -> tuple[I64, Bools]:
    """Return (byte where each token begins, whether it continues a word), as in TextTokens, of one text."""
    spans = np.fromiter(chain.from_iterable(encoding.offsets), np.int64).reshape(-1, 2)
    begin, end = spans[:, 0], spans[:, 1]
    points = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    is_space = np.append(np.isin(points, WHITE_SPACE), False)
    solid = np.append(np.flatnonzero(~is_space[:-1]), len(points))
    following = solid[np.searchsorted(solid, begin)]  # the first character that is not white space
    words = np.array(encoding.word_ids, np.int64)
    end_of_word = end[np.searchsorted(words, words, side="right") - 1]
    characters = np.where(following < end_of_word, following, begin)
    bytes_before = np.concatenate([[0], np.cumsum(1 + (points > 0x7F) + (points > 0x7FF) + (points > 0xFFFF))])
    inside = np.append(False, words[1:] == words[:-1])[: len(words)]
    return bytes_before[characters], inside & ~is_space[begin]
