"""Files, through Beam's file systems: written whole or not at all, read by range.

On local disks and HDFS a file is written under a temporary name in its own folder, fsynced (local), renamed, and the
folder is fsynced. Object stores show an object only once it is closed, so there it goes to its final name at once, and is
removed where an error has closed it.
"""

import errno
import hashlib
import os
import shutil
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, BinaryIO

from apache_beam.io.filesystem import BeamIOError, CompressionTypes
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions

RENAMES = ("", "hdfs")  # schemes whose file systems show half-written files
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def connect(options: PipelineOptions | None = None) -> None:
    """Tells Beam's file systems how to reach their stores: by these options, and by the environment. Every command that
    opens files by this module begins so; before, nothing behind s3:// or hdfs:// can be named, let alone read."""
    FileSystems.set_options(options or PipelineOptions([]))


def join(folder: str, *names: str) -> str:
    return FileSystems.join(folder, *names)


def is_local(path: str) -> bool:
    return FileSystems.get_scheme(path) is None


def exists(path: str) -> bool:
    return FileSystems.exists(path)


def size(path: str) -> int | None:
    """Bytes of the file, None where there is none."""
    if is_local(path):
        return os.path.getsize(path) if os.path.isfile(path) else None
    try:
        found = FileSystems.match([path])[0].metadata_list
    except BeamIOError:
        return None
    return found[0].size_in_bytes if found else None


def make_folder(path: str) -> None:
    """Makes the folder where the file system has folders; object stores need none."""
    if is_local(path):
        os.makedirs(path, exist_ok=True)
    elif not FileSystems.exists(path):
        with suppress(BeamIOError):  # another worker made it, or the store has no folders
            FileSystems.mkdirs(path)


def open_read(path: str) -> BinaryIO:
    """The raw bytes of a file, seekable. Never decompressed: Beam's own decompression stops at 16 MiB a read."""
    return FileSystems.open(path, "application/octet-stream", CompressionTypes.UNCOMPRESSED)


def read(path: str) -> bytes:
    with open_read(path) as file:
        return file.read()


def read_at(file: BinaryIO, offset: int, length: int) -> bytes:
    """Exactly these bytes of an open file; ValueError where the file ends before."""
    file.seek(offset)
    data = file.read(length)
    if len(data) != length:
        raise ValueError(f"ends {length - len(data)} bytes early: expected {length} bytes at {offset}")
    return data


def temporary_name(path: str) -> str:
    """A name beside `path` that no other process uses: a dead parent's workers may outlive it by seconds."""
    folder, name = FileSystems.split(path)
    return join(folder, f".tmp-{os.getpid()}-{threading.get_ident()}-{name}")


def _create(path: str) -> Any:
    if is_local(path):
        return open(path, "wb")
    return FileSystems.create(path, "application/octet-stream", CompressionTypes.UNCOMPRESSED)


def write_whole(path: str, chunks: Iterable[bytes]) -> tuple[int, str]:
    """Writes the chunks as one file that is there whole or not at all; its size in bytes and its sha256."""
    digest, count = hashlib.sha256(), 0
    scheme = FileSystems.get_scheme(path) or ""
    target = temporary_name(path) if scheme in RENAMES else path
    try:
        with _create(target) as file:
            for chunk in chunks:
                digest.update(chunk)
                count += len(chunk)
                file.write(chunk)
            if scheme == "s3" and count == 0:
                file.raw._uploader._write_to_s3(b"")  # Beam would complete an upload of no parts, which S3 refuses
            if is_local(path):
                file.flush()
                os.fsync(file.fileno())
    except BaseException as error:
        with suppress(Exception):  # the error under way says more
            remove(target)
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            raise OSError(
                f"{path}: {os.strerror(error.errno).lower()}, after {count} bytes; what was finished before is kept: "
                f"make room, then start the same command again"
            ) from error
        raise
    if is_local(path):
        os.replace(target, path)
        sync_folder(os.path.dirname(path) or ".")
    elif target != path:
        if FileSystems.exists(path):
            FileSystems.delete([path])
        FileSystems.rename([target], [path])
    return count, digest.hexdigest()


def sync_folder(folder: str) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sweep_temporary(folder: str, older_seconds: float = 0) -> None:
    """Removes what killed processes left half-written. Only where a lock says that nobody writes there now, or such as
    have not been touched for so long."""
    if not is_local(folder):
        return
    for parent, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(parent, name)
            if name.startswith(".tmp-"):
                with suppress(FileNotFoundError):  # an orphan of the killed job has just renamed it
                    if time.time() - os.stat(path).st_mtime >= older_seconds:
                        os.remove(path)


def names_in(folder: str) -> set[str]:
    """Names of the files in a folder; none where there is no folder."""
    if is_local(folder):
        return set(os.listdir(folder)) if os.path.isdir(folder) else set()
    try:
        found = FileSystems.match([join(folder, "*")])[0].metadata_list
    except BeamIOError:
        return set()
    return {FileSystems.split(entry.path)[1] for entry in found}


def remove(path: str) -> None:
    """Removes a file or a folder with all that is in it; nothing where there is none."""
    if is_local(path):
        if os.path.isdir(path):
            shutil.rmtree(path)
        elif os.path.exists(path):
            os.remove(path)
    elif exists(path):
        FileSystems.delete([path])
    elif FileSystems.get_scheme(path) not in RENAMES:  # a folder of an object store is but names that begin alike
        FileSystems.delete([f"{path}/"])


def files_below(folder: str) -> list[str]:
    """Paths of all files below a local folder, relative to it, with forward slashes."""
    found = []
    for parent, _, names in os.walk(folder):
        found += [os.path.relpath(os.path.join(parent, name), folder).replace(os.sep, "/") for name in names]
    return sorted(found)
