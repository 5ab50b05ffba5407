"""The search for input files.

`--input` is a file, a folder, a glob, or `@LIST`: a file with one of these in each line.
"""

import glob
import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from operator import itemgetter

from bertloom import storage
from bertloom.counts import counted, first_files
from bertloom.json_files import parse_json
from bertloom.store_errors import StoreError
from pipeline.inputs.formats.format import Format
from pipeline.inputs.formats.registry import expected_names, find_format, format_by_name, format_named, has_open_name
from pipeline.inputs.listing import File, Listing, list_files
from pipeline.inputs.sources import Input, ReadConfig, Source, differences
from pipeline.inputs.streams import CODECS, HEAD
from pipeline.inputs.text_encodings import encoding_of, is_mostly_utf8

NUM_LOOKS = 16
"""Files of stores that are looked at, at the same time."""
_SURROGATE = re.compile("[\udc80-\udcff]")


@dataclass(frozen=True)
class _Content:
    """What a file's name and first bytes show."""

    format: Format
    codec: str | None
    encoding: str | None
    is_unknown: bool
    """Whether it is text in an encoding that cannot be recognized."""
    digest: bytes
    """Of its first bytes."""


_Contents = dict[tuple[str, ReadConfig], _Content]  # by path


def find_sources(
    patterns: Sequence[str],
    notes: list[str] | None = None,
    config: ReadConfig | None = None,
    validation_patterns: Sequence[str] = (),
    inputs: Sequence[Input] = (),
    flag: str = "--input",
) -> list[Source]:
    """Return the input files, sorted by name, and append to `notes` what the user should know about them.

    Args:
        patterns: of files that are read with the options of `config`.
        validation_patterns: patterns of the files that are held out, even if `patterns` match them, too.
        inputs: more files, with their own options. A file belongs to the last one that names it; a file that only
            `patterns` name belongs to one more input, after the others.
        flag: names the patterns in errors.
    """
    notes, config = [] if notes is None else notes, config or ReadConfig()
    contents: _Contents = {}
    found = _find(patterns, flag, notes, config, contents)
    options: dict[str, ReadConfig] = {}
    numbers: dict[str, int] = dict.fromkeys(found, len(inputs)) if inputs else {}
    for number, one in enumerate(inputs):
        named = _find(one.patterns, "--inputs", notes, one.read, contents)
        found = {**named, **found}
        options |= dict.fromkeys(named, one.read)
        numbers |= dict.fromkeys(named, number)
    _leave_out_links(found, notes)
    held_out = _find(validation_patterns, "--validation-input", notes, config, contents)
    _leave_out_links(held_out, notes)
    if held_out:
        real = set(map(_real_path, held_out))
        both = [path for path in found if _real_path(path) in real]
        found = {path: found[path] for path in found.keys() - both}
        if both:
            notes.append(f"{first_files(both)}: held out by --validation-input, and not trained on")
        if not found:
            raise ValueError(
                "--validation-input names all files of --input, so no file is left to train on: give other files with "
                "--input"
            )
    names = _names({path: root for path, (root, _) in found.items()}, set())
    held_out_names = _names({path: root for path, (root, _) in held_out.items()}, set(names.values()))
    _look_at_objects({path: options.get(path, config) for path in {**found, **held_out}}, contents)
    sources, unknown = [], []
    for path, (_, listed) in sorted({**found, **held_out}.items()):
        name, read = names.get(path) or held_out_names[path], options.get(path, config)
        content = contents.get((path, read)) or _look(path, read)
        number = -1 if path in held_out else numbers.get(path, -1)
        sources.append(replace(_source(path, name, listed, content, read, path in held_out), input=number))
        if content.is_unknown:
            unknown.append(name)
    notes += _notes_about(sources, unknown)
    return sorted(sources, key=lambda source: source.name)


def _notes_about(sources: Sequence[Source], unknown: Sequence[str]) -> list[str]:
    """Return what the user should know about the options of the sources. unknown: names of those in unknown encodings."""
    notes = []
    guessed = [source for source in sources if source.encoding and source.read.encoding == "auto"]
    for read_as in sorted({source.encoding for source in guessed if source.encoding}):
        files = [source.name for source in guessed if source.encoding == read_as]
        notes.append(
            f"{first_files(files)}: read as {read_as}, judging by the first bytes. Use --encoding utf-8 if they are UTF-8"
        )
    if whole := [source.name for source in sources if source.read.records != "documents" and not _has_records(source)]:
        notes.append(f"{first_files(whole)}: --records has no effect, because there a record is always a document")
    if unknown:
        notes.append(
            f"{first_files(unknown)}: not UTF-8, nor any encoding that can be recognized. Name it with --encoding"
        )
    return notes


def _has_records(source: Source) -> bool:
    form = format_named(source.format)
    return form.has_records or form.open_entries is not None  # an archive may hold files of any format


def _look_at_objects(files: Mapping[str, ReadConfig], contents: _Contents) -> None:
    """Add the files of stores to `contents`, several at a time: each takes as long as the store needs to answer."""
    keys = [key for key in sorted(files.items(), key=itemgetter(0)) if not storage.is_local(key[0])]
    keys = [key for key in keys if key not in contents]
    with ThreadPoolExecutor(NUM_LOOKS if keys else 1) as pool:
        contents.update(zip(keys, pool.map(lambda key: _look(*key), keys)))


def _look(path: str, read: ReadConfig) -> _Content:
    """Return what a file holds. ValueError where its name and its first bytes do not show a format."""
    with storage.open_read(path) as opened:
        head = opened.read(HEAD)
        form, codec, text = find_format(path, head, opened, read)
    encoding = encoding_of(text, read.encoding) if form.has_encodings else None
    is_unknown = form.has_encodings and read.encoding == "auto" and not encoding and not is_mostly_utf8(text)
    return _Content(form, codec, encoding, is_unknown, hashlib.sha256(head).digest())


def _source(path: str, name: str, listed: File, content: _Content, read: ReadConfig, held_out: bool) -> Source:
    """Return a file as a source."""
    key = b"held out\0" * held_out + f"{name}\0{listed.size}\0{listed.modified!r}\0".encode() + content.digest
    digest = hashlib.sha256(_reading(read) + key).hexdigest()
    found = content.format.name, content.codec, content.encoding, listed.size, digest, read, held_out
    return Source(path, name, *found, modified=listed.modified)


@lru_cache
def _reading(read: ReadConfig) -> bytes:
    """Return the part of a fingerprint that the options for reading are, if any differs from its default."""
    given = differences(read, ReadConfig())
    return json.dumps(given, sort_keys=True).encode() + b"\0" if given else b""


def _find(
    patterns: Sequence[str], flag: str, notes: list[str], read: ReadConfig, contents: _Contents
) -> dict[str, tuple[str, File]]:
    """Return path -> (root, file) of the files that the patterns of a flag name. Add to `contents` what was looked into."""
    if read.format:
        format_named(read.format)  # ValueError if there is no such format
    found: dict[str, tuple[str, File]] = {}
    for pattern in expand_lists(patterns, flag):
        listing = list_files(pattern, flag)
        chosen = {**listing.named, **_readable(pattern, listing, notes, read, contents)}
        if not chosen:
            raise ValueError(f"{flag} {pattern}: {_nothing_found(pattern, listing, read)}")
        for path, file in chosen.items():
            if _SURROGATE.search(path):  # Python's form of bytes that are not UTF-8
                raise ValueError(f"{path!r}: the name is not UTF-8. Rename the file or its folder")
            found.setdefault(path, (listing.root, file))
    return found


def _leave_out_links(found: dict[str, tuple[str, File]], notes: list[str]) -> None:
    """Remove the paths of files that have another path here too, through links."""
    links = _second_names({path: file for path, (_, file) in found.items()})
    for path in links:
        del found[path]
    if links:
        notes.append(f"{first_files(links)}: skipped, because the same file is read under another name")


def _real_path(path: str) -> str:
    return os.path.realpath(path) if storage.is_local(path) else path


def _nothing_found(pattern: str, listing: Listing, read: ReadConfig) -> str:
    """Return what is wrong with a pattern that matches no file to read."""
    if storage.is_local(pattern) and not os.path.lexists(pattern) and not glob.has_magic(pattern):
        return "there is no such file or folder"
    for path in filter(has_open_name, sorted(listing.below)):
        try:
            _look(path, read)
        except ValueError as error:
            return f"no file can be read, such as {error}"
    return f"no file matches. Expected {expected_names()}"


def _second_names(found: Mapping[str, File]) -> list[str]:
    """Return the paths of files that have another path here too, through links."""
    paths_of: dict[tuple[int, int], list[str]] = {}
    for path, file in sorted(found.items()):
        if file.identity:
            paths_of.setdefault(file.identity, []).append(path)
    second: list[str] = []
    for paths in paths_of.values():
        if len(paths) > 1:  # hard links are different files
            ordered = sorted(paths, key=lambda p: (os.path.islink(p), os.path.realpath(p) != os.path.abspath(p), p))
            reals = [os.path.realpath(path) for path in ordered]
            second += [path for i, path in enumerate(ordered) if reals[i] in reals[:i]]
    return sorted(second)


def expand_lists(patterns: Iterable[str], flag: str = "--input") -> list[str]:
    """Return the patterns of a flag, each @LIST replaced by the patterns that it lists."""
    plain = []
    for pattern in patterns:
        if not pattern.startswith("@") or (storage.is_local(pattern) and os.path.lexists(pattern)):
            plain.append(pattern)
            continue
        try:
            lines = storage.read(pattern[1:]).decode("utf-8-sig").splitlines()
        except StoreError as error:
            raise StoreError(f"{flag} {error}") from error
        except OSError as error:
            raise ValueError(f"{flag} {pattern}: the list cannot be read: {error}") from None
        except UnicodeDecodeError as error:
            raise ValueError(f"{flag} {pattern}: the list is not UTF-8: {error}") from None
        listed = [line.strip() for line in lines if line.strip()]
        if not listed:
            raise ValueError(f"{flag} {pattern}: the list is empty. Expected a file, folder or glob in each line")
        plain += listed
    return plain


def _readable(
    pattern: str, listing: Listing, notes: list[str], read: ReadConfig, contents: _Contents
) -> dict[str, File]:
    """Return the files below folders whose names show a format, or whose first bytes do if their names may be of any.

    With --format, all files are returned. In a folder that `datasets` saved, only its data files are.
    """
    below = listing.below
    saved = _saved_by_datasets(below)
    chosen = {}
    forms: dict[str, Format | None] = {}
    for path, file in below.items():
        listed = saved.get(os.path.dirname(path)) if saved else None
        if listed is not None and os.path.basename(path) not in listed:
            continue
        form = format_by_name(path)[0]
        if not read.format and form is None and has_open_name(path):
            with suppress(ValueError, PermissionError):  # it is skipped
                contents[path, read] = _look(path, read)
        if read.format or form or (path, read) in contents:
            chosen[path], forms[path] = file, form
    if about := _about_data(forms):
        chosen = {path: file for path, file in chosen.items() if path not in about}
        notes.append(f"{first_files(about)}: skipped, because it describes the data in its folder. Name it to read it")
    ignored = Counter(_ending(path) for path in below.keys() - chosen.keys() - set(about))
    if ignored:
        kinds = ", ".join(f"{number} {kind}" for kind, number in sorted(ignored.items())[:10])
        number = f"{ignored.total()} of {counted(len(below), 'file')}"
        notes.append(f"{pattern}: {number} skipped ({kinds}). Expected {expected_names()}")
    for what, paths in sorted(_by_kind(listing.left_out).items()):
        notes.append(f"{pattern}: {len(paths)} skipped: {what}: {first_files([_shown(path) for path in paths])}")
    return chosen


def _about_data(forms: Mapping[str, Format | None]) -> list[str]:
    """Return the README files that are in or above a folder with data. Those of documentation are documents.

    forms: path -> format by its name.
    """
    folders: set[str] = set()  # with data in or below them
    readmes = []
    for path, form in forms.items():
        if form and form.is_document:
            readmes += [path] if os.path.basename(path).lower().startswith("readme.") else []
            continue
        while (folder := os.path.dirname(path)) not in folders and folder != path:
            folders.add(folder)
            path = folder
    return sorted(path for path in readmes if os.path.dirname(path) in folders)


def _by_kind(left_out: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    kinds: dict[str, list[str]] = {}
    for path, what in sorted(set(left_out)):
        kinds.setdefault(what, []).append(path)
    return kinds


def _ending(path: str) -> str:
    """Return the ending of a file's name, such as .md or .wat.gz, or a name without a dot as it is."""
    stem, ending = os.path.splitext(os.path.basename(path))
    ending = os.path.splitext(stem)[1] + ending if ending in CODECS else ending or stem
    return _shown(ending)


def _shown(name: str) -> str:
    """Return a name in a form that can be printed, even if it is not UTF-8."""
    return name.encode(errors="backslashreplace").decode()


def _saved_by_datasets(paths: Collection[str]) -> dict[str, set[str]]:
    """Return folder -> its data files, of the folders that `datasets` saved. ValueError if one of the files is missing."""
    saved: dict[str, set[str]] = {}
    for path in paths:
        folder, name = os.path.split(path)
        read = _LISTS.get(name)
        names = read(path) if read else None
        if names is None:
            continue
        if name == "state.json":
            saved[folder] = names
        if missing := sorted(name for name in names if storage.join(folder, *name.split("/")) not in paths):
            raise ValueError(
                f"{path}: {len(missing)} of {counted(len(names), 'listed file')} missing, such as {missing[0]}: copy the "
                f"whole folder again, or name the files to read one by one"
            )
    return saved


def _data_files(state: str) -> set[str] | None:
    """Return the data files that a state.json of Hugging Face `datasets` lists; other files in its folder are caches.

    None for a state.json of another program.
    """
    try:
        names = {entry["filename"] for entry in parse_json(storage.read(state), state)["_data_files"]}
    except (ValueError, KeyError, TypeError):
        return None
    return names if all(isinstance(name, str) for name in names) else None


def _splits(listed: str) -> set[str] | None:
    """Return the state.json of each split that a dataset_dict.json of `datasets` lists; None for another program's."""
    try:
        splits = parse_json(storage.read(listed), listed)["splits"]
    except (ValueError, KeyError):
        return None
    return {f"{split}/state.json" for split in splits} if isinstance(splits, list) else None


_LISTS = {"state.json": _data_files, "dataset_dict.json": _splits}


def _names(roots: dict[str, str], taken: set[str]) -> dict[str, str]:
    """Return a name for each path: relative to its root, or the whole path when an earlier path has that name.

    Names are part of fingerprints, so they must not change when files are added in folders that sort later. No two files
    have the same name: a whole path that is taken, too, begins with `./`.

    taken: names that other files have; the new names are added.
    """
    names: dict[str, str] = {}
    for path, root in sorted(roots.items()):
        name = path[len(root) :].lstrip("/\\") if root else path
        if name in taken:
            name = path
        while name in taken:
            name = f"./{name}"
        names[path] = name
        taken.add(name)
    return names
