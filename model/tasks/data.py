"""A task's rows as token ids: compact arrays, windows over long texts, and batches without padding.

All rows are concatenated in flat arrays, with 16 bits per id if the vocabulary allows. A row has one sequence, or several
windows, or one for each of its endings. An *item* is what training draws and counts: a row with all its sequences, or one
window (tag, span). A *target* is what has a label: an item, or a word of a window (tag).

Dimensions in the comments: I items, S sequences, T tokens, U targets, L labels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from model.hub.tokenizer import TextTokenizer
from model.packing import PackedSequences, flat_ranges, grouped, pack_sequences, take_lists


@dataclass(frozen=True, kw_only=True)
class Windowing:
    """How a text that is too long for one sequence is divided into windows."""

    max_seq_length: int
    """Maximum length of a sequence in tokens, including the special ones."""
    stride: int | None
    """Tokens from the start of a window to the start of the next. None: half of the window's room for text."""
    max_windows: int | None
    """Maximum number of windows of a row; the rest of its text is not read. None: no limit."""

    def windows(self, num_tokens: int, room: int) -> list[tuple[int, int]]:
        """Return the begin and the end of each window over num_tokens tokens, of which `room` fit into one window.

        A stride above the room, which is small after a long question, would skip text: then the stride is the room.

        >>> Windowing(max_seq_length=8, stride=2, max_windows=None).windows(9, room=5)
        [(0, 5), (2, 7), (4, 9)]
        """
        step = min(self.stride or max(1, room // 2), room)
        count = 1 + -(-max(num_tokens - room, 0) // step)
        starts = [min(number * step, max(num_tokens - room, 0)) for number in range(count)][: self.max_windows]
        return [(start, min(start + room, num_tokens)) for start in starts]


def best_windows(windows: Sequence[tuple[int, int]], num_tokens: int) -> np.ndarray:
    """Return for each token the window with most context around it, as in google-research/bert's run_squad.py.

    It is the first window in which the smaller of the token's distances to the two ends is largest.

    Returns:
        int64 (num_tokens,); -1 for tokens after the last window.
    """
    best, distance = np.full(num_tokens, -1), np.full(num_tokens, -1)
    for number, (begin, end) in enumerate(windows):
        places = np.arange(begin, end)
        here = np.minimum(places - begin, end - 1 - places)
        better = here > distance[begin:end]
        best[begin:end][better], distance[begin:end][better] = number, here[better]
    return best


@dataclass(frozen=True, kw_only=True)
class TaskBatch(PackedSequences):
    """Items with their sequences and labels."""

    item_of: Tensor
    """int64 (N,), the item in the batch to which each sequence belongs"""
    num_items: int
    """I"""
    positions: Tensor
    """int64 (U,), index of each word's first token for tag; empty for other tasks"""
    labels: Tensor
    """Labels: int64 or float32 (U,); int64 (U, 2) for the first and the last token of an answer; uint8 (U, L), 1 for each
    label that a text has, for multilabel"""
    weights: Tensor
    """float32 (U,), weight of each target in the loss; (U, L) for multilabel"""

    def parts(self, max_tokens: int) -> list[PackedSequences]:
        """Return the sequences in parts of at most max_tokens tokens; a longer sequence is a part by itself."""
        ends = np.cumsum(self.lengths)
        found = []
        for part in grouped(range(len(ends)), self.lengths.__getitem__, max_tokens):
            first, last = part[0], part[-1]
            tokens = slice(ends[first] - self.lengths[first], ends[last])
            found.append(
                PackedSequences(
                    input_ids=self.input_ids[tokens],
                    token_type_ids=self.token_type_ids[tokens],
                    position_ids=self.position_ids[tokens],
                    cu_seqlens=self.cu_seqlens[first : last + 2] - self.cu_seqlens[first],
                    lengths=self.lengths[first : last + 1],
                    longest=self.longest,
                )
            )
        return found


@dataclass(frozen=True, kw_only=True)
class TaskData:
    """All items of a file."""

    input_ids: np.ndarray
    """uint16 or uint32 (T,)"""
    starts: np.ndarray
    """int64 (S + 1,), the start of each sequence, and T"""
    segment_b_start: np.ndarray
    """int32 (S,), index of B's first token in its sequence; the length of a sequence without B"""
    item_starts: np.ndarray
    """int64 (I + 1,), the first sequence of each item, and S"""
    row_of: np.ndarray
    """int64 (I,), the row of each item"""
    target_starts: np.ndarray
    """int64 (I + 1,), the first target of each item, and U"""
    positions: np.ndarray
    """uint16 (U,) index of each target in its item's sequence, for tag; empty for other tasks"""
    labels: np.ndarray
    """(U,), (U, 2) or (U, L), see TaskBatch"""
    weights: np.ndarray
    """float32 (U,) or (U, L)"""
    num_cut: int
    """Number of truncated rows."""

    @property
    def has_two_segments(self) -> bool:
        """Whether any sequence has a segment B."""
        return bool((self.segment_b_start < np.diff(self.starts)).any())

    @property
    def num_items(self) -> int:
        """Return I."""
        return len(self.row_of)

    def num_tokens(self, items: np.ndarray) -> np.ndarray:
        """Return the number of tokens of each of these items."""
        counts: np.ndarray = self.starts[self.item_starts[items + 1]] - self.starts[self.item_starts[items]]
        return counts

    def batch(self, items: np.ndarray) -> TaskBatch:
        """Return a batch of these items, in this order."""
        counts = self.item_starts[items + 1] - self.item_starts[items]  # sequences of each
        sequences = flat_ranges(self.item_starts[items], counts)
        lengths = self.starts[sequences + 1] - self.starts[sequences]
        ids = take_lists(self.input_ids, self.starts[sequences], lengths)
        target_counts = self.target_starts[items + 1] - self.target_starts[items]
        targets = flat_ranges(self.target_starts[items], target_counts)
        positions = np.zeros(0, dtype=np.int64)
        if len(self.positions):
            ends = np.cumsum(self.num_tokens(items))
            positions = self.positions[targets] + np.repeat(ends - self.num_tokens(items), target_counts)
        return TaskBatch(
            **vars(pack_sequences(ids, lengths, self.segment_b_start[sequences])),
            item_of=torch.from_numpy(np.repeat(np.arange(len(items)), counts)),
            num_items=len(items),
            positions=torch.from_numpy(positions),
            labels=torch.from_numpy(self.labels[targets]),
            weights=torch.from_numpy(self.weights[targets]),
        )


def joined(batches: Sequence[TaskBatch]) -> TaskBatch:
    """Return several batches as one, on the device of the first."""
    tokens = np.cumsum([0] + [len(batch.input_ids) for batch in batches])
    items = np.cumsum([0] + [batch.num_items for batch in batches])
    return TaskBatch(
        input_ids=torch.cat([batch.input_ids for batch in batches]),
        token_type_ids=torch.cat([batch.token_type_ids for batch in batches]),
        position_ids=torch.cat([batch.position_ids for batch in batches]),
        cu_seqlens=torch.cat(
            [batches[0].cu_seqlens[:1]] + [batch.cu_seqlens[1:] + int(start) for batch, start in zip(batches, tokens)]
        ),
        lengths=[length for batch in batches for length in batch.lengths],
        longest=max(batch.longest for batch in batches),
        item_of=torch.cat([batch.item_of + int(start) for batch, start in zip(batches, items)]),
        num_items=int(items[-1]),
        positions=torch.cat([batch.positions + int(start) for batch, start in zip(batches, tokens)]),
        labels=torch.cat([batch.labels for batch in batches]),
        weights=torch.cat([batch.weights for batch in batches]),
    )


class DataBuilder:
    """Builds TaskData from one sequence and one item after the other."""

    def __init__(self, tokenizer: TextTokenizer) -> None:
        self._cls, self._sep = np.array([tokenizer.cls_id]), np.array([tokenizer.sep_id])
        self._id_type = np.dtype("u2" if tokenizer.vocab_size <= 2**16 else "u4")
        self._ids: list[np.ndarray] = []
        self._lengths: list[int] = []
        self._b_starts: list[int] = []
        self._item_sequences: list[int] = []
        self._rows: list[int] = []
        self._target_counts: list[int] = []
        self._positions: list[np.ndarray] = []

    def add_sequence(self, first: np.ndarray, second: np.ndarray | None = None) -> None:
        """Add a sequence [CLS] first [SEP], or [CLS] first [SEP] second [SEP], of the item that is added next."""
        parts = [self._cls, first, self._sep] + ([] if second is None else [second, self._sep])
        ids = np.concatenate(parts).astype(self._id_type)
        self._ids.append(ids)
        self._lengths.append(len(ids))
        self._b_starts.append(len(ids) if second is None else len(first) + 2)

    def add_item(self, row: int, num_targets: int = 1, positions: np.ndarray | None = None) -> None:
        """Add an item of the sequences since the last one."""
        self._item_sequences.append(len(self._lengths))
        self._rows.append(row)
        self._target_counts.append(num_targets)
        if positions is not None:
            self._positions.append(positions.astype(np.uint16))

    def build(self, labels: np.ndarray, num_cut: int = 0) -> TaskData:
        """Return the arrays, with the labels of all targets in their order and a weight of 1 for each."""
        return TaskData(
            input_ids=np.concatenate(self._ids),
            starts=np.concatenate([[0], np.cumsum(self._lengths)]),
            segment_b_start=np.array(self._b_starts, dtype=np.int32),
            item_starts=np.array([0, *self._item_sequences]),
            row_of=np.array(self._rows),
            target_starts=np.concatenate([[0], np.cumsum(self._target_counts)]),
            positions=np.concatenate(self._positions) if self._positions else np.zeros(0, dtype=np.uint16),
            labels=labels,
            weights=np.ones(len(labels), dtype=np.float32),
            num_cut=num_cut,
        )
