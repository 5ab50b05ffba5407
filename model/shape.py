"""The configuration of an encoder, without torch: its shape, and how transformers names its parts."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, ClassVar, Self

from model.pooling import Pooling

LIMITS = {
    "hidden_size": (1, 1 << 16),
    "num_hidden_layers": (1, 1000),
    "num_attention_heads": (1, 1 << 16),
    "intermediate_size": (1, 1 << 20),
    "max_position_embeddings": (8, 1 << 20),
    "type_vocab_size": (1, 1 << 16),
    "vocab_size": (1, 1 << 24),
    "hidden_dropout_prob": (0, 1),
    "attention_probs_dropout_prob": (0, 1),
    "initializer_range": (0, 1),
    "layer_norm_eps": (0, 1),
    "norm_eps": (0, 1),
    "embedding_dropout": (0, 1),
    "attention_dropout": (0, 1),
    "mlp_dropout": (0, 1),
    "classifier_dropout": (0, 1),
    "initializer_cutoff_factor": (0.1, 1000),
    "global_attn_every_n_layers": (1, 1000),
    "local_attention": (2, 1 << 20),
    "global_rope_theta": (1, 1e12),
    "local_rope_theta": (1, 1e12),
}
"""Lowest and highest value of each number of a shape. They are generous: no published model is near the highest."""


def check_number(name: str, value: Any, kind: type) -> None:
    """Raise ValueError unless a number of a shape is of its kind and within its limits."""
    is_kind = type(value) is kind or (kind is float and type(value) is int)
    if not is_kind or not abs(value) < 1 << 63:  # also NaN
        expected = "a whole number" if kind is int else "a finite number"
        raise ValueError(f"{name}={value if isinstance(value, float) else repr(value)[:80]}: expected {expected}")
    lowest, highest = LIMITS.get(name, (-math.inf, math.inf))
    if value < lowest:
        raise ValueError(f"{name}={value} must be at least {lowest}")
    if value > highest:
        raise ValueError(f"{name}={value} must be at most {highest:,}")


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What every encoder's shape has; each encoder has its own subclass. Names and defaults are those of BERT.

    The vocabulary is not part of it: it comes from the data set.
    """

    has_token_types: ClassVar[bool] = False
    """Whether the encoder reads token types."""
    hidden_dropouts: ClassVar[tuple[str, ...]] = ()
    """Fields that are dropouts of hidden states."""
    attention_dropouts: ClassVar[tuple[str, ...]] = ()
    """Fields that are dropouts of attention weights."""
    encoder: str
    """Kind of encoder."""
    hidden_size: int = 768
    """Width of a token's vector, a multiple of num_attention_heads."""
    num_hidden_layers: int = 12
    """Number of layers."""
    num_attention_heads: int = 12
    """Number of attention heads in a layer."""
    intermediate_size: int = 3072
    """Width of the feed-forward block. BERT used 4 x hidden_size."""
    max_position_embeddings: int = 512
    """Length of the longest sequence that the model can read, in tokens."""
    initializer_range: float = 0.02
    """Standard deviation of the normal distribution of the initial weights, before truncation."""

    def __post_init__(self) -> None:
        for own in fields(self):
            if own.type in (int, float):
                check_number(own.name, getattr(self, own.name), own.type)
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size={self.hidden_size} is not a multiple of num_attention_heads={self.num_attention_heads}: "
                f"BERT uses heads of 64, which gives {max(1, self.hidden_size // 64)} here"
            )
        for name in (*self.hidden_dropouts, *self.attention_dropouts):
            if getattr(self, name) == 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 0 and below 1")

    @property
    def head_size(self) -> int:
        """Width of an attention head."""
        return self.hidden_size // self.num_attention_heads

    @property
    def reads_pairs(self) -> bool:
        """Whether the encoder can read a segment B."""
        return True

    @property
    def head_dropout(self) -> float:
        """Dropout before the classifier of a task."""
        return 0.0

    @property
    def attention_dropout_prob(self) -> float:
        """Dropout of attention weights."""
        return max((getattr(self, name) for name in self.attention_dropouts), default=0.0)

    def with_dropouts(self, hidden: float, attention: float) -> Self:
        """Return the same shape with these dropouts of hidden states and of attention weights."""
        values: dict[str, Any] = dict.fromkeys(self.hidden_dropouts, hidden)
        return replace(self, **values | dict.fromkeys(self.attention_dropouts, attention))

    @property
    def pooling(self) -> Pooling:
        """How the vector of a whole sequence is made for a classifier."""
        return "cls"

    def with_pooling(self, pooling: Pooling) -> Self:
        """Return the same shape with another pooling; ValueError if transformers' classes of the encoder do not have it."""
        if pooling != self.pooling:
            raise ValueError(
                f"pooling={pooling}: transformers' classes for this encoder ({self.encoder}) have only {self.pooling}, and "
                f"the exported model would be another one there: omit it, or take a ModernBERT"
            )
        return self

    @property
    def training_fields(self) -> tuple[str, ...]:
        """Names of the fields that only training reads. They may differ from those of a model that it continues."""
        return ("initializer_range", *self.hidden_dropouts, *self.attention_dropouts)


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """All that is needed to build an encoder: a shape, and the size of the vocabulary, which comes from the data set."""

    shape: Shape
    """The shape; its class decides which encoder is built."""
    vocab_size: int
    """Number of words that the model has vectors for: those of the vocabulary, and perhaps a few more for speed."""

    def __post_init__(self) -> None:
        check_number("vocab_size", self.vocab_size, int)

    def values(self) -> dict[str, Any]:
        """Return shape and vocabulary size as one flat table, as checkpoints store them."""
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
    """Values of their configuration that our encoder implements; the first is the usual one."""
    not_theirs: tuple[str, ...] = ()
    """Fields of our shape that their configuration has no entry for."""
    absent: tuple[str, ...] = ()
    """Our names of tensors that one layer does not have, unlike the others."""
    written_as: Mapping[str, str] = field(default_factory=dict)
    """For a form of ours that they have no class for: the form that is written instead, without the tensors it lacks."""
    token_ids: Mapping[str, str] = field(default_factory=lambda: {"pad_token_id": "pad_id"})
    """Entries of config.json that are ids of special words, and the words' names in `TextTokenizer`."""
    finetuning: Mapping[str, float] = field(default_factory=dict)
    """Dropouts in the config.json of a model that was pretrained without dropout: transformers fine-tunes with them."""
    computed: Callable[[Any], Mapping[str, Any]] = lambda shape: {}
    """Return more entries of config.json, from a shape."""
    understood: Callable[[Mapping[str, Any]], Mapping[str, Any]] = lambda configuration: configuration
    """Return a config.json with other entries under our fields' names, too; ValueError for what we do not have."""
