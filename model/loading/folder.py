"""The folder of a data set, on a local disk or in a store.

    s3://bucket/dataset   gs://bucket/dataset   https://host/dataset   memory://dataset

Credentials and endpoints come from the environment or from fsspec's configuration. A read from a store is tried several
times; the wait before each try is twice the one before.
"""

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from fsspec.exceptions import FSTimeoutError

from bertloom import storage
from bertloom.json_files import Damaged

TRIES = 5
FIRST_WAIT_SECONDS = 0.5
"""Wait before the second try."""
READ_SECONDS = 60
"""Time limit of a read, plus what its size takes at SLOWEST."""
SLOWEST = 1_000_000
"""Bytes per second."""

Result = TypeVar("Result")

logger = logging.getLogger("bertloom")


class LocalFolder:
    """A folder on a local disk."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        if not self.path.is_dir():
            raise ValueError(
                f"{self.path} is not a data set: there is no such folder; give what `bertloom preprocess` wrote to --out"
            )

    def __str__(self) -> str:
        return str(self.path)

    def read(self, name: str, check: Callable[[bytes], object] | None = None) -> bytes:
        """Return a whole file; FileNotFoundError if there is none. check: raises Damaged for wrong content."""
        content = (self.path / name).read_bytes()
        if check:
            check(content)
        return content


class RemoteFolder:
    """A folder in a store, named by a URL."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._system, self._root = storage.file_system(self.url)

    def __str__(self) -> str:
        return self.url

    def read(self, name: str, check: Callable[[bytes], object] | None = None) -> bytes:
        """Return a whole file; FileNotFoundError if there is none. check: raises Damaged for wrong content.

        Raises:
            ValueError: every try failed or gave wrong content.
        """

        def read_and_check() -> bytes:
            content = self.read_once(name)
            if check:
                check(content)
            return content

        return retry(f"{self.url}/{name}", read_and_check)

    def read_once(self, name: str, start: int = 0, size: int | None = None) -> bytes:
        """Return `size` bytes of a file from `start`, or all of it, in one try."""
        options: dict[str, Any] = {} if size is None else {"start": start, "end": start + size}
        seconds = READ_SECONDS + (size or 0) / SLOWEST
        if self._system.async_impl:
            options["timeout"] = seconds
        try:
            content: bytes = self._system.cat_file(f"{self._root}/{name}", **options)
        except FSTimeoutError:
            raise TimeoutError(f"it took longer than {seconds:.3g} s") from None
        if size is not None and len(content) > size:  # a server without byte ranges sends the whole file
            content = content[start : start + size]
        if size is not None and len(content) != size:
            raise Damaged(f"received {len(content)} bytes, expected {size}")
        return content

    def sizes(self) -> dict[str, int] | None:
        """Return the bytes of each file by name, or None if files cannot be listed, as over HTTP."""
        if self.url.startswith(("http://", "https://")):
            return None
        found = retry(f"the list of {self.url}", lambda: self._system.find(self._root, detail=True))
        root = self._root.rstrip("/") + "/"
        return {path.removeprefix(root): int(entry["size"]) for path, entry in found.items()}


def open_folder(location: str | os.PathLike[str]) -> LocalFolder | RemoteFolder:
    """Return the folder of a path or a URL."""
    return RemoteFolder(location) if isinstance(location, str) and "://" in location else LocalFolder(location)


def retry(what: str, call: Callable[[], Result]) -> Result:
    """Return the call's result from the first try that succeeds.

    Only errors that may pass are tried again: not a missing file, a lack of permission or a ValueError other than Damaged.

    Raises:
        ValueError: every try failed. The text has the number of tries and the last failure.
    """
    for attempt in range(1, TRIES + 1):
        try:
            return call()
        except FileNotFoundError:
            raise
        except PermissionError as error:
            raise ValueError(f"{what} may not be read: {error}: check the credentials and their permissions") from None
        except Exception as error:
            if isinstance(error, ValueError) and not isinstance(error, Damaged):
                raise
            reason = f"{type(error).__name__}: {error}".rstrip(": ")
            if attempt == TRIES:
                raise ValueError(
                    f"{what} could not be read, {TRIES} tries failed, the last with {reason}: check the network and the "
                    f"store, then start again"
                ) from error
            wait = FIRST_WAIT_SECONDS * 2 ** (attempt - 1)
            logger.warning("%s: try %d of %d failed (%s); again in %g s", what, attempt, TRIES, reason, wait)
            time.sleep(wait)
    raise AssertionError
