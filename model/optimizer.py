"""AdamW, LAMB and Muon. A new optimizer is a function here and a line in `model/optimizers.py`.

Differences from google-research/bert's optimizer: Adam's bias correction is applied (its absence was an oversight that
the warm-up hid), and clipping is by the norm of the whole global batch's gradient. As there, biases and LayerNorm do not
decay. The learning rate comes from `model/schedule.py`.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pkgutil import resolve_name
from typing import Any

import torch
from torch import Tensor, nn

from model.distributed import ALONE, Ranks, in_pieces
from model.encoder import Encoder
from model.normalization import follow_updates
from model.optimizers import OPTIMIZERS, OptimizerName
from model.sharding import is_sharded, norms, own_parts

BETAS = (0.9, 0.98)
"""Adam's decay rates in pretraining. 0.98 instead of 0.999, as in RoBERTa, is more stable at batches of thousands."""
LAMB_BETAS = (0.9, 0.999)
LAMB_NUMBERS = 32 * 2**20
"""Numbers that LAMB updates at once. During the update it needs twice their memory."""
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
    clips the gradient, so LAMB does not. The step is kept on the CPU, where it is read without a GPU sync.

    Its work is not divided among the ranks. By count, it is 2 % of a step of `base` on eight H100 with batches of 8,192. An
    exchange of the updates takes a third of that time over NVLink, and more than that time over a network.
    """

    def __init__(self, params: Any, lr: float, betas: tuple[float, float], eps: float) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update the parameters once."""
        assert closure is None
        for group in self.param_groups:
            for parameters in in_pieces((p for p in group["params"] if p.grad is not None), LAMB_NUMBERS):
                self._update(parameters, group)

    def _update(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        states = [self.state[parameter] for parameter in parameters]
        for parameter, state in zip(parameters, states):
            if not state:
                state["step"] = torch.zeros(())
                state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
            state["step"] = state["step"].cpu()  # a checkpoint's step may be on the GPU
        torch._foreach_add_([state["step"] for state in states], 1)
        steps = torch.stack([state["step"] for state in states]).tolist()
        first, second = (own_parts(state[name] for state in states) for name in ("exp_avg", "exp_avg_sq"))
        own, gradients = own_parts(parameters), own_parts(gradients_of(parameters))
        are_sharded = is_sharded(parameters[0])
        beta1, beta2 = group["betas"]
        torch._foreach_lerp_(first, gradients, 1 - beta1)
        torch._foreach_mul_(second, beta2)
        torch._foreach_addcmul_(second, gradients, gradients, value=1 - beta2)
        updates = torch._foreach_div(first, [1 - beta1**step for step in steps])
        roots = torch._foreach_div(second, [1 - beta2**step for step in steps])
        torch._foreach_sqrt_(roots)
        torch._foreach_add_(roots, group["eps"])
        torch._foreach_div_(updates, roots)
        if group["weight_decay"]:
            torch._foreach_add_(updates, own, alpha=group["weight_decay"])
            lengths, sizes = (norms(parts, are_sharded) for parts in (own, updates))
            ratios = torch.where((lengths > 0) & (sizes > 0), lengths / sizes, 1.0)
            torch._foreach_mul_(updates, ratios.unbind())
        torch._foreach_add_(own, updates, alpha=-group["lr"])


class Muon(torch.optim.Optimizer):
    """Muon (Jordan et al. 2024): the update of a matrix is its momentum, made orthogonal.

    Equal to torch.optim.Muon with `adjust_lr_fn="match_rms_adamw"`, with the same state, except that it orthogonalises
    in 16 bits only on CUDA. On a CPU without bfloat16 instructions torch's version takes ten times as long as 32 bits,
    more than the rest of the step.

    Each rank orthogonalises its share of the matrices, and the ranks exchange the results. The momentum, which is cheap,
    is kept by all.
    """

    def __init__(self, params: Any, weight_decay: float, ranks: Ranks) -> None:
        steps = {"momentum": MUON_MOMENTUM, "ns_steps": 5, "moments": ("momentum_buffer",)}
        super().__init__(params, {"lr": 0.0, "weight_decay": weight_decay} | steps)
        self.ranks = ranks

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update the parameters once. On all ranks the same parameters have gradients."""
        assert closure is None
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            if not parameters:
                continue
            for parameter in parameters:
                if not self.state[parameter]:
                    self.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
            kept = [self.state[parameter]["momentum_buffer"] for parameter in parameters]
            torch._foreach_lerp_(kept, gradients_of(parameters), 1 - group["momentum"])
            torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
            updates = self._directions(parameters, kept, group)
            for shape, same in by_shape(parameters).items():
                # The update has the size of AdamW's, 0.2 per weight (Liu et al. 2025, Moonlight).
                alpha = -0.2 * math.sqrt(max(shape)) * group["lr"]
                torch._foreach_add_([parameters[i] for i in same], [updates[i] for i in same], alpha=alpha)

    def _directions(self, parameters: list[Tensor], kept: list[Tensor], group: dict[str, Any]) -> list[Tensor]:
        """Return the orthogonal updates of all matrices. This rank computes its share and receives the others."""
        work = [min(p.shape) ** 2 * (2 * max(p.shape) + min(p.shape)) for p in parameters]
        shares = self.ranks.divide(work)
        device = parameters[0].device
        dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        sizes = [[parameters[i].numel() for i in share] for share in shares]
        buffers = [torch.empty(sum(numbers), dtype=dtype, device=device) for numbers in sizes]
        own = dict(zip(shares[self.ranks.rank], buffers[self.ranks.rank].split(sizes[self.ranks.rank])))
        gradients = gradients_of(parameters)
        for shape, same in by_shape(parameters, own).items():
            momentum = [kept[i] for i in same]
            nesterov = torch._foreach_lerp([gradients[i] for i in same], momentum, group["momentum"])
            made = orthogonal(torch.stack(nesterov).to(dtype), group["ns_steps"])
            torch._foreach_copy_([own[i].view(shape) for i in same], made.unbind())
        self.ranks.exchange(buffers)
        found: dict[int, Tensor] = {}
        for share, numbers, buffer in zip(shares, sizes, buffers):
            found |= zip(share, buffer.float().split(numbers))
        return [found[i].view_as(parameter) for i, parameter in enumerate(parameters)]


def orthogonal(matrices: Tensor, num_steps: int) -> Tensor:
    """Return the matrices (B, R, C) with their singular values moved to between about 0.7 and 1.2, by Newton-Schulz."""
    is_tall = matrices.shape[1] > matrices.shape[2]
    norms: Tensor = torch.linalg.vector_norm(matrices, dim=(1, 2), keepdim=True)
    x = matrices / norms.clamp(min=1e-7)
    a, b, c = NEWTON_SCHULZ
    for _ in range(num_steps):
        gram = x.mT @ x if is_tall else x @ x.mT  # of the smaller side
        factor = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, x, factor, beta=a) if is_tall else torch.baddbmm(x, factor, x, beta=a)
    return x


def by_shape(tensors: Sequence[Tensor], chosen: Iterable[int] | None = None) -> dict[torch.Size, list[int]]:
    """Return the indices of the tensors of each shape: of all, or of the chosen ones."""
    shapes: dict[torch.Size, list[int]] = {}
    for index in range(len(tensors)) if chosen is None else chosen:
        shapes.setdefault(tensors[index].shape, []).append(index)
    return shapes


def gradients_of(parameters: Iterable[Tensor]) -> list[Tensor]:
    """Return the gradients of parameters that all have one."""
    return [parameter.grad for parameter in parameters if parameter.grad is not None]


class MuonWithAdamW(torch.optim.Optimizer):
    """Muon for some matrices and AdamW for the other parameters, as one optimizer that holds the groups and state of both.

    Muon's update has the size of AdamW's, so both use the same learning rate and weight decay.
    """

    def __init__(
        self,
        matrices: list[nn.Parameter],
        weight_decay: float,
        others: list[dict[str, Any]],
        adam: AdamConstants,
        ranks: Ranks,
    ) -> None:
        self.parts = (Muon(matrices, weight_decay, ranks), adamw_of(others, adam))
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


def build_adamw(model: nn.Module, weight_decay: float, adam: AdamConstants, ranks: Ranks) -> torch.optim.Optimizer:
    """Return AdamW (Loshchilov and Hutter 2019), the default."""
    return adamw_of(decay_groups(trained(model), weight_decay), adam)


def build_lamb(model: nn.Module, weight_decay: float, adam: AdamConstants, ranks: Ranks) -> torch.optim.Optimizer:
    """Return LAMB."""
    return Lamb(decay_groups(trained(model), weight_decay), lr=0.0, **adam.over(LAMB_BETAS))


def build_muon(model: nn.Module, weight_decay: float, adam: AdamConstants, ranks: Ranks) -> torch.optim.Optimizer:
    """Return Muon for the matrices of the layers and AdamW for embeddings, heads and one-dimensional parameters."""
    if any(is_sharded(parameter) for parameter in model.parameters()):
        raise ValueError("--optimizer muon needs whole matrices: omit --shard-model, or take --optimizer adamw or lamb")
    assert isinstance(model.encoder, Encoder)
    layers = {parameter for block in model.encoder.blocks[1:] for parameter in block.parameters()}
    hidden = [parameter for parameter in trained(model) if parameter in layers and parameter.ndim == 2]
    others = [parameter for parameter in trained(model) if parameter not in set(hidden)]
    return MuonWithAdamW(hidden, weight_decay, decay_groups(others, weight_decay), adam, ranks)


def build_optimizer(
    model: nn.Module,
    weight_decay: float,
    name: OptimizerName = "adamw",
    adam: AdamConstants = OWN,
    ranks: Ranks = ALONE,
) -> torch.optim.Optimizer:
    """Return the optimizer of that name. Its learning rate is 0 until `set_learning_rate` sets it, at every step.

    Args:
        ranks: those that make the same updates, and may share the work.
    """
    optimizer: torch.optim.Optimizer = resolve_name(OPTIMIZERS[name])(model, weight_decay, adam, ranks)
    follow_updates(model, optimizer)
    return optimizer


def moment_names(optimizer: torch.optim.Optimizer) -> dict[nn.Parameter, tuple[str, ...]]:
    """Return the names of the tensors that the optimizer keeps of each parameter, after its first update."""
    return {p: group.get("moments", ADAM_MOMENTS) for group in optimizer.param_groups for p in group["params"]}


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Set the learning rate of all groups, times the group's `lr_scale` if it has one."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * group.get("lr_scale", 1.0)
