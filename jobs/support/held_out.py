"""The held-out text of a comparison: windows and masked words that are the same for every model.

A text is cut into passages without regard to any tokenizer, and a hash of its own text decides whether a passage is used.
A passage is cut into units. A unit is a word, or several words if a token of some model crosses from one into the next.
A window is a run of units that every model can read.
"""

import hashlib
import heapq
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from bertloom.arrays import I64, Bools
from bertloom.draws import chance, draw, fold_int
from model.hub.tokenizer import TextTokenizer
from model.inference.word_losses import MaskedWindow
from model.tasks.tag import words_in
from pipeline.inputs.discovery import find_sources
from pipeline.inputs.documents import read_documents
from pipeline.inputs.sources import ReadConfig, Split
from pipeline.inputs.splitting import check_source
from pipeline.text.records import Document, Reject, document_id

HELD_OUT_WORDS = 2001
"""Purpose of the draws. It is not one of docs/shard-format.md, because no data set depends on it."""
MASKED_SHARE = 0.15
"""Share of the units that are masked, as in BERT's pretraining."""
LONGEST_WORD = 100
"""Largest number of characters of a unit that is masked. BERT's WordPiece reads longer words as [UNK]."""
CHARACTERS_PER_TOKEN = 4
"""Characters of a passage for each token of a window: about as many as a token of English text has."""


@dataclass(frozen=True)
class Passage:
    """A part of a document."""

    key: int
    """Decides whether the passage is used, and which words are masked. It depends on the text alone."""
    document: int
    """Id of its document."""
    text: str


@dataclass
class HeldOut:
    """What was read."""

    passages: list[Passage]
    """The chosen passages, in the order of their keys."""
    num_documents: int = 0
    """Number of documents in the files."""
    num_bytes: int = 0
    """Bytes of text in the files."""
    not_used: Counter[str] = field(default_factory=Counter)
    """Number of rejected records by reason."""
    notes: list[str] = field(default_factory=list)
    """What the user should know about the files."""


class Tokens(NamedTuple):
    """The tokens of a window for one model."""

    ids: np.ndarray
    """(tokens,)"""
    offsets: I64
    """(tokens, 2), begin and end of each token in the passage, in characters."""
    begins: I64
    """(units,), the first token of each unit."""
    ends: I64
    """(units,), the token after its last one."""


class Window(NamedTuple):
    """A window over a passage."""

    document: int
    """Id of its document."""
    text: str
    """The passage."""
    units: I64
    """(units, 2), begin and end of each unit in the passage, in characters."""
    is_masked: Bools
    """(units,)"""
    tokens: list[Tokens]
    """The tokens for each model."""

    def masked(self, model: int) -> MaskedWindow:
        """Return what a model reads. Its masked words are the masked units."""
        ids, _, begins, ends = self.tokens[model]
        return MaskedWindow(ids, begins[self.is_masked], ends[self.is_masked])

    @property
    def words(self) -> list[str]:
        """The units."""
        return [self.text[begin:end] for begin, end in self.units.tolist()]


# ---- passages


def read_held_out(patterns: Sequence[str], read: ReadConfig, max_seq_length: int, max_bytes: int) -> HeldOut:
    """Return passages of the files with up to `max_bytes` of text; memory does not grow with the files.

    Raises:
        ValueError: there is no such file, it cannot be read, or there is no text.
    """
    held = HeldOut([])
    sources = find_sources(patterns, held.notes, read, flag="--text")
    for source in sources:
        check_source(source)
    records = (record for source in sources for record in read_documents(Split(source, 0, None, source.size)))
    held.passages = choose_passages(_documents(records, held), max_seq_length * CHARACTERS_PER_TOKEN, max_bytes)
    if not held.passages:
        rejects = "".join(f"; {number:,} records are {reason}" for reason, number in sorted(held.not_used.items()))
        raise ValueError(
            f"--text {' '.join(patterns)} has no text{rejects}: give files with documents that the models have not "
            f"been trained on"
        )
    return held


def _documents(records: Iterable[object], held: HeldOut) -> Iterator[tuple[int, str]]:
    """Yield the id and the text of each document, and count."""
    for record in records:
        if isinstance(record, Document):
            held.num_documents += record.piece == 0
            held.num_bytes += len(record.text)
            key = document_id(record.text) if record.source_key is None else record.source_key
            yield key, record.text.decode()
        elif isinstance(record, Reject):
            held.not_used[record.reason] += 1


def choose_passages(documents: Iterable[tuple[int, str]], num_characters: int, max_bytes: int) -> list[Passage]:
    """Return the passages with the smallest keys that have up to `max_bytes` together, each text once."""
    heap: list[tuple[int, int, str]] = []  # the largest key first
    held: set[int] = set()
    size, limit = 0, 1 << 64  # passages from the smallest lost key on do not fit, even if they are short
    for document, text in documents:
        for part in cut_passages(text.replace("\n", " "), num_characters):
            content = part.encode()
            key = int.from_bytes(hashlib.sha256(content).digest()[:8], "big")
            if key in held or key >= limit:
                continue
            held.add(key)
            heapq.heappush(heap, (-key, document, part))
            size += len(content)
            while size > max_bytes and len(heap) > 1:
                largest, _, lost = heapq.heappop(heap)
                limit = -largest
                held.remove(limit)
                size -= len(lost.encode())
    return [Passage(-key, document, text) for key, document, text in sorted(heap, reverse=True)]


def cut_passages(text: str, num_characters: int) -> Iterator[str]:
    """Yield parts of a text of up to `num_characters`, cut at white space if there is some in the second half.

    >>> list(cut_passages("to be or not", 6)), list(cut_passages("北京上海", 2))
    (['to be', 'or not'], ['北京', '上海'])
    """
    begin = 0
    while begin < len(text):
        end = begin + num_characters
        if end < len(text) and not text[end].isspace():
            cut = next((i for i in range(end, begin + num_characters // 2, -1) if text[i - 1].isspace()), end)
            end = cut
        if part := text[begin:end].strip():
            yield part
        begin = end


# ---- windows


def cut_windows(
    passages: Iterable[Passage], tokenizers: Sequence[TextTokenizer], max_seq_length: int
) -> tuple[list[Window], int]:
    """Return the windows of the passages, and the number of units that are left out because they are too long for one.

    Args:
        max_seq_length: tokens of a window, including [CLS] and [SEP], that each model can read.
    """
    windows, num_units = list[Window](), 0
    for passage in passages:
        words = np.array(words_in(passage.text), np.int64).reshape(-1, 2)
        if not len(words):
            continue
        encodings = [one.tokenizer.encode(passage.text, add_special_tokens=False) for one in tokenizers]
        spans = [np.array(encoding.offsets, np.int64).reshape(-1, 2) for encoding in encodings]
        firsts = first_words(words, spans)
        units = np.stack([words[firsts, 0], words[np.append(firsts[1:], len(words)) - 1, 1]], axis=1)
        key = np.array([fold_int(HELD_OUT_WORDS, passage.key)], np.uint64)
        is_masked = chance(draw(key, units[:, 0]), MASKED_SHARE)  # by the place of its first word
        is_masked &= units[:, 1] - units[:, 0] <= LONGEST_WORD
        tokens = [
            Tokens(np.array(encoding.ids, np.int64), span, *tokens_of_units(units, span))
            for encoding, span in zip(encodings, spans)
        ]
        for first, last in window_ranges(tokens, max_seq_length - 2):
            own = slice(first, last)
            parts = [_part(whole, own) for whole in tokens]
            windows.append(Window(passage.document, passage.text, units[own], is_masked[own], parts))
        num_units += len(units)
    return windows, num_units - sum(len(window.units) for window in windows)


def first_words(words: I64, spans: Sequence[I64]) -> I64:
    """Return the first word of each unit: a word with no token across the border to the word before it.

    >>> first_words(np.array([[0, 2], [2, 3], [4, 6]]), [np.array([[0, 2], [2, 6]])]).tolist()  # a token is ", it"
    [0, 1]
    """
    crossed = np.zeros(len(words) + 1, np.int64)
    for span in spans:
        first, last = words_of_tokens(words, span)
        crosses = first < last
        np.add.at(crossed, first[crosses] + 1, 1)
        np.add.at(crossed, last[crosses] + 1, -1)
    return np.flatnonzero(np.cumsum(crossed)[:-1] == 0)


def words_of_tokens(words: I64, span: I64) -> tuple[I64, I64]:
    """Return the first and the last word that each token overlaps; of white space, the last is before the first."""
    return np.searchsorted(words[:, 1], span[:, 0], "right"), np.searchsorted(words[:, 0], span[:, 1], "left") - 1


def tokens_of_units(units: I64, span: I64) -> tuple[I64, I64]:
    """Return the first token of each unit and the one after its last; equal for a unit without tokens."""
    first, last = words_of_tokens(units, span)
    tokens = np.flatnonzero(first <= last)
    unit = np.maximum.accumulate(first[tokens])
    begins, ends = np.searchsorted(unit, np.arange(len(units))), np.searchsorted(unit, np.arange(len(units)), "right")
    following = np.append(tokens, len(span))
    lasts = np.where(ends > begins, tokens[ends - 1] + 1 if len(tokens) else 0, following[begins])
    return following[begins], lasts


def window_ranges(tokens: Sequence[Tokens], room: int) -> Iterator[tuple[int, int]]:
    """Yield the first unit of each window and the one after its last; no model has more than `room` tokens there."""
    num_units, first = len(tokens[0].begins), 0
    while first < num_units:
        last = min(int(np.searchsorted(one.ends, one.begins[first] + room, "right")) for one in tokens)
        if last > first:
            yield first, last
        first = max(last, first + 1)  # a unit that is too long for a window is left out


def _part(tokens: Tokens, units: slice) -> Tokens:
    begins, ends = tokens.begins[units], tokens.ends[units]
    first, last = int(begins[0]), int(ends[-1])
    return Tokens(tokens.ids[first:last], tokens.offsets[first:last], begins - first, ends - first)
