"""Sequences packed end to end, without padding: what every model here reads.

Dimensions in the comments: T real tokens, N sequences, S tokens of the longest one, C hidden_size.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple, Self, TypeVar

import numpy as np
import torch
from torch import Tensor

from model.pooling import Pooling

Item = TypeVar("Item")

MAX_TOKENS = 8192
"""Maximum number of tokens in a batch of predictions, and of one text in windows; a longer sequence is a batch by itself."""


class PaddedPlaces(NamedTuple):
    """Where the tokens of packed sequences are in a padded form of N rows with S places each."""

    tokens: Tensor
    """int64 (N * S,), the token in each place; a place of padding has one of another sequence"""
    places: Tensor
    """int64 (T,), the place of each token"""
    is_key: Tensor
    """bool (N, 1, 1, S), whether a place has a token of the row's sequence. In a row without tokens the first place has
    the value true, because a softmax over nothing is not a number."""


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
    longest: int
    """Tokens of the longest sequence, or more. In padded batches it is the same number for all batches of a length."""

    @cached_property
    def padded_places(self) -> PaddedPlaces:
        """The padded form. It is computed once, on the device of the batch, without a sync."""
        num_tokens, longest = len(self.input_ids), self.longest
        starts, ends = self.cu_seqlens[:-1], self.cu_seqlens[1:]
        token = torch.arange(num_tokens, dtype=torch.int32, device=starts.device)
        column = torch.arange(longest, dtype=torch.int32, device=starts.device)
        row = torch.searchsorted(ends, token, right=True)  # rows without tokens have no token
        return PaddedPlaces(
            tokens=(starts[:, None] + column).clamp(max=num_tokens - 1).flatten().long(),
            places=row * longest + self.position_ids,
            is_key=(column < (ends - starts).clamp(min=1)[:, None])[:, None, None],
        )

    def to(self, device: torch.device) -> Self:
        """Return the same batch on another device. The host does not wait for the copy."""
        batch = self.pinned() if device.type == "cuda" else self
        tensors = {k: v.to(device, non_blocking=True) for k, v in vars(batch).items() if isinstance(v, Tensor)}
        return replace(batch, **tensors)  # type: ignore[arg-type]

    def pinned(self) -> Self:
        """Return the same batch in pinned memory, which a GPU copies from without waiting. Nothing is copied twice."""
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
        longest=int(lengths.max(initial=0)),
    )


def pack_texts(sequences: Sequence[np.ndarray]) -> PackedSequences:
    """Return sequences of one segment each as a model reads them."""
    lengths = np.array([len(sequence) for sequence in sequences])
    return pack_sequences(np.concatenate(sequences), lengths, lengths)


def pooled(hidden: Tensor, batch: PackedSequences, pooling: Pooling) -> Tensor:
    """Return the vector of each sequence (N, C) from those of its tokens (T, C). Means are computed in 32 bits."""
    if pooling == "cls":
        return hidden[batch.cu_seqlens[:-1]]
    lengths = batch.cu_seqlens.diff()
    rows = torch.arange(len(lengths), device=hidden.device).repeat_interleave(lengths, output_size=len(hidden))
    wide = hidden.to(torch.promote_types(hidden.dtype, torch.float32))
    sums = wide.new_zeros(len(lengths), hidden.shape[1]).index_add(0, rows, wide)
    return (sums / lengths[:, None]).to(hidden.dtype)


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
