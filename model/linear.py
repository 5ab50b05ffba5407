"""A linear layer whose bias gradient needs no extra pass over memory when it is compiled for CUDA.

The gradient of a bias is a sum over tokens. torch.compile makes it a kernel that reads the whole gradient of the product
again. If it is summed in blocks of tokens first, this sum becomes part of the kernel that computes the gradient of the
product. That kernel must have the same blocks, so what follows the layer works on `in_blocks` of the product.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BLOCK = 64
"""Tokens of a block. Padded batches have a multiple of them (`model/loading/padding.py`)."""


class Linear(nn.Linear):
    """torch's Linear, with the bias gradient summed in blocks where `has_blocks`."""

    def forward(self, hidden: Tensor) -> Tensor:
        """Return (T, out_features) from (T, in_features)."""
        if not has_blocks(hidden):
            return super().forward(hidden)
        product = BlockSum.apply(hidden, self.weight, self.bias)  # type: ignore[no-untyped-call]
        assert isinstance(product, Tensor)
        return product


class BlockSum(torch.autograd.Function):
    """`F.linear` of (T, in_features), whose bias gradient is summed in 32 bits, first in blocks of tokens."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(hidden, weight)
        return F.linear(hidden, weight, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        hidden, weight = ctx.saved_tensors
        sums = split(gradient).sum(1, dtype=torch.float32)
        return gradient @ weight, gradient.T @ hidden, sums.sum(0).to(gradient.dtype)


def has_blocks(tensor: Tensor) -> bool:
    """Return whether a tensor (T, …) is handled in blocks: compiled for CUDA, if T is a multiple of BLOCK."""
    return tensor.is_cuda and torch.compiler.is_compiling() and len(tensor) % BLOCK == 0


def in_blocks(tensor: Tensor) -> Tensor:
    """Return (T / BLOCK, BLOCK, …) from (T, …) where `has_blocks`, else the same tensor."""
    return split(tensor) if has_blocks(tensor) else tensor


def split(tensor: Tensor) -> Tensor:
    """Return (T / BLOCK, BLOCK, …) from (T, …)."""
    return tensor.reshape(-1, BLOCK, *tensor.shape[1:])
