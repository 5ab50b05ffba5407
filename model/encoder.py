"""The interface of an encoder: all that heads, trainer, checkpoints, export and fine-tuning know of one.

An encoder turns packed tokens into one vector per token. Its blocks are listed from the embeddings upward, which is
what layer-wise learning-rate decay, freezing and recomputation need. `model/encoders.py` lists the encoders by name;
`model/bert.py` is one of them.

Dimensions in the comments:
    T  real tokens in the batch     N  sequences     S  tokens of a sequence     C  hidden_size     V  vocab_size
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from model.normalization import TokenBatchNorm
from model.packing import PackedSequences


class Shape(Protocol):
    """The fields that the frozen dataclass of every encoder's shape has. Names are Hugging Face's."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def hidden_size(self) -> int:
        """Width of a token's vector."""

    @property
    def num_hidden_layers(self) -> int:
        """Number of layers."""

    @property
    def num_attention_heads(self) -> int:
        """Number of attention heads in a layer."""

    @property
    def intermediate_size(self) -> int:
        """Width of the feed-forward block."""

    @property
    def max_position_embeddings(self) -> int:
        """Length of the longest sequence that the model can read, in tokens."""

    @property
    def type_vocab_size(self) -> int:
        """Number of token types. A model with fewer than two cannot tell segment A from segment B."""

    @property
    def hidden_dropout_prob(self) -> float:
        """Dropout of hidden states."""

    @property
    def attention_probs_dropout_prob(self) -> float:
        """Dropout of attention weights."""

    @property
    def initializer_range(self) -> float:
        """Standard deviation of the initial weights."""


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """All that is needed to build an encoder: a shape, and the size of the vocabulary, which comes from the data set."""

    shape: Shape
    """The shape; its class decides which encoder is built."""
    vocab_size: int
    """Number of words in vocab.txt."""

    def __post_init__(self) -> None:
        if self.vocab_size < 1:
            raise ValueError(f"vocab_size={self.vocab_size} must be at least 1")

    def values(self) -> dict[str, Any]:
        """Return shape and vocabulary size as one flat table, as checkpoints and config.json store them."""
        return asdict(self.shape) | {"vocab_size": self.vocab_size}


@dataclass(frozen=True, kw_only=True)
class HuggingFaceNames:
    """How transformers names an encoder's classes, tensors and configuration.

    In tables of tensors our name maps to theirs. A name without `.weight` or `.bias` at its end means both, and {} is
    the number of the layer.
    """

    model_type: str
    """`model_type` in config.json."""
    prefix: str
    """First part of their class names: "Bert" of BertModel and BertForMaskedLM."""
    base: str
    """Name of the encoder within their models with heads: "bert" of `bert.embeddings…`."""
    encoder: Mapping[str, str]
    """Tensors of the encoder that have one name."""
    fused: Mapping[str, Sequence[str]]
    """Tensors of the encoder that are several of theirs, one after the other."""
    heads: Mapping[str, Mapping[str, str]]
    """Tensors of the heads, by form: the second part of their class names, such as "ForMaskedLM"."""
    word_embeddings: str
    """Their name for the word embeddings."""
    decoder: str
    """Their name for the weight of the decoder, which is the word embeddings."""
    copies: tuple[str, ...]
    """Ends of the names of tensors that hold nothing of their own."""
    configuration: Mapping[str, Any]
    """Entries of config.json that are the same for every model of ours."""
    readable: Mapping[str, tuple[Any, ...]]
    """Values of their configuration with which a model is like ours; the first is the usual one."""
    not_theirs: tuple[str, ...] = ()
    """Fields of our shape that their configuration has no entry for."""


class Encoder(nn.Module, ABC):
    """An encoder; the modules in `blocks` hold its parameters."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.recompute_activations = False
        """Whether the backward pass computes each block again instead of keeping its activations."""

    @abstractmethod
    def forward(self, batch: PackedSequences) -> Tensor:
        """Return the last hidden states (T, C) of packed sequences, each at most max_position_embeddings long."""

    @property
    @abstractmethod
    def blocks(self) -> Sequence[nn.Module]:
        """The embeddings, then the layers from the lowest up."""

    @property
    @abstractmethod
    def word_embeddings(self) -> Tensor:
        """The weight (V, C) of the word embeddings, which the decoder of masked words shares."""

    @abstractmethod
    def forward_flops(self, num_tokens: int, num_squared: int) -> int:
        """Return the floating-point operations of the matrix products of one forward pass.

        Args:
            num_tokens: real tokens.
            num_squared: sum of the squares of the sequences' lengths, which attention depends on.
        """

    def build_norm(self) -> nn.Module:
        """Return a new normalisation of (…, C) as this encoder has it, for a head on top."""
        return nn.LayerNorm(self.config.shape.hidden_size)

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


@torch.no_grad()
def initialize_weights(module: nn.Module, initializer_range: float, seed: int) -> None:
    """Draw all weights of `module` from `seed`.

    | parameter                        | value                                                             |
    |----------------------------------|-------------------------------------------------------------------|
    | weights of Linear and Embedding  | normal(0, initializer_range), cut off at two standard deviations  |
    | weights of normalisations        | 1                                                                 |
    | every bias                       | 0                                                                 |

    As google-research/bert (`tf.truncated_normal_initializer`); transformers does not truncate. Call it on the CPU,
    before the model moves to its device: the numbers are then the same wherever it trains.
    """
    generator = torch.Generator().manual_seed(seed)
    for child in module.modules():
        if isinstance(child, (nn.Linear, nn.Embedding)):
            bound = 2 * initializer_range
            nn.init.trunc_normal_(child.weight, std=initializer_range, a=-bound, b=bound, generator=generator)
        elif isinstance(weight := getattr(child, "weight", None), nn.Parameter):
            nn.init.ones_(weight)
    for name, parameter in module.named_parameters():
        if name.rpartition(".")[2] == "bias":
            nn.init.zeros_(parameter)
