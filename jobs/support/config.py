"""Configurations from TOML presets and flags: `parse(config_class, argv, prog)`.

A configuration is a frozen, keyword-only dataclass whose fields have docstrings; those become the help text. Values
come, each over the last, from the defaults, from presets (the leading words of argv: `small`, `my.toml`), from flags:

    bertloom pretrain tiny my.toml --data DATASET --out RUN --num-steps 1000

A nested dataclass is a table in TOML, `[optimizer] learning_rate = 1e-4`, and a dotted flag,
`--optimizer.learning-rate 1e-4`. TOML has no null: the string "None" stands for it, as it does on the command line.
"""

import dataclasses
import difflib
import tomllib
import types
import typing
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, TypeVar

import tomli_w
import tyro

Config = TypeVar("Config")

_POSITIONAL = typing.get_args(tyro.conf.Positional[int])[1]


def parse(config_class: type[Config], argv: Sequence[str], prog: str) -> Config:
    """The configuration that these words describe. What is wrong in a preset, or refused by `__post_init__`, is a
    ValueError; tyro itself answers `--help` and wrong flags, by SystemExit."""
    words = list(argv)
    table: dict[str, Any] = {}
    if not any(_POSITIONAL in getattr(hint, "__metadata__", ()) for hint in _hints(config_class).values()):
        while words and not words[0].startswith("-"):
            path = _find_preset(words.pop(0))
            _merge(table, _read_preset(config_class, path))
    with _plain_errors(config_class):
        return tyro.cli(config_class, args=words, prog=prog, default=_instance(config_class, table))


def dump(config: Any) -> str:
    """The configuration as TOML: given back as a preset, it gives an equal configuration."""
    return tomli_w.dumps(_plain(config))


def preset_names() -> list[str]:
    """The presets that can be given by their bare name."""
    folder = files("jobs") / "presets"
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


# ---- presets


def _find_preset(word: str) -> Path:
    if word in preset_names():
        return Path(str(files("jobs") / "presets" / f"{word}.toml"))
    if word.endswith(".toml"):
        return Path(word)
    raise ValueError(
        f"{word!r} is no preset: expected one of {', '.join(preset_names()) or '(none shipped)'}, "
        f"or the path of a file that ends in .toml; flags begin with --"
    )


def _read_preset(config_class: type, path: Path) -> dict[str, Any]:
    try:
        table = tomllib.loads(path.read_bytes().decode("utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path}: no such preset file") from None
    except ValueError as error:  # TOMLDecodeError and UnicodeDecodeError both are
        raise ValueError(f"{path}: not valid TOML: {error}") from None
    return checked_table(config_class, table, str(path), "")


def _merge(into: dict[str, Any], table: dict[str, Any]) -> None:
    for key, value in table.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value


def checked_table(config_class: type, table: dict[str, Any], file: str, prefix: str) -> dict[str, Any]:
    """The values of a TOML table as the fields of a configuration; `prefix` is where in the file the table stands.

    Raises:
        ValueError: there is no such field, or it takes no such value.
    """
    hints = _hints(config_class)
    names = [field.name for field in dataclasses.fields(config_class)]
    checked = {}
    for key, value in table.items():
        if key not in names:
            near = difflib.get_close_matches(key, names, n=1)
            known = f"did you mean {near[0]!r}?" if near else f"the keys here are {', '.join(names)}"
            raise ValueError(f"{file}: unknown key {prefix + key!r}: {known}")
        checked[key] = _checked(hints[key], value, file, prefix + key)
    return checked


def _checked(hint: Any, value: Any, file: str, key: str) -> Any:
    """`value` as the type `hint`, or an error that names the file, the key and what was expected."""
    wrong = ValueError(f"{file}: {key} = {value!r}: expected {_in_words(hint)}")
    hint = _bare(hint)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, dict):
            raise ValueError(f"{file}: {key} = {value!r}: expected a table, [{key}]")
        return checked_table(typing.cast(type, hint), value, file, key + ".")
    if origin in (typing.Union, types.UnionType):
        if type(None) in arguments and value == "None":
            return None
        for option in arguments:
            try:
                return _checked(option, value, file, key)
            except ValueError as error:
                if dataclasses.is_dataclass(option) and isinstance(value, dict):
                    raise error  # names the key inside the table
        raise wrong
    if origin is Literal:
        if any(value == choice and type(value) is type(choice) for choice in arguments):
            return value
    elif origin in (tuple, list):
        if isinstance(value, list):
            same = origin is list or arguments[1:] == (Ellipsis,)
            options = arguments[:1] * len(value) if same else arguments
            if len(options) == len(value):
                items = [_checked(o, v, file, f"{key}[{i}]") for i, (o, v) in enumerate(zip(options, value))]
                return origin(items)
    elif hint is Path:
        if isinstance(value, str):
            return Path(value)
    elif hint is float:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
    elif type(value) is hint or hint is Any:  # not isinstance: a bool is no int
        return value
    raise wrong


def _in_words(hint: Any) -> str:
    hint = _bare(hint)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return "one of " + ", ".join(map(repr, arguments))
    if origin in (typing.Union, types.UnionType):
        return " or ".join('"None"' if option is type(None) else _in_words(option) for option in arguments)
    if origin in (tuple, list):
        same = origin is list or arguments[1:] == (Ellipsis,)
        return f"a list of {_in_words(arguments[0])}" if same else f"a list of {len(arguments)} values"
    if dataclasses.is_dataclass(hint):
        return "a table"
    words = {str: "a string", Path: "a path (a string)", int: "an integer", float: "a number", bool: "true or false"}
    return words.get(hint, str(hint))


# ---- dataclasses


def _hints(config_class: type) -> dict[str, Any]:
    return typing.get_type_hints(config_class, include_extras=True)


def _bare(hint: Any) -> Any:
    return typing.get_args(hint)[0] if typing.get_origin(hint) is typing.Annotated else hint


def _instance(config_class: type[Config], table: dict[str, Any], over: Any = None) -> Config:
    """An instance for tyro to take its defaults from: `table` over the instance `over`, else over the class's own
    defaults. `__post_init__` does not run on it: required values may be lacking (`tyro.MISSING`), and flags may still
    mend what the presets say."""
    instance = object.__new__(config_class)
    for field in dataclasses.fields(config_class):  # type: ignore[arg-type]
        value: Any = tyro.MISSING
        if over is not None:
            value = getattr(over, field.name)
        elif field.default is not dataclasses.MISSING:
            value = field.default
        elif field.default_factory is not dataclasses.MISSING:
            value = field.default_factory()
        nested, given = _nested_class(_hints(config_class)[field.name]), table.get(field.name)
        if nested and (isinstance(given, dict) or value is tyro.MISSING):
            value = _instance(nested, given or {}, None if value is tyro.MISSING else value)
        elif field.name in table:
            value = given
        object.__setattr__(instance, field.name, value)
    return instance


def _nested_class(hint: Any) -> type | None:
    hint = _bare(hint)
    return next((option for option in (hint, *typing.get_args(hint)) if dataclasses.is_dataclass(option)), None)  # type: ignore[return-value]


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        fields = {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
        simple = {key: item for key, item in fields.items() if not isinstance(item, dict)}
        return simple | fields  # TOML wants a table's own values before its sub-tables
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    if value is None:
        return "None"
    return str(value) if isinstance(value, Path) else value


class _Refused(Exception):
    """Carries a ValueError of `__post_init__` past tyro."""


@contextmanager
def _plain_errors(config_class: type) -> Iterator[None]:
    """tyro would draw a box around what `__post_init__` says and wrap its lines; ours should be a line to copy."""
    classes: list[type] = [config_class]
    checks: dict[type, Any] = {}
    while classes:
        current = classes.pop()
        classes += [nested for hint in _hints(current).values() if (nested := _nested_class(hint))]
        checks |= {cls: vars(cls)["__post_init__"] for cls in current.__mro__ if "__post_init__" in vars(cls)}

    def carrying(check: Any) -> Any:
        def __post_init__(self: Any) -> None:
            try:
                check(self)
            except ValueError as error:
                raise _Refused(error) from error

        return __post_init__

    for cls, check in checks.items():
        setattr(cls, "__post_init__", carrying(check))  # noqa: B010 (type has no such attribute for mypy)
    try:
        yield
    except _Refused as refused:
        raise refused.args[0] from None
    finally:
        for cls, check in checks.items():
            setattr(cls, "__post_init__", check)  # noqa: B010
