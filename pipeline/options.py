"""Composed configurations as one flat table of options, and back.

A configuration is a dataclass whose fields are options or other configurations. A data set's manifest records the
options of all of them in one table, so no two configurations of a job may have an option of the same name.
"""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar, get_type_hints

from bertloom.shapes import Kind, check_shape

MAX_WORKERS = 1024
"""Most worker processes of a job on one machine."""

Config = TypeVar("Config")
REGISTERED = Kind("a name", lambda value: isinstance(value, str))
"""Marks, in `Annotated`, the name of a member of a registry. The registry may get members after the import, so the
configuration looks for the name when it is made."""


def option_names(config_class: Any) -> list[str]:
    """Return the names of all options, in the order of the fields."""
    hints = get_type_hints(config_class)
    names: list[str] = []
    for field in fields(config_class):
        hint = hints[field.name]
        names += option_names(hint) if is_dataclass(hint) else [field.name]
    return names


def flat(config: Any) -> dict[str, Any]:
    """Return option -> value for a configuration and those that it is composed of."""
    values: dict[str, Any] = {}
    for field in fields(config):
        value = getattr(config, field.name)
        values |= flat(value) if is_dataclass(value) else {field.name: value}
    return values


def compose(config_class: type[Config], /, **options: Any) -> Config:
    """Return the configuration with these options; an option that is missing has its default.

    >>> compose(TextConfig, text_layout="line", sample=0.5).read.text_layout
    'line'
    """
    config = _take(config_class, options)
    if options:
        raise TypeError(f"{config_class.__name__} has no option {', '.join(options)}")
    return config


def _take(config_class: type[Config], options: dict[str, Any]) -> Config:
    """Compose a configuration and remove the options that it used."""
    hints = get_type_hints(config_class)
    values: dict[str, Any] = {}
    for field in fields(config_class):  # type: ignore[arg-type]  # any dataclass
        if field.name in options:
            values[field.name] = options.pop(field.name)
        elif is_dataclass(hints[field.name]):
            values[field.name] = _take(hints[field.name], options)
    return config_class(**values)


def check_types(config_class: Any, values: Mapping[str, Any], name: str) -> None:
    """Raise ValueError unless the values have the types of a configuration's options. name: of the file that holds them.

    A JSON list is accepted for a tuple. Missing options, and values that are not options, are not checked.
    """
    hints = get_type_hints(config_class, include_extras=True)
    for field in fields(config_class):
        hint = hints[field.name]
        if is_dataclass(hint):
            check_types(hint, values, name)
        elif field.name in values:
            check_shape({field.name: values[field.name]}, {field.name: hint}, name)


def check_num_workers(num_workers: int) -> None:
    """Check a number of worker processes on one machine."""
    if not 1 <= num_workers <= MAX_WORKERS:
        raise ValueError(
            f"--num-workers {num_workers}: expected 1 to {MAX_WORKERS:,}, such as the number of processor cores"
        )
