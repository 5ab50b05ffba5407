"""Opens text files, which may be compressed, and reads their lines as a stream."""

import gzip
import itertools
import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader, TextIOWrapper
from pathlib import Path
from typing import Any, NamedTuple

MAX_CHARACTERS = 1 << 26
"""Largest length of a line, or of a field of a .csv file."""
HEAD_BYTES = 1 << 16
"""Number of bytes that decide on the encoding and on the ends of lines."""
MARKS = {b"\xef\xbb\xbf": "utf-8", b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be"}
"""Byte order marks, and the codecs of the text after them."""


class Encoding(NamedTuple):
    """How the text of a file is encoded."""

    mark: bytes
    """The byte order mark at the beginning of the file; b"" if it has none."""
    codec: str
    """The codec of the text after the mark."""
    errors: str
    """What the codec does with bytes that are not of the encoding. Text that was decoded is encoded to the same bytes."""

    def encode(self, text: str) -> bytes:
        """Return text as bytes."""
        return text.encode(self.codec, self.errors)


def encoding_of(file: BufferedReader) -> Encoding:
    """Return the encoding of a file that is open at its beginning, and leave it there."""
    head = file.peek(4)
    mark = next((mark for mark in MARKS if head.startswith(mark)), b"")
    codec = MARKS.get(mark, "utf-8")
    return Encoding(mark, codec, "surrogateescape" if codec == "utf-8" else "surrogatepass")


@contextmanager
def opened(path: Path) -> Iterator["BufferedReader[Any]"]:
    """Open a file, and decompress it if its name ends in .gz.

    Raises:
        ValueError: it is not a gzip file, or is damaged.
    """
    with (
        open(path, "rb", buffering=0) as raw,
        BufferedReader(gzip.open(raw) if path.suffix.lower() == ".gz" else raw, HEAD_BYTES) as file,
    ):
        try:
            yield file
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise ValueError(f"{path} is not a gzip file, or is damaged or truncated: {error}") from None


def read_lines(path: Path, file: BufferedReader) -> Iterator[str]:
    """Yield the lines of a file, at most MAX_CHARACTERS long; bytes that are not of its encoding become surrogates.

    path: for errors.
    """
    mark, codec, errors = encoding_of(file)
    file.read(len(mark))
    beginning = file.peek(HEAD_BYTES)[:HEAD_BYTES].decode(codec, "replace")
    if 4 * beginning.count("\0") > len(beginning):
        raise ValueError(f"{path} is not text in UTF-8, or is UTF-16 without a byte order mark: save it as UTF-8")
    ends_with_cr = "\n" not in beginning and re.search("\r.", beginning)
    text = TextIOWrapper(file, codec, errors, newline="\r" if ends_with_cr else "\n")
    try:
        for number in itertools.count(1):
            line = text.readline(MAX_CHARACTERS + 1)
            if len(line) > MAX_CHARACTERS:
                raise ValueError(
                    f"{path}: line {number} has more than {MAX_CHARACTERS:,} characters: is it a file of rows?"
                )
            if not line:
                return
            yield line
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is damaged or truncated: {error}") from None
    finally:
        with suppress(ValueError):  # the file is closed
            text.detach()  # standard input stays open


def rewrite(path: Path, change: Callable[[Iterator[str]], Iterator[str]]) -> Iterator[bytes]:
    """Yield the content of a file, in its encoding, with the texts that a function returns in the place of its lines."""
    with opened(path) as file:
        encoding = encoding_of(file)
        yield encoding.mark
        for text in change(read_lines(path, file)):
            yield encoding.encode(text)


def changed_error(path: Path) -> ValueError:
    """Return the error about a file that is not the same when it is read again."""
    return ValueError(f"{path} was changed while it was read: start again")
