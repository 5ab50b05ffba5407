"""Batches padded to one size, so that torch.compile makes every graph once.

Packed batches differ in their number of tokens, masked positions and sequences. For `--compile` each is padded to a size
that nearly all of them fit into, computed from the lengths of examples before the first step: a few per cent more than
the mean, where padding every example would cost 1 / fill. The padding consists of sequences of its own, which no other
sequence sees, and of positions and pairs that no loss counts. A batch that does not fit stays as it is, and the compiled
functions run uncompiled on it: slower, about once in a thousand steps, but without a second graph.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from model.batch import PackedBatch, StaticShape
from model.losses import IGNORED

DEVIATIONS = 3.0
"""How far a size is above the mean, in standard deviations of a batch."""
MULTIPLE = 64
"""Sizes are a multiple of this number, for fast matrix products."""


def static_shape(
    lengths: NDArray[Any],
    num_masks: NDArray[Any],
    *,
    max_seq_length: int,
    batch_size: int,
    micro_batch_size: int,
    num_parts: int,
) -> StaticShape:
    """Return the size for the parts of global batches that `model.loading.batches.cut_by_length` makes.

    Args:
        lengths, num_masks: of a sample of the examples, (N,) each.
        num_parts: parts of a global batch, over all ranks.
    """
    rows = min(batch_size, micro_batch_size)
    # The parts of one batch have about equal tokens, so a part deviates from the mean as much as its whole batch does.
    spread = DEVIATIONS * lengths.std() * math.sqrt(batch_size) / num_parts
    tokens = batch_size * lengths.mean() / num_parts + spread + (max_seq_length if num_parts > 1 else 0)
    tokens = next_multiple(min(math.ceil(tokens), rows * max_seq_length))
    share = batch_size / num_parts
    masked = share * num_masks.mean() + DEVIATIONS * num_masks.std() * math.sqrt(share) + num_masks.max()
    return StaticShape(
        num_tokens=tokens,
        num_masked=next_multiple(min(math.ceil(masked), rows * int(num_masks.max()))),
        num_sequences=rows + -(-tokens // max_seq_length),
        max_seq_length=max_seq_length,
    )


def largest_shape(shapes: Sequence[StaticShape]) -> StaticShape:
    """Return the smallest size that parts of any of these sizes fit into, all of one length."""
    return StaticShape(
        num_tokens=max(shape.num_tokens for shape in shapes),
        num_masked=max(shape.num_masked for shape in shapes),
        num_sequences=max(shape.num_sequences for shape in shapes),
        max_seq_length=shapes[0].max_seq_length,
    )


def next_multiple(number: int) -> int:
    """Return the smallest multiple of MULTIPLE that is at least this number."""
    return -(-number // MULTIPLE) * MULTIPLE


def pad_batch(batch: PackedBatch, shape: StaticShape) -> PackedBatch:
    """Return the batch padded to this size, or unchanged if it does not fit."""
    tokens = shape.num_tokens - len(batch.input_ids)
    masked = shape.num_masked - len(batch.masked_ids)
    full, rest = divmod(max(tokens, 0), shape.max_seq_length)
    padding = [shape.max_seq_length] * full + [rest] * (rest > 0)
    empty = shape.num_sequences - len(batch.lengths) - len(padding)
    if min(tokens, masked, empty) < 0:
        return batch
    positions = [torch.arange(length) for length in padding]
    ends = len(batch.input_ids) + torch.tensor([0, *padding]).cumsum(0)[1:]
    return replace(
        batch,
        input_ids=F.pad(batch.input_ids, (0, tokens)),
        token_type_ids=F.pad(batch.token_type_ids, (0, tokens)),
        position_ids=torch.cat([batch.position_ids, *positions]),
        # Sequences without tokens come first: the head of pairs reads the first token of each, here that of the next one.
        cu_seqlens=torch.cat([torch.zeros(empty), batch.cu_seqlens, ends]).to(torch.int32),
        lengths=batch.lengths + padding,
        longest=shape.max_seq_length,
        masked_positions=F.pad(batch.masked_positions, (0, masked)),
        masked_ids=F.pad(batch.masked_ids, (0, masked), value=IGNORED),
        next_sentence_label=F.pad(batch.next_sentence_label, (empty, len(padding)), value=-1),
        # No position of padding counts, so its source has no meaning.
        sources=None if batch.sources is None else F.pad(batch.sources, (empty, len(padding))),
    )
