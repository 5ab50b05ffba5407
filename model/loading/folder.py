"""Where a data set lies: a folder on a local disk, or a URL that fsspec knows.

    s3://bucket/dataset   gs://bucket/dataset   https://host/dataset   memory://dataset

What a URL needs beyond itself (keys, another endpoint) comes from where its library looks for it: the environment, or
fsspec's own configuration. Reading is tried several times, with waits in between that double.
"""

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from fsspec.core import url_to_fs
from fsspec.exceptions import FSTimeoutError

TRIES = 5
FIRST_WAIT_SECONDS = 0.5
"""Before the second try; twice as much before each further one."""
READ_SECONDS = 60
"""How long the answer to a read may take, beside what its size takes at SLOWEST."""
SLOWEST = 1_000_000
"""Bytes per second."""
EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs", "http": "http", "https": "http"}
"""What has to be installed for a protocol."""

Result = TypeVar("Result")

logger = logging.getLogger("bertloom")


class Damaged(ValueError):
    """What was read is not what was written; it may be another time."""


class LocalFolder:
    """A folder on a local disk."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        if not self.path.is_dir():
            raise ValueError(f"{self.path} is not a data set: there is no such folder")

    def __str__(self) -> str:
        return str(self.path)

    def read(self, name: str, check: Callable[[bytes], object] | None = None) -> bytes:
        """A file of the folder, whole; FileNotFoundError where there is none. check: raises Damaged if it is."""
        content = (self.path / name).read_bytes()
        if check:
            check(content)
        return content


class RemoteFolder:
    """What lies behind a URL."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        protocol = url.partition("://")[0]
        try:
            self._system, self._root = url_to_fs(self.url)
        except ImportError as error:
            extra = f": pip install -e '.[{EXTRAS[protocol]}]'" if protocol in EXTRAS else ""
            raise ValueError(f"{url}: {error}{extra}") from None
        except ValueError as error:
            raise ValueError(f"{url}: {error}; expected s3://…, gs://…, https://… or a local folder") from None

    def __str__(self) -> str:
        return self.url

    def read(self, name: str, check: Callable[[bytes], object] | None = None) -> bytes:
        """A file, whole; FileNotFoundError where there is none. check: raises Damaged if it is.

        Raises:
            ValueError: it could not be read, or was damaged, at every try.
        """

        def read_and_check() -> bytes:
            content = self.read_once(name)
            if check:
                check(content)
            return content

        return retry(f"{self.url}/{name}", read_and_check)

    def read_once(self, name: str, start: int = 0, size: int | None = None) -> bytes:
        """`size` bytes of a file from `start` on, or all of it, in one try."""
        options: dict[str, Any] = {} if size is None else {"start": start, "end": start + size}
        seconds = READ_SECONDS + (size or 0) / SLOWEST
        if self._system.async_impl:
            options["timeout"] = seconds
        try:
            content: bytes = self._system.cat_file(f"{self._root}/{name}", **options)
        except FSTimeoutError:
            raise TimeoutError(f"it took longer than {seconds:.3g} s") from None
        if size is not None and len(content) > size:  # a server that knows no ranges sends the whole file
            content = content[start : start + size]
        if size is not None and len(content) != size:
            raise Damaged(f"{len(content)} bytes came, expected {size}")
        return content

    def sizes(self) -> dict[str, int] | None:
        """The bytes of each file, by name; None where files cannot be listed, as over HTTP."""
        if self.url.startswith(("http://", "https://")):
            return None
        found = retry(f"the list of {self.url}", lambda: self._system.find(self._root, detail=True))
        root = self._root.rstrip("/") + "/"
        return {path.removeprefix(root): int(entry["size"]) for path, entry in found.items()}


def open_folder(location: str | os.PathLike[str]) -> LocalFolder | RemoteFolder:
    """The folder behind a path or a URL."""
    return RemoteFolder(location) if isinstance(location, str) and "://" in location else LocalFolder(location)


def retry(what: str, call: Callable[[], Result]) -> Result:
    """What the call gives, at once or at a later try. What is not there, not allowed or a ValueError is not tried again,
    unless it is Damaged.

    Raises:
        ValueError: every try failed; says what, how often and how the last one failed.
    """
    for attempt in range(1, TRIES + 1):
        try:
            return call()
        except FileNotFoundError:
            raise
        except PermissionError as error:
            raise ValueError(f"{what} may not be read: {error}: check the keys and who may read there") from None
        except Exception as error:
            if isinstance(error, ValueError) and not isinstance(error, Damaged):
                raise
            reason = f"{type(error).__name__}: {error}".rstrip(": ")
            if attempt == TRIES:
                raise ValueError(
                    f"{what} could not be read, {TRIES} tries failed, the last with {reason}: look at the network and "
                    f"the store, then start again"
                ) from error
            wait = FIRST_WAIT_SECONDS * 2 ** (attempt - 1)
            logger.warning("%s: try %d of %d failed (%s); again in %g s", what, attempt, TRIES, reason, wait)
            time.sleep(wait)
    raise AssertionError
