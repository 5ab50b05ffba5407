"""AdamW and LAMB as BERT uses them.

Differences from google-research/bert's optimizer: the bias correction is there (its absence was an oversight that the
warm-up hid), and clipping is by the norm of the whole global batch's gradient. What gets no weight decay is the same:
biases and LayerNorm. The learning rate comes from `model/schedule.py`.
"""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import nn

BETAS = (0.9, 0.98)
"""AdamW's. 0.98, not Adam's 0.999: as RoBERTa and later recipes, steadier at batches of thousands."""
LAMB_BETAS = (0.9, 0.999)
EPSILON = 1e-6


class Lamb(torch.optim.Optimizer):
    """LAMB (You et al. 2020, algorithm 2), as in NVIDIA's BERT: for global batches above about 8,000 examples.

    Each parameter's AdamW update is scaled by the norm of the parameter over the norm of the update. As there, a
    parameter without weight decay (biases, LayerNorm) is not scaled, and neither is one whose norm or update is 0.
    Clipping is not done here: the trainer clips the gradient of the global batch, for every optimizer.
    """

    def __init__(self, params: Any, lr: float, betas: tuple[float, float], eps: float) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One update."""
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
                # Tensors, not numbers: to read the step would wait for the GPU.
                update = first / (1 - beta1 ** state["step"])
                update /= (second / (1 - beta2 ** state["step"])).sqrt_().add_(group["eps"])
                if decay:
                    update.add_(parameter, alpha=decay)
                    norm, size = parameter.norm(), update.norm()
                    update *= torch.where((norm > 0) & (size > 0), norm / size, torch.ones_like(norm))
                parameter.add_(update, alpha=-group["lr"])


def build_optimizer(
    model: nn.Module, weight_decay: float, name: Literal["adamw", "lamb"] = "adamw"
) -> torch.optim.Optimizer:
    """An optimizer in two groups: matrices and embeddings decay, one-dimensional parameters (biases, LayerNorm) do not.

    The learning rate is 0 until `set_learning_rate` sets it, at every step.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if name == "lamb":
        return Lamb(groups, lr=0.0, betas=LAMB_BETAS, eps=EPSILON)
    return torch.optim.AdamW(groups, lr=0.0, betas=BETAS, eps=EPSILON, fused=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Sets the learning rate of all groups."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
