"""A small model with random weights, for tests."""

from pathlib import Path

import torch

from model.bert_config import BertShape
from model.heads import PretrainingModel
from model.runs.checkpoint import CheckpointState, snapshot, write_checkpoint
from model.shape import EncoderConfig

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}


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


def save_checkpoint(
    folder: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer, state: CheckpointState, keep: int
) -> Path:
    """Write a checkpoint and wait for it."""
    return write_checkpoint(folder, *snapshot(model, optimizer), state, keep)
