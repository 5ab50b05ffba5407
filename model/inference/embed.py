"""Vectors of whole texts.

Dimensions in the comments: N sequences, C hidden_size.
"""

import os
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from model.encoders import build_encoder
from model.hub.pretrained import Pretrained, open_pretrained
from model.hub.weights import from_hugging_face, load_weights
from model.mixed_precision import in_precision
from model.packing import MAX_TOKENS, grouped, pack_texts, pooled
from model.pooling import Pooling
from model.step import choose_device, choose_precision


class Embedder:
    """A pretrained or fine-tuned model that turns texts into vectors."""

    def __init__(
        self,
        pretrained: Pretrained,
        pooling: Pooling | None = None,
        max_seq_length: int | None = None,
        device: str = "auto",
        normalize: bool | None = None,
        precision: str = "auto",
    ) -> None:
        """
        Args:
            pooling: mean is the mean over all tokens including [CLS] and [SEP]; cls is the vector of [CLS]. None: that of
                the model if it was trained for vectors, or else mean.
            max_seq_length: tokens of a text that are read, including these two; None: as many as in its training.
            normalize: divide each vector by its length. None: if the model was trained so.
            precision: see `choose_precision`.
            device: cpu, cuda, cuda:1, … auto is cuda if available, otherwise cpu.

        Raises:
            ValueError: max_seq_length is above the number of the model's positions.
        """
        self.tokenizer = pretrained.tokenizer
        form = pretrained.vectors
        self.pooling: Pooling = pooling or (form.pooling if form else "mean")
        self.normalize = bool(form and form.normalize) if normalize is None else normalize
        self.max_seq_length = max_seq_length or pretrained.max_seq_length
        longest = pretrained.config.shape.max_position_embeddings
        if self.max_seq_length > longest:
            raise ValueError(
                f"max_seq_length={self.max_seq_length} is above the {longest} positions of {pretrained.path}: give less"
            )
        self.encoder = build_encoder(pretrained.config)
        state = from_hugging_face(pretrained.weights, pretrained.config, None)
        load_weights(nn.ModuleDict({"encoder": self.encoder}), state, str(pretrained.path))
        self.device = choose_device(device)
        chosen = choose_precision(precision, self.device, pretrained.config.shape)
        in_precision(self.encoder.to(self.device).eval(), chosen)

    @torch.inference_mode()
    def embed(self, texts: Sequence[str]) -> tuple[np.ndarray, int]:
        """Return the vectors, float32 (texts, C), and the number of texts that were too long and lost their end."""
        room = self.max_seq_length - 2
        ids = self.tokenizer.ids(texts)
        sequences = [np.concatenate([[self.tokenizer.cls_id], part[:room], [self.tokenizer.sep_id]]) for part in ids]
        vectors = []
        for group in grouped(sequences, len, MAX_TOKENS):
            batch = pack_texts(group).to(self.device)
            found = pooled(self.encoder(batch).float(), batch, self.pooling)
            vectors.append((F.normalize(found, dim=1) if self.normalize else found).cpu().numpy())  # (N, C)
        return np.concatenate(vectors), sum(len(part) > room for part in ids)


def embed(
    path: str | os.PathLike[str],
    texts: Sequence[str],
    pooling: Pooling | None = None,
    max_seq_length: int | None = None,
    device: str = "auto",
    normalize: bool | None = None,
) -> np.ndarray:
    """Return the vectors of texts, float32 (texts, C). Texts that are too long lose their end.

    >>> vectors = bertloom.embed("run", ["a text", "another"])  # doctest: +SKIP

    Args:
        path: a run, or a directory in transformers' format.
        pooling, max_seq_length, device, normalize: see `Embedder`.
    """
    vectors, _ = Embedder(open_pretrained(path), pooling, max_seq_length, device, normalize).embed(texts)
    return vectors
