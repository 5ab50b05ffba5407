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

from bertloom import storage
from bertloom.json_files import Damaged
from bertloom.manifest import MAX_BYTES, read_below
from bertloom.store_errors import StoreError, refusals
from bertloom.stores import READ_SECONDS, SLOWEST, check_bucket

TRIES = 5
FIRST_WAIT_SECONDS = 0.5
"""Wait before the second try."""
LISTED_PER_SECOND = 1000
"""Least number of files that a store lists in a second."""

Result = TypeVar("Result")

logger = logging.getLogger("bertloom")


class LocalFolder:
    """A folder on a local disk."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        if not self.path.is_dir():
            raise ValueError(
                f"{self.path} is not a data set: the folder does not exist; give what `bertloom preprocess` wrote to --out"
            )

    def __str__(self) -> str:
        return str(self.path)

    def read(self, name: str) -> bytes:
        """Return a whole small file; FileNotFoundError if there is none."""
        return read_below(str(self.path), name)

    def parse(self, name: str, parse: Callable[[bytes], Result]) -> Result:
        """Return what a function makes of a whole small file; FileNotFoundError if there is none."""
        return parse(self.read(name))


class RemoteFolder:
    """A folder in a store, named by a URL."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._system, self._root = storage.file_system(self.url)

    def __str__(self) -> str:
        return self.url

    def read(self, name: str) -> bytes:
        """Return a whole small file; FileNotFoundError if there is none, ValueError if every try failed."""
        return self.parse(name, bytes)

    def parse(self, name: str, parse: Callable[[bytes], Result]) -> Result:
        """Return what a function makes of a whole small file; FileNotFoundError if there is none.

        Raises:
            ValueError: every try failed or gave content for which the function raised Damaged.
        """

        def read_and_parse() -> Result:
            with refusals(f"{self.url}/{name}"):
                content = storage.fetch(self._system, f"{self._root}/{name}", None, MAX_BYTES + 1, READ_SECONDS)
            if len(content) > MAX_BYTES:
                raise ValueError(f"{self.url}/{name} has more than {MAX_BYTES:,} bytes: it is not a data set's {name}")
            return parse(content)

        try:
            return retry(f"{self.url}/{name}", read_and_parse)
        except FileNotFoundError:
            check_bucket(self.url)
            raise

    def read_once(self, name: str, start: int, size: int) -> bytes:
        """Return `size` bytes of a file from `start`, in one try."""
        with refusals(f"{self.url}/{name}"):
            content = storage.fetch(self._system, f"{self._root}/{name}", start, size, READ_SECONDS + size / SLOWEST)
        if len(content) != size:
            raise Damaged(f"received {len(content)} bytes, expected {size}")
        return content

    def sizes(self, expected: int) -> dict[str, int | None] | None:
        """Return the bytes of each file by name, or None if files cannot be listed, as over HTTP.

        expected: number of files. A store that goes on listing others for too long is given up.
        """
        if self.url.startswith(("http://", "https://")):
            return None
        options = {"timeout": READ_SECONDS + expected / LISTED_PER_SECOND} if self._system.async_impl else {}

        def list_files() -> dict[str, Any]:
            with refusals(self.url):
                files: dict[str, Any] = self._system.find(self._root, detail=True, **options)
                return files

        found = retry(f"the list of {self.url}", list_files)
        root = self._root.rstrip("/") + "/"
        return {path.removeprefix(root): entry["size"] for path, entry in found.items()}


def open_folder(location: str | os.PathLike[str]) -> LocalFolder | RemoteFolder:
    """Return the folder of a path or a URL."""
    return RemoteFolder(location) if isinstance(location, str) and "://" in location else LocalFolder(location)


def retry(what: str, call: Callable[[], Result]) -> Result:
    """Return the call's result from the first try that succeeds.

    Only errors that may pass are tried again: not a missing file, a refusal or a ValueError other than Damaged.

    Raises:
        StoreError: the store refuses.
        ValueError: every try failed. The text has the number of tries and the last failure.
    """
    for attempt in range(1, TRIES + 1):
        try:
            return call()
        except (FileNotFoundError, StoreError):
            raise
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
