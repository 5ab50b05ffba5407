"""The trainer's step with some of its levers off. The trainer has no options for them, so its parts are replaced here."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cache, partial
from unittest.mock import patch

import torch
import torch.nn.functional as F
from presets import config_of, new_model
from torch import Tensor, nn

from benchmarks.gpu.cases import Levers
from model import heads
from model.batch import StaticShape
from model.compiling import compile_model
from model.cuda_graphs import StepGraphs
from model.heads import PretrainingModel
from model.loading.batches import GlobalBatch
from model.mixed_precision import ComputeCopy, compute_copy
from model.optimizer import build_optimizer
from model.step import PretrainingResult, train_step

SEED = 1
TINY = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128}
"""The shape of all models in a rehearsal."""


def build_model(preset: str, vocab_size: int, is_tiny: bool = False) -> PretrainingModel:
    """Return a model of a preset's shape, or a tiny one, with the initial weights of the trainer."""
    return deepcopy(first_model(preset, vocab_size, is_tiny))


@cache
def first_model(preset: str, vocab_size: int, is_tiny: bool) -> PretrainingModel:
    """Return a model with initial weights, always the same object: to draw the weights of `large` takes seconds."""
    return new_model(config_of(preset, vocab_size, **TINY if is_tiny else {}), SEED)


@dataclass(kw_only=True)
class Updates:
    """A model and all that its updates need."""

    model: PretrainingModel
    optimizer: torch.optim.Optimizer
    copy: ComputeCopy[PretrainingModel] | None
    graphs: StepGraphs | None
    learning_rate: float

    def run(self, batch: GlobalBatch, step: int) -> PretrainingResult:
        """Make the update of this number, counted from 0."""
        return train_step(
            self.model,
            self.optimizer,
            batch,
            learning_rate=self.learning_rate,
            max_gradient_norm=1.0,
            seed=SEED,
            step=step,
            copy=self.copy,
            graphs=self.graphs,
        )


def build_updates(
    model: PretrainingModel,
    precision: str,
    *,
    levers: Levers,
    shapes: Sequence[StaticShape],
    optimizer: str = "adamw",
    learning_rate: float = 1e-4,
) -> Updates:
    """Return the updates of a model, which is on its device.

    Args:
        shapes: to which batches are padded; torch.compile and CUDA graphs need them.
    """
    copy, computing = None, model
    multiple = heads.VOCABULARY_MULTIPLE if levers.padded_vocabulary else 1
    with patch.object(heads, "VOCABULARY_MULTIPLE", multiple):
        if levers.compute_copy:
            built = build_optimizer(model, 0.01, optimizer)
            copy = compute_copy(model, precision)
            computing = copy.model if copy else model
        else:
            model.pad_vocabulary()
            built = build_optimizer(model, 0.01, optimizer)
            autocast = torch.autocast(next(model.parameters()).device.type, torch.bfloat16)
            model.forward = autocast(model.forward)  # type: ignore[method-assign]  # backward is to run outside it
    if not levers.loss_chunks:
        computing.word_losses = partial(full_losses, computing)  # type: ignore[method-assign]
    graphs = StepGraphs(computing, model, shapes) if levers.cuda_graphs else None
    if levers.compiled:
        choose_regions(computing, levers.whole_layers)
        compile_model(computing, shapes)
    return Updates(model=model, optimizer=built, copy=copy, graphs=graphs, learning_rate=learning_rate)


def full_losses(model: PretrainingModel, hidden: Tensor, masked_ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return what `PretrainingModel.word_losses` does, from all logits (M, V) together."""
    logits = model.mlm(hidden, model.encoder.word_embeddings)
    losses = F.cross_entropy(logits.float(), masked_ids, reduction="none")
    return losses.sum(), (logits.argmax(-1) == masked_ids).sum(), losses.detach()


def choose_regions(model: PretrainingModel, whole_layers: bool) -> None:
    """Let `compile_model` compile whole layers, or only what follows attention."""
    embeddings, *layers = model.encoder.blocks
    part = "forward" if whole_layers else "after_attention"
    regions: list[tuple[nn.Module, str]] = [(embeddings, "forward"), *((layer, part) for layer in layers)]
    model.encoder.regions = lambda: regions  # type: ignore[method-assign]
