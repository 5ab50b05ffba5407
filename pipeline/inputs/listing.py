"""The files that a pattern of `--input` names (a file, a folder or a glob), on a disk or in a store.

A path that exists is never treated as a glob. A path that the user names and that cannot be read is an error. Entries of a
folder that cannot be read are listed in `Listing.left_out`. Links are followed, but each folder is listed once. A name that
begins with a dot is hidden: only a pattern that contains the dot matches it.
"""

import os
import re
import stat
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from bertloom import storage
from bertloom.store_errors import StoreError

_WILDCARD = re.compile(r"[*?\[]")
_KINDS = (
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)
READ_ALREADY = "a link to a folder that is already read"


@dataclass(frozen=True, slots=True)
class File:
    """A file as a listing describes it."""

    size: int
    modified: float
    """Seconds."""
    identity: tuple[int, int] | None = None
    """Device and inode of a local file; a link to it has the same."""


@dataclass
class Listing:
    """The files that one pattern names."""

    root: str
    """The folder, or the folders before the first wildcard."""
    named: dict[str, File] = field(default_factory=dict)
    """Path -> file, of the files that the pattern names itself."""
    below: dict[str, File] = field(default_factory=dict)
    """Path -> file, of the files in folders that the pattern names."""
    left_out: list[tuple[str, str]] = field(default_factory=list)
    """(path, what it is) of entries of these folders that are not read, such as pipes and broken links."""


def list_files(pattern: str, flag: str = "--input") -> Listing:
    """Return the files that a pattern of a flag names. ValueError if one that the user names cannot be read."""
    listing = _list_local(pattern) if storage.is_local(pattern) else _list_store(pattern, flag)
    for path in listing.named:
        listing.below.pop(path, None)
    return listing


def _root(pattern: str) -> str:
    return _WILDCARD.split(pattern)[0].rpartition("/")[0]


# ---- stores


def _list_store(pattern: str, flag: str) -> Listing:
    try:
        entry = None if pattern.endswith("/") else storage.info(pattern)
        if isinstance(entry, tuple):
            return Listing(pattern.rpartition("/")[0], {pattern: File(*entry)})
        if pattern.endswith("/") or entry == storage.FOLDER:
            folders, listing = [pattern], Listing(pattern.rstrip("/"))
        else:
            files, folders = storage.match(pattern)
            listing = Listing(_root(pattern), {path: File(*found) for path, found in files.items()})
        for folder in folders:
            listing.below |= {path: File(*found) for path, found in storage.find(folder).items()}
        return listing
    except StoreError as error:
        raise StoreError(f"{flag} {error}") from error
    except (OSError, ValueError) as error:
        raise ValueError(f"{flag} {pattern}: cannot be listed: {error}") from error


# ---- local disks


def _list_local(pattern: str) -> Listing:
    if os.path.lexists(pattern):
        listing = Listing(pattern if os.path.isdir(pattern) else os.path.dirname(pattern))
        paths = [pattern]
    else:
        listing = Listing(_root(pattern) or ("/" if pattern.startswith("/") else ""))
        is_absolute = pattern.startswith("/")
        paths = sorted(set(_expand("/" if is_absolute else "", pattern.split("/")[is_absolute:], listing)))
    for path in paths:
        if os.path.isdir(path):
            for _, entries in _folders_below(path, listing):
                _add_files(entries, listing)
        else:
            listing.named[path] = _named_file(path)
    return listing


def _expand(folder: str, parts: Sequence[str], listing: Listing) -> Iterator[str]:
    """Yield the paths below a folder that the parts of a glob name."""
    if not parts:
        yield folder
        return
    part, rest = parts[0], parts[1:]
    if part == "**":
        for below, entries in _folders_below(folder, listing):
            if rest:
                yield from _expand(below, rest, listing)
            else:
                files = (entry for entry in entries if not _is_folder(entry))
                yield from (entry.path.removeprefix("./") for entry in files if not entry.name.startswith("."))
    elif os.path.lexists(path := os.path.join(folder, part)):
        yield from _expand(path, rest, listing)
    elif _WILDCARD.search(part):
        for entry in _entries(folder):
            if storage.matches(part, entry.name) and (not rest or _is_folder(entry)):
                yield from _expand(os.path.join(folder, entry.name), rest, listing)


def _entries(folder: str) -> list[os.DirEntry[str]]:
    """Return the entries of a folder by name; none if there is no such folder. ValueError if it may not be listed."""
    try:
        with os.scandir(folder or ".") as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise ValueError(
            f"{folder or '.'}: the folder cannot be listed: {error.strerror}. Make it readable, or name the files and "
            f"folders to read one by one"
        ) from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    return os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()


def _folders_below(top: str, listing: Listing) -> Iterator[tuple[str, list[os.DirEntry[str]]]]:
    """Yield (folder, its entries) of a folder and all below it that are not hidden.

    Real folders come before links, and each comes once.
    """
    seen: set[str] = set()
    folders, links = deque([top]), deque[str]()
    while folders or links:
        folder = folders.popleft() if folders else links.popleft()
        real = os.path.realpath(folder)
        if real in seen:
            listing.left_out.append((folder, READ_ALREADY))
            continue
        seen.add(real)
        entries = _entries(folder)
        yield folder, entries
        for entry in entries:
            if _is_folder(entry) and not entry.name.startswith("."):
                (links if entry.is_symlink() else folders).append(os.path.join(folder, entry.name))


def _add_files(entries: Iterable[os.DirEntry[str]], listing: Listing) -> None:
    """Add the files among the entries of a folder."""
    for entry in entries:
        if entry.name.startswith(".") or _is_folder(entry):
            continue
        path = entry.path
        try:
            found = os.stat(path)
        except OSError as error:
            what = "a link that cannot be followed" if entry.is_symlink() else "a file that vanished"
            listing.left_out.append((path, f"{what} ({error.strerror})"))
            continue
        if kind := _special_kind(found.st_mode):
            listing.left_out.append((path, kind))
        else:
            listing.below[path] = _file(found)


def _named_file(path: str) -> File:
    """Return a file that was asked for."""
    try:
        found = os.stat(path)
    except OSError as error:
        target = f"is a link to {os.readlink(path)}, which cannot" if os.path.islink(path) else "cannot"
        raise ValueError(
            f"{path}: {target} be read ({error.strerror}). Repair or remove it, or name the other files"
        ) from error
    if kind := _special_kind(found.st_mode):
        raise ValueError(
            f"{path}: is {kind}. Expected a regular file, because inputs are read more than once: write the text to a file"
        )
    return _file(found)


def _special_kind(mode: int) -> str | None:
    return next((kind for is_kind, kind in _KINDS if is_kind(mode)), None)


def _file(found: os.stat_result) -> File:
    return File(found.st_size, found.st_mtime, (found.st_dev, found.st_ino))
