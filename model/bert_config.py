"""The shape of a BERT, and how transformers names its classes, tensors and configuration.

The only difference in form: our fused `qkv` is their `query`, `key` and `value`, one after the other. Their decoder's
weight is the word embeddings and is not stored twice.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from model.shape import HuggingFaceNames, Shape


@dataclass(frozen=True, kw_only=True)
class BertShape(Shape):
    """The shape of a BERT."""

    has_token_types: ClassVar[bool] = True
    hidden_dropouts: ClassVar[tuple[str, ...]] = ("hidden_dropout_prob",)
    attention_dropouts: ClassVar[tuple[str, ...]] = ("attention_probs_dropout_prob",)
    encoder: Literal["bert"] = "bert"
    """Kind of encoder."""
    type_vocab_size: int = 2
    """Number of token types: segment A and segment B. With 1, the model reads single segments, but no pairs."""
    hidden_dropout_prob: float = 0.0
    """Dropout after embeddings and sub-layers. BERT used 0.1; training that reads its data about once needs none."""
    attention_probs_dropout_prob: float = 0.0
    """Dropout of attention weights. BERT used 0.1. Above 0, attention on CUDA reads padded sequences, which is slower."""
    normalization: Literal["layer", "batch"] = "layer"
    """Kind of normalisation. layer is BERT's, over a token's channels. batch, over the tokens of the whole batch, is an
    experiment: it needs all batch_size examples in memory together, and the model cannot be exported."""
    layer_norm_eps: float = 1e-12
    """Epsilon of LayerNorm."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.normalization not in ("layer", "batch"):
            raise ValueError(f"normalization={self.normalization!r} must be 'layer' or 'batch'")

    @property
    def reads_pairs(self) -> bool:
        return self.type_vocab_size > 1

    @property
    def head_dropout(self) -> float:
        return self.hidden_dropout_prob


LAYER = "bert.encoder.layer.{}"
MASKED_LM = {
    "mlm.dense": "cls.predictions.transform.dense",
    "mlm.norm": "cls.predictions.transform.LayerNorm",
    "mlm.bias": "cls.predictions.bias",
}

BERT_NAMES = HuggingFaceNames(
    model_type="bert",
    prefix="Bert",
    base="bert",
    encoder={
        "encoder.embeddings.word_embeddings.weight": "bert.embeddings.word_embeddings.weight",
        "encoder.embeddings.position_embeddings.weight": "bert.embeddings.position_embeddings.weight",
        "encoder.embeddings.token_type_embeddings.weight": "bert.embeddings.token_type_embeddings.weight",
        "encoder.embeddings.norm": "bert.embeddings.LayerNorm",
        "encoder.layers.{}.attention_output": f"{LAYER}.attention.output.dense",
        "encoder.layers.{}.attention_norm": f"{LAYER}.attention.output.LayerNorm",
        "encoder.layers.{}.intermediate": f"{LAYER}.intermediate.dense",
        "encoder.layers.{}.output": f"{LAYER}.output.dense",
        "encoder.layers.{}.output_norm": f"{LAYER}.output.LayerNorm",
    },
    fused={"encoder.layers.{}.qkv": [f"{LAYER}.attention.self.{part}" for part in ("query", "key", "value")]},
    heads={
        "Model": {"head.dense": "bert.pooler.dense"},
        "ForMaskedLM": MASKED_LM,
        "ForPreTraining": MASKED_LM | {"nsp.pooler": "bert.pooler.dense", "nsp.classifier": "cls.seq_relationship"},
        "ForSequenceClassification": {"head.dense": "bert.pooler.dense", "classifier": "classifier"},
        "ForMultipleChoice": {"head.dense": "bert.pooler.dense", "classifier": "classifier"},
        "ForTokenClassification": {"classifier": "classifier"},
        "ForQuestionAnswering": {"classifier": "qa_outputs"},
    },
    word_embeddings="bert.embeddings.word_embeddings.weight",
    decoder="cls.predictions.decoder.weight",
    copies=("position_ids", "cls.predictions.decoder.weight", "cls.predictions.decoder.bias"),
    configuration={"model_type": "bert", "hidden_act": "gelu", "tie_word_embeddings": True, "dtype": "float32"},
    readable={
        "hidden_act": ("gelu",),
        "model_type": ("bert", None),
        "position_embedding_type": ("absolute", None),
        "is_decoder": (False, None),
        "add_cross_attention": (False, None),
    },
    not_theirs=("normalization",),
    finetuning={"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1},
)
