"""The encoders by name. A new one is a file like `model/bert.py`, one like `model/bert_config.py`, and a line here.

An encoder is imported when it is built: the names and shapes are known without torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, NamedTuple

from model.bert_config import BERT_NAMES, BertShape
from model.shape import EncoderConfig, HuggingFaceNames, Shape

if TYPE_CHECKING:
    from model.encoder import Encoder


class EncoderKind(NamedTuple):
    """An entry of the registry."""

    shape: type[Shape]
    """Class of its configuration."""
    encoder: str
    """Module and name of the class that is built from it."""
    names: HuggingFaceNames
    """Its names in transformers."""


ENCODERS: dict[str, EncoderKind] = {
    "bert": EncoderKind(BertShape, "model.bert:BertEncoder", BERT_NAMES),
}
"""The registry. The name is the value of `encoder` in the shape."""


def shape_class(name: str | None) -> type[Shape]:
    """Return the class of the shape of the encoder of that name; BERT's if there is no name."""
    if name is not None and name not in ENCODERS:
        raise ValueError(f"model.encoder is {name!r}: expected one of {', '.join(ENCODERS)}")
    return ENCODERS[name or "bert"].shape


def build_encoder(config: EncoderConfig) -> Encoder:
    """Return a new encoder with torch's default initial weights."""
    encoder: Encoder = resolve_name(ENCODERS[config.shape.encoder].encoder)(config)
    return encoder


def names_of(config: EncoderConfig) -> HuggingFaceNames:
    """Return how transformers names the encoder that a configuration describes."""
    return ENCODERS[config.shape.encoder].names


def config_from(values: Mapping[str, Any]) -> EncoderConfig:
    """Return the configuration that `EncoderConfig.values` gave."""
    shape = {name: value for name, value in values.items() if name != "vocab_size"}
    return EncoderConfig(shape=shape_class(values["encoder"])(**shape), vocab_size=values["vocab_size"])
