"""The interface of a form of files with rows.

A form is one file in this folder and one line of `registry.py`. Nothing outside this folder compares the names of forms.
"""

from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.tasks.values import BadRow

Records = Iterator[tuple[str, dict[str, Any] | BadRow]]
"""The place of each record, such as "line 3", and its values by column."""
Answers = Iterable[Mapping[str, Any] | BadRow]
"""For each record of a file in order: values by the purpose of their column, or why the record has none."""


@dataclass(frozen=True, kw_only=True)
class RowFormat:
    """A form of files with rows."""

    endings: tuple[str, ...]
    """The ends of names, in small letters. A compressed file has another one after it."""
    read: Callable[[Path, Container[str]], Records]
    """Yield the records of a file as a stream. The second argument names the columns whose values are needed; the
    values of other columns may be None."""
    write: Callable[[Path, Mapping[str, str], Answers], Iterator[bytes]] | None = None
    """Yield the content of a file with predictions in their columns. The second argument names columns by purpose, as
    --columns does. An unusable record stays as it is. None: predictions are written as JSON Lines."""
    recognizes: Callable[[Path, Container[str]], bool] = lambda path, needed: True
    """Whether a file with such an ending has this form. The second argument names the needed columns, which may decide. Of
    several forms with one ending, the first one in the registry that recognizes a file reads it, or else the last."""
    is_compressible: bool = True
    """Whether `.gz` may follow the ending."""
    has_header: bool = False
    """Whether the first line names the columns. Such a file is written only if --out has the same ending."""
