"""Sequences packed end to end, without padding: what every model here reads.

Dimensions in the comments: T real tokens, N sequences.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Self, TypeVar

import numpy as np
import torch
from torch import Tensor

Item = TypeVar("Item")

MAX_TOKENS = 8192
"""Maximum number of tokens in a batch of predictions, and of one text in windows; a longer sequence is a batch by itself."""


@dataclass(frozen=True, kw_only=True)
class PackedSequences:
    """Sequences end to end, without padding."""

    input_ids: Tensor
    """int64 (T,)"""
    token_type_ids: Tensor
    """int64 (T,), 0 for segment A, 1 for segment B"""
    position_ids: Tensor
    """int64 (T,), from 0 in each sequence"""
    cu_seqlens: Tensor
    """int32 (N + 1,), the start of each sequence, and T"""
    lengths: list[int]
    """Tokens of each sequence, on the host for attention over single sequences."""

    def to(self, device: torch.device) -> Self:
        """Return the same batch on another device."""
        tensors = {k: v.to(device, non_blocking=True) for k, v in vars(self).items() if isinstance(v, Tensor)}
        return replace(self, **tensors)  # type: ignore[arg-type]

    def pinned(self) -> Self:
        """Return the same batch in pinned memory, which a GPU copies from without waiting."""
        tensors = {k: v.pin_memory() for k, v in vars(self).items() if isinstance(v, Tensor)}
        return replace(self, **tensors)  # type: ignore[arg-type]


def grouped(items: Iterable[Item], size_of: Callable[[Item], int], limit: int) -> Iterator[list[Item]]:
    """Yield neighbours in groups whose sizes add up to at most `limit`; a larger item is a group by itself.

    >>> list(grouped([3, 2, 9, 1], int, 6))
    [[3, 2], [9], [1]]
    """
    group: list[Item] = []
    total = 0
    for item in items:
        size = size_of(item)
        if group and total + size > limit:
            yield group
            group, total = [], 0
        group.append(item)
        total += size
    if group:
        yield group


def pack_sequences(input_ids: np.ndarray, lengths: np.ndarray, segment_b_start: np.ndarray) -> PackedSequences:
    """Return sequences as a model reads them.

    Args:
        input_ids: (T,), of any integer type, the sequences end to end.
        lengths: int64 (N,)
        segment_b_start: (N,), index of B's first token in its sequence; the length of a sequence without B.
    """
    ends = np.cumsum(lengths)
    positions = np.arange(len(input_ids))
    positions -= np.repeat(ends - lengths, lengths)
    segments = np.stack([segment_b_start, lengths - segment_b_start], axis=1).ravel()  # sizes of A, B, A, B, …
    token_types = np.repeat(np.arange(2 * len(lengths)) % 2, segments)
    return PackedSequences(
        input_ids=torch.from_numpy(input_ids.astype(np.int64)),
        token_type_ids=torch.from_numpy(token_types),
        position_ids=torch.from_numpy(positions),
        cu_seqlens=torch.from_numpy(np.concatenate([[0], ends]).astype(np.int32)),
        lengths=lengths.tolist(),
    )


def pack_texts(sequences: Sequence[np.ndarray]) -> PackedSequences:
    """Return sequences of one segment each as a model reads them."""
    lengths = np.array([len(sequence) for sequence in sequences])
    return pack_sequences(np.concatenate(sequences), lengths, lengths)


def flat_ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Return the integers starts[i] … starts[i] + lengths[i] - 1, for one i after the other.

    >>> flat_ranges(np.array([7, 1]), np.array([2, 3])).tolist()
    [7, 8, 1, 2, 3]
    """
    ends = np.cumsum(lengths)
    return np.repeat(starts - ends + lengths, lengths) + np.arange(ends[-1] if ends.size else 0)


def take_lists(values: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Return the lists values[starts[i] : starts[i] + lengths[i]], end to end."""
    return values[flat_ranges(starts, lengths)]
