"""The shape of a ModernBERT, and how transformers names its classes, tensors and configuration.

config.json is written for transformers 4 and 5, which have other names for the layers' kinds and the thetas: the fields of
our shape are those of 4, and `layer_types` and `rope_parameters` are the same for 5. Their decoder's weight is the word
embeddings, which are stored once.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Self

from bertloom.shapes import shown
from model.pooling import Pooling
from model.shape import HuggingFaceNames, Shape

GLOBAL, LOCAL = "full_attention", "sliding_attention"
"""transformers' names for the kinds of layers."""
THETAS = {GLOBAL: "global_rope_theta", LOCAL: "local_rope_theta"}


@dataclass(frozen=True, kw_only=True)
class ModernBertShape(Shape):
    """The shape of a ModernBERT. The defaults are those of ModernBERT-base."""

    hidden_dropouts: ClassVar[tuple[str, ...]] = ("embedding_dropout", "mlp_dropout", "classifier_dropout")
    attention_dropouts: ClassVar[tuple[str, ...]] = ("attention_dropout",)
    encoder: Literal["modernbert"] = "modernbert"
    """Kind of encoder."""
    num_hidden_layers: int = 22
    """Number of layers."""
    intermediate_size: int = 1152
    """Width of the gated feed-forward block. ModernBERT used 1.5 x hidden_size; each unit has two rows of weights."""
    max_position_embeddings: int = 8192
    """Length of the longest sequence that the model can read, in tokens. It adds no weights."""
    global_attn_every_n_layers: int = 3
    """Distance between layers whose attention sees the whole sequence. The others see a window; the first sees all."""
    local_attention: int = 128
    """Width of that window, in tokens: half of it to each side."""
    global_rope_theta: float = 160_000.0
    """Base of the rotary positions' wavelengths in layers that see the whole sequence."""
    local_rope_theta: float = 10_000.0
    """Base of the rotary positions' wavelengths in layers that see a window."""
    norm_eps: float = 1e-5
    """Epsilon of LayerNorm."""
    initializer_cutoff_factor: float = 2.0
    """Number of standard deviations at which the initial weights are cut off."""
    embedding_dropout: float = 0.0
    """Dropout after the embeddings."""
    mlp_dropout: float = 0.0
    """Dropout inside the feed-forward block, after the gate."""
    attention_dropout: float = 0.0
    """Dropout of attention weights, and of attention's output. Above 0, attention on CUDA is slower."""
    classifier_dropout: float = 0.0
    """Dropout before the classifier of a task."""
    classifier_pooling: Pooling = "cls"
    """What classifiers of texts read: the vector of [CLS], or the mean over all tokens. `finetune --pooling` changes it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.head_size % 2:
            raise ValueError(
                f"hidden_size={self.hidden_size} / num_attention_heads={self.num_attention_heads} is "
                f"{self.head_size}: rotary positions need an even number"
            )
        if self.classifier_pooling not in ("cls", "mean"):
            raise ValueError(f"classifier_pooling={self.classifier_pooling!r} must be 'cls' or 'mean'")

    @property
    def head_dropout(self) -> float:
        return self.classifier_dropout

    @property
    def pooling(self) -> Pooling:
        return self.classifier_pooling

    def with_pooling(self, pooling: Pooling) -> Self:
        return replace(self, classifier_pooling=pooling)

    @property
    def training_fields(self) -> tuple[str, ...]:
        return (*super().training_fields, "initializer_cutoff_factor")

    def is_global(self, layer: int) -> bool:
        """Return whether a layer's attention sees the whole sequence."""
        return layer % self.global_attn_every_n_layers == 0

    def window(self, layer: int) -> int | None:
        """Return the number of tokens to each side that a layer's attention sees; None for all."""
        return None if self.is_global(layer) else self.local_attention // 2


def kinds_of_layers(number: int, period: int) -> list[str]:
    """Return transformers' names for the kinds of the layers, if every `period`-th one sees the whole sequence."""
    return [LOCAL if layer % period else GLOBAL for layer in range(number)]


def newer_entries(shape: ModernBertShape) -> dict[str, Any]:
    """Return what transformers 5 reads instead of fields of our shape."""
    parameters = {kind: {"rope_type": "default", "rope_theta": getattr(shape, name)} for kind, name in THETAS.items()}
    kinds = kinds_of_layers(shape.num_hidden_layers, shape.global_attn_every_n_layers)
    return {"layer_types": kinds, "rope_parameters": parameters}


def with_our_fields(configuration: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config.json in which the entries of transformers 5 are also fields of our shape.

    Raises:
        ValueError: they describe rotary positions or an order of layers that the encoder does not have.
    """
    found = dict(configuration)
    for kind, values in read_table(found.get("rope_parameters"), "rope_parameters").items():
        name = f"rope_parameters.{kind}"
        if kind not in THETAS:
            raise ValueError(f"{name}: expected {GLOBAL} and {LOCAL}, with rope_type and rope_theta for each")
        parameters = read_table(values, name)
        if (rope_type := parameters.get("rope_type", "default")) != "default":
            raise ValueError(f"{name}.rope_type is {shown(rope_type)}, only 'default' can be read")
        if "rope_theta" in parameters:
            found[THETAS[kind]] = parameters["rope_theta"]
    if (layer_types := found.get("layer_types")) is not None:
        found["global_attn_every_n_layers"] = period_of(layer_types, found.get("global_attn_every_n_layers", 3))
        if (number := found.get("num_hidden_layers", len(layer_types))) != len(layer_types):
            raise ValueError(f"layer_types has {len(layer_types)} layers, num_hidden_layers is {shown(number)}")
    return found


def read_table(value: Any, name: str) -> dict[str, Any]:
    """Return a table of config.json; an empty one if it is null."""
    if value is not None and not isinstance(value, dict):
        raise ValueError(f"{name} is {shown(value)}, expected a table")
    return value or {}


def period_of(layer_types: Any, usual: Any) -> int:
    """Return the distance between layers that see the whole sequence: the usual one, if it gives these kinds of layers.

    >>> period_of(["full_attention", "sliding_attention", "full_attention"], 3), period_of(["full_attention"], 3)
    (2, 3)
    """
    if isinstance(layer_types, list):
        later = (layer for layer, kind in enumerate(layer_types) if layer and kind == GLOBAL)
        for period in (usual, next(later, len(layer_types) or 1)):
            if type(period) is int and period > 0 and layer_types == kinds_of_layers(len(layer_types), period):
                return period
    raise ValueError(f"layer_types is {shown(layer_types)}: expected {GLOBAL} in every n-th layer from the first on")


LAYER = "model.layers.{}"
HEAD = {"head.dense.weight": "head.dense.weight", "head.norm.weight": "head.norm.weight", "classifier": "classifier"}
MASKED_LM = {
    "mlm.dense.weight": "head.dense.weight",
    "mlm.norm.weight": "head.norm.weight",
    "mlm.bias": "decoder.bias",
}

MODERN_BERT_NAMES = HuggingFaceNames(
    model_type="modernbert",
    prefix="ModernBert",
    base="model",
    encoder={
        "encoder.embeddings.word_embeddings.weight": "model.embeddings.tok_embeddings.weight",
        "encoder.embeddings.norm.weight": "model.embeddings.norm.weight",
        "encoder.layers.{}.attention_norm.weight": f"{LAYER}.attn_norm.weight",
        "encoder.layers.{}.qkv.weight": f"{LAYER}.attn.Wqkv.weight",
        "encoder.layers.{}.attention_output.weight": f"{LAYER}.attn.Wo.weight",
        "encoder.layers.{}.intermediate_norm.weight": f"{LAYER}.mlp_norm.weight",
        "encoder.layers.{}.intermediate.weight": f"{LAYER}.mlp.Wi.weight",
        "encoder.layers.{}.output.weight": f"{LAYER}.mlp.Wo.weight",
        "encoder.final_norm.weight": "model.final_norm.weight",
    },
    fused={},
    absent=("encoder.layers.0.attention_norm.weight",),
    heads={
        "Model": {},
        "ForMaskedLM": MASKED_LM,
        "ForPreTraining": MASKED_LM | {"nsp.pooler": "nsp.pooler", "nsp.classifier": "nsp.classifier"},
        "ForSequenceClassification": HEAD,
        "ForMultipleChoice": HEAD,
        "ForTokenClassification": HEAD,
        "ForQuestionAnswering": HEAD,
    },
    written_as={"ForPreTraining": "ForMaskedLM"},
    word_embeddings="model.embeddings.tok_embeddings.weight",
    decoder="decoder.weight",
    copies=("decoder.weight",),
    configuration={
        "model_type": "modernbert",
        "hidden_activation": "gelu",
        "tie_word_embeddings": True,
        "dtype": "float32",
        **dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id")),
    },
    token_ids={
        "pad_token_id": "pad_id",
        "bos_token_id": "cls_id",
        "eos_token_id": "sep_id",
        "cls_token_id": "cls_id",
        "sep_token_id": "sep_id",
    },
    readable={
        "model_type": ("modernbert",),
        "hidden_activation": ("gelu", None),
        "classifier_activation": ("gelu", None),
        "decoder_bias": (True, None),
        "tie_word_embeddings": (True, None),
        "attention_bias": (False, None),
        "mlp_bias": (False, None),
        "norm_bias": (False, None),
        "classifier_bias": (False, None),
        "rope_scaling": (None,),
    },
    computed=newer_entries,
    understood=with_our_fields,
)
