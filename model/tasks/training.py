"""One update of a model for a task, its predictions on many items, and where its training stands."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from model.encoder import Encoder
from model.loading.batches import cut_by_length
from model.loading.order import fold
from model.optimizer import set_learning_rate
from model.packing import MAX_TOKENS, grouped
from model.runs.checkpoint import CheckpointState
from model.step import DROPOUT, autocast
from model.tasks.data import TaskBatch, TaskData
from model.tasks.heads import TaskModel

BETAS, EPSILON = (0.9, 0.999), 1e-6
"""AdamW's, as BERT was fine-tuned with."""


@dataclass(frozen=True, kw_only=True)
class FinetuneState(CheckpointState):
    """Where fine-tuning stands."""

    FORMAT = "bertloom-finetuning"
    tokens: int
    """Real tokens trained on."""
    seconds: float
    """Wall-clock time so far, that of restarts left out."""
    best_step: int | None
    """The step whose model had the best metric; None before the first evaluation."""
    best: float | None
    """That metric."""
    num_worse: int
    """Evaluations since then."""
    deciding: dict[str, Any]
    """What decides the numbers: configuration, and digests of model and data."""


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """What a step was like, before its update."""

    loss: float
    """Weighted mean over the targets of the batch."""
    gradient_norm: float
    """Norm of the gradient before clipping."""

    @property
    def is_finite(self) -> bool:
        """Whether both are numbers."""
        return math.isfinite(self.loss) and math.isfinite(self.gradient_norm)


def build_optimizer(model: TaskModel, weight_decay: float, layer_decay: float) -> torch.optim.Optimizer:
    """AdamW in groups: matrices decay, biases and LayerNorm do not; each layer has the rate of its depth.

    Args:
        layer_decay: the head has the whole learning rate, the last layer this share of it, and so on downwards, last
            the embeddings, as in ELECTRA (Clark et al. 2020); 1 for the same rate everywhere.
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
    """Keeps the embeddings and the lowest layers as they are; with 0 layers, nothing."""
    for block in encoder.blocks[: num_layers + 1] if num_layers else []:
        block.requires_grad_(False)


def micro_batches(data: TaskData, items: np.ndarray, micro_batch_size: int) -> list[TaskBatch]:
    """A global batch in parts of at most so many sequences and about equal tokens (`cut_by_length`).

    A text in more windows than that is a part of its own.
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
    precision: str = "fp32",
) -> StepResult:
    """One update of the weights from one global batch, its gradient summed over micro-batches.

    Where loss or gradient are no finite numbers, there is no update.
    """
    device = next(model.parameters()).device
    model.train()
    optimizer.zero_grad(set_to_none=True)
    weight = max(sum(float(batch.weights.double().sum()) for batch in batches), 1e-12)  # a window may have no word
    total = torch.zeros((), dtype=torch.float64, device=device)
    for number, batch in enumerate(batches):
        torch.manual_seed(fold(seed, DROPOUT, step, number) >> 1)
        batch = batch.to(device)
        with autocast(device, precision):
            logits = model(batch)
        loss = (model.losses(logits, batch) * batch.weights).sum() / weight
        loss.backward()
        total += loss.detach().double()
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    gradient_norm = torch.nn.utils.clip_grad_norm_(parameters, max_gradient_norm)
    result = StepResult(loss=float(total), gradient_norm=float(gradient_norm))
    if result.is_finite:
        set_learning_rate(optimizer, learning_rate)
        optimizer.step()
    return result


@torch.inference_mode()
def predict_all(model: TaskModel, data: TaskData, batch_size: int, precision: str = "fp32") -> tuple[np.ndarray, float]:
    """The logits of all items in their order, and the weighted mean of their losses.

    Args:
        batch_size: items at once, at most; of long ones fewer, up to MAX_TOKENS tokens.
    """
    device = next(model.parameters()).device
    model.eval()
    found, loss = [], 0.0
    for start in range(0, data.num_items, batch_size):
        items = np.arange(start, min(start + batch_size, data.num_items))
        for group in grouped(range(len(items)), data.num_tokens(items).__getitem__, MAX_TOKENS):
            batch = data.batch(items[group]).to(device)
            with autocast(device, precision):
                logits = model(batch)
            loss += float((model.losses(logits, batch) * batch.weights).double().sum())
            found.append(logits.cpu().numpy())
    return np.concatenate(found), loss / max(float(data.weights.sum(dtype=np.float64)), 1e-12)
