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
"""The inputs. An encoder without token types has the first two."""
OUTPUTS = ("last_hidden_state", "prediction_logits", "seq_relationship_logits")
"""The outputs. A model without a head for pairs has the first two."""
CLOSE = 1e-3
"""Largest accepted difference between torch and onnxruntime, absolute and relative."""


class PaddedModel(nn.Module):
    """The encoder, the head for masked words and, with `has_pairs`, that for pairs."""

    def __init__(self, model: PretrainingModel, has_pairs: bool) -> None:
        super().__init__()
        self.model = model
        self.has_pairs = has_pairs

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """Return hidden states (N, S, C), logits of words (N, S, V) and of pairs (N, 2), from int64 (N, S) each."""
        types = torch.zeros_like(input_ids) if token_type_ids is None else token_type_ids
        hidden = self.model.encoder.forward_padded(input_ids, attention_mask, types)
        words = self.model.mlm(hidden, self.model.encoder.word_embeddings)
        return (hidden, words, self.model.nsp(hidden[:, 0])) if self.has_pairs else (hidden, words)


def write_onnx(model: PretrainingModel, path: Path, has_pairs: bool) -> None:
    """Write model.onnx with torch's exporter, for batches of any size and length.

    Args:
        has_pairs: whether it gets the head for pairs.

    Raises:
        ValueError: the extra `onnx` is not installed, or onnxruntime computes other numbers than torch.
    """
    with needed_by("--onnx"):
        import onnxruntime
        import onnxscript  # noqa: F401  (torch's exporter needs it)
    padded = PaddedModel(model, has_pairs).eval()
    inputs = INPUTS if model.config.shape.has_token_types else INPUTS[:2]
    outputs = OUTPUTS if has_pairs else OUTPUTS[:2]
    sizes = {
        0: torch.export.Dim("batch"),
        1: torch.export.Dim("length", min=2, max=model.config.shape.max_position_embeddings),
    }
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it warns that torchvision is missing
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns about itself
        torch.onnx.export(
            padded,
            some_batch(model, 3, 8)[: len(inputs)],
            str(path),
            input_names=inputs,
            output_names=outputs,
            dynamo=True,
            dynamic_shapes=dict.fromkeys(inputs, sizes),
            external_data=False,
            verbose=False,
        )
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for num_rows, length in ((1, 5), (4, min(33, model.config.shape.max_position_embeddings))):
        batch = some_batch(model, num_rows, length)[: len(inputs)]
        with torch.no_grad():
            expected = padded(*batch)
        found = session.run(outputs, {name: tensor.numpy() for name, tensor in zip(inputs, batch)})
        for name, ours, theirs in zip(outputs, expected, found):
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
