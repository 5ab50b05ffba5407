"""A small model with random weights, for tests."""

from pathlib import Path

import torch

from model.bert_config import BertShape
from model.heads import PretrainingModel
from model.loading.stream import Leg
from model.runs.checkpoint import snapshot, write_checkpoint
from model.runs.progress import Progress
from model.runs.state import CheckpointState, TrainingState
from model.shape import EncoderConfig

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
LEG = Leg(step=0, max_seq_length=32, item=0, batch_size=8, seed=3, shards_digest="ab")


def small_config(vocab_size: int = 53, **changes) -> EncoderConfig:
    """Return the configuration of a small BERT."""
    return EncoderConfig(shape=BertShape(**SMALL | {"max_position_embeddings": 64} | changes), vocab_size=vocab_size)


def random_model(**changes) -> PretrainingModel:
    """A model whose biases and LayerNorms are random too, so that nothing is hidden behind a 0 or a 1."""
    model = PretrainingModel(small_config(**changes))
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(1.0 if name.endswith("norm.weight") else 0.0, 0.1, generator=generator)
    return model


def training_state(model: PretrainingModel, step: int) -> TrainingState:
    """The state of a run of this model after some steps."""
    return TrainingState(
        progress=Progress(step=step, tokens=step * 100, seconds=0.5, legs=(LEG,)),
        seed=1,
        order_version=1,
        shards_digest="ab",
        vocabulary_sha256="cd",
        model=model.config.values(),
        schedule={"num_steps": 9},
        changes=[],
    )


def save_checkpoint(
    folder: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer, state: CheckpointState, keep: int
) -> Path:
    """Write a checkpoint and wait for it."""
    return write_checkpoint(folder, *snapshot(model, optimizer), state, keep)
