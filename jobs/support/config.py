"""Configurations from TOML presets and flags: `parse(config_class, argv, prog)`.

A configuration is a frozen, keyword-only dataclass. The docstrings of its fields are the help text. Values come from the
defaults, then from presets (the leading words of argv: `small`, `my.toml`), then from flags; the last one wins.

    bertloom pretrain tiny my.toml --data DATASET --out RUN

A field that is itself a dataclass is a table in TOML, `[model] num_hidden_layers = 2`, and a dotted flag,
`--model.num-hidden-layers 2`. With `OmitArgPrefixes` it is flat: the fields of the nested dataclass, and of those nested
in it, appear at the level of their parent in TOML and on the command line:

    training: tyro.conf.OmitArgPrefixes[TrainingConfig]

The class of a nested configuration may depend on one of its values: see `ChosenBy`. Fields that exclude each other,
such as num_steps and budget, are listed in the class attribute `ALTERNATIVES`, a tuple of tuples of names. A value in a
later preset or a flag replaces earlier values of its alternatives. Two alternatives in one preset or on one command line are
an error.

TOML has no null: the string "None" means None, as on the command line.
"""

import dataclasses
import difflib
import re
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, TypeVar

import tomli_w
import tyro

from bertloom.json_files import read_toml
from bertloom.shapes import LARGEST
from jobs.support.flags import HELP, check_flags, flag_names, plain_help, with_values

Config = TypeVar("Config")
Mark = TypeVar("Mark")


@dataclasses.dataclass(frozen=True)
class ChosenBy:
    """Marks a field whose value is one of several dataclasses: `model: Annotated[Shape, ChosenBy("encoder", shape_class)]`.

    A preset or a flag sets the key, and with it the other keys and flags.
    """

    key: str
    """The key of the nested table that decides."""
    class_of: Callable[[Any], type]
    """Return the dataclass for a value of the key, or for None if the key is not set; ValueError for a wrong value."""


@dataclasses.dataclass(frozen=True)
class NamesPreset:
    """Marks a field whose value names a table of other values: `like: Annotated[str | None, NamesPreset(flags_of)] = None`.

    Presets and flags win over the table. Its keys that the configuration does not have are left out.
    """

    table_of: Callable[[str], Mapping[str, Any]]
    """Return the table for a value of the field; ValueError for a wrong value."""


_SIMPLE = {str: "a string", Path: "a path (a string)", int: "an integer", float: "a number", bool: "true or false"}


def parse(config_class: type[Config], argv: Sequence[str], prog: str) -> Config:
    """Return the configuration that these words describe.

    Raises:
        ValueError: a preset is wrong, or a `__post_init__` refuses the values.
        SystemExit: tyro has shown the help, or an error about the flags.
    """
    words = list(argv)
    table: dict[str, Any] = {}
    _keys(config_class)
    has_presets = not any(_is_marked(hint, tyro.conf.Positional) for hint in _hints(config_class).values())
    if has_presets:
        while words and not words[0].startswith("-"):
            preset = _find_preset(words.pop(0))
            values = _read_preset(config_class, preset)
            _replace_alternatives(config_class, table, _given(config_class, values), str(preset))
            _merge(table, values)
    _replace_alternatives(config_class, table, _flags(words), "the flags")
    for name, hint in _hints(config_class).items():
        if chosen := _choice(hint):
            for value in _values_of(f"{name}[.]{chosen.key}", words):
                _merge(table, {name: {chosen.key: value}})
        for mark in _marks(hint, NamesPreset):
            if named := [*_values_of(name, words), *filter(None, [table.get(name)])]:
                table = _under(config_class, f"--{name}", mark.table_of(named[0]), table)
    flags = dict(_flag_hints(config_class, table))
    words = with_values(words, flags)
    check_flags(words, flag_names(flags), prog)
    help_page = plain_help(has_presets) if {*HELP} & {*words} else nullcontext()
    with _plain_errors(config_class, table), help_page:
        config = tyro.cli(config_class, args=words, prog=prog, default=_instance(config_class, table))
    _check_numbers(config)  # also of classes without a check of their own
    return config


def dump(config: Any) -> str:
    """Return the configuration as TOML. Parsed as a preset, it gives an equal configuration."""
    return tomli_w.dumps(_table(config))


def preset_names() -> list[str]:
    """Return the names of the shipped presets."""
    folder = files("jobs") / "presets"
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


# ---- presets


def _find_preset(word: str) -> Path:
    if word in preset_names():
        return Path(str(files("jobs") / "presets" / f"{word}.toml"))
    if word.endswith(".toml"):
        return Path(word)
    raise ValueError(
        f"{word!r} is not a preset: expected one of {', '.join(preset_names()) or '(none shipped)'}, "
        f"or the path of a .toml file. Flags begin with --."
    )


def _read_preset(config_class: type, path: Path) -> dict[str, Any]:
    try:
        table = read_toml(path)
    except FileNotFoundError:
        shipped = path.name.removesuffix(".toml") in preset_names()
        near = (
            f"did you mean {path.name.removesuffix('.toml')}?"
            if shipped
            else f"presets are {', '.join(preset_names())}"
        )
        raise ValueError(f"{path}: this preset file does not exist; {near}") from None
    return checked_table(config_class, table, str(path), "")


def _replace_alternatives(config_class: type, table: dict[str, Any], given: set[str], source: str) -> None:
    """Remove the alternatives of the given fields from the table; ValueError if two alternatives are given."""
    for names in getattr(config_class, "ALTERNATIVES", ()):
        chosen = [name for name in names if name in given]
        if len(chosen) > 1:
            raise ValueError(f"{source}: {' and '.join(chosen)} are alternatives: give only one of {', '.join(names)}")
        for name in names if chosen else ():
            table.pop(name, None)


def _given(config_class: type, values: dict[str, Any]) -> set[str]:
    """Return the fields for which a preset has another value than the default."""
    defaults = {field.name: field.default for field in dataclasses.fields(config_class)}
    return {name for name, value in values.items() if value != defaults.get(name)}


def _flags(words: Sequence[str]) -> set[str]:
    """Return the names of the fields that flags set."""
    return {word[2:].partition("=")[0].replace("-", "_") for word in words if word.startswith("--")}


def _values_of(flag: str, words: Sequence[str]) -> list[str]:
    """Return the values of a flag, the last one first. flag: a regular expression."""
    return re.findall(rf"(?<!\S)--{flag}[ =](\S+)", " ".join(words))[::-1]


def _under(config_class: type, flag: str, values: Mapping[str, Any], table: dict[str, Any]) -> dict[str, Any]:
    """Return the table over the values of a preset that a flag names."""
    keys = _keys(config_class)
    merged = checked_table(config_class, {key: value for key, value in values.items() if key in keys}, flag, "")
    _merge(merged, table)
    return merged


def _merge(into: dict[str, Any], table: dict[str, Any]) -> None:
    for key, value in table.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value


def checked_table(config_class: type, table: dict[str, Any], file: str, prefix: str) -> dict[str, Any]:
    """Return the values of a TOML table by field name, those of nested configurations (flat or not) in dictionaries.

    `prefix` is the table's own key and a dot, for error messages.

    Raises:
        ValueError: a key is unknown, or a value has the wrong type.
    """
    keys = _keys(config_class)
    checked: dict[str, Any] = {}
    for key, value in table.items():
        if key not in keys:
            near = difflib.get_close_matches(key, keys, n=1)
            known = f"did you mean {near[0]!r}?" if near else f"the keys here are {', '.join(keys)}"
            raise ValueError(f"{file}: unknown key {_shown(prefix + key)}: {known}")
        (*parents, name), hint = keys[key]
        target = checked
        for parent in parents:
            target = target.setdefault(parent, {})
        target[name] = _checked(hint, value, file, prefix + key)
    return checked


def _checked(hint: Any, value: Any, file: str, key: str) -> Any:
    """Return `value` converted to the type `hint`, or raise an error with the file, the key and what was expected."""
    wrong = ValueError(f"{file}: {key} = {_shown(value)}: expected {_in_words(hint)}")
    if not _is_in_range(value):
        raise ValueError(f"{file}: {key} = {_shown(value)}: expected a finite number below 2^63")
    if _choice(hint) and isinstance(value, dict):
        hint = _nested_class(hint, value)
    hint = _bare(hint)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, dict):
            raise ValueError(f"{file}: {key} = {_shown(value)}: expected a table, [{key}]")
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
    elif origin is Literal:
        if any(value == choice and type(value) is type(choice) for choice in arguments):
            return value
    elif origin in (tuple, list):
        if isinstance(value, list):
            options = arguments[:1] * len(value) if _is_repeated(origin, arguments) else arguments
            if len(options) == len(value):
                return origin(_item(o, v, file, f"{key}[{i}]") for i, (o, v) in enumerate(zip(options, value)))
    elif hint is Path and isinstance(value, str):
        return Path(value)
    elif hint is float and type(value) is int:
        return float(value)
    elif type(value) is hint or hint is Any:  # not isinstance: True is an int in Python, but not in TOML
        return value
    raise wrong


def _item(hint: Any, value: Any, file: str, key: str) -> Any:
    """Return an item of a list converted to its type: a table becomes an instance of its dataclass."""
    checked = _checked(hint, value, file, key)
    if not dataclasses.is_dataclass(hint):
        return checked
    for field in dataclasses.fields(hint):
        if field.name not in checked and field.default is dataclasses.MISSING:
            raise ValueError(f"{file}: {key} has no {field.name}")
    return typing.cast(type, hint)(**checked)


def _is_in_range(value: Any) -> bool:
    """Return whether a value is not a number, or a number of usual size: finite and below 2^63."""
    return not isinstance(value, (int, float)) or abs(value) < LARGEST


def _check_numbers(config: Any) -> None:
    """Raise ValueError if a number of a configuration is not finite or too large, wherever it came from."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        for item in value if isinstance(value, tuple) else [value]:
            if not _is_in_range(item):
                raise ValueError(f"{field.name}={_shown(item)}: expected a finite number below 2^63")
            if dataclasses.is_dataclass(item):
                _check_numbers(item)


def _shown(value: Any) -> str:
    """Return a value as an error shows it, shortened to a line."""
    if isinstance(value, int) and not _is_in_range(value):
        return "a number of more than 18 digits"
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}…"


def _in_words(hint: Any) -> str:
    hint = _bare(hint)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return "one of " + ", ".join(map(repr, arguments))
    if origin in (typing.Union, types.UnionType):
        return " or ".join('"None"' if option is type(None) else _in_words(option) for option in arguments)
    if origin in (tuple, list):
        repeated = _is_repeated(origin, arguments)
        return f"a list, each item {_in_words(arguments[0])}" if repeated else f"a list of {len(arguments)} values"
    return "a table" if dataclasses.is_dataclass(hint) else _SIMPLE.get(hint, str(hint))


def _is_repeated(origin: Any, arguments: tuple[Any, ...]) -> bool:
    return origin is list or arguments[1:] == (Ellipsis,)


# ---- dataclasses


def _hints(config_class: type) -> dict[str, Any]:
    hints = typing.get_type_hints(config_class, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(config_class)}


def _bare(hint: Any) -> Any:
    return typing.get_args(hint)[0] if typing.get_origin(hint) is typing.Annotated else hint


def _is_marked(hint: Any, marker: Any) -> bool:
    return marker in getattr(hint, "__metadata__", ())


def _choice(hint: Any) -> ChosenBy | None:
    return next(iter(_marks(hint, ChosenBy)), None)


def _marks(hint: Any, kind: type[Mark]) -> list[Mark]:
    return [mark for mark in getattr(hint, "__metadata__", ()) if isinstance(mark, kind)]


def _nested_class(hint: Any, values: Mapping[str, Any] | None = None) -> type | None:
    """Return the dataclass in a type; `values` are those of its fields that are known."""
    if chosen := _choice(hint):
        return chosen.class_of((values or {}).get(chosen.key))
    hint = _bare(hint)
    inner = () if typing.get_origin(hint) is tuple else typing.get_args(hint)  # a tuple may be a list of tables
    return next((option for option in (hint, *inner) if dataclasses.is_dataclass(option)), None)  # type: ignore[return-value]


def _keys(config_class: type, flat: bool = False) -> dict[str, tuple[tuple[str, ...], Any]]:
    """Return each key of the configuration's TOML table, with the names of the fields that lead to it and its type.

    `flat`: the configuration is itself inside a flat one, which makes all that is nested in it flat.
    """
    keys: dict[str, tuple[tuple[str, ...], Any]] = {}
    for name, hint in _hints(config_class).items():
        nested = _nested_class(hint)
        if nested and (flat or _is_marked(hint, tyro.conf.OmitArgPrefixes)):
            more = {key: ((name, *path), inner) for key, (path, inner) in _keys(nested, flat=True).items()}
        else:
            more = {name: ((name,), hint)}
        twice = keys.keys() & more.keys()
        assert not twice, f"{config_class.__name__} has two fields with the name {', '.join(sorted(twice))}"
        keys |= more
    return keys


def _flag_hints(
    config_class: type, table: Mapping[str, Any], prefix: str = "", flat: bool = False
) -> Iterator[tuple[str, Any]]:
    """Yield (flag, type of its value) of the configuration; `table` holds the values that are known."""
    for name, hint in _hints(config_class).items():
        given = table.get(name)
        if nested := _nested_class(hint, given if isinstance(given, dict) else None):
            is_flat = flat or _is_marked(hint, tyro.conf.OmitArgPrefixes)
            inner = prefix if is_flat else f"{prefix}{name}."
            yield from _flag_hints(nested, given if isinstance(given, dict) else {}, inner, is_flat)
        elif not _is_marked(hint, tyro.conf.Positional) and not _is_marked(hint, tyro.conf.Fixed):
            yield f"--{prefix}{name}".replace("_", "-"), _bare(hint)


def _instance(config_class: type[Config], table: dict[str, Any], over: Any = None) -> Config:
    """Return the instance from which tyro takes its defaults: `table` over the instance `over`, or over the defaults of
    the class. `__post_init__` does not run on it, because required values may be missing (`tyro.MISSING`) and flags may
    still correct the presets."""
    instance = object.__new__(config_class)
    hints = _hints(config_class)
    for field in dataclasses.fields(config_class):  # type: ignore[arg-type]
        value: Any = tyro.MISSING
        if over is not None:
            value = getattr(over, field.name)
        elif field.default is not dataclasses.MISSING:
            value = field.default
        elif field.default_factory is not dataclasses.MISSING:
            value = field.default_factory()
        given = table.get(field.name)
        nested = _nested_class(hints[field.name], given)
        if nested and (isinstance(given, dict) or value is tyro.MISSING):
            value = _instance(nested, given or {}, value if isinstance(value, nested) else None)
        elif field.name in table:
            value = given
        object.__setattr__(instance, field.name, value)
    return instance


def _table(config: Any, flat: bool = False) -> dict[str, Any]:
    """Return the configuration as a TOML table: plain values first, then sub-tables, as TOML requires."""
    values: dict[str, Any] = {}
    tables: dict[str, Any] = {}
    for name, hint in _hints(type(config)).items():
        value = getattr(config, name)
        if not dataclasses.is_dataclass(value):
            values[name] = _plain(value)
        elif flat or _is_marked(hint, tyro.conf.OmitArgPrefixes):
            values |= _table(value, flat=True)
        else:
            tables[name] = _table(value)
    return values | tables


def _plain(value: Any) -> Any:
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    if dataclasses.is_dataclass(value):  # a table of a list: only what differs from the defaults
        given = {field.name: (getattr(value, field.name), field.default) for field in dataclasses.fields(value)}
        return {name: _plain(item) for name, (item, default) in given.items() if item != default}
    if value is None:
        return "None"
    return str(value) if isinstance(value, Path) else value


class _Refused(Exception):
    """Carries a ValueError of `__post_init__` through tyro."""


@contextmanager
def _plain_errors(config_class: type, table: dict[str, Any]) -> Iterator[None]:
    """Pass the ValueErrors of `__post_init__` on unchanged. tyro would wrap their lines and draw a box around them."""
    classes: list[type] = [config_class]
    checks: dict[type, Any] = {}
    while classes:
        current = classes.pop()
        hints = _hints(current).items()
        classes += [nested for name, hint in hints if (nested := _nested_class(hint, table.get(name)))]
        checks |= {cls: vars(cls)["__post_init__"] for cls in current.__mro__ if "__post_init__" in vars(cls)}

    def carrying(check: Any) -> Any:
        def __post_init__(self: Any) -> None:
            try:
                _check_numbers(self)
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
