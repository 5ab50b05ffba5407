"""One pretraining step, and evaluation on held-out examples.

A step is a function of the weights, the moments, the global batch and (seed, step). Dropout is seeded in every
micro-batch, so a checkpoint needs no random state.
"""

import logging
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from bertloom.counts import counted
from bertloom.draws import fold_int
from model.batch import PackedBatch
from model.cuda_graphs import StepGraphs
from model.devices import check_precision
from model.distributed import ALONE, Ranks
from model.gradient_sum import GradientSum
from model.heads import PretrainingModel
from model.loading.batches import GlobalBatch
from model.mixed_precision import ComputeCopy, computing_model
from model.optimizer import set_learning_rate
from model.shape import Shape
from model.sharding import Sharding, is_sharded, norms, own_parts

DROPOUT = 1001
"""Purpose of the dropout draws. It is not one of docs/shard-format.md, because no data set depends on it."""

logger = logging.getLogger("bertloom")


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """Loss and gradient of a step, before its update."""

    loss: float
    """The loss that is minimized, in nats for classification."""
    gradient_norm: float
    """Norm of the gradient before clipping."""

    @property
    def is_finite(self) -> bool:
        """Whether loss and gradient are finite."""
        return math.isfinite(self.loss) and math.isfinite(self.gradient_norm)

    def is_overflow(self, loss_scale: float | None) -> bool:
        """Whether the gradient is not finite only because of the loss scale, which a smaller one may correct."""
        return loss_scale is not None and loss_scale > 1 and math.isfinite(self.loss) and not self.is_finite


@dataclass(frozen=True, kw_only=True)
class PretrainingResult(StepResult):
    """Losses, accuracies and gradient of a pretraining step; `loss` is mlm_loss + nsp_loss."""

    mlm_loss: float
    """Mean cross-entropy over masked positions, in nats."""
    mlm_accuracy: float
    """Share of masked positions whose most likely token is the original one."""
    nsp_loss: float
    """Mean cross-entropy over pairs, in nats; 0 without pairs."""
    nsp_accuracy: float
    """Share of pairs whose label was predicted."""
    loss_by_source: Mapping[str, float] = field(default_factory=dict)
    """MLM loss by the name of a mixture's data set, of those with masked positions in the step; empty with one data set."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Losses and accuracies on held-out examples, as in `PretrainingResult`."""

    mlm_loss: float
    mlm_accuracy: float
    nsp_loss: float
    nsp_accuracy: float
    num_examples: int
    """Number of examples."""
    num_masked: int
    """Number of masked positions in them."""
    num_pairs: int
    """Number of examples that are pairs."""


def choose_device(name: str) -> torch.device:
    """Return the device with this name; "auto" is cuda if available, otherwise cpu.

    Raises:
        ValueError: there is no device of that name, or this machine does not have it.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if not re.fullmatch(r"cpu|mps|cuda(:\d{1,3})?", name):
        raise ValueError(f"device={name!r}: expected auto, cpu, cuda, cuda:N for the GPU of number N, or mps")
    kind, _, number = name.partition(":")
    if kind == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            f"device={name}, but torch finds no CUDA device: use --device cpu, or install a CUDA build of torch"
        )
    if number and int(number) >= torch.cuda.device_count():
        raise ValueError(
            f"device={name}, but torch finds {counted(torch.cuda.device_count(), 'CUDA device')}: expected cuda:N with "
            f"N below {torch.cuda.device_count()}"
        )
    if kind == "mps" and not torch.backends.mps.is_available():
        raise ValueError(f"device={name}, but this machine has no GPU of Apple: use --device cpu")
    return torch.device(name)


def choose_precision(
    name: str,
    device: torch.device,
    shape: Shape,
    attention_dropout: float = 0.0,
    warn: Callable[[str], None] = logger.warning,
) -> str:
    """Return fp32, bf16 or fp16; auto is bf16 on CUDA devices that have it, fp16 on older ones, and fp32 elsewhere.

    Args:
        shape: shape of the model that will compute in it.
        attention_dropout: its dropout of attention weights, in training.
        warn: takes warnings about what is slow on this machine.

    Raises:
        ValueError: the device does not have the precision.
    """
    precision = name
    if name == "auto" and device.type != "cuda":
        precision = "fp32"
    elif name == "auto":
        precision = "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp16"
    if warning := check_precision(precision, device, shape, attention_dropout):
        warn(warning)
    return precision


def train_step(
    model: PretrainingModel,
    optimizer: torch.optim.Optimizer,
    batch: GlobalBatch,
    *,
    learning_rate: float,
    max_gradient_norm: float,
    seed: int,
    step: int,
    copy: ComputeCopy[PretrainingModel] | None = None,
    graphs: StepGraphs | None = None,
    ranks: Ranks = ALONE,
    highest_loss: float = math.inf,
    loss_scale: float | None = None,
    sharding: Sharding | None = None,
) -> PretrainingResult:
    """Update the weights once, with the gradient of a global batch summed over micro-batches and ranks.

    The update is skipped, and weights and moments stay unchanged, if the loss or the gradient is not finite or the loss
    is above `highest_loss`.

    Args:
        copy: computes in 16 bits; without one the model itself computes, in 32 bits.
        graphs: run padded micro-batches as CUDA graphs.
        loss_scale: factor of the loss in the backward pass, for fp16. The gradient is divided by it.
        sharding: of the model, if it is sharded.
    """
    device = next(model.parameters()).device
    computing = computing_model(model, copy)
    computing.train()
    optimizer.zero_grad(set_to_none=True)
    if graphs and not graphs.begin(batch.num_pairs):
        graphs = None
    num_sources = len(batch.source_names)
    sums = torch.zeros(4 + num_sources, dtype=torch.float64, device=device)
    num_pairs = batch.num_pairs if model.trains_pairs else 0
    idle = () if num_pairs else model.nsp.parameters()
    gradients = GradientSum(ALONE if sharding else ranks, model, computing, idle)  # a sharded model sums its own
    parts = sharding.micro_batches(batch) if sharding else zip(batch.numbers, batch.micro_batches, strict=True)
    for number, part in parts:
        torch.manual_seed(fold_int(seed, DROPOUT, step, number) >> 1)
        if graphs and (shape := graphs.shape_of(part)):
            sums += graphs.run(part, shape, batch.num_masked, batch.num_pairs, loss_scale, num_sources)
            continue
        output = computing(part.to(device), max(batch.num_masked, 1), num_pairs, num_sources)
        with gradients.overlapping(is_last=[number] == batch.numbers[-1:]):
            (output.loss if loss_scale is None else output.loss * loss_scale).backward()
        sums += output.metrics()
    gradients.finish()
    ranks.sum_tensor(sums)
    divide_gradients(model.parameters(), loss_scale)
    gradient_norm = clip_gradients(model.parameters(), max_gradient_norm)
    totals = sums.tolist()  # a GPU sync: the update depends on it
    means = mean_metrics(totals, batch.num_masked, batch.num_pairs)
    result = PretrainingResult(
        loss=means["mlm_loss"] + means["nsp_loss"],
        gradient_norm=float(gradient_norm),
        loss_by_source=means_by_source(totals[4:], batch),
        **means,
    )
    if result.is_finite and result.loss <= highest_loss:
        set_learning_rate(optimizer, learning_rate)
        optimizer.step()
        if copy:
            copy.update()
    return result


def divide_gradients(parameters: Iterable[torch.nn.Parameter], loss_scale: float | None) -> None:
    """Divide the gradients by the loss scale, if there is one."""
    if loss_scale is not None:
        torch._foreach_div_(own_parts(p.grad for p in parameters if p.grad is not None), loss_scale)


def clip_gradients(parameters: Iterable[torch.nn.Parameter], max_norm: float) -> Tensor:
    """Scale the gradients so that the norm of all together is at most `max_norm`, and return the norm before that.

    As torch.nn.utils.clip_grad_norm_, and also for sharded gradients.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    parts = own_parts(gradients)
    norm: Tensor = torch.linalg.vector_norm(norms(parts, is_sharded(gradients[0])))
    torch._foreach_mul_(parts, (max_norm / (norm + 1e-6)).clamp(max=1))
    return norm


def mean_metrics(sums: Sequence[float], num_masked: int, num_pairs: int) -> dict[str, float]:
    """Return the means of PretrainingOutput's first four sums, which are in its order."""
    mlm_loss, mlm_correct, nsp_loss, nsp_correct = sums[:4]
    return {
        "mlm_loss": mlm_loss / max(num_masked, 1),
        "mlm_accuracy": mlm_correct / max(num_masked, 1),
        "nsp_loss": nsp_loss / max(num_pairs, 1),
        "nsp_accuracy": nsp_correct / max(num_pairs, 1),
    }


def means_by_source(sums: Sequence[float], batch: GlobalBatch) -> dict[str, float]:
    """Return the mean of each source by its name, of those with masked positions in the global batch."""
    numbers = zip(batch.source_names, sums, batch.masked_by_source, strict=True)
    return {name: total / number for name, total, number in numbers if number}


@torch.no_grad()
def evaluate(
    model: PretrainingModel,
    batches: Iterable[PackedBatch],
    *,
    ranks: Ranks = ALONE,
    sharding: Sharding | None = None,
) -> Evaluation:
    """Return the losses and accuracies over the batches of all ranks; every masked token and every pair counts once."""
    device = next(model.parameters()).device
    model.eval()
    sums = torch.zeros(4, dtype=torch.float64, device=device)
    num_masked = num_pairs = num_examples = 0
    for batch in sharding.batches(batches) if sharding else batches:
        pairs = int((batch.next_sentence_label >= 0).sum())
        output = model(batch.to(device), 1, pairs)
        sums += output.metrics()
        num_masked += len(batch.masked_ids)
        num_pairs += pairs
        num_examples += len(batch.rows)
    ranks.sum_tensor(sums)
    num_masked, num_pairs, num_examples = map(int, ranks.sum_numbers([num_masked, num_pairs, num_examples]))
    means = mean_metrics(sums.tolist(), num_masked, num_pairs)
    return Evaluation(num_examples=num_examples, num_masked=num_masked, num_pairs=num_pairs, **means)


def joined(evaluations: Sequence[Evaluation]) -> Evaluation:
    """Return the evaluation on the examples of all of these."""
    if len(evaluations) == 1:
        return evaluations[0]
    num_masked, num_pairs = (sum(getattr(each, name) for each in evaluations) for name in ("num_masked", "num_pairs"))
    weights = {"mlm": "num_masked", "nsp": "num_pairs"}
    sums = [
        sum(getattr(each, name) * getattr(each, weights[name[:3]]) for each in evaluations)
        for name in ("mlm_loss", "mlm_accuracy", "nsp_loss", "nsp_accuracy")
    ]
    num_examples = sum(each.num_examples for each in evaluations)
    means = mean_metrics(sums, num_masked, num_pairs)
    return Evaluation(num_examples=num_examples, num_masked=num_masked, num_pairs=num_pairs, **means)
