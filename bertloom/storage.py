"""Files on local disks and in stores: written whole or not at all, read by byte range.

A path without a scheme is a local file and is opened directly. A path with one (`s3://bucket/name`) goes to fsspec: see
stores.py for its clients and errors, and store_files.py for what is read and written.

On local disks and HDFS a file is written under a temporary name in its own folder, synced (local), and renamed; then the
folder is synced (local). An object store gets the whole object under its final name, so a failed write leaves nothing there.
"""

import hashlib
import os
import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Any, BinaryIO

from bertloom import whole_files
from bertloom.json_files import check_regular
from bertloom.store_errors import StoreError, scheme_of
from bertloom.store_files import MOST_AHEAD, RENAMES, StoreFile, open_store, write_store
from bertloom.stores import (
    READ_SECONDS,
    SLOWEST,
    Options,
    ask,
    check_bucket,
    connect,
    fetch,
    file_system,
    list_below,
    options,
    size_of,
)
from bertloom.whole_files import NO_ROOM, remove_path, whole_file

__all__ = ["MOST_AHEAD", "Options", "StoreError", "connect", "fetch", "file_system", "options", "scheme_of"]

NEAR_BYTES = 1 << 18
"""Spans of a file that are this near to each other are read in one request: a request takes as long as these bytes."""
FOLDER = "folder"

_PLAIN_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")
_WILDCARD = re.compile(r"[*?\[]")


def is_local(path: str) -> bool:
    """Return whether a path is on this machine's file system."""
    return scheme_of(path) is None


def join(folder: str, *names: str) -> str:
    """Return the path of a name below a folder."""
    return os.path.join(folder, *names) if is_local(folder) else "/".join([folder.rstrip("/"), *names])


def exists(path: str) -> bool:
    """Return whether there is a file or a folder of this path."""
    if is_local(path):
        return os.path.exists(path)
    found = ask(path, lambda system, within: bool(system.exists(within)))
    if not found:
        check_bucket(path)
    return found


def size(path: str) -> int | None:
    """Return the bytes of a file, None if there is none."""
    if is_local(path):
        return os.path.getsize(path) if os.path.isfile(path) else None
    return ask(path, size_of)


def make_folder(path: str) -> None:
    """Make a folder with its parents. Object stores need none."""
    if is_local(path):
        os.makedirs(path, exist_ok=True)
    elif scheme_of(path) in RENAMES:
        ask(path, lambda system, within: system.makedirs(within, exist_ok=True))


def is_plain_name(name: str) -> bool:
    """Return whether a name is a relative one that cannot leave its folder."""
    return _PLAIN_NAME.fullmatch(name) is not None


def file_below(folder: str, name: str) -> str:
    """Return the path of a file below a folder. The name may come from a file of unknown origin.

    Raises:
        ValueError: the name is not a plain relative one, or the file on the local disk is a device, a pipe or a folder.
        FileNotFoundError: the file does not exist on the local disk. In a store, existence is not checked.
    """
    if not is_plain_name(name):
        raise ValueError(
            f"{name!r} is not the name of a file inside {folder}: expected letters, digits, '.', '-' and '_', with '/' "
            f"between folders"
        )
    path = join(folder, *name.split("/"))
    if is_local(path):
        check_regular(path)
    return path


def open_read(path: str, size: int | None = None, ahead: int = 0) -> BinaryIO:
    """Open a file to read its bytes; seekable.

    Args:
        size: bytes of the file, if they are known: a store need not be asked.
        ahead: bytes that will be read in sequence from where reading begins. A store is asked for them at once.
    """
    return open(path, "rb") if is_local(path) else open_store(path, size, ahead)


def read(path: str, most: int | None = None) -> bytes:
    """Return the whole content of a file; ValueError if it has more than `most` bytes."""
    try:
        return _read(path, most)
    except FileNotFoundError:
        if not is_local(path):
            check_bucket(path)
        raise


def _read(path: str, most: int | None) -> bytes:
    if most is None:
        with open_read(path, ahead=MOST_AHEAD) as file:
            return file.read()
    content = read_range(path, None, most + 1)
    if len(content) > most:
        raise ValueError(f"{path} has more than {most:,} bytes, so it is not what its name says: copy it again")
    return content


def read_if_there(path: str) -> bytes | None:
    """Return the whole content of a file, or None if there is none."""
    try:
        return _read(path, None)
    except FileNotFoundError:
        return None


def read_range(path: str, start: int | None, most: int) -> bytes:
    """Return at most `most` bytes of a file from byte `start`, or of a whole file if that is None."""
    if is_local(path):
        with open(path, "rb") as file:
            file.seek(start or 0)
            return file.read(min(most, max(0, os.fstat(file.fileno()).st_size - (start or 0))))
    if scheme_of(path) in ("http", "https"):  # may send anything, or not tell the size
        return ask(path, lambda system, within: fetch(system, within, start, most, READ_SECONDS + most / SLOWEST))
    with open_store(path) as file:
        file.seek(start or 0)
        return file.read(most)


def read_ranges(path: str, spans: Sequence[tuple[int, int]]) -> list[bytes]:
    """Return the (offset, length) spans of a file, in any order. Near spans in a store are read together.

    Raises:
        ValueError: the file ends earlier.
    """
    contents = [b""] * len(spans)
    with open_read(path) as file:
        for group in _near(spans, 0 if is_local(path) else NEAR_BYTES):
            begin = spans[group[0]][0]
            block = read_at(file, begin, max(sum(spans[i]) for i in group) - begin)
            for i in group:
                offset, length = spans[i]
                contents[i] = block[offset - begin : offset - begin + length]
    return contents


def _near(spans: Sequence[tuple[int, int]], distance: int) -> list[list[int]]:
    """Return the numbers of the spans in groups, by their offsets. distance: largest between two spans of a group."""
    groups: list[list[int]] = []
    end = 0
    for i in sorted(range(len(spans)), key=lambda i: spans[i]):
        offset, length = spans[i]
        if groups and offset <= end + distance:
            groups[-1].append(i)
        else:
            groups.append([i])
        end = max(end, offset + length)
    return groups


def read_at(file: BinaryIO, offset: int, length: int) -> bytes:
    """Return `length` bytes of an open file from `offset`; ValueError if the file ends earlier."""
    if not isinstance(file, StoreFile):  # a store sends what there is, and no memory is taken for what there is not
        end = file.seek(0, os.SEEK_END)  # the stated length may be false, so it is checked before memory is taken
        if offset + length > end:
            raise ValueError(f"ends {offset + length - end} bytes early: expected {length} bytes at {offset}")
    file.seek(offset)
    data = file.read(length)
    if len(data) != length:
        raise ValueError(f"ends {length - len(data)} bytes early: expected {length} bytes at {offset}")
    return data


def write_whole(path: str, chunks: Iterable[bytes]) -> tuple[int, str]:
    """Write the chunks as one file, which exists whole or not at all. Return its size in bytes and its sha256."""
    digest, size, local = hashlib.sha256(), 0, is_local(path)

    def count(chunk: bytes) -> None:
        nonlocal size
        digest.update(chunk)
        size += len(chunk)

    try:
        if local:
            with whole_file(path) as file:
                for chunk in chunks:
                    count(chunk)
                    file.write(chunk)
        else:
            write_store(path, chunks, count)
    except OSError as error:
        if error.errno not in NO_ROOM and not (local and error.errno and error.filename == os.fspath(path)):
            raise
        place = path if local else f"{path} (written to {tempfile.gettempdir()} first)"
        advice = "Make room, then start" if error.errno in NO_ROOM else "Start"
        raise OSError(
            f"{place}: {os.strerror(error.errno).lower()}, after {size} bytes. What was finished before is kept. "
            f"{advice} the same command again"
        ) from error
    return size, digest.hexdigest()


def sweep_temporary(folder: str, older_seconds: float = 0) -> None:
    """`whole_files.sweep_temporary` for a local folder; a store has no temporary files."""
    if is_local(folder):
        whole_files.sweep_temporary(folder, older_seconds)


def names_in(folder: str) -> set[str]:
    """Return the names of the files and folders in a folder, an empty set if the folder does not exist."""
    if is_local(folder):
        return set(os.listdir(folder)) if os.path.isdir(folder) else set()
    _, within = file_system(folder)
    try:
        entries = ask(folder, lambda system, within: system.ls(within, detail=True))
    except FileNotFoundError:
        check_bucket(folder)
        return set()
    paths = {entry["name"].rstrip("/") for entry in entries} - {within.rstrip("/")}  # a folder may be an object too
    return {path.rpartition("/")[2] for path in paths}


def remove(path: str) -> None:
    """Remove a file, or a folder with its content; nothing happens if there is none."""
    if is_local(path):
        remove_path(path)
        return
    with suppress(FileNotFoundError):
        ask(path, lambda system, within: system.rm(within, recursive=True))


def files_below(folder: str) -> list[str]:
    """Return the paths of all files below a local folder, relative to it, with forward slashes."""
    found = []
    for parent, _, names in os.walk(folder):
        found += [os.path.relpath(os.path.join(parent, name), folder).replace(os.sep, "/") for name in names]
    return sorted(found)


def info(path: str) -> tuple[int, float] | str | None:
    """Return (bytes, modification time in seconds) of a file of a store, FOLDER, or None if there is neither."""
    try:
        entry = ask(path, lambda system, within: system.info(within))
    except FileNotFoundError:
        check_bucket(path)
        return None
    return _of_file(entry) if entry["type"] == "file" else FOLDER


def find(folder: str) -> dict[str, tuple[int, float]]:
    """Return the files below a folder of a store: path -> (bytes, modification time). Hidden ones are left out."""
    folder = folder.rstrip("/")
    _, within = file_system(folder)
    try:
        found = ask(folder, list_below)
    except FileNotFoundError:
        found = {}
    if not found:
        check_bucket(folder)
    entries = {name[len(within) :]: entry for name, entry in found.items()}
    return {folder + name: _of_file(entry) for name, entry in entries.items() if matches("**", name.strip("/"))}


def match(pattern: str) -> tuple[dict[str, tuple[int, float]], list[str]]:
    """Return what a glob names in a store: path -> (bytes, modification time in seconds) of files, and folders.

    `**` as a whole part of the path matches any number of folders, and the files in them alone.
    """
    before = _WILDCARD.split(pattern)[0]
    folder = before[: before.rfind("/") + 1]
    _, within = file_system(pattern)
    root = within[: len(within) - (len(pattern) - len(folder))]
    found = ask(pattern, lambda system, within: system.glob(_plain_stars(within), detail=True))
    if not found:
        check_bucket(pattern)
    files, folders = dict[str, tuple[int, float]](), set[str]()
    for name, entry in found.items():
        path = folder + name[len(root) :].rstrip("/")
        if not matches(pattern, path):
            continue
        if entry["type"] == "file" and not name.endswith("/"):  # some programs make an object for a folder
            files[path] = _of_file(entry)
        else:
            folders.add(path)
    return files, [] if pattern.endswith("**") else sorted(folders - files.keys())


def matches(pattern: str, path: str) -> bool:
    """Return whether a glob names a path. `*` and `**` leave out names that begin with a dot, as in a shell."""
    return _parts_match(pattern.split("/"), path.split("/"))


def _parts_match(pattern: Sequence[str], names: Sequence[str]) -> bool:
    if not pattern:
        return not names
    part, rest = pattern[0], pattern[1:]
    if part != "**":
        is_named = bool(names) and (part.startswith(".") or not names[0].startswith("."))
        return is_named and fnmatchcase(names[0], part) and _parts_match(rest, names[1:])
    num_shown = next((i for i, name in enumerate(names) if name.startswith(".")), len(names))
    return any(_parts_match(rest, names[i:]) for i in range(num_shown + 1))


def _plain_stars(pattern: str) -> str:
    """`a**` means `a*`, as in Python's `glob`: only `**` alone crosses folders."""
    return "/".join(part if part == "**" else re.sub(r"\*+", "*", part) for part in pattern.split("/"))


def _of_file(entry: Mapping[str, Any]) -> tuple[int, float]:
    return int(entry["size"] or 0), _modified(entry)


def _modified(entry: Mapping[str, Any]) -> float:
    if (milliseconds := entry.get("modificationTime")) is not None:  # WebHDFS
        return int(milliseconds) / 1000
    for name in ("mtime", "LastModified", "last_modified", "updated", "created"):
        value = entry.get(name)
        if isinstance(value, str):
            value = datetime.fromisoformat(value)
        if value is not None:
            return value.timestamp() if isinstance(value, datetime) else float(value)
    return 0.0
