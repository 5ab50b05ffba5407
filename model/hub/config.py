"""config.json of a model: from ours to transformers' form and back."""

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any

from bertloom.shapes import shown
from model.encoders import ENCODERS, names_of
from model.shape import EncoderConfig


def write_config(config: EncoderConfig, form: str) -> dict[str, Any]:
    """Return the content of a model's config.json.

    Args:
        form: second part of its class's name in transformers, such as "ForPreTraining".
    """
    names = names_of(config)
    shape = {name: value for name, value in config.values().items() if name not in ("encoder", *names.not_theirs)}
    return {**names.configuration, "architectures": [names.prefix + form], **shape}


def read_config(configuration: Mapping[str, Any], where: str) -> EncoderConfig:
    """Return the configuration of a model from the content of its config.json.

    Args:
        where: the file, for errors.

    Raises:
        ValueError: bertloom has no encoder for it, or a value has the wrong type.
    """
    model_type = configuration.get("model_type")
    kinds = list(ENCODERS.values())
    kind = next((kind for kind in kinds if model_type == kind.names.model_type), kinds[0])
    for name, known in kind.names.readable.items():
        if (found := configuration.get(name)) not in known:
            raise ValueError(f"{where}: {name} is {shown(found)}, only {known[0]!r} can be read")
    left_out = ("encoder", *kind.names.not_theirs)
    defaults = {field.name: field.default for field in fields(kind.shape) if field.name not in left_out}
    required = {name: None for name, default in defaults.items() if default is MISSING} | {"vocab_size": None}
    values = required | {name: configuration[name] for name in (*defaults, "vocab_size") if name in configuration}
    for name, value in values.items():
        if type(value) not in (type(defaults.get(name, 0)), int):
            raise ValueError(f"{where}: {name} is {shown(value)}, expected a number")
    vocab_size = values.pop("vocab_size")
    try:
        return EncoderConfig(shape=kind.shape(**values), vocab_size=vocab_size)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
