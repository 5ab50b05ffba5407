"""torch.compile for the encoder's layers and the losses of masked words, at the sizes that batches are padded to.

`model/loading/padding.py` pads the batches. A batch of another size runs uncompiled.

Attention is not compiled: it depends on where sequences begin, which is new in every batch.
"""

from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import Tensor

from model.batch import StaticShape
from model.heads import PretrainingModel


def compile_model(model: PretrainingModel, shapes: Collection[StaticShape], **options: Any) -> None:
    """Let torch.compile fuse the encoder's regions and the losses of masked words, for these sizes.

    One graph of each region serves all layers and all steps.

    Args:
        options: torch.compile's.
    """
    tokens, masked = {shape.num_tokens for shape in shapes}, {shape.num_masked for shape in shapes}
    regions = [(owner, name, tokens) for owner, name in model.encoder.regions()]
    for owner, name, sizes in [*regions, (model, "word_losses", masked)]:
        setattr(owner, name, compiled_at(sizes, getattr(owner, name), **options))


def compiled_at(sizes: Collection[int], function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """Return the function, compiled for training on a first argument of one of these lengths, else unchanged."""
    compiled = torch.compile(function, dynamic=False, **options)

    def choose(first: Tensor, *others: Any) -> Any:
        return (compiled if len(first) in sizes and torch.is_grad_enabled() else function)(first, *others)

    return choose
