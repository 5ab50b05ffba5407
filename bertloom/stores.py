"""Clients of stores: one for each store and process, what their errors mean, and reads that are tried again.

A client is fsspec's file system of a scheme. fsspec itself keeps one for each thread, and Beam's workers start many threads.
"""

import errno
import http
import json
import logging
import os
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple, TypeVar

from bertloom.extras import needs
from bertloom.store_errors import ADVICE, MISSING, StoreError, codes_of, explain, in_words, no_bucket, scheme_of

Options = Mapping[str, Mapping[str, Any]]
"""Scheme -> keyword arguments of its fsspec file system.

Two more: `protocol`, another of fsspec's file systems to use for the scheme; its URLs have no host (`hdfs://folder/file`)
unless `has_host` is true.
"""

NO_LISTING_CACHE = ("s3", "s3a", "gs", "gcs")
"""Schemes whose client would keep listings of folders for good; other processes write there too."""
EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs", "http": "http", "https": "http"}
"""The extra of bertloom that installs a scheme's client."""
CHUNK_BYTES = 1 << 18
READ_SECONDS = 60
"""Time limit of a read from a store, plus what its size takes at SLOWEST."""
SLOWEST = 1_000_000
"""Bytes per second."""
TRIES = 5
FIRST_WAIT_SECONDS = 0.5
"""Wait before the second try. Each later one is twice as long."""

Result = TypeVar("Result")
logger = logging.getLogger("bertloom")
_options: Options = {}
clients: dict[tuple[int, str, str], Any] = {}
"""(process, scheme, keyword arguments) -> file system."""


class Answer(NamedTuple):
    """What a store sent."""

    content: bytes
    total: int | None
    """Bytes of the whole file, if the store said so."""
    version: str | None = None
    """What names this content of the file, if the store said so."""


def connect(options: Options) -> None:
    """Set the options with which this process reaches its stores. Credentials may also come from the environment, where
    each store's own client looks for them."""
    global _options
    _options = options


def options() -> Options:
    """Return the options with which this process reaches its stores."""
    return _options


def file_system(path: str) -> tuple[Any, str]:
    """Return fsspec's file system of a path with a scheme, and the path within it.

    Raises:
        ValueError: the scheme is unknown, or its package is not installed.
    """
    from fsspec.core import url_to_fs
    from fsspec.registry import get_filesystem_class

    scheme = scheme_of(path) or "file"
    if scheme in ("gs", "gcs"):  # or gcsfs asks another service, over gRPC, for the kind of the bucket
        os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    options = dict(_options.get(scheme, {}))
    if scheme in NO_LISTING_CACHE:
        options["use_listings_cache"] = False
    try:
        if "::" in path:  # one file system inside another
            system, within = url_to_fs(path, **options)
            return system, within
        kind = get_filesystem_class(options.get("protocol", scheme))
        if options.pop("protocol", None):
            within = path.partition("://")[2]
            if options.pop("has_host", False):
                within = within.partition("/")[2]
            within = f"/{within}"
        else:
            options = {**kind._get_kwargs_from_urls(path), **options}
            within = kind._strip_protocol(path)
        return _client(scheme, kind, options), within
    except ImportError as error:
        raise ValueError(needs(path, EXTRAS[scheme]) if scheme in EXTRAS else f"{path}: {error}") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}; expected s3://…, gs://…, https://… or a local path") from None


def _client(scheme: str, kind: Any, options: dict[str, Any]) -> Any:
    if not getattr(kind, "async_impl", False):  # its session belongs to one thread, and costs little
        system = kind(**options)
        if kind.protocol == ("webhdfs", "webHDFS") and not isinstance(system.session.request, partial):
            system.session.request = partial(system.session.request, timeout=READ_SECONDS)  # requests has no limit
        return system
    key = os.getpid(), scheme, repr(sorted(options.items()))
    if key not in clients:
        clients[key] = kind(**options)
    return clients[key]


# ---- errors


@contextmanager
def named_errors(path: str) -> Iterator[None]:
    """Let errors of a client be a StoreError that names the path."""
    try:
        yield
    except (StoreError, ValueError):
        raise
    except Exception as error:
        if isinstance(error, FileNotFoundError):
            check_bucket(path)
        raise explain(path, error) or StoreError(f"{path}: {in_words(error)}: {ADVICE}") from error


def retry(path: str, call: Callable[[], Result]) -> Result:
    """Return the call's result from the first try that succeeds. Errors that cannot pass are raised at once.

    Raises:
        FileNotFoundError: the file does not exist.
        StoreError: the store refuses, or every try failed.
    """
    for attempt in range(1, TRIES + 1):
        try:
            return call()
        except (StoreError, IsADirectoryError, NotADirectoryError, FileExistsError):
            raise
        except Exception as error:
            if isinstance(error, ValueError) and not isinstance(error, (OSError, json.JSONDecodeError)):
                raise  # JSON that ends early may pass
            if found := explain(path, error):
                raise found from error
            if isinstance(error, FileNotFoundError):
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path) from error
            if attempt == TRIES:
                raise StoreError(f"{path}: {TRIES} tries failed, the last with {in_words(error)}: {ADVICE}") from error
            wait = FIRST_WAIT_SECONDS * 2 ** (attempt - 1)
            logger.info("%s: try %d of %d failed (%s); again in %g s", path, attempt, TRIES, in_words(error), wait)
            time.sleep(wait)
    raise AssertionError


def ask(path: str, call: Callable[[Any, str], Result]) -> Result:
    """Return what a function of `file_system(path)` returns, with `retry`."""
    return retry(path, lambda: call(*file_system(path)))


# ---- reads


def fetch(system: Any, within: str, start: int | None, most: int, seconds: float) -> bytes:
    """Return at most `most` bytes of a file of a store from byte `start`, or of a whole file if that is None, in one try.

    No more is kept in memory, whatever the store sends: a web server or an S3 endpoint may send anything.

    Raises:
        TimeoutError: it took longer.
        ConnectionError: the answer ended before the bytes that the store announced.
    """
    return fetch_answer(system, within, start, most, seconds).content


def fetch_answer(system: Any, within: str, start: int | None, most: int, seconds: float) -> Answer:
    """As `fetch`, with the size of the file. A negative `start` counts from the end of the file, where `reports_size`."""
    from fsspec.asyn import sync
    from fsspec.exceptions import FSTimeoutError

    try:
        if kind := _stream(system):
            answer: Answer = sync(system.loop, kind, system, within, start, most, timeout=seconds)
        elif "webhdfs" in _protocols(system):
            answer = Answer(system._call("OPEN", path=within, offset=start or 0, length=most).content, None)
        else:
            options = {"timeout": seconds} if system.async_impl else {}
            answer = Answer(system.cat_file(within, start=start or 0, end=(start or 0) + most, **options), None)
    except FSTimeoutError:
        raise TimeoutError(f"it took longer than {seconds:.3g} s") from None
    return answer._replace(content=answer.content[:most])


def size_of(system: Any, within: str) -> int | None:
    """Return the bytes of a file of a store, None if there is none. S3 and Google's store are not asked for a folder."""
    from fsspec.asyn import sync

    try:
        if head := next((head for name, head in _HEADS.items() if name in _protocols(system)), None):
            size: int = sync(system.loop, head, system, within)
            return size
        entry = system.info(within)
    except FileNotFoundError:
        return None
    return int(entry["size"]) if entry["type"] == "file" else None


async def _head_s3(system: Any, path: str) -> int:
    bucket, key, _ = system.split_path(path)
    try:
        return int((await system._call_s3("head_object", Bucket=bucket, Key=key))["ContentLength"])
    except FileNotFoundError:
        raise
    except OSError:  # the answer to HEAD has no text, so it does not say why
        await system._call_s3("list_objects_v2", Bucket=bucket, Prefix=key, MaxKeys=1)
        raise


async def _head_gs(system: Any, path: str) -> int:
    bucket, key, _ = system.split_path(path)
    return int((await system._call("GET", "b/{}/o/{}", bucket, key, json_out=True))["size"])


def list_below(system: Any, within: str) -> dict[str, Mapping[str, Any]]:
    """Return path -> entry of the files below a folder of a store. An entry of S3 has only what is used here."""
    from fsspec.asyn import sync

    if "s3" in _protocols(system):  # s3fs keeps eight values of each object
        found: dict[str, Mapping[str, Any]] = sync(system.loop, _list_s3, system, within)
        return found
    return {path: entry for path, entry in system.find(within, detail=True).items() if entry["type"] == "file"}


async def _list_s3(system: Any, path: str) -> dict[str, Mapping[str, Any]]:
    bucket, prefix, _ = system.split_path(path)
    found: dict[str, Mapping[str, Any]] = {}
    more: dict[str, str] = {}
    while True:
        page = await system._call_s3(
            "list_objects_v2", Bucket=bucket, Prefix=f"{prefix.rstrip('/')}/" if prefix else "", **more
        )
        for entry in page.get("Contents", []):
            if not entry["Key"].endswith("/"):  # some programs make an object for a folder
                modified = entry["LastModified"].timestamp()
                found[f"{bucket}/{entry['Key']}"] = {"size": entry["Size"], "mtime": modified}
        if not page.get("IsTruncated"):
            return found
        more = {"ContinuationToken": page["NextContinuationToken"]}


def check_bucket(path: str) -> None:
    """Raise StoreError if the bucket of a path does not exist. A bucket that was found is not looked for again."""
    from fsspec.asyn import sync

    system, within = file_system(path)
    find = next((find for name, find in _BUCKETS.items() if name in _protocols(system)), None)
    bucket = within.strip("/").partition("/")[0]
    if find is None or (os.getpid(), path.partition("://")[0], bucket) in _found:
        return
    try:
        sync(system.loop, find, system, bucket)
    except FileNotFoundError as error:
        raise no_bucket(path) from error
    except Exception as error:
        if set(codes_of(error)) & MISSING:
            raise no_bucket(path) from error
        return  # the credentials may read files and not list them
    _found.add((os.getpid(), path.partition("://")[0], bucket))


async def _find_s3(system: Any, bucket: str) -> None:
    await system._call_s3("list_objects_v2", Bucket=bucket, MaxKeys=1)


async def _find_gs(system: Any, bucket: str) -> None:
    await system._call("GET", "b/{}/o", bucket, maxResults=1)


_found: set[tuple[int, str, str]] = set()
_BUCKETS: dict[str, Callable[..., Any]] = {"s3": _find_s3, "gs": _find_gs}
_HEADS: dict[str, Callable[..., Any]] = {"s3": _head_s3, "gs": _head_gs}


def reports_size(system: Any) -> bool:
    """Return whether each read of a client reports the size of the file, and may count from the end of the file."""
    return not _HEADS.keys().isdisjoint(_protocols(system))


def _protocols(system: Any) -> set[str]:
    return {system.protocol} if isinstance(system.protocol, str) else {*system.protocol}


def _stream(system: Any) -> Callable[..., Any] | None:
    return next((kind for name, kind in _STREAMS.items() if name in _protocols(system)), None)


async def _fetch_http(system: Any, url: str, start: int | None, most: int) -> Answer:
    session, options = await system.set_session(), dict(system.kwargs)
    options["headers"] = {**options.get("headers", {}), **_range(start, most)}
    async with session.get(system.encode_url(url), **options) as response:
        system._raise_not_found_for_status(response, url)
        if response.status != http.HTTPStatus.PARTIAL_CONTENT:  # it sends the whole file
            return Answer(await _first(response.content.iter_chunked(CHUNK_BYTES), start or 0, most), None)
        return await _checked(response.content.iter_chunked(CHUNK_BYTES), response.headers.get("Content-Range"), most)


async def _fetch_s3(system: Any, path: str, start: int | None, most: int) -> Answer:
    bucket, key, _ = system.split_path(path)
    try:
        response = await system._call_s3("get_object", Bucket=bucket, Key=key, **_range(start, most))
    except OSError as error:
        if {"InvalidRange", "416"} & set(codes_of(error)):
            return Answer(b"", None)  # it begins at or after the end
        raise
    async with response["Body"] as body:
        chunks = body.iter_chunks(CHUNK_BYTES)
        if "ContentRange" in response:
            answer = await _checked(chunks, response["ContentRange"], most)
            return answer._replace(version=response.get("ETag"))
        content = await _first(chunks, start or 0, most)  # all of it
        total = response.get("ContentLength")
        if total is not None and len(content) < min(most, total - (start or 0)):
            raise _cut(content, min(most, total - (start or 0)))
        return Answer(content, total, response.get("ETag"))


async def _fetch_gs(system: Any, path: str, start: int | None, most: int) -> Answer:
    from gcsfs.retry import HttpError

    try:
        headers, content = await system._call("GET", system.url(path), headers=_range(start, most))
    except HttpError as error:
        if str(error.code) == "416":
            return Answer(b"", None)
        raise
    version = headers.get("X-Goog-Generation") or headers.get("ETag")
    if said := headers.get("Content-Range"):
        begin, end, total = _place(said)
        if len(content) < min(most, end - begin):
            raise _cut(content, end - begin)
        return Answer(content, total, version)
    length = headers.get("Content-Length")
    if length is not None and "Content-Encoding" not in headers and len(content) < int(length):
        raise _cut(content, int(length))
    return Answer(content if start is None else content[start:], len(content), version)


_STREAMS = {"http": _fetch_http, "https": _fetch_http, "s3": _fetch_s3, "gs": _fetch_gs}
"""Protocols whose `cat_file` would keep all that a server sends, or does not tell the size of the file."""


def _range(start: int | None, most: int) -> dict[str, str]:
    if start is None:
        return {}
    return {"Range": f"bytes={start}" if start < 0 else f"bytes={start}-{start + most - 1}"}


async def _checked(chunks: AsyncIterator[bytes], said: str | None, most: int) -> Answer:
    """Return the answer to a read of a range. ConnectionError if it is shorter than the store said."""
    content = await _first(chunks, 0, most)
    if said is None:
        return Answer(content, None)
    begin, end, total = _place(said)
    if len(content) < min(most, end - begin):
        raise _cut(content, end - begin)
    return Answer(content, total)


def _place(said: str) -> tuple[int, int, int | None]:
    """Return (begin, end, size of the file) of a Content-Range: `bytes 0-99/1234`."""
    found = re.fullmatch(r"\s*bytes (\d+)-(-?\d+)/(\d+|\*)\s*", said)
    if not found:
        raise ConnectionError(f"the answer has the Content-Range {said[:100]!r}")
    return int(found[1]), int(found[2]) + 1, None if found[3] == "*" else int(found[3])


def _cut(content: bytes, expected: int) -> ConnectionError:
    return ConnectionError(f"the answer ended after {len(content)} of {expected} bytes")


async def _first(chunks: AsyncIterator[bytes], skip: int, most: int) -> bytes:
    """Return the first `most` bytes after `skip` bytes, and read no further."""
    content = bytearray()
    async for chunk in chunks:
        content += chunk[skip:]
        skip = max(0, skip - len(chunk))
        if len(content) >= most:
            break
    return bytes(content[:most])
