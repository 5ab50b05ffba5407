"""Training in 16 bits with a master copy of the weights in 32 bits (Micikevicius et al. 2018).

The optimizer, checkpoints and export know the model in 32 bits, the *master*. In bf16 and fp16 a *compute copy* of it runs
forward and backward. Its weights, activations, residual stream and gradients have 16 bits. The statistics inside LayerNorm,
the losses, and the sums over the micro-batches of a step have 32 bits.

    every micro-batch   forward and backward of the copy; each gradient is added to the master's as soon as it is ready
    every update        the optimizer updates the master; `ComputeCopy.update` rounds it into the copy

This is not `torch.autocast`, which keeps the residual stream in 32 bits and rounds all weights in every forward pass.
"""

import copy
from collections.abc import Iterator
from functools import partial
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from model.heads import PretrainingModel
from model.normalization import TokenBatchNorm

Model = TypeVar("Model", bound=nn.Module)

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
"""The types of the precisions that are not fp32."""


class ComputeCopy(Generic[Model]):
    """A copy of a model that computes in 16 bits, and whose gradients arrive at the model."""

    def __init__(self, master: Model, dtype: torch.dtype) -> None:
        """
        Args:
            master: on the device where it will stay. `requires_grad` of its parameters must not change later.
            dtype: bfloat16 or float16.
        """
        memo = {id(module): module for module in kept_in_32_bits(master)}
        self.model: Model = in_16_bits(copy.deepcopy(master, memo), dtype)
        if isinstance(self.model, PretrainingModel):
            self.model.pad_vocabulary()
        self._pairs = [
            (own, rounded)
            for own, rounded in zip(master.parameters(), self.model.parameters(), strict=True)
            if own is not rounded
        ]
        for own, rounded in self._pairs:
            if own.requires_grad:
                rounded.register_post_accumulate_grad_hook(partial(hand_over, own))

    @torch.no_grad()
    def update(self) -> None:
        """Round the master's weights into the copy."""
        torch._foreach_copy_(
            [real_rows(rounded.data, own) for own, rounded in self._pairs], [own.data for own, _ in self._pairs]
        )


def hand_over(own: nn.Parameter, rounded: Tensor) -> None:
    """Add the gradient of a parameter of the copy to the master's, and free it."""
    assert rounded.grad is not None
    gradient = real_rows(rounded.grad, own)
    if own.grad is None:
        own.grad = gradient.to(own.dtype)
    else:
        own.grad += gradient
    rounded.grad = None


def real_rows(tensor: Tensor, own: Tensor) -> Tensor:
    """Return a tensor of the copy without the rows of padding that the master does not have."""
    return tensor[: len(own)] if tensor.ndim else tensor


def in_16_bits(model: Model, dtype: torch.dtype) -> Model:
    """Move the floating-point weights of a model to 16 bits, except those that must stay in 32, and return it."""
    kept = {id(tensor) for module in kept_in_32_bits(model) for tensor in (*module.parameters(), *module.buffers())}
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.is_floating_point() and id(tensor) not in kept:
            tensor.data = tensor.data.to(dtype)
    return model


def kept_in_32_bits(model: nn.Module) -> Iterator[nn.Module]:
    """Yield the parts of a model whose running statistics need 32 bits. They take and give 16 bits."""
    return (module for module in model.modules() if isinstance(module, TokenBatchNorm))


def compute_copy(master: Model, precision: str) -> ComputeCopy[Model] | None:
    """Return the copy that computes in this precision; None in fp32, where the master itself computes."""
    return None if precision == "fp32" else ComputeCopy(master, DTYPES[precision])


def computing_model(master: Model, copy: ComputeCopy[Model] | None) -> Model:
    """Return the model that runs forward and backward: the copy in 16 bits, or else the master."""
    return copy.model if copy else master


def in_precision(model: Model, precision: str) -> Model:
    """Move a model to a precision for good, for predictions, and return it."""
    return model if precision == "fp32" else in_16_bits(model, DTYPES[precision])
