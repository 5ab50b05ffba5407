"""Which files there are, and what they hold: a list of sources, and of what was passed over.

A source is named by a file, a folder, a glob, or `@LIST`, a file with one of these a line.
"""

import glob
import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence

from bertloom import storage
from pipeline.inputs.formats.registry import expected_names, find_format, format_by_name
from pipeline.inputs.sources import Source
from pipeline.inputs.streams import CODECS, HEAD
from pipeline.inputs.text_encodings import encoding_name, find_encoding, is_mostly_utf8

_WILDCARD = re.compile(r"[*?\[]")
_SURROGATE = re.compile("[\udc80-\udcff]")


def find_sources(patterns: Sequence[str], notes: list[str] | None = None, encoding: str = "auto") -> list[Source]:
    """The input files, sorted by name. What a person should know of them is added to `notes`."""
    notes = [] if notes is None else notes
    found: dict[str, tuple[str, int, float]] = {}  # path -> root, size, modification time
    for pattern in _without_lists(patterns):
        root, matches = _match(pattern, notes)
        if not matches:
            raise ValueError(f"--input {pattern}: no file matches; expected {expected_names()}")
        for path, (size, modified) in matches.items():
            if _SURROGATE.search(path):  # how Python holds bytes that are none
                raise ValueError(f"{path!r}: the name is not UTF-8: rename the file, or its folder")
            found.setdefault(path, (root, size, modified))
    names = _names({path: root for path, (root, _, _) in found.items()})
    sources, unknown = [], []
    for path, (_, size, modified) in sorted(found.items()):
        with storage.open_read(path) as file:
            head = file.read(HEAD)
            form, codec, text = find_format(path, head, file)
        of_text = None
        if form in ("txt", "jsonl"):
            of_text = find_encoding(text) if encoding == "auto" else encoding_name(encoding)
            if encoding == "auto" and not of_text and not is_mostly_utf8(text):
                unknown.append(names[path])
        key = f"{names[path]}\0{size}\0{modified!r}\0".encode() + head
        sources.append(Source(path, names[path], form, codec, of_text, size, hashlib.sha256(key).hexdigest()))
    if encoding == "auto":
        for name in sorted({source.encoding for source in sources if source.encoding}):
            files = [source.name for source in sources if source.encoding == name]
            notes.append(f"{_some(files)}: read as {name}, by the first bytes; --encoding utf-8 reads all as UTF-8")
    if unknown:
        notes.append(f"{_some(unknown)}: not UTF-8, nor anything known by its bytes; --encoding names the right one")
    return sorted(sources, key=lambda source: source.name)


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more files" if len(names) > 3 else "")


def _without_lists(patterns: Iterable[str]) -> list[str]:
    """The patterns, with those of the list in the place of each @LIST."""
    plain = []
    for pattern in patterns:
        if not pattern.startswith("@"):
            plain.append(pattern)
            continue
        try:
            lines = storage.read(pattern[1:]).decode("utf-8-sig").splitlines()
        except OSError as error:
            raise ValueError(f"--input {pattern}: the list cannot be read: {error}") from None
        except UnicodeDecodeError as error:
            raise ValueError(f"--input {pattern}: the list is not UTF-8: {error}") from None
        listed = [line.strip() for line in lines if line.strip()]
        if not listed:
            raise ValueError(f"--input {pattern}: the list is empty; expected a file, folder or glob a line")
        plain += listed
    return plain


def _match(pattern: str, notes: list[str]) -> tuple[str, dict[str, tuple[int, float]]]:
    """(root, {path: (size, modification time)}) of one pattern."""
    before_wildcard = re.split(_WILDCARD, pattern)[0]
    if not storage.is_local(pattern):
        folder, root = pattern.endswith("/"), before_wildcard.rpartition("/")[0]
        try:
            files = storage.match(pattern + "**" if folder else pattern)
        except (OSError, ValueError) as error:
            raise ValueError(f"--input {pattern}: cannot be listed: {error}") from error
        named, below = (set(), set(files)) if folder else (set(files), set())
    else:
        folder = os.path.isdir(pattern)
        root = pattern if folder else os.path.dirname(before_wildcard)
        paths = [pattern] if folder else glob.glob(pattern, recursive=True) or [pattern]
        named = set(filter(os.path.isfile, paths))
        wanted = [os.path.join(glob.escape(path), "**") for path in paths if os.path.isdir(path)]
        below = {p for one in wanted for p in glob.glob(one, recursive=True) if os.path.isfile(p)} - named
        files = {path: (os.path.getsize(path), os.path.getmtime(path)) for path in named | below}
    chosen = named.union(_readable(pattern, sorted(below), notes))  # of a folder, what nobody named may be passed over
    return root, {path: files[path] for path in chosen}


def _readable(folder: str, paths: list[str], notes: list[str]) -> list[str]:
    """Those of a folder's files whose names tell a format; of a folder that `datasets` saved, those that its state names."""
    states = {os.path.dirname(path): _data_files(path) for path in paths if os.path.basename(path) == "state.json"}
    chosen = []
    for path in paths:
        saved = states.get(os.path.dirname(path))
        if format_by_name(path)[0] and (saved is None or os.path.basename(path) in saved):
            chosen.append(path)
    strangers = Counter(_ending(path) for path in set(paths) - set(chosen))
    if strangers:
        kinds = ", ".join(f"{number} {kind}" for kind, number in sorted(strangers.items())[:10])
        number = f"{strangers.total()} of {len(paths)} files"
        notes.append(f"{folder}: {number} passed over ({kinds}); expected {expected_names()}")
    return chosen


def _ending(path: str) -> str:
    """What a file's name ends in, .wat.gz or .md, or the whole name where there is no dot in it."""
    stem, ending = os.path.splitext(os.path.basename(path))
    ending = os.path.splitext(stem)[1] + ending if ending in CODECS else ending or stem
    return ending.encode(errors="backslashreplace").decode()  # a name need not be UTF-8


def _data_files(state: str) -> set[str] | None:
    """Names of the files of a data set saved by `datasets`, from its state.json: others beside them are caches. None where
    it is no such state: other programs have files of that name."""
    try:
        return {entry["filename"] for entry in json.loads(storage.read(state))["_data_files"]}
    except (ValueError, KeyError, TypeError):
        return None


def _names(roots: dict[str, str]) -> dict[str, str]:
    """A short name for each path: relative to its root, or the whole path where one that sorts before it is called so.

    A name is part of a fingerprint: it does not change where folders of later dates come in, with files of the same names.
    """
    names: dict[str, str] = {}
    taken: set[str] = set()
    for path, root in sorted(roots.items()):
        short = path[len(root) :].lstrip("/\\") if root else path
        names[path] = path if short in taken else short
        taken.add(short)
    return names
