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
    """A pretrained or fine-tuned model that turns texts into vectors. `bertloom.embed` opens one for a single call.

    Examples:
        >>> from model.hub.pretrained import open_pretrained
        >>> embedder = bertloom.Embedder(open_pretrained("run"))
        >>> vectors, num_cut = embedder.embed(["a text", "another"])
    """

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
            pretrained: an opened model (`model.hub.pretrained.open_pretrained`).
            pooling: mean is the mean over all tokens including [CLS] and [SEP]; cls is the vector of [CLS]. None: the
                pooling of the model if it was trained for vectors, or else mean.
            max_seq_length: tokens of a text that are read, including these two; None: as many as in its training.
            device: cpu, cuda, cuda:1, … auto is cuda if available, otherwise cpu.
            normalize: divide each vector by its length. None: if the model was trained so.
            precision: fp32, bf16 or fp16. auto is bf16 on a GPU that has it, fp16 on older ones, and fp32 on a CPU.

        Raises:
            ValueError: max_seq_length is above the number of the model's positions, or the device does not have the
                precision.
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
        """Return the vectors, float32 (texts, hidden_size), and the number of texts that lost their end."""
        room = self.max_seq_length - 2
        ids = self.tokenizer.ids(texts)
        sequences = [np.concatenate([[self.tokenizer.cls_id], part[:room], [self.tokenizer.sep_id]]) for part in ids]
        vectors = []
        for group in grouped(sequences, len, MAX_TOKENS):
            batch = pack_texts(group).to(self.device)
            found = pooled(self.encoder(batch).float(), batch, self.pooling)
            vectors.append((F.normalize(found, dim=1) if self.normalize else found).cpu().numpy())  # (N, C)
        if not vectors:
            return np.zeros((0, self.encoder.config.shape.hidden_size), np.float32), 0
        return np.concatenate(vectors), sum(len(part) > room for part in ids)


def embed(
    path: str | os.PathLike[str],
    texts: Sequence[str],
    pooling: Pooling | None = None,
    max_seq_length: int | None = None,
    device: str = "auto",
    normalize: bool | None = None,
) -> np.ndarray:
    """Return the vectors of texts, float32 (texts, hidden_size). Texts that are too long lose their end.

    The model is opened in every call. For many calls, keep an `Embedder`.

    Args:
        path: a run, one of its checkpoints, or a directory in transformers' format.
        texts: any number of texts.
        pooling: see `Embedder`, also for the other options.
        max_seq_length: tokens of a text that are read, including [CLS] and [SEP].
        device: cpu, cuda, cuda:1, … auto is cuda if available, otherwise cpu.
        normalize: divide each vector by its length.

    Raises:
        ValueError: the path has no model, or max_seq_length is above the number of the model's positions.

    Examples:
        >>> bertloom.embed("run", ["a text", "another"]).shape
        (2, 128)
    """
    vectors, _ = Embedder(open_pretrained(path), pooling, max_seq_length, device, normalize).embed(texts)
    return vectors
