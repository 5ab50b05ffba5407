"""Local files and folders that exist whole or not at all under their names.

Each is written under a temporary name in the same folder (`.tmp-PROCESS-THREAD-NAME`), synced, and renamed; then the folder
is synced. `sweep_temporary` removes what killed processes left.
"""

import errno
import os
import re
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

MAX_LINKS = 40
"""Largest number of links that are followed, as in Linux."""
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Numbers of errors about a full disk, a full quota, or a limit on the size of files."""


def temporary_name(path: str | Path) -> str:
    """Return a name in the same folder that no other process or thread uses: a killed job's workers may live on."""
    folder, name = os.path.split(path)
    return os.path.join(folder, f".tmp-{os.getpid()}-{threading.get_ident()}-{name}")


@contextmanager
def whole_file(path: str | Path, mode: str = "wb") -> Iterator[IO[Any]]:
    """Open a file that gets its name when the block ends. If the block fails, what was there before stays."""
    temporary = temporary_name(path)
    try:
        with named_errors(path, temporary), open(temporary, mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        with named_errors(path, temporary):
            os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):  # the first error says more
            os.remove(temporary)
        raise
    sync(os.path.dirname(path) or ".")


@contextmanager
def output_file(path: str | Path, mode: str = "wb") -> Iterator[IO[Any]]:
    """Open the file that a user named as the output of a command.

    A regular file is whole or absent, as by `whole_file`; where the path is a link, the file that it leads to. A device, a
    pipe, or an open file of the process, such as /dev/stdout, is written through.

    Raises:
        ValueError: it is a folder, or its own folder is missing or cannot be written to.
    """
    target = _regular_target(path)
    if target is None:
        with open(path, mode.replace("w", "a"), encoding=None if "b" in mode else "utf-8") as file:
            yield file
        return
    folder = os.path.dirname(target) or "."
    if os.path.isdir(target):
        raise ValueError(f"{path} is a folder: give the name of a file as --out")
    if not os.path.isdir(folder):
        raise ValueError(f"{path}: the folder {folder} does not exist: create it first, or give another --out")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ValueError(f"{path}: the folder {folder} cannot be written to: give another --out")
    sweep_dead(target)
    with whole_file(target, mode) as file:
        yield file


def _regular_target(path: str | Path) -> str | None:
    """Return the path that a path leads to; None if that is something that a new file cannot take the place of."""
    target = os.fspath(path)
    for _ in range(MAX_LINKS):
        if not os.path.islink(target):
            special = os.path.exists(target) and not os.path.isfile(target) and not os.path.isdir(target)
            return None if special else target
        folder = os.path.realpath(os.path.dirname(target))
        if folder.startswith("/proc/"):
            return None
        target = os.path.join(folder, os.readlink(target))
    raise ValueError(f"{path} is a link that leads to itself: give another --out")


def write_text(path: str | Path, text: str) -> None:
    """Write a small UTF-8 file whole or not at all."""
    with whole_file(path, "w") as file:
        file.write(text)


@contextmanager
def whole_folder(path: str | Path, replace: bool = False) -> Iterator[Path]:
    """Make a folder that gets its name, with all that was written into it, when the block ends.

    replace: put it in the place of a folder that exists.

    Raises:
        ValueError: there is a file, or a folder that is not empty, and `replace` is false.
    """
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise ValueError(f"{path} is a file: --out must be a new or empty folder")
    if not replace and path.is_dir() and (names := sorted(os.listdir(path))):
        raise ValueError(f"{path} holds {', '.join(names[:3])} already: give a new or empty folder as --out")
    path = path.absolute()
    sweep_dead(path)
    temporary = Path(temporary_name(path))
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        with named_errors(path, temporary):
            yield temporary
            for parent, _, names in os.walk(temporary):
                for name in names:
                    sync(os.path.join(parent, name))
                sync(parent)
        if replace:
            remove_folder(path)
        with named_errors(path, temporary):
            os.rename(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    sync(path.parent)


@contextmanager
def named_errors(path: str | Path, temporary: str | Path | None = None) -> Iterator[None]:
    """Let errors of the disk name the file that was asked for: those of `write` and `fsync` name none."""
    try:
        yield
    except OSError as error:
        if error.errno is not None:
            name = path if error.filename is None or isinstance(error.filename, int) else os.fsdecode(error.filename)
            error.filename = str(name).replace(str(temporary or path), str(path))
        raise


@contextmanager
def flushed_by_hand(file: IO[Any]) -> Iterator[None]:
    """Close a file at the end, each of whose writes is flushed at once.

    After a full disk, closing it tries to write again. That error is left out: it would hide the first one.
    """
    try:
        yield
    finally:
        with suppress(OSError):
            file.close()


def remove_folder(path: str | Path) -> None:
    """Remove a folder, if there is one; of a link, only the link. A kill in the middle leaves a temporary name and not half
    of the folder."""
    temporary = temporary_name(path) + ".removed"
    with suppress(FileNotFoundError):
        os.rename(path, temporary)
        remove_path(temporary)


def sweep_dead(path: str | Path) -> None:
    """Remove what processes of this machine that were killed left of an output: its temporary files and folders."""
    folder, name = os.path.split(path)
    pattern = re.compile(rf"\.tmp-(\d+)-\d+-{re.escape(name)}")
    names: list[str] = []
    with suppress(OSError):  # the folder is made later, or may not be listed
        names = os.listdir(folder or ".")
    for found in names:
        if (match := pattern.fullmatch(found)) and not _is_alive(int(match[1])):
            remove_path(os.path.join(folder, found))


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass  # another user's
    return True


def sweep_temporary(folder: str | Path, older_seconds: float = 0) -> None:
    """Remove the temporary files and folders that killed processes left in a folder and those below it.

    Call it only while a lock keeps other writers out, or for what nobody has touched for `older_seconds`. A time in the
    future, by a clock that was wrong, counts as if it were in the past.
    """
    for parent, folders, names in os.walk(folder):
        for name in [*folders, *names]:
            path = os.path.join(parent, name)
            if name.startswith(".tmp-"):
                with suppress(FileNotFoundError):  # a worker of the killed job has just renamed it
                    if abs(time.time() - os.lstat(path).st_mtime) >= older_seconds:
                        remove_path(path)
        folders[:] = [name for name in folders if not name.startswith(".tmp-")]


def remove_path(path: str) -> None:
    """Remove a folder with all that is in it, a file, or a link; nothing happens if there is none."""
    try:
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        elif os.path.lexists(path):
            os.remove(path)
    except OSError as error:
        name = os.fsdecode(error.filename or "")
        if not os.path.isabs(name) and not name.startswith(path):  # `rmtree` gives the name in its folder alone
            error.filename = path
        raise


def sync(path: str | Path) -> None:
    """Wait until a file, or a folder's list of names, is on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        with named_errors(path):
            os.fsync(handle)
    finally:
        os.close(handle)
