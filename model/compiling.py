"""Batches of one size, so that torch.compile makes every graph once.

Packed batches differ in their number of tokens, masked positions and sequences. For `--compile` each is padded to a size
that nearly all of them fit into, worked out from the examples' lengths before the first step: a few per cent more than
the mean, where padding every example would cost 1 / fill. What is added are sequences of its own, which no other sees,
and positions and pairs that no loss counts. A batch that does not fit is left as it is, and what was compiled runs as it
is written: slower, once in some ten thousand steps, and never a second graph.

Attention is not compiled: it depends on where sequences begin, which is new in every batch.
"""

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from model.heads import PretrainingModel
from model.loading.data import PackedBatch

DEVIATIONS = 4.0
"""How far above the mean a size lies, in standard deviations of a batch."""
MULTIPLE = 64
"""Sizes are a multiple of this: what matrix products like."""
IGNORED = -100
"""The true word at a position that is only there for its size; cross_entropy leaves it out by default."""


@dataclass(frozen=True, kw_only=True)
class StaticShape:
    """The size of all padded batches of one length."""

    num_tokens: int
    num_masked: int
    """Masked positions."""
    num_sequences: int
    """Examples, and the sequences of padding between them and the end."""
    max_seq_length: int
    """The longest sequence of padding, in tokens."""


def static_shape(
    lengths: np.ndarray,
    num_masks: np.ndarray,
    *,
    max_seq_length: int,
    batch_size: int,
    micro_batch_size: int,
    num_parts: int,
) -> StaticShape:
    """The size for the parts of global batches that `model.loading.batches.cut_by_length` makes.

    Args:
        lengths, num_masks: of a sample of the examples, (N,) each.
        num_parts: parts of a global batch, over all ranks.
    """
    rows = min(batch_size, micro_batch_size)
    # The parts of one batch have about equal tokens, so that a part strays from the mean with its batch as a whole.
    spread = DEVIATIONS * lengths.std() * math.sqrt(batch_size) / num_parts
    tokens = batch_size * lengths.mean() / num_parts + spread + (max_seq_length if num_parts > 1 else 0)
    tokens = up(min(math.ceil(tokens), rows * max_seq_length))
    share = batch_size / num_parts
    masked = share * num_masks.mean() + DEVIATIONS * num_masks.std() * math.sqrt(share) + num_masks.max()
    return StaticShape(
        num_tokens=tokens,
        num_masked=up(min(math.ceil(masked), rows * int(num_masks.max()))),
        num_sequences=rows + -(-tokens // max_seq_length),
        max_seq_length=max_seq_length,
    )


def up(number: int) -> int:
    """The next multiple of MULTIPLE."""
    return -(-number // MULTIPLE) * MULTIPLE


def pad_batch(batch: PackedBatch, shape: StaticShape) -> PackedBatch:
    """The batch in this size, or as it is where it does not fit."""
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
        # Sequences of no token stand in front: each has a first token, if not its own, for the head of pairs to look at.
        cu_seqlens=torch.cat([torch.zeros(empty), batch.cu_seqlens, ends]).to(torch.int32),
        lengths=batch.lengths + padding,
        masked_positions=F.pad(batch.masked_positions, (0, masked)),
        masked_ids=F.pad(batch.masked_ids, (0, masked), value=IGNORED),
        next_sentence_label=F.pad(batch.next_sentence_label, (empty, len(padding)), value=-1),
    )


def compile_model(model: PretrainingModel, shapes: Collection[StaticShape], **options: Any) -> None:
    """Let torch.compile fuse the encoder's regions and the losses of masked words, for these sizes.

    One graph of each serves all layers and all steps. options: torch.compile's.
    """
    tokens, masked = {shape.num_tokens for shape in shapes}, {shape.num_masked for shape in shapes}
    regions = [(owner, name, tokens) for owner, name in model.encoder.regions()]
    for owner, name, sizes in [*regions, (model, "word_losses", masked)]:
        setattr(owner, name, compiled_at(sizes, getattr(owner, name), **options))


def compiled_at(sizes: Collection[int], function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """The function, compiled where it is trained on a first argument of one of these lengths, else as it is written."""
    compiled = torch.compile(function, dynamic=False, **options)

    def choose(first: Tensor, *others: Any) -> Any:
        return (compiled if len(first) in sizes and torch.is_grad_enabled() else function)(first, *others)

    return choose
