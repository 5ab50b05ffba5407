"""Fine-tuning: the optimizer, one update, predictions for many items, and what a checkpoint holds."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bertloom.draws import fold_int
from model.distributed import ALONE, Ranks
from model.encoder import Encoder
from model.gradient_sum import GradientSum
from model.loading.batches import cut_by_length
from model.mixed_precision import ComputeCopy, computing_model
from model.optimizer import set_learning_rate
from model.packing import MAX_TOKENS, grouped
from model.runs.best import Best
from model.runs.state import CheckpointState
from model.step import DROPOUT, StepResult, divide_gradients
from model.tasks.data import TaskBatch, TaskData, joined
from model.tasks.heads import TaskModel

BETAS, EPSILON = (0.9, 0.999), 1e-6
"""AdamW's hyperparameters in BERT's fine-tuning."""
RELATED_ITEMS = 256
"""Items whose losses are computed together in an evaluation, if they depend on each other."""
LARGEST_RATE = 1e-3
"""Largest learning rate that is chosen by width."""


@dataclass(frozen=True, kw_only=True)
class FinetuneState(CheckpointState):
    """The state of a fine-tuning run."""

    FORMAT = "bertloom-finetuning"
    best: Best
    settings: dict[str, Any]
    """Settings that decide the numbers, with digests of model and data."""
    best_files: dict[str, str] = field(default_factory=dict)
    """sha256 of each file of the best model so far. Empty in checkpoints of earlier versions."""


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
    ranks: Ranks = ALONE,
) -> StepResult:
    """Update the weights once, with the gradient of a global batch summed over its micro-batches.

    The update is skipped if the loss or the gradient is not finite. `copy` and `loss_scale` are those of
    `model.step.train_step`.

    Args:
        batches: all micro-batches of the step. Each rank computes some of them, and they have the same dropout on any rank.
    """
    computing = computing_model(model, copy)
    computing.train()
    optimizer.zero_grad(set_to_none=True)
    passes = Passes(computing, batches, next(model.parameters()).device, seed, step, loss_scale or 1.0, ranks)
    gradients = GradientSum(ranks, model, computing)
    is_whole = computing.relates_items and len(batches) > 1
    loss = backward_together(passes, gradients) if is_whole else backward_apart(passes, gradients)
    gradients.finish()
    ranks.sum_tensor(loss)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    divide_gradients(parameters, loss_scale)
    gradient_norm = torch.nn.utils.clip_grad_norm_(parameters, max_gradient_norm)
    result = StepResult(loss=float(loss), gradient_norm=float(gradient_norm))
    if result.is_finite:
        set_learning_rate(optimizer, learning_rate)
        optimizer.step()
        if copy:
            copy.update()
    return result


class Passes:
    """The forward passes of a rank in one step."""

    def __init__(
        self,
        model: TaskModel,
        batches: Sequence[TaskBatch],
        device: torch.device,
        seed: int,
        step: int,
        scale: float,
        ranks: Ranks,
    ) -> None:
        self.model, self.batches, self.device, self.scale, self.ranks = model, batches, device, scale, ranks
        self._seed, self._step = seed, step
        self.own = sorted(ranks.divide([sum(batch.lengths) for batch in batches])[ranks.rank])
        """Numbers of the micro-batches of this rank."""
        total = sum(float(batch.weights.double().sum()) for batch in batches)
        self.weight = max(total, 1e-12)  # the windows may have no word
        """Weight of all targets."""

    def logits(self, number: int, batch: TaskBatch) -> Tensor:
        """Return the logits of a micro-batch. Its dropout is the same in every call."""
        torch.manual_seed(fold_int(self._seed, DROPOUT, self._step, number) >> 1)
        return self.model(batch)

    def loss(self, logits: Tensor, batch: TaskBatch) -> Tensor:
        """Return the part of these targets in the mean loss of the global batch."""
        return (self.model.losses(logits, batch) * batch.weights).sum() / self.weight


def backward_apart(passes: Passes, gradients: GradientSum) -> Tensor:
    """Add the gradients of one micro-batch after the other, and return this rank's part of the loss."""
    total = torch.zeros((), dtype=torch.float64, device=passes.device)
    for number in passes.own:
        batch = passes.batches[number].to(passes.device)
        loss = passes.loss(passes.logits(number, batch), batch)
        with gradients.overlapping(is_last=number == passes.own[-1]):
            (loss * passes.scale).backward()
        total += loss.detach().double()
    return total


def backward_together(passes: Passes, gradients: GradientSum) -> Tensor:
    """Add the gradients of a loss that relates all items of the global batch (GradCache, Gao et al. 2021).

    The vectors of all micro-batches are computed without a graph, then the gradient of the loss with respect to them. A
    second forward and a backward pass over each micro-batch, with the same dropout, give the gradients of the weights.
    Memory holds one micro-batch and all vectors. All ranks know all vectors and compute the same loss. Each rank computes
    gradients for its own texts.
    The loss is returned on rank 0, and 0 on the others.
    """
    width = passes.model.config.shape.hidden_size
    counts = [len(batch.lengths) for batch in passes.batches]
    vectors = torch.zeros(sum(counts), width, device=passes.device)
    parts = vectors.split(counts)
    with torch.no_grad():
        for number in passes.own:
            parts[number].copy_(passes.logits(number, passes.batches[number].to(passes.device)))
    passes.ranks.sum_tensor(vectors)  # the vectors of other ranks are zeros here: the sum is exact
    loss = passes.loss(vectors.requires_grad_(), joined(passes.batches).to(passes.device))
    (gradient,) = torch.autograd.grad(loss * passes.scale, vectors)
    parts = gradient.split(counts)
    for number in passes.own:
        logits = passes.logits(number, passes.batches[number].to(passes.device))
        with gradients.overlapping(is_last=number == passes.own[-1]):
            logits.backward(parts[number])
    return loss.detach().double() * passes.ranks.is_first


@torch.inference_mode()
def predict_all(model: TaskModel, data: TaskData, batch_size: int) -> tuple[np.ndarray, float | None]:
    """Return the logits of all items, in their order, and the weighted mean of their losses; None if nothing has a weight.

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
            if not model.relates_items:
                loss += float((model.losses(logits, batch) * batch.weights).double().sum())
            logits_of_items.append(logits.cpu().numpy())
    found = np.concatenate(logits_of_items)
    for start in range(0, data.num_items if model.relates_items else 0, RELATED_ITEMS):
        items = np.arange(start, min(start + RELATED_ITEMS, data.num_items))
        logits = torch.from_numpy(found[data.item_starts[items[0]] : data.item_starts[items[-1] + 1]])
        batch = data.batch(items)
        loss += float((model.losses(logits, batch) * batch.weights).double().sum())
    weight = float(data.weights.sum(dtype=np.float64))
    return found, loss / weight if weight else None
