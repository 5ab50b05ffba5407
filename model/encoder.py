"""The interface of an encoder: all that heads, trainer, checkpoints, export and fine-tuning know of one.

An encoder turns packed tokens into one vector per token. Its blocks are listed from the embeddings upward, which is
what layer-wise learning-rate decay, freezing and recomputation need. `model/encoders.py` lists the encoders by name;
`model/bert.py` is one of them.

Dimensions in the comments:
    T  real tokens in the batch     N  sequences     S  tokens of a sequence     C  hidden_size     V  vocab_size
"""

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from model.attention import flash_obstacle
from model.normalization import LayerNorm, TokenBatchNorm
from model.packing import PackedSequences
from model.shape import EncoderConfig


class Pooler(nn.Module):
    """Dense, tanh and dropout: BERT's step from the vector of a sequence to a classifier."""

    def __init__(self, size: int, dropout: float) -> None:
        super().__init__()
        self.dense = nn.Linear(size, size)
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden: Tensor) -> Tensor:
        """Return (N, C) from (N, C)."""
        return self.dropout(torch.tanh(self.dense(hidden)))


class Encoder(nn.Module, ABC):
    """An encoder; the modules in `blocks` hold its matrices."""

    embeddings: nn.Module
    """It has the word embeddings, `word_embeddings`."""
    layers: nn.ModuleList
    """From the lowest up. Those that have `before_attention` and `window` show where their attention goes; see
    `model/inference/attention_weights.py`."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.recompute_activations = False
        """Whether the backward pass computes each block again instead of keeping its activations."""
        self.gathered_dtype: torch.dtype | None = None
        """Type of the weights in a pass, if the model is sharded and gathers them in 16 bits."""

    @abstractmethod
    def forward(self, batch: PackedSequences) -> Tensor:
        """Return the last hidden states (T, C) of packed sequences, each at most max_position_embeddings long."""

    @property
    def blocks(self) -> list[nn.Module]:
        """The embeddings, then the layers from the lowest up."""
        return [self.embeddings, *self.layers]

    @property
    def word_embeddings(self) -> Tensor:
        """The weight (V, C) of the word embeddings, which the decoder of masked words shares."""
        embedding = self.embeddings.word_embeddings
        assert isinstance(embedding, nn.Embedding)
        return embedding.weight

    @abstractmethod
    def forward_flops(self, lengths: np.ndarray) -> int:
        """Return the floating-point operations of the matrix products of one forward pass over sequences of these lengths.

        `num_seen` (`model/attention.py`) counts the pairs of tokens that attention compares.

        lengths: int64 (N,), tokens of each sequence.
        """

    def build_norm(self) -> nn.Module:
        """Return a new normalisation of (…, C) as this encoder has it, for a head on top."""
        return LayerNorm(self.config.shape.hidden_size)

    @property
    def has_biases(self) -> bool:
        """Whether the dense layer of the head for masked words has a bias."""
        return True

    def build_sequence_head(self) -> nn.Module:
        """Return a new module from the vectors of sequences (N, C) to the input of a classifier (N, C)."""
        return Pooler(self.config.shape.hidden_size, self.config.shape.head_dropout)

    def build_token_head(self) -> nn.Module:
        """Return a new module from the vectors of words (U, C) to the input of a classifier (U, C)."""
        return nn.Dropout(self.config.shape.head_dropout)

    def build_span_head(self) -> nn.Module:
        """Return a new module from the vectors of tokens (T, C) to the input of a classifier of first and last tokens."""
        return nn.Identity()

    @property
    def is_static(self) -> bool:
        """Whether two batches of the same sizes run the same kernels, wherever their sequences begin."""
        return False

    @property
    def uses_flash(self) -> bool:
        """Whether `attention` takes FlashAttention, which is one operator whatever the sequences are."""
        weight, shape = self.word_embeddings, self.config.shape
        dtype, dropout = self.gathered_dtype or weight.dtype, shape.attention_dropout_prob
        return flash_obstacle(weight.device, dtype, shape.head_size, dropout) is None

    def regions(self) -> list[tuple[nn.Module, str]]:
        """Return the modules and methods that torch.compile may fuse; the first argument of each has T rows."""
        return []

    def forward_padded(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        """Return the last hidden states (N, S, C) of padded sequences, from three int64 (N, S); for ONNX."""
        raise ValueError(f"{type(self).__name__} has no form on padded batches, so it cannot be written as ONNX")

    @property
    def needs_whole_batches(self) -> bool:
        """Whether results depend on all tokens of a batch together: it must not be cut into parts, nor be padded."""
        return any(isinstance(module, TokenBatchNorm) for module in self.modules())

    def run_block(self, block: nn.Module, hidden: Tensor, *arguments: Any) -> Tensor:
        """Return block(hidden, *arguments); in training with `recompute_activations` its inside is not kept."""
        if self.recompute_activations and self.training:
            found = checkpoint(block, hidden, *arguments, use_reentrant=False)
        else:
            found = block(hidden, *arguments)
        assert isinstance(found, Tensor)
        return found

    def initial_deviation(self, name: str) -> float:
        """Return the standard deviation of the initial weights of a matrix of this encoder, or of a head on it, by name."""
        return self.config.shape.initializer_range

    @property
    def initial_cutoff(self) -> float:
        """Number of standard deviations at which the distribution of initial weights is cut off."""
        return 2.0

    @torch.no_grad()
    def initialize_weights(self, module: nn.Module, seed: int) -> None:
        """Draw all weights of a module from the seed: of a model with this encoder, or of heads on it.

        | parameter                        | value                                                                   |
        |----------------------------------|-------------------------------------------------------------------------|
        | weights of Linear and Embedding  | normal(0, `initial_deviation`), cut off at `initial_cutoff` deviations  |
        | weights of normalisations        | 1                                                                       |
        | every bias                       | 0                                                                       |

        As google-research/bert (`tf.truncated_normal_initializer`); transformers does not truncate BERT's. Call it on the
        CPU, before the model moves to its device: the numbers are then the same wherever it trains.
        """
        generator = torch.Generator().manual_seed(seed)
        for name, child in module.named_modules():
            if isinstance(child, (nn.Linear, nn.Embedding)):
                deviation = self.initial_deviation(name)
                bound = self.initial_cutoff * deviation
                nn.init.trunc_normal_(child.weight, std=deviation, a=-bound, b=bound, generator=generator)
            elif isinstance(weight := getattr(child, "weight", None), nn.Parameter):
                nn.init.ones_(weight)
        for name, parameter in module.named_parameters():
            if name.rpartition(".")[2] == "bias":
                nn.init.zeros_(parameter)
