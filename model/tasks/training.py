"""Fine-tuning: the optimizer, one update, predictions for many items, and what a checkpoint holds."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from bertloom.draws import fold_int
from model.encoder import Encoder
from model.loading.batches import cut_by_length
from model.mixed_precision import ComputeCopy, computing_model
from model.optimizer import set_learning_rate
from model.packing import MAX_TOKENS, grouped
from model.runs.best import Best
from model.runs.checkpoint import CheckpointState
from model.step import DROPOUT, StepResult, divide_gradients
from model.tasks.data import TaskBatch, TaskData
from model.tasks.heads import TaskModel

BETAS, EPSILON = (0.9, 0.999), 1e-6
"""AdamW's hyperparameters in BERT's fine-tuning."""
LARGEST_RATE = 1e-3
"""Largest learning rate that is chosen by width."""


@dataclass(frozen=True, kw_only=True)
class FinetuneState(CheckpointState):
    """The state of a fine-tuning run."""

    FORMAT = "bertloom-finetuning"
    best: Best
    settings: dict[str, Any]
    """Settings that decide the numbers, with digests of model and data."""


def learning_rate_of_width(hidden_size: int) -> float:
    """Return a peak learning rate for fine-tuning a model of this width: BERT's 5e-5 at 768, and more below.

    >>> [f"{learning_rate_of_width(width):.2g}" for width in (128, 256, 384, 512, 768, 1024)]
    ['0.001', '0.00045', '0.0002', '0.00011', '5e-05', '2.8e-05']
    """
    return min(LARGEST_RATE, 5e-5 * (768 / hidden_size) ** 2)


def build_optimizer(model: TaskModel, weight_decay: float, layer_decay: float) -> torch.optim.Optimizer:
    """Return AdamW with weight decay for matrices only, and with a learning rate that depends on the depth.

    Args:
        layer_decay: factor of the learning rate from each block to the one below, as in ELECTRA (Clark et al. 2020).
            The head has the full rate, the embeddings the lowest; 1 gives all the same rate.
    """
    blocks = model.encoder.blocks
    depths = {parameter: len(blocks) - i for i, block in enumerate(blocks) for parameter in block.parameters()}
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        if parameter.requires_grad:
            depth = depths.get(parameter, 0)  # 0: the head
            groups.setdefault((layer_decay**depth, parameter.ndim > 1), []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": parameters, "weight_decay": weight_decay if is_matrix else 0.0, "lr_scale": scale}
            for (scale, is_matrix), parameters in groups.items()
        ],
        lr=0.0,
        betas=BETAS,
        eps=EPSILON,
        fused=True,
    )


def freeze(encoder: Encoder, num_layers: int) -> None:
    """Freeze the embeddings and the lowest num_layers layers; with 0, freeze nothing."""
    for block in encoder.blocks[: num_layers + 1] if num_layers else []:
        block.requires_grad_(False)


def micro_batches(data: TaskData, items: np.ndarray, micro_batch_size: int) -> list[TaskBatch]:
    """Cut a global batch into parts of at most micro_batch_size sequences and about equal tokens (`cut_by_length`).

    A text with more windows than that is a part by itself.
    """
    parts = []
    for part in cut_by_length(data.num_tokens(items), micro_batch_size):
        counts = data.item_starts[items[part] + 1] - data.item_starts[items[part]]  # sequences of each
        groups = grouped(range(len(part)), counts.__getitem__, micro_batch_size)
        parts += [data.batch(items[part[group]]) for group in groups]
    return parts


def train_step(
    model: TaskModel,
    optimizer: torch.optim.Optimizer,
    batches: Sequence[TaskBatch],
    *,
    learning_rate: float,
    max_gradient_norm: float,
    seed: int,
    step: int,
    copy: ComputeCopy[TaskModel] | None = None,
    loss_scale: float | None = None,
) -> StepResult:
    """Update the weights once, with the gradient of a global batch summed over its micro-batches.

    The update is skipped if the loss or the gradient is not finite. `copy` and `loss_scale` are those of
    `model.step.train_step`.
    """
    device = next(model.parameters()).device
    computing = computing_model(model, copy)
    computing.train()
    optimizer.zero_grad(set_to_none=True)
    weight = max(sum(float(batch.weights.double().sum()) for batch in batches), 1e-12)  # the windows may have no word
    total = torch.zeros((), dtype=torch.float64, device=device)
    for number, batch in enumerate(batches):
        torch.manual_seed(fold_int(seed, DROPOUT, step, number) >> 1)
        batch = batch.to(device)
        logits = computing(batch)
        loss = (computing.losses(logits, batch) * batch.weights).sum() / weight
        (loss if loss_scale is None else loss * loss_scale).backward()
        total += loss.detach().double()
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    divide_gradients(parameters, loss_scale)
    gradient_norm = torch.nn.utils.clip_grad_norm_(parameters, max_gradient_norm)
    result = StepResult(loss=float(total), gradient_norm=float(gradient_norm))
    if result.is_finite:
        set_learning_rate(optimizer, learning_rate)
        optimizer.step()
        if copy:
            copy.update()
    return result


@torch.inference_mode()
def predict_all(model: TaskModel, data: TaskData, batch_size: int) -> tuple[np.ndarray, float]:
    """Return the logits of all items, in their order, and the weighted mean of their losses.

    Args:
        batch_size: items per batch; fewer if together they have more than MAX_TOKENS tokens.
    """
    device = next(model.parameters()).device
    model.eval()
    logits_of_items, loss = [], 0.0
    for start in range(0, data.num_items, batch_size):
        items = np.arange(start, min(start + batch_size, data.num_items))
        for group in grouped(range(len(items)), data.num_tokens(items).__getitem__, MAX_TOKENS):
            batch = data.batch(items[group]).to(device)
            logits = model(batch)
            loss += float((model.losses(logits, batch) * batch.weights).double().sum())
            logits_of_items.append(logits.cpu().numpy())
    return np.concatenate(logits_of_items), loss / max(float(data.weights.sum(dtype=np.float64)), 1e-12)
