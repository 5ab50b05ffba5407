"""AdamW, LAMB and Muon. A new optimizer is a function here and a line in `model/optimizers.py`.

Differences from google-research/bert's optimizer: Adam's bias correction is applied (its absence was an oversight that
the warm-up hid), and clipping is by the norm of the whole global batch's gradient. As there, biases and LayerNorm do not
decay. The learning rate comes from `model/schedule.py`.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pkgutil import resolve_name
from typing import Any

import torch
from torch import Tensor, nn

from model.encoder import Encoder
from model.normalization import follow_updates
from model.optimizers import OPTIMIZERS, OptimizerName
from model.sharding import is_sharded

BETAS = (0.9, 0.98)
"""Adam's decay rates in pretraining. 0.98 instead of 0.999, as in RoBERTa, is more stable at batches of thousands."""
LAMB_BETAS = (0.9, 0.999)
MUON_MOMENTUM = 0.95
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of Muon's iteration: Jordan's, and torch's."""
EPSILON = 1e-6
ADAM_MOMENTS = ("step", "exp_avg", "exp_avg_sq")
"""What an optimizer keeps of a parameter, unless its group names other tensors as `moments`."""


@dataclass(frozen=True, kw_only=True)
class AdamConstants:
    """The constants of Adam that a user has chosen; None leaves the optimizer's own."""

    beta1: float | None = None
    """Decay rate of the mean of the gradients."""
    beta2: float | None = None
    """Decay rate of the mean of their squares."""
    epsilon: float | None = None
    """Addend of the denominator."""

    def over(self, betas: tuple[float, float], epsilon: float = EPSILON) -> dict[str, Any]:
        """Return betas and eps as torch's optimizers take them, with these defaults."""
        beta1, beta2 = (own if chosen is None else chosen for chosen, own in zip((self.beta1, self.beta2), betas))
        return {"betas": (beta1, beta2), "eps": epsilon if self.epsilon is None else self.epsilon}


OWN = AdamConstants()


class Lamb(torch.optim.Optimizer):
    """LAMB (You et al. 2020, algorithm 2), as in NVIDIA's BERT: for global batches above about 8,000 examples.

    Each parameter's AdamW update is scaled by the norm of the parameter over the norm of the update. As there, a
    parameter without weight decay (bias, LayerNorm) is not scaled, nor is one whose norm or update is 0. The trainer
    clips the gradient, so LAMB does not.
    """

    def __init__(self, params: Any, lr: float, betas: tuple[float, float], eps: float) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update the parameters once."""
        assert closure is None
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            decay = group["weight_decay"]
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["step"] = torch.zeros((), device=parameter.device)
                    state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
                state["step"] += 1
                first, second = state["exp_avg"], state["exp_avg_sq"]
                first.lerp_(parameter.grad, 1 - beta1)
                second.mul_(beta2).addcmul_(parameter.grad, parameter.grad, value=1 - beta2)
                # Tensors, not numbers: reading the step forces a GPU sync.
                update = first / (1 - beta1 ** state["step"])
                update /= (second / (1 - beta2 ** state["step"])).sqrt_().add_(group["eps"])
                if decay:
                    update.add_(parameter, alpha=decay)
                    norm, size = parameter.norm(), update.norm()
                    update *= torch.where((norm > 0) & (size > 0), norm / size, torch.ones_like(norm))
                parameter.add_(update, alpha=-group["lr"])


class Muon(torch.optim.Optimizer):
    """Muon (Jordan et al. 2024): the update of a matrix is its momentum, made orthogonal.

    Equal to torch.optim.Muon with `adjust_lr_fn="match_rms_adamw"`, with the same state, except that it orthogonalises
    in 16 bits only on CUDA. On a CPU without bfloat16 instructions torch's version takes ten times as long as 32 bits,
    more than the rest of the step.
    """

    def __init__(self, params: Any, weight_decay: float) -> None:
        steps = {"momentum": MUON_MOMENTUM, "ns_steps": 5, "moments": ("momentum_buffer",)}
        super().__init__(params, {"lr": 0.0, "weight_decay": weight_decay} | steps)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update the parameters once."""
        assert closure is None
        for group in self.param_groups:
            momentum = group["momentum"]
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(parameter)
                kept = state["momentum_buffer"].lerp_(parameter.grad, 1 - momentum)
                update = orthogonal(parameter.grad.lerp(kept, momentum), group["ns_steps"])  # Nesterov's
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                # The update has the size of AdamW's, 0.2 per weight (Liu et al. 2025, Moonlight).
                parameter.add_(update, alpha=-0.2 * math.sqrt(max(parameter.shape)) * group["lr"])


def orthogonal(matrix: Tensor, num_steps: int) -> Tensor:
    """Return the matrix (R, C) with its singular values moved to between about 0.7 and 1.2, by Newton-Schulz."""
    is_tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if is_tall else matrix
    x = x.bfloat16() if x.is_cuda else x
    x = x / x.norm().clamp(min=1e-7)
    a, b, c = NEWTON_SCHULZ
    for _ in range(num_steps):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if is_tall else x


class MuonWithAdamW(torch.optim.Optimizer):
    """Muon for some matrices and AdamW for the other parameters, as one optimizer that holds the groups and state of both.

    Muon's update has the size of AdamW's, so both use the same learning rate and weight decay.
    """

    def __init__(
        self, matrices: list[nn.Parameter], weight_decay: float, others: list[dict[str, Any]], adam: AdamConstants
    ) -> None:
        self.parts = (Muon(matrices, weight_decay), adamw_of(others, adam))
        super().__init__([group for part in self.parts for group in part.param_groups], {})
        for part in self.parts:
            part.state = self.state

    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update the parameters once."""
        assert closure is None
        for part in self.parts:
            part.step()


def decay_groups(parameters: Iterable[nn.Parameter], weight_decay: float) -> list[dict[str, Any]]:
    """Return two groups: matrices and embeddings decay, one-dimensional parameters (biases, LayerNorm) do not."""
    kept = list(parameters)
    return [
        {"params": [p for p in kept if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in kept if p.ndim <= 1], "weight_decay": 0.0},
    ]


def trained(model: nn.Module) -> list[nn.Parameter]:
    """Return the parameters of a model that are trained."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def adamw_of(groups: list[dict[str, Any]], adam: AdamConstants) -> torch.optim.AdamW:
    """Return AdamW for these groups; it updates all parameters of a group in one pass over memory."""
    return torch.optim.AdamW(groups, lr=0.0, fused=True, **adam.over(BETAS))


def build_adamw(model: nn.Module, weight_decay: float, adam: AdamConstants) -> torch.optim.Optimizer:
    """Return AdamW (Loshchilov and Hutter 2019), the default."""
    return adamw_of(decay_groups(trained(model), weight_decay), adam)


def build_lamb(model: nn.Module, weight_decay: float, adam: AdamConstants) -> torch.optim.Optimizer:
    """Return LAMB."""
    return Lamb(decay_groups(trained(model), weight_decay), lr=0.0, **adam.over(LAMB_BETAS))


def build_muon(model: nn.Module, weight_decay: float, adam: AdamConstants) -> torch.optim.Optimizer:
    """Return Muon for the matrices of the layers and AdamW for embeddings, heads and one-dimensional parameters."""
    if any(is_sharded(parameter) for parameter in model.parameters()):
        raise ValueError("--optimizer muon needs whole matrices: omit --shard-model, or take --optimizer adamw or lamb")
    assert isinstance(model.encoder, Encoder)
    layers = {parameter for block in model.encoder.blocks[1:] for parameter in block.parameters()}
    hidden = [parameter for parameter in trained(model) if parameter in layers and parameter.ndim == 2]
    others = [parameter for parameter in trained(model) if parameter not in set(hidden)]
    return MuonWithAdamW(hidden, weight_decay, decay_groups(others, weight_decay), adam)


def build_optimizer(
    model: nn.Module, weight_decay: float, name: OptimizerName = "adamw", adam: AdamConstants = OWN
) -> torch.optim.Optimizer:
    """Return the optimizer of that name. Its learning rate is 0 until `set_learning_rate` sets it, at every step."""
    optimizer: torch.optim.Optimizer = resolve_name(OPTIMIZERS[name])(model, weight_decay, adam)
    follow_updates(model, optimizer)
    return optimizer


def moment_names(optimizer: torch.optim.Optimizer) -> dict[nn.Parameter, tuple[str, ...]]:
    """Return the names of the tensors that the optimizer keeps of each parameter, after its first update."""
    return {p: group.get("moments", ADAM_MOMENTS) for group in optimizer.param_groups for p in group["params"]}


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Set the learning rate of all groups, times the group's `lr_scale` if it has one."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * group.get("lr_scale", 1.0)
