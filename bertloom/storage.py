"""Files on local disks and in stores: written whole or not at all, read by byte range.

A path without a scheme is a local file and is opened directly. A path with one (`s3://bucket/name`) goes to fsspec, which
keeps one client for each store and process.

On local disks and HDFS a file is written under a temporary name in its own folder, synced (local), and renamed; then the
folder is synced (local). An object store gets the whole object under its final name in one call, so a failed write leaves
nothing there.
"""

import hashlib
import http
import os
import re
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Any, BinaryIO

from bertloom import whole_files
from bertloom.extras import needs
from bertloom.json_files import check_regular
from bertloom.whole_files import NO_ROOM, temporary_name, whole_file

Options = Mapping[str, Mapping[str, Any]]
"""Scheme -> keyword arguments of its fsspec file system.

Two more: `protocol`, another of fsspec's file systems to use for the scheme; its URLs have no host (`hdfs://folder/file`)
unless `has_host` is true.
"""

RENAMES = ("hdfs", "webhdfs", "sftp", "ssh", "smb")
"""Schemes with real folders, in which a file is visible while it is being written."""
NO_LISTING_CACHE = ("s3", "s3a", "gs", "gcs")
"""Schemes whose client would keep listings of folders for good; other processes write there too."""
READ_AHEAD_BYTES = 4 << 20
CHUNK_BYTES = 1 << 18
READ_SECONDS = 60
"""Time limit of a read from a store, plus what its size takes at SLOWEST."""
SLOWEST = 1_000_000
"""Bytes per second."""
EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs", "http": "http", "https": "http"}
"""The extra of bertloom that installs a scheme's client."""
FOLDER = "folder"

_SCHEME = re.compile(r"([a-zA-Z][-a-zA-Z0-9+.]*)://")
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")
_WILDCARD = re.compile(r"[*?\[]")
_options: Options = {}


def connect(options: Options) -> None:
    """Set the options with which this process reaches its stores. Credentials may also come from the environment, where
    each store's own client looks for them."""
    global _options
    _options = options


def scheme_of(path: str) -> str | None:
    """Return `s3` of `s3://bucket/name`, None of a local path."""
    found = _SCHEME.match(path)
    return found[1].lower() if found else None


def is_local(path: str) -> bool:
    """Return whether a path is on this machine's file system."""
    return scheme_of(path) is None


def join(folder: str, *names: str) -> str:
    """Return the path of a name below a folder."""
    return os.path.join(folder, *names) if is_local(folder) else "/".join([folder.rstrip("/"), *names])


def file_system(path: str) -> tuple[Any, str]:
    """Return fsspec's file system of a path with a scheme, and the path within it.

    Raises:
        ValueError: the scheme is unknown, or its package is not installed.
    """
    from fsspec.core import url_to_fs
    from fsspec.registry import get_filesystem_class

    scheme = scheme_of(path) or "file"
    options = dict(_options.get(scheme, {}))
    if scheme in NO_LISTING_CACHE:
        options["use_listings_cache"] = False
    try:
        if protocol := options.pop("protocol", None):
            within = path.partition("://")[2]
            if options.pop("has_host", False):
                within = within.partition("/")[2]
            return get_filesystem_class(protocol)(**options), f"/{within}"
        system, within = url_to_fs(path, **options)
        return system, within
    except ImportError as error:
        raise ValueError(needs(path, EXTRAS[scheme]) if scheme in EXTRAS else f"{path}: {error}") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}; expected s3://…, gs://…, https://… or a local path") from None


@contextmanager
def _remote(path: str) -> Iterator[tuple[Any, str]]:
    """`file_system(path)`; errors of the client's own kinds become an OSError that names the path."""
    system, within = file_system(path)
    try:
        yield system, within
    except (OSError, ValueError):
        raise
    except Exception as error:
        raise OSError(f"{path}: {type(error).__name__}: {error}") from error


def exists(path: str) -> bool:
    """Return whether there is a file or a folder of this path."""
    if is_local(path):
        return os.path.exists(path)
    with _remote(path) as (system, within):
        return bool(system.exists(within))


def size(path: str) -> int | None:
    """Return the bytes of a file, None if there is none."""
    if is_local(path):
        return os.path.getsize(path) if os.path.isfile(path) else None
    with _remote(path) as (system, within):
        try:
            entry = system.info(within)
        except FileNotFoundError:
            return None
        return int(entry["size"]) if entry["type"] == "file" else None


def make_folder(path: str) -> None:
    """Make a folder with its parents. Object stores need none."""
    if is_local(path):
        os.makedirs(path, exist_ok=True)
    elif scheme_of(path) in RENAMES:
        with _remote(path) as (system, within):
            system.makedirs(within, exist_ok=True)


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


def open_read(path: str) -> BinaryIO:
    """Open a file to read its bytes; seekable."""
    if is_local(path):
        return open(path, "rb")
    with _remote(path) as (system, within):
        file: BinaryIO = system.open(within, "rb", block_size=READ_AHEAD_BYTES)
        if file.seekable():
            return file
        with file:  # a web server without byte ranges
            whole = tempfile.TemporaryFile()  # noqa: SIM115  handed to the caller
            shutil.copyfileobj(file, whole)
            whole.seek(0)
            return whole


def read(path: str, most: int | None = None) -> bytes:
    """Return the whole content of a file; ValueError if it has more than `most` bytes."""
    if most is None:
        with open_read(path) as file:
            return file.read()
    content = read_range(path, None, most + 1)
    if len(content) > most:
        raise ValueError(f"{path} has more than {most:,} bytes, so it is not what its name says: copy it again")
    return content


def read_range(path: str, start: int | None, most: int) -> bytes:
    """Return at most `most` bytes of a file from byte `start`, or of a whole file if that is None."""
    if is_local(path):
        with open(path, "rb") as file:
            file.seek(start or 0)
            return file.read(min(most, max(0, os.fstat(file.fileno()).st_size - (start or 0))))
    with _remote(path) as (system, within):
        return fetch(system, within, start, most, READ_SECONDS + most / SLOWEST)


def fetch(system: Any, within: str, start: int | None, most: int, seconds: float) -> bytes:
    """Return at most `most` bytes of a file of a store from byte `start`, or of a whole file if that is None, in one try.

    No more is kept in memory, whatever the store sends: a web server or an S3 endpoint may send anything.

    Raises:
        TimeoutError: it took longer.
    """
    from fsspec.asyn import sync
    from fsspec.exceptions import FSTimeoutError

    protocols = {system.protocol} if isinstance(system.protocol, str) else {*system.protocol}
    kind = next((kind for protocol, kind in _STREAMS.items() if protocol in protocols), None)
    try:
        if kind:
            content: bytes = sync(system.loop, kind, system, within, start, most, timeout=seconds)
        else:
            options = {"timeout": seconds} if system.async_impl else {}
            content = system.cat_file(within, start=start or 0, end=(start or 0) + most, **options)
    except FSTimeoutError:
        raise TimeoutError(f"it took longer than {seconds:.3g} s") from None
    return content[:most]


async def _fetch_http(system: Any, url: str, start: int | None, most: int) -> bytes:
    session, options = await system.set_session(), dict(system.kwargs)
    options["headers"] = {**options.get("headers", {}), **_range(start, most)}
    async with session.get(system.encode_url(url), **options) as response:
        system._raise_not_found_for_status(response, url)
        skip = 0 if response.status == http.HTTPStatus.PARTIAL_CONTENT else start or 0  # or it sends the whole file
        return await _first(response.content.iter_chunked(CHUNK_BYTES), skip, most)


async def _fetch_s3(system: Any, path: str, start: int | None, most: int) -> bytes:
    bucket, key, _ = system.split_path(path)
    response = await system._call_s3("get_object", Bucket=bucket, Key=key, **_range(start, most))
    async with response["Body"] as body:
        skip = 0 if "ContentRange" in response else start or 0
        return await _first(body.iter_chunks(CHUNK_BYTES), skip, most)


def _range(start: int | None, most: int) -> dict[str, str]:
    return {} if start is None else {"Range": f"bytes={start}-{start + most - 1}"}


async def _first(chunks: AsyncIterator[bytes], skip: int, most: int) -> bytes:
    """Return the first `most` bytes after `skip` bytes, and read no further."""
    content = bytearray()
    async for chunk in chunks:
        content += chunk[skip:]
        skip = max(0, skip - len(chunk))
        if len(content) >= most:
            break
    return bytes(content[:most])


_STREAMS = {"http": _fetch_http, "https": _fetch_http, "s3": _fetch_s3}
"""Protocols whose `cat_file` would keep all that a server sends."""


def read_at(file: BinaryIO, offset: int, length: int) -> bytes:
    """Return `length` bytes of an open file from `offset`; ValueError if the file ends earlier."""
    end = file.seek(0, os.SEEK_END)  # the stated size may be false, so it is checked before memory is taken
    if offset + length > end:
        raise ValueError(f"ends {offset + length - end} bytes early: expected {length} bytes at {offset}")
    file.seek(offset)
    data = file.read(length)
    if len(data) != length:
        raise ValueError(f"gave {len(data)} bytes: expected {length} bytes at {offset}")
    return data


def write_whole(path: str, chunks: Iterable[bytes]) -> tuple[int, str]:
    """Write the chunks as one file, which exists whole or not at all. Return its size in bytes and its sha256."""
    digest, count, local = hashlib.sha256(), 0, is_local(path)
    try:
        with whole_file(path) if local else tempfile.NamedTemporaryFile() as file:
            for chunk in chunks:
                digest.update(chunk)
                count += len(chunk)
                file.write(chunk)
            if not local:
                file.flush()
                _upload(file.name, path)
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        place = path if local else f"{path} (written to {tempfile.gettempdir()} first)"
        raise OSError(
            f"{place}: {os.strerror(error.errno).lower()}, after {count} bytes. What was finished before is kept. "
            f"Make room, then start the same command again"
        ) from error
    return count, digest.hexdigest()


def _upload(file: str, path: str) -> None:
    """Copy a local file to a store, where it appears under its name once it is whole."""
    with _remote(path) as (system, within):
        if scheme_of(path) not in RENAMES:
            system.put_file(file, within)
            return
        target = temporary_name(within)
        try:
            system.put_file(file, target)
            if system.exists(within):
                system.rm_file(within)
            system.mv(target, within)
        except BaseException:
            with suppress(Exception):  # the first error says more
                system.rm_file(target)
            raise


def sweep_temporary(folder: str, older_seconds: float = 0) -> None:
    """`whole_files.sweep_temporary` for a local folder; a store has no temporary files."""
    if is_local(folder):
        whole_files.sweep_temporary(folder, older_seconds)


def names_in(folder: str) -> set[str]:
    """Return the names of the files and folders in a folder, an empty set if the folder does not exist."""
    if is_local(folder):
        return set(os.listdir(folder)) if os.path.isdir(folder) else set()
    with _remote(folder) as (system, within):
        try:
            entries = system.ls(within, detail=True)
        except FileNotFoundError:
            return set()
        paths = {entry["name"].rstrip("/") for entry in entries} - {within.rstrip("/")}  # a folder may be an object too
        return {path.rpartition("/")[2] for path in paths}


def remove(path: str) -> None:
    """Remove a file, or a folder with its content; nothing happens if there is none."""
    if is_local(path):
        if os.path.isdir(path):
            shutil.rmtree(path)
        elif os.path.exists(path):
            os.remove(path)
        return
    with _remote(path) as (system, within), suppress(FileNotFoundError):
        system.rm(within, recursive=True)


def files_below(folder: str) -> list[str]:
    """Return the paths of all files below a local folder, relative to it, with forward slashes."""
    found = []
    for parent, _, names in os.walk(folder):
        found += [os.path.relpath(os.path.join(parent, name), folder).replace(os.sep, "/") for name in names]
    return sorted(found)


def info(path: str) -> tuple[int, float] | str | None:
    """Return (bytes, modification time in seconds) of a file of a store, FOLDER, or None if there is neither."""
    with _remote(path) as (system, within):
        try:
            entry = system.info(within)
        except FileNotFoundError:
            return None
        return _of_file(entry) if entry["type"] == "file" else FOLDER


def find(folder: str) -> dict[str, tuple[int, float]]:
    """Return the files below a folder of a store: path -> (bytes, modification time). Hidden ones are left out."""
    folder = folder.rstrip("/")
    with _remote(folder) as (system, within):
        try:
            found = system.find(within, detail=True)
        except FileNotFoundError:
            return {}
    entries = {name[len(within) :]: entry for name, entry in found.items() if entry["type"] == "file"}
    return {folder + name: _of_file(entry) for name, entry in entries.items() if matches("**", name.strip("/"))}


def match(pattern: str) -> tuple[dict[str, tuple[int, float]], list[str]]:
    """Return what a glob names in a store: path -> (bytes, modification time in seconds) of files, and folders.

    `**` as a whole part of the path matches any number of folders, and the files in them alone.
    """
    before = _WILDCARD.split(pattern)[0]
    folder = before[: before.rfind("/") + 1]
    with _remote(pattern) as (system, within):
        root = within[: len(within) - (len(pattern) - len(folder))]
        found = system.glob(_plain_stars(within), detail=True)
    entries = {folder + name[len(root) :].rstrip("/"): entry for name, entry in found.items()}
    entries = {path: entry for path, entry in entries.items() if matches(pattern, path)}
    files = {path: _of_file(entry) for path, entry in entries.items() if entry["type"] == "file"}
    return files, [] if pattern.endswith("**") else sorted(entries.keys() - files.keys())


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
    for name in ("mtime", "LastModified", "last_modified", "updated", "created"):
        value = entry.get(name)
        if isinstance(value, str):
            value = datetime.fromisoformat(value)
        if value is not None:
            return value.timestamp() if isinstance(value, datetime) else float(value)
    return 0.0
