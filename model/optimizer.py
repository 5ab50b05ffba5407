"""AdamW as BERT uses it, and the learning rate as a function of the step.

Differences from google-research/bert's optimizer: the bias correction is there (its absence was an oversight that the
warm-up hid), clipping is by the norm of the whole global batch's gradient, and the schedule reaches its peak. What gets
no weight decay is the same: biases and LayerNorm.
"""

import torch
from torch import nn

BETAS = (0.9, 0.98)
"""0.98, not Adam's 0.999: as RoBERTa and later recipes, steadier at batches of thousands."""
EPSILON = 1e-6


def build_optimizer(model: nn.Module, weight_decay: float) -> torch.optim.AdamW:
    """AdamW in two groups: matrices and embeddings decay, one-dimensional parameters (biases, LayerNorm) do not.

    The learning rate is 0 until `learning_rate_at` sets it, at every step.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=0.0, betas=BETAS, eps=EPSILON, fused=True)


def learning_rate_at(step: int, peak: float, num_warmup_steps: int, num_steps: int) -> float:
    """Learning rate of update number `step`, from 0: up to the peak in a line, then down in a line.

    The first update has peak / num_warmup_steps, the last of the warm-up and the one after it have the peak, the last
    of all has peak / (num_steps - num_warmup_steps). transformers' `get_linear_schedule_with_warmup` differs in the
    warm-up only, where it is one step later, so that its first update has 0.

    >>> [learning_rate_at(step, 1.0, 2, 6) for step in range(6)]
    [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]
    """
    if step < num_warmup_steps:
        return peak * (step + 1) / num_warmup_steps
    return peak * (num_steps - step) / (num_steps - num_warmup_steps)


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Sets the learning rate of all groups."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
