"""ONNX export of a pretrained model, on padded batches with transformers' inputs.

Dimensions in the comments:
    N  sequences    S  their length, with padding    C  hidden_size    V  vocab_size
"""

import logging
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from bertloom.extras import needed_by
from model.heads import PretrainingModel

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
OUTPUTS = ("last_hidden_state", "prediction_logits", "seq_relationship_logits")
CLOSE = 1e-3
"""Largest accepted difference between torch and onnxruntime, absolute and relative."""


class PaddedModel(nn.Module):
    """The encoder and both heads."""

    def __init__(self, model: PretrainingModel) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return hidden states (N, S, C), logits of words (N, S, V) and of pairs (N, 2), from three int64 (N, S)."""
        hidden = self.model.encoder.forward_padded(input_ids, attention_mask, token_type_ids)
        words = self.model.mlm(hidden, self.model.encoder.word_embeddings)
        return hidden, words, self.model.nsp(hidden[:, 0])


def write_onnx(model: PretrainingModel, path: Path) -> None:
    """Write model.onnx with torch's exporter, for batches of any size and length.

    Raises:
        ValueError: the extra `onnx` is not installed, or onnxruntime computes other numbers than torch.
    """
    with needed_by("--onnx"):
        import onnxruntime
        import onnxscript  # noqa: F401  (torch's exporter needs it)
    padded = PaddedModel(model).eval()
    sizes = {
        0: torch.export.Dim("batch"),
        1: torch.export.Dim("length", min=2, max=model.config.shape.max_position_embeddings),
    }
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it warns that torchvision is missing
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns about itself
        torch.onnx.export(
            padded,
            some_batch(model, 3, 8),
            str(path),
            input_names=INPUTS,
            output_names=OUTPUTS,
            dynamo=True,
            dynamic_shapes=dict.fromkeys(INPUTS, sizes),
            external_data=False,
            verbose=False,
        )
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for num_rows, length in ((1, 5), (4, min(33, model.config.shape.max_position_embeddings))):
        batch = some_batch(model, num_rows, length)
        with torch.no_grad():
            expected = padded(*batch)
        found = session.run(OUTPUTS, {name: tensor.numpy() for name, tensor in zip(INPUTS, batch)})
        for name, ours, theirs in zip(OUTPUTS, expected, found):
            if not np.allclose(ours.numpy(), theirs, atol=CLOSE, rtol=CLOSE):
                most = np.abs(ours.numpy() - theirs).max()
                raise ValueError(f"{path}: {name} of onnxruntime is off by {most:g}: no directory is written")


def some_batch(model: PretrainingModel, num_rows: int, length: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return a padded batch of two segments, to trace and compare the graph with."""
    generator = torch.Generator().manual_seed(num_rows)
    ids = torch.randint(model.config.vocab_size, (num_rows, length), generator=generator)
    mask = (torch.arange(length)[None] < length - torch.arange(num_rows)[:, None] % (length - 1)).long()
    types = (torch.arange(length) >= length // 2).long() * model.config.shape.reads_pairs
    return ids, mask, types.expand(num_rows, length).contiguous()
