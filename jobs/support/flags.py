"""Suggestions for unknown flags, both forms of flags that may be true, false or None, and a plainer help page."""

import difflib
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from types import NoneType
from typing import Any, TextIO, cast, get_args

HELP = ("-h", "--help")


def flag_names(flags: Mapping[str, Any]) -> Iterator[str]:
    """Yield all flags, with the --no-NAME of those that are true or false. flags: flag -> the type of its value."""
    for flag, hint in flags.items():
        yield flag
        if hint is bool or _is_optional_bool(hint):
            yield _opposite(flag)


def with_values(words: Sequence[str], flags: Mapping[str, Any]) -> list[str]:
    """Return words in which flags that are true, false or None have a value: --x is --x True, and --no-x is --x False."""
    optional = [flag for flag, hint in flags.items() if _is_optional_bool(hint)]
    opposites = {_opposite(flag): flag for flag in optional}
    found: list[str] = []
    for word, following in zip(words, [*words[1:], ""]):
        flag = word.replace("_", "-")
        if flag in opposites:
            found += [opposites[flag], "False"]
        else:
            found.append(word)
            if flag in optional and following not in ("True", "False", "None"):
                found.append("True")
    return found


def _is_optional_bool(hint: Any) -> bool:
    return set(get_args(hint)) == {bool, NoneType}


def _opposite(flag: str) -> str:
    before, dot, name = flag.removeprefix("--").rpartition(".")
    return f"--{before}{dot}no-{name}"


def check_flags(words: Sequence[str], flags: Iterable[str], prog: str) -> None:
    """Raise a ValueError for the first word that looks like a flag but is not one of the command's."""
    known = list(flags)
    for word in words:
        flag = word.partition("=")[0].replace("_", "-")
        if re.match(r"--[a-z]", flag) and not flag.startswith("--tyro-") and flag not in (*known, *HELP):
            near = _similar(flag, known)
            advice = f"did you mean {' or '.join(near)}?" if near else f"{prog} --help lists the flags"
            raise ValueError(f"unknown flag {word.partition('=')[0]}: {advice}")


def _similar(flag: str, known: Sequence[str]) -> list[str]:
    """Return the known flags that a user who types this flag may mean.

    >>> _similar("--lr", ["--learning-rate", "--layers"]), _similar("--epochs", ["--num-epochs"])
    (['--learning-rate'], ['--num-epochs'])
    """
    name = flag.removeprefix("--")
    parts = {other: other.removeprefix("--").rpartition(".")[2].split("-") for other in known}
    return (
        difflib.get_close_matches(flag, known, n=1, cutoff=0.8)
        or [other for other, words in parts.items() if "".join(word[:1] for word in words) == name]
        or sorted((other for other, words in parts.items() if {*name.split("-")} <= {*words}), key=len)[:3]
        or difflib.get_close_matches(flag, known, n=1, cutoff=0.7)
    )


@contextmanager
def plain_help(has_presets: bool) -> Iterator[None]:
    """Change the help page that tyro prints: titles without the paths of fields, and presets in the usage."""
    with redirect_stdout(cast(TextIO, _Page(sys.stdout, has_presets))):
        yield


class _Page:
    def __init__(self, output: TextIO, has_presets: bool):
        self.output, self.has_presets = output, has_presets

    def write(self, text: str) -> int:
        if self.has_presets:
            text = text.replace("[-h]", "[PRESET ...] [-h]", 1)
        # The line keeps its length. On a terminal there are codes for colours before and between the words.
        text = re.sub(r"((?:\x1b\[[\d;]*m)?)((?:[a-z_]+\.)+)([a-z_]+\S* *\S*options.*?)(─+| {2,})", _short_title, text)
        return self.output.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.output, name)


def _short_title(found: re.Match[str]) -> str:
    color, path, title, line = found.groups()
    return f"{color}{title}{line[0] * len(path)}{line}"
