"""The texts of the test sets that --exclude names, as an index of their runs of words.

A test set may have any format of a task (model/tasks/formats), on a local disk or at a URL. All strings of its records
count, however deep they are nested. A list of strings, such as the words of a sentence, is one text.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bertloom import storage
from bertloom.counts import counted, first_files
from bertloom.json_files import loads
from jobs.support.exclude import COLUMNS_FLAG, FLAG, ExcludeConfig
from model.tasks.formats.registry import FORMATS, format_of, formats_named
from model.tasks.formats.text_files import opened
from model.tasks.values import BadRow
from pipeline.inputs.discovery import expand_lists
from pipeline.inputs.listing import list_files
from pipeline.text.word_runs import RUN, RUN_WORDS, ExcludedSet, RunIndex, runs_of
from pipeline.text.words import find_words

BATCH_BYTES = 1_000_000
SHORTEST = 2 * RUN_WORDS - 1
"""Characters of the shortest ASCII text of RUN_WORDS words."""
MOST_RUNS = 1 << 25
"""Each worker process holds about 24 bytes for a run."""
MAX_JSON_BYTES = 1 << 30
"""Size of the largest .json file, which is read whole."""
JSON = ".json"


class _All(Container[str]):
    """All names of columns."""

    def __contains__(self, name: object) -> bool:
        return True


@dataclass
class _Runs:
    """The runs of the test sets that are read so far."""

    sets: list[ExcludedSet] = field(default_factory=list)
    places: list[str] = field(default_factory=list)
    rows: list[NDArray[np.void]] = field(default_factory=list)
    num_rows: int = 0

    def add(self, texts: Sequence[bytes], places: Sequence[str]) -> NDArray[np.bool_]:
        """Add some texts of the last set. Return which of them have a run."""
        words = find_words(texts)
        has_run = np.bincount(words.texts, minlength=len(texts)) >= RUN_WORDS
        rows = runs_of(words, len(self.places) + np.cumsum(has_run) - has_run)
        self.rows.append(rows)
        self.num_rows += len(rows)
        self.places += [place for place, is_there in zip(places, has_run) if is_there]
        if self.num_rows > MOST_RUNS:
            raise ValueError(
                f"{FLAG}: the test sets have more than {MOST_RUNS:,} runs of {RUN_WORDS} words, which every worker would "
                f"hold in memory: give fewer files, or name the columns with {COLUMNS_FLAG}"
            )
        return has_run


def read_excluded(config: ExcludeConfig, notes: list[str]) -> RunIndex | None:
    """Return the runs of the test sets; None without --exclude. Append to `notes` what the user should know about them.

    Raises:
        ValueError: a file does not exist, cannot be read, or has no text.
    """
    if not config.exclude:
        return None
    found = _Runs()
    for name, path in sorted(_short_names(_paths(config.exclude)).items()):
        _add_set(found, name, path, config.exclude_columns)
    if short := [one for one in found.sets if one.num_without_run]:
        number = sum(one.num_without_run for one in short)
        names = [f"{one.num_without_run:,} of {one.num_records:,} in {one.name}" for one in short]
        notes.append(
            f"{FLAG}: {counted(number, 'record')} without a text of {RUN_WORDS} words cannot be found: {first_files(names)}"
        )
    return RunIndex.of(found.sets, found.places, np.concatenate([np.zeros(0, RUN), *found.rows]))


def _add_set(found: _Runs, name: str, path: str, columns: Sequence[str]) -> None:
    """Read a file as a test set, and add its runs."""
    first, num_records, num_texts, with_run = len(found.places), 0, 0, set[int]()
    texts, places, numbers, size = list[bytes](), list[str](), list[int](), 0

    def add() -> None:
        nonlocal texts, places, numbers, size
        has_run = found.add(texts, places)
        with_run.update(np.array(numbers)[has_run].tolist())
        texts, places, numbers, size = [], [], [], 0

    for place, values in _records(path):
        num_records += 1
        for where, text in _texts(values, columns):
            num_texts += 1
            if len(text) < SHORTEST and text.isascii():
                continue
            texts.append(text.encode(errors="replace"))
            places.append(f"{place}{where}")
            numbers.append(num_records)
            size += len(text)
            if size >= BATCH_BYTES:
                add()
    if texts:
        add()
    if not num_texts:
        named = f" in {', '.join(columns)} ({COLUMNS_FLAG})" if columns else ""
        raise ValueError(f"{FLAG} {path}: has no text{named}. Expected records with texts, as in a test set")
    found.sets.append(ExcludedSet(name, first, num_records, num_records - len(with_run)))


# ---- files


def _paths(patterns: Sequence[str]) -> list[str]:
    """Return the files that the patterns name."""
    found: dict[str, str] = {}  # by the real path, so that a file that is named twice counts once
    for pattern in expand_lists(patterns, FLAG):
        listing = list_files(pattern, FLAG)
        paths = [*listing.named, *(path for path in listing.below if formats_named(Path(path)))]
        if not paths:
            endings = " ".join(dict.fromkeys(ending for form in FORMATS for ending in form.endings))
            raise ValueError(f"{FLAG} {pattern}: no file matches. Expected names that end in {endings}")
        for path in sorted(paths):
            found.setdefault(os.path.realpath(path) if storage.is_local(path) else path, path)
    return list(found.values())


def _short_names(paths: Sequence[str]) -> dict[str, str]:
    """Return name -> path. A name is the end of a path, as long as all must be to differ before their endings.

    >>> list(_short_names(["tasks/squad/dev.json", "tasks/qnli/dev.jsonl"]))
    ['squad/dev.json', 'qnli/dev.jsonl']
    """
    parts = [path.split("/") for path in paths]
    for length in range(1, max(map(len, parts))):
        names = ["/".join(one[-length:]) for one in parts]
        if len({name.rpartition("/")[0] + _stem(name) for name in names}) == len(paths):
            return dict(zip(names, paths))
    return {path: path for path in paths}


def _stem(name: str) -> str:
    """Return the name of a file without folders and endings."""
    return name.rpartition("/")[2].partition(".")[0]


@contextmanager
def _local_file(path: str) -> Iterator[Path]:
    """A path to read a file at; a file of a store is copied to a temporary folder."""
    if storage.is_local(path):
        yield Path(path)
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, path.rpartition("/")[2])
        with storage.open_read(path) as file, open(copy, "wb") as local:
            shutil.copyfileobj(file, local)
        yield copy


def _records(path: str) -> Iterator[tuple[str, Any]]:
    """Yield the place and the values of each record of a file. ValueError if it, or one of them, cannot be read."""
    with _local_file(path) as local:
        try:
            form = format_of(local, _All())
            read: Callable[..., Iterator[tuple[str, Any]]] = _json if JSON in form.endings else form.read
            for place, values in read(local, _All()):
                if isinstance(values, BadRow):
                    raise ValueError(f"{local}: {place}: {values}")
                yield place, values
        except ValueError as error:
            raise ValueError(f"{FLAG} {str(error).replace(str(local), path)}") from None


def _json(path: Path, needed: Container[str]) -> Iterator[tuple[str, Any]]:
    """Yield the items of a JSON array, or of the lists in an object, such as SQuAD's `data`."""
    with opened(path) as file:
        content = file.read(MAX_JSON_BYTES + 1)
    if len(content) > MAX_JSON_BYTES:
        raise ValueError(f"{path} has more than {MAX_JSON_BYTES:,} bytes: write a line for each record, as .jsonl")
    try:
        value = loads(content.removeprefix(b"\xef\xbb\xbf"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}): if each line is an object, name it .jsonl") from None
    lists = {name: items for name, items in value.items() if _has_objects(items)} if isinstance(value, dict) else {}
    for name, items in lists.items():
        for number, item in enumerate(items, 1):
            yield f"{name}[{number}]", item
    if not lists:
        for number, item in enumerate(value if isinstance(value, list) else [value], 1):
            yield f"item {number}", item


def _has_objects(value: Any) -> bool:
    return isinstance(value, list) and any(isinstance(item, dict) for item in value)


# ---- texts


def _texts(value: Any, columns: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield (place in the record, text) of all texts of a record, or of those in one of these columns."""
    yield from _texts_below(value, "", frozenset(columns), not columns)


def _texts_below(value: Any, place: str, columns: frozenset[str], is_chosen: bool) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        if is_chosen and value.strip():
            yield place, value
    elif isinstance(value, list):
        if value and all(isinstance(item, str) for item in value):
            yield from _texts_below(" ".join(value), place, columns, is_chosen)
            return
        for number, item in enumerate(value, 1):
            yield from _texts_below(item, f"{place}[{number}]", columns, is_chosen)
    elif isinstance(value, dict):
        for name, item in value.items():
            where = f"{place}.{name}" if place else f", {name}"
            yield from _texts_below(item, where, columns, is_chosen or name in columns)
