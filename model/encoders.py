"""The encoders by name. A new one is a file like `model/bert.py`, one like `model/bert_config.py`, and a line here.

An encoder is imported when it is built: the names and shapes are known without torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, NamedTuple

from model.bert_config import BERT_NAMES, BertShape
from model.modern_bert_config import MODERN_BERT_NAMES, ModernBertShape
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
    "modernbert": EncoderKind(ModernBertShape, "model.modern_bert:ModernBertEncoder", MODERN_BERT_NAMES),
}
"""The registry. The name is the value of `encoder` in the shape."""


def shape_class(name: str | None) -> type[Shape]:
    """Return the class of the shape of the encoder of that name; BERT's if the name is None."""
    if name is not None and not (isinstance(name, str) and name in ENCODERS):  # a preset may hold anything
        raise ValueError(f"model.encoder is {repr(name)[:80]}: expected one of {', '.join(ENCODERS)}")
    return ENCODERS[name or "bert"].shape


def build_encoder(config: EncoderConfig) -> Encoder:
    """Return a new encoder with torch's default initial weights; ValueError if it is larger than the machine's memory."""
    import torch

    make = resolve_name(ENCODERS[config.shape.encoder].encoder)
    if torch.get_default_device().type != "meta":  # a model without memory may have any size
        check_size(make, config)
    encoder: Encoder = make(config)
    return encoder


def check_size(make: Callable[[EncoderConfig], Encoder], config: EncoderConfig) -> None:
    """Raise ValueError if the weights of an encoder are larger than the machine's memory."""
    import torch

    from model.devices import memory_bytes

    with torch.device("meta"):
        num_parameters = sum(parameter.numel() for parameter in make(config).parameters())
    if 4 * num_parameters > (memory := memory_bytes()):
        raise ValueError(
            f"a model of this shape has {num_parameters:,} parameters, and its weights alone need "
            f"{4 * num_parameters / 1e9:,.1f} GB, but this machine has {memory / 1e9:,.1f} GB of memory: give a "
            f"smaller shape (hidden_size={config.shape.hidden_size}, num_hidden_layers={config.shape.num_hidden_layers}, "
            f"intermediate_size={config.shape.intermediate_size}, vocab_size={config.vocab_size})"
        )


def names_of(config: EncoderConfig) -> HuggingFaceNames:
    """Return how transformers names the encoder that a configuration describes."""
    return ENCODERS[config.shape.encoder].names


def config_from(values: Mapping[str, Any]) -> EncoderConfig:
    """Return the configuration that `EncoderConfig.values` gave; ValueError if it gave something else."""
    kind = shape_class(str(values.get("encoder")))
    names = {field.name for field in fields(kind)} | {"vocab_size"}
    if unknown := sorted(values.keys() ^ names):
        what = "is unknown" if unknown[0] in values else "is missing"
        raise ValueError(f"model.{unknown[0][:80]} {what}: expected {', '.join(sorted(names))}")
    shape = {name: value for name, value in values.items() if name != "vocab_size"}
    return EncoderConfig(shape=kind(**shape), vocab_size=values["vocab_size"])
