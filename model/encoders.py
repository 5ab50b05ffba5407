"""The encoders by name. A new one is one file like `model/bert.py`, its names in transformers, and a line here."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from model.bert import BertEncoder, BertShape
from model.bert_names import BERT_NAMES
from model.encoder import Encoder, EncoderConfig, HuggingFaceNames, Shape


class EncoderKind(NamedTuple):
    """An entry of the registry."""

    shape: type[Shape]
    """Its configuration: a frozen dataclass."""
    encoder: type[Encoder]
    """The module that is built from it."""
    names: HuggingFaceNames
    """Its side of Hugging Face transformers."""


ENCODERS: dict[str, EncoderKind] = {
    "bert": EncoderKind(BertShape, BertEncoder, BERT_NAMES),
}
"""The registry. A checkpoint records the name of its encoder."""


def encoder_name(config: EncoderConfig) -> str:
    """Return the name in the registry of the encoder that a configuration describes."""
    return next(name for name, kind in ENCODERS.items() if type(config.shape) is kind.shape)


def build_encoder(config: EncoderConfig) -> Encoder:
    """Return a new encoder with torch's default initial weights."""
    return ENCODERS[encoder_name(config)].encoder(config)


def names_of(config: EncoderConfig) -> HuggingFaceNames:
    """Return how transformers names the encoder that a configuration describes."""
    return ENCODERS[encoder_name(config)].names


def config_from(name: str, values: Mapping[str, Any]) -> EncoderConfig:
    """Return the configuration of the encoder `name` from `EncoderConfig.values`."""
    rest = dict(values)
    vocab_size = rest.pop("vocab_size")
    return EncoderConfig(shape=ENCODERS[name].shape(**rest), vocab_size=vocab_size)
