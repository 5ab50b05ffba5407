"""Text to token ids, exactly those of `tokenizers`, for tokenizers other than BERT's own: BPE, Unigram, other WordPiece.

The slow twin is `tokenizer.encode(text.replace("\n", " "), add_special_tokens=False)` on the whole text, with
`encode_special_tokens=True`: a "<mask>" in the text is text. A *word* is a pre-token; a space also begins one, for
tokenizers that cut no pre-tokens.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from bertloom.arrays import I64, U64, Bools, id_type
from pipeline.text.cuts import NONE, Cuts
from pipeline.text.spans import PADDING, SpanCodes

MAX_PIECES = 1_000_000  # the table is emptied above this
MAX_PIECE_BYTES = 64  # longer pieces are seldom seen again
TEXT_BYTES, BATCH_BYTES = 500, 100_000  # of a text of several pieces, and of the texts that the library gets at once
MANY_TOKENS = 100_000  # of one text: a list of their offsets would take much memory
LINE_FEED = 10
_INSIDE, _START = np.uint64(1 << 31), np.uint64((1 << 31) - 1)
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
    and the first token of "▁" "word" begin at the w. A token that is a part of a character begins with it. All follows the
    library's offsets."""
    inside: Bools
    """Whether a token continues the word of the token before it: (tokens,)."""


class PreTokens:
    """Token ids of lists of texts. Each worker has one; it remembers the tokens of all short pieces, up to MAX_PIECES."""

    def __init__(self, tokenizer: Tokenizer, vocab_size: int):
        """vocab_size: the number of words, which decides the type of the ids."""
        self.tokenizer = plain_tokenizer(tokenizer)
        self.dtype = id_type(vocab_size)
        self.cuts, self.codes = Cuts(self.tokenizer), SpanCodes()
        self._clear()

    @property
    def note(self) -> str:
        """What the user should know about the speed, or ""."""
        if self.cuts:
            return ""
        return (
            "this tokenizer has a part that may look at any distance, so texts are tokenized as a whole, which is slow"
        )

    def _clear(self) -> None:
        self.codes.clear()
        self.tokens = np.zeros(0, np.uint64)  # of all pieces, end to end, as `_encode` packs them
        self.sizes = np.zeros(0, np.int32)

    def __call__(self, texts: Sequence[bytes]) -> TextTokens:
        """Tokenize texts: valid UTF-8, in which a line feed counts as a space."""
        if len(self.codes) > MAX_PIECES:
            self._clear()
        block = b"".join(b"\n" + text.replace(b"\n", b" ") for text in texts)
        data = np.frombuffer(block + PADDING, np.uint8)
        starts, within = self.cuts(block)
        lengths = np.diff(starts, append=len(block))
        tokens, sizes, codes = self._look_up(data, starts, lengths)
        offsets = np.concatenate([np.zeros(1, np.int32), np.cumsum(sizes, dtype=np.int32)])
        found = pa.ListArray.from_arrays(offsets, tokens).take(pa.array(codes)).flatten().to_numpy()
        counts = np.take(sizes, codes)
        is_first = data[starts] == LINE_FEED
        text_starts = starts[is_first] + 1
        bases = starts + is_first - text_starts[np.cumsum(is_first) - 1]
        inside = (found & _INSIDE) > 0
        first = np.cumsum(counts, dtype=np.int64) - counts
        inside[first[within & (counts > 0)]] = True
        return TextTokens(
            (found >> np.uint64(32)).astype(self.dtype),
            np.add.reduceat(counts, np.flatnonzero(is_first), dtype=np.int64) if texts else np.zeros(0, np.int64),
            (found & _START).astype(np.int64) + np.repeat(bases, counts),
            inside,
        )

    def _look_up(
        self, data: NDArray[np.uint8], starts: I64, lengths: I64
    ) -> tuple[U64, NDArray[np.int32], NDArray[np.int32]]:
        """Return (tokens of distinct pieces end to end, number of tokens of each, which of them each piece is)."""
        codes = np.empty(len(starts), np.int32)
        short = lengths <= MAX_PIECE_BYTES
        codes[short] = self.codes(data, starts[short], lengths[short])
        if new := self.codes.take_new():
            tokens, sizes = self._encode(new)
            self.tokens = np.concatenate([self.tokens, tokens])
            self.sizes = np.concatenate([self.sizes, sizes])
        if short.all():
            return self.tokens, self.sizes, codes
        ends = starts + lengths
        others = [data[s:e].tobytes() for s, e in zip(starts[~short].tolist(), ends[~short].tolist())]
        codes[~short] = np.arange(len(others)) + len(self.sizes)
        tokens, sizes = self._encode(others)
        return np.concatenate([self.tokens, tokens]), np.concatenate([self.sizes, sizes]), codes

    def _encode(self, pieces: list[bytes]) -> tuple[U64, NDArray[np.int32]]:
        """Return (id << 32 | whether it is inside a word << 31 | where it begins, of all tokens; tokens of each piece).

        Pieces with a cut between them are encoded as one text, because a text costs the library more than a word does. Those
        with a character without a kind are not: where a normalizer removes it, the library may report wrong offsets.
        """
        block = b"".join(pieces)
        lengths = np.fromiter(map(len, pieces), np.int64, len(pieces))
        starts = np.cumsum(lengths) - lengths
        is_initial = np.frombuffer(block, np.uint8)[starts] == LINE_FEED
        is_cut = np.zeros(len(block), bool)
        is_cut[self.cuts(block)[0]] = True
        is_odd = np.logical_or.reduceat(self.cuts.kinds_of(block) == NONE, starts)
        begins = is_initial | ~is_cut[starts] | is_odd
        begins[1:] |= is_odd[:-1]
        begins |= np.diff(starts // TEXT_BYTES, prepend=-1) > 0
        first = np.flatnonzero(begins)
        edges = [*starts[first].tolist(), len(block)]
        batches = []
        at = 0
        while at < len(first):
            end = max(at + 1, int(np.searchsorted(edges, edges[at] + BATCH_BYTES, side="right")) - 1)
            chosen = slice(first[at], first[end] if end < len(first) else None)
            batches.append(
                self._encode_batch(
                    block[edges[at] : edges[end]], starts[chosen] - edges[at], is_initial[chosen], begins[chosen]
                )
            )
            at = end
        return np.concatenate([tokens for tokens, _ in batches]), np.concatenate([sizes for _, sizes in batches])

    def _encode_batch(
        self, block: bytes, starts: I64, is_initial: Bools, begins: Bools
    ) -> tuple[U64, NDArray[np.int32]]:
        """Return as `_encode`. begins: which pieces begin a text; is_initial: which begin with a line feed."""
        edges = [*starts[begins].tolist(), len(block)]
        texts = [block[start:end].decode() for start, end in pairwise(edges)]
        guards = ["" if text[0] == "\n" else self.cuts.guard(text) for text in texts]
        texts = [guard + text if guard else text[1:] for guard, text in zip(guards, texts)]
        has_guard = np.fromiter(map(bool, guards), bool, len(guards))
        moved = np.cumsum(np.where(has_guard, 1, -1))
        starts = starts + is_initial + moved[np.cumsum(begins) - 1]
        encodings = self.tokenizer.encode_batch(texts, add_special_tokens=False)
        begin, start, inside = places(texts, encodings)
        is_guard = np.zeros(len(block) + len(texts) + 1, bool)
        is_guard[starts[begins][has_guard] - 1] = True
        kept = ~is_guard[begin]
        ids = np.fromiter(chain.from_iterable(encoding.ids for encoding in encodings), np.uint64, len(begin))
        piece = np.searchsorted(starts, begin[kept], side="right") - 1
        inside = inside[kept] & (
            np.diff(piece, prepend=-1) == 0
        )  # the first one may be either, by what is before the piece
        tokens: U64 = ids[kept] << np.uint64(32)
        tokens |= inside.astype(np.uint64) << np.uint64(31)
        tokens |= (start[kept] - starts[piece]).astype(np.uint64)
        return tokens, np.bincount(piece, minlength=len(starts)).astype(np.int32)


def plain_tokenizer(tokenizer: Tokenizer) -> Tokenizer:
    """Return a copy that reads special tokens as text, and that neither adds, pads, truncates nor trims."""
    copy = Tokenizer.from_str(tokenizer.to_str())
    copy.encode_special_tokens = True
    copy.post_processor = None  # it may trim the spans of tokens
    copy.no_padding()
    copy.no_truncation()
    return copy


def places(texts: list[str], encodings: list[Encoding]) -> tuple[I64, I64, Bools]:
    """Return (first byte of each token, byte where it begins, whether it continues a word), as in TextTokens.

    All texts are end to end in the bytes. The first byte of a token may be white space.
    """
    sizes = np.fromiter(map(len, encodings), np.int64, len(encodings))
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    number = int(sizes.sum())
    offsets = chain.from_iterable(map(_offsets, encodings))
    spans = np.fromiter(chain.from_iterable(offsets), np.int64, 2 * number).reshape(-1, 2)
    # Some normalizers make the library count characters that the text does not have.
    np.minimum(spans, np.repeat(lengths, sizes)[:, None], out=spans)
    spans += np.repeat(np.cumsum(lengths) - lengths, sizes)[:, None]
    first, end = spans[:, 0], spans[:, 1]
    words = np.fromiter(chain.from_iterable(map(_word_ids, encodings)), np.int64, number)
    words += np.repeat(np.arange(len(texts)) << 32, sizes)
    points = np.frombuffer("".join(texts).encode("utf-32-le"), np.uint32)
    is_space = np.append(np.isin(points, WHITE_SPACE), False)
    solid = np.append(np.flatnonzero(~is_space[:-1]), len(points))
    following = solid[np.searchsorted(solid, first)]  # the first character that is not white space
    end_of_word = end[np.searchsorted(words, words, side="right") - 1]
    starts = np.where(following < end_of_word, following, first)
    bytes_before = np.concatenate([[0], np.cumsum(1 + (points > 0x7F) + (points > 0x7FF) + (points > 0xFFFF))])
    inside = np.append(False, words[1:] == words[:-1])[:number] & ~is_space[first]
    return bytes_before[first], bytes_before[starts], inside


def _offsets(encoding: Encoding) -> Iterable[tuple[int, int]]:
    """Return the first character of each token and the end of its last one."""
    number = len(encoding)
    if number < MANY_TOKENS:
        return encoding.offsets
    return (encoding.token_to_chars(i) or (0, 0) for i in range(number))


def _word_ids(encoding: Encoding) -> Iterable[int | None]:
    number = len(encoding)
    return encoding.word_ids if number < MANY_TOKENS else map(encoding.token_to_word, range(number))
