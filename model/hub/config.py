"""config.json of a model: from ours to transformers' form and back."""

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any

from bertloom.shapes import shown
from model.encoders import ENCODERS, names_of
from model.shape import EncoderConfig


def class_name(config: EncoderConfig, form: str) -> str:
    """Return the name of the class of transformers that a model of this form is written for."""
    names = names_of(config)
    return names.prefix + names.written_as.get(form, form)


def write_config(config: EncoderConfig, form: str) -> dict[str, Any]:
    """Return the content of a model's config.json.

    Args:
        form: second part of its class's name in transformers, such as "ForPreTraining".
    """
    names = names_of(config)
    shape = {name: value for name, value in config.values().items() if name not in ("encoder", *names.not_theirs)}
    computed = names.computed(config.shape)
    return {**names.configuration, "architectures": [class_name(config, form)], **shape, **computed}


def read_config(configuration: Mapping[str, Any], where: str) -> EncoderConfig:
    """Return the configuration of a model from the content of its config.json.

    Args:
        where: the file, for errors.

    Raises:
        ValueError: bertloom has no encoder for it, or a value has the wrong type.
    """
    model_type = configuration.get("model_type")
    kinds = {kind.names.model_type: kind for kind in ENCODERS.values()}
    if model_type is not None and not (isinstance(model_type, str) and model_type in kinds):
        raise ValueError(
            f"{where}: model_type is {shown(model_type)}, only {' and '.join(map(repr, kinds))} can be read"
        )
    kind = kinds[model_type] if model_type else ENCODERS["bert"]  # google-research/bert has none
    for name, known in kind.names.readable.items():
        if (found := configuration.get(name)) not in known:
            raise ValueError(f"{where}: {name} is {shown(found)}, only {known[0]!r} can be read")
    try:
        configuration = kind.names.understood(configuration)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    left_out = ("encoder", *kind.names.not_theirs)
    defaults = {field.name: field.default for field in fields(kind.shape) if field.name not in left_out}
    required = {name: None for name, default in defaults.items() if default is MISSING} | {"vocab_size": None}
    values = required | {name: configuration[name] for name in (*defaults, "vocab_size") if name in configuration}
    for name, value in values.items():
        default = defaults.get(name, 0)
        if type(value) not in (type(default), int):
            expected = "a string" if isinstance(default, str) else "a number"
            raise ValueError(f"{where}: {name} is {shown(value)}, expected {expected}")
    vocab_size = values.pop("vocab_size")
    try:
        return EncoderConfig(shape=kind.shape(**values), vocab_size=vocab_size)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
