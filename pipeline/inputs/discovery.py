"""The search for input files.

`--input` is a file, a folder, a glob, or `@LIST`: a file with one of these in each line.
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
    """Return the input files, sorted by name, and append to `notes` what the user should know about them."""
    notes = [] if notes is None else notes
    found: dict[str, tuple[str, int, float]] = {}  # path -> root, size, modification time
    for pattern in _without_lists(patterns):
        root, matches = _match(pattern, notes)
        if not matches:
            raise ValueError(f"--input {pattern}: no file matches. Expected {expected_names()}")
        for path, (size, modified) in matches.items():
            if _SURROGATE.search(path):  # Python's form of bytes that are not UTF-8
                raise ValueError(f"{path!r}: its name is not UTF-8. Rename the file or its folder")
            found.setdefault(path, (root, size, modified))
    names = _names({path: root for path, (root, _, _) in found.items()})
    sources, unknown = [], []
    for path, (_, size, modified) in sorted(found.items()):
        with storage.open_read(path) as file:
            head = file.read(HEAD)
            form, codec, text = find_format(path, head, file)
        text_encoding = None
        if form.has_encodings:
            text_encoding = find_encoding(text) if encoding == "auto" else encoding_name(encoding)
            if encoding == "auto" and not text_encoding and not is_mostly_utf8(text):
                unknown.append(names[path])
        key = f"{names[path]}\0{size}\0{modified!r}\0".encode() + head
        sources.append(
            Source(path, names[path], form.name, codec, text_encoding, size, hashlib.sha256(key).hexdigest())
        )
    if encoding == "auto":
        for name in sorted({source.encoding for source in sources if source.encoding}):
            files = [source.name for source in sources if source.encoding == name]
            notes.append(
                f"{_some(files)}: read as {name}, judging by the first bytes. Use --encoding utf-8 if they are UTF-8"
            )
    if unknown:
        notes.append(f"{_some(unknown)}: not UTF-8, nor any encoding that can be recognized. Name it with --encoding")
    return sorted(sources, key=lambda source: source.name)


def _some(names: list[str]) -> str:
    """Return the first names and the number of the others."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more files" if len(names) > 3 else "")


def _without_lists(patterns: Iterable[str]) -> list[str]:
    """Return the patterns, each @LIST replaced by the patterns that it lists."""
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
            raise ValueError(f"--input {pattern}: the list is empty. Expected a file, folder or glob in each line")
        plain += listed
    return plain


def _match(pattern: str, notes: list[str]) -> tuple[str, dict[str, tuple[int, float]]]:
    """Return (root, {path: (size, modification time)}) for one pattern."""
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
    chosen = named.union(_readable(pattern, sorted(below), notes))  # files that are not named may be ignored
    return root, {path: files[path] for path in chosen}


def _readable(folder: str, paths: list[str], notes: list[str]) -> list[str]:
    """Return the files of a folder whose names show a format. In a folder that `datasets` saved, only its data files."""
    states = {os.path.dirname(path): _data_files(path) for path in paths if os.path.basename(path) == "state.json"}
    chosen = []
    for path in paths:
        saved = states.get(os.path.dirname(path))
        if format_by_name(path)[0] and (saved is None or os.path.basename(path) in saved):
            chosen.append(path)
    ignored = Counter(_ending(path) for path in set(paths) - set(chosen))
    if ignored:
        kinds = ", ".join(f"{number} {kind}" for kind, number in sorted(ignored.items())[:10])
        number = f"{ignored.total()} of {len(paths)} files"
        notes.append(f"{folder}: {number} skipped ({kinds}). Expected {expected_names()}")
    return chosen


def _ending(path: str) -> str:
    """Return the ending of a file's name, such as .md or .wat.gz, or a name without a dot as it is."""
    stem, ending = os.path.splitext(os.path.basename(path))
    ending = os.path.splitext(stem)[1] + ending if ending in CODECS else ending or stem
    return ending.encode(errors="backslashreplace").decode()  # a name need not be UTF-8


def _data_files(state: str) -> set[str] | None:
    """Return the data files that a state.json of Hugging Face `datasets` lists; other files in its folder are caches.

    None for a state.json of another program.
    """
    try:
        return {entry["filename"] for entry in json.loads(storage.read(state))["_data_files"]}
    except (ValueError, KeyError, TypeError):
        return None


def _names(roots: dict[str, str]) -> dict[str, str]:
    """Return a name for each path: relative to its root, or the whole path when an earlier path has that name.

    Names are part of fingerprints, so they must not change when files are added in folders that sort later.
    """
    names: dict[str, str] = {}
    taken: set[str] = set()
    for path, root in sorted(roots.items()):
        short = path[len(root) :].lstrip("/\\") if root else path
        names[path] = path if short in taken else short
        taken.add(short)
    return names
