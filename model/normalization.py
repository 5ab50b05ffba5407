"""Layer normalisation, which is BERT's, and batch normalisation over real tokens, an experiment (docs/experiments.md).

Batch normalisation needs the whole batch in one pass and no padding. The encoder asks for that by
`needs_whole_batches`, and export refuses its statistics because transformers has no place for them.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.distributed import sum_over_ranks

EPSILON = 1e-5
"""Epsilon of batch normalisation, which divides by standard deviations that may be 0."""
MOMENTUM = 0.1
"""Share of a step's statistics in the running ones."""


class LayerNorm(nn.LayerNorm):
    """torch's LayerNorm, whose statistics and gradients are summed in 32 bits on every device, whatever the input's type.

    On a CPU torch adds the gradients of 16-bit weights in 16 bits, and their sum over the tokens stops growing.
    """

    def forward(self, hidden: Tensor) -> Tensor:
        """Return (…, C) from (…, C) of the same type."""
        if hidden.is_cpu and hidden.dtype != torch.float32:
            weight, bias = self.weight.float(), None if self.bias is None else self.bias.float()
            return F.layer_norm(hidden.float(), self.normalized_shape, weight, bias, self.eps).to(hidden.dtype)
        return super().forward(hidden)


class TokenBatchNorm(nn.Module):
    """Batch normalisation (Ioffe and Szegedy 2015): each channel by its mean and variance over the tokens of a batch.

    In training the statistics are those of all tokens of the step on all ranks, and gradients go through both. In
    evaluation they are running means, which `update_statistics` moves after each update.
    """

    running_mean: Tensor
    running_variance: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.bias = nn.Parameter(torch.zeros(size))
        self.register_buffer("running_mean", torch.zeros(size))
        self.register_buffer("running_variance", torch.ones(size))
        self.last: tuple[Tensor, Tensor] | None = None
        """Mean and unbiased variance of the last training batch."""

    def forward(self, hidden: Tensor) -> Tensor:
        """Return (T, C) from (T, C) of the same type; the statistics are in 32 bits."""
        return self._normalize(hidden.float()).to(hidden.dtype)

    def _normalize(self, hidden: Tensor) -> Tensor:
        if not self.training:
            scale = self.weight * (self.running_variance + EPSILON).rsqrt()
            return (hidden - self.running_mean) * scale + self.bias
        count = sum_over_ranks(hidden.new_tensor([len(hidden)])).clamp(min=1)  # 0 without masked positions
        mean = sum_over_ranks(hidden.sum(0)) / count
        centred = hidden - mean
        variance = sum_over_ranks(centred.square().sum(0)) / count
        self.last = (mean.detach(), variance.detach() * count / (count - 1).clamp(min=1))
        return centred * (variance + EPSILON).rsqrt() * self.weight + self.bias


def build_normalization(name: str, size: int, layer_norm_eps: float) -> nn.Module:
    """Return a module that normalises (T, C) with C = size."""
    return TokenBatchNorm(size) if name == "batch" else LayerNorm(size, eps=layer_norm_eps)


def follow_updates(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Let every update of the optimizer move the running statistics of the model's batch normalisations, if it has any."""
    if any(isinstance(module, TokenBatchNorm) for module in model.modules()):
        optimizer.register_step_post_hook(lambda *_: update_statistics(model))


@torch.no_grad()
def update_statistics(model: nn.Module) -> None:
    """Move the running statistics of a model's batch normalisations towards those of the last batch."""
    for module in model.modules():
        if isinstance(module, TokenBatchNorm) and module.last:
            mean, variance = module.last
            module.running_mean.lerp_(mean, MOMENTUM)
            module.running_variance.lerp_(variance, MOMENTUM)
