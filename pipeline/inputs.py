"""Input files to splits: which files there are, what they hold, and where they may be cut.

A split is a byte range that begins and ends at a document border, so that whoever reads it reads whole documents. A
compressed file cannot be cut: it is one split, read as a stream. How the input is cut never shows in the shards.
"""

import glob
import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO

from apache_beam.io.filesystem import BeamIOError
from apache_beam.io.filesystems import FileSystems

from pipeline import storage
from pipeline.plain_text import BLANK_LINES
from pipeline.streams import CHUNK, CODECS

FORMATS = {".txt": "txt", ".jsonl": "jsonl"}
HEAD = 1 << 16  # bytes of each file that enter its fingerprint
LINE_END = re.compile(rb"\n")


@dataclass(frozen=True)
class Source:
    """One input file."""

    path: str
    """Where it lies."""
    name: str
    """Its path relative to the input's root: what the data set calls it."""
    format: str
    """txt or jsonl."""
    codec: str | None
    """gzip, bzip2, zstd, xz, or None."""
    size: int
    """Bytes on disk."""
    fingerprint: str
    """Digest of name, size, modification time and first bytes: a token part is used again only while it holds."""


@dataclass(frozen=True)
class Split:
    """A range of one file that begins and ends at a document border."""

    source: Source
    start: int
    """First byte, in the uncompressed file."""
    end: int | None
    """The byte after the last; None: to the end of the stream."""


def find_sources(patterns: Sequence[str]) -> list[Source]:
    """The input files, sorted by name. A pattern is a file, a folder (all files below it that can be read) or a glob."""
    found: dict[str, tuple[str, int, float]] = {}  # path -> root, size, modification time
    for pattern in patterns:
        root, matches = _match(pattern)
        if not matches:
            raise ValueError(f"--input {pattern}: no file matches; expected {_expected()}")
        for path, (size, modified) in matches.items():
            found.setdefault(path, (root, size, modified))
    names = _names({path: root for path, (root, _, _) in found.items()})
    sources = []
    for path, (_, size, modified) in found.items():
        form, codec = format_of(path)
        with storage.open_read(path) as file:
            head = file.read(HEAD)
        key = f"{names[path]}\0{size}\0{modified!r}\0".encode() + head
        sources.append(Source(path, names[path], form, codec, size, hashlib.sha256(key).hexdigest()))
    return sorted(sources, key=lambda source: source.name)


def format_of(path: str) -> tuple[str, str | None]:
    """(format, codec) by the name's endings; ValueError for any other."""
    stem, ending = os.path.splitext(path)
    codec = CODECS.get(ending)
    if codec:
        ending = os.path.splitext(stem)[1]
    if ending not in FORMATS:
        raise ValueError(f"{path}: cannot tell its format by its name; expected {_expected()}")
    return FORMATS[ending], codec


def split_source(source: Source, split_bytes: int) -> list[Split]:
    """Cuts a file near every multiple of `split_bytes`, at the first document border from there on."""
    if source.codec or source.size <= split_bytes:
        return [Split(source, 0, None)]
    cuts = [0]
    with storage.open_read(source.path) as file:
        while cuts[-1] + split_bytes < source.size:
            cut = _next_border(file, source.format, cuts[-1] + split_bytes, source.size)
            if cut >= source.size:
                break
            cuts.append(cut)
    ends: list[int | None] = [*cuts[1:], None]
    return [Split(source, start, end) for start, end in zip(cuts, ends, strict=True)]


def split_size(total_bytes: int) -> int:
    """Bytes of text a split: 8 MB, and from 100 GB of input on 64 MB, so that a bucket need not ask too many parts."""
    return 64_000_000 if total_bytes >= 100_000_000_000 else 8_000_000


def _next_border(file: BinaryIO, form: str, start: int, size: int) -> int:
    """The first document border at `start` or later; a search that needs no more memory than two chunks."""
    border = BLANK_LINES if form == "txt" else LINE_END
    kept, at = b"", start
    file.seek(start)
    while chunk := file.read(CHUNK):
        data = kept + chunk
        base = at - len(kept)
        match = border.search(data)
        while match and match.end() == len(data):  # blank lines may go on in the next chunk
            more = file.read(CHUNK)
            if not more:
                return size
            data += more
            at += len(more)
            match = border.search(data)
        if match:
            return base + match.end()
        at = base + len(data)
        kept = data[-4096:]  # a run of blank lines may begin here
    return size


def _match(pattern: str) -> tuple[str, dict[str, tuple[int, float]]]:
    """(root, {path: (size, modification time)}) of one --input."""
    if storage.is_local(pattern) and os.path.isdir(pattern):
        root, wanted = pattern, os.path.join(glob.escape(pattern), "**")
    elif storage.is_local(pattern):
        root, wanted = os.path.dirname(re.split(r"[*?\[]", pattern)[0]), pattern
    else:
        try:
            listed = FileSystems.match([pattern])[0].metadata_list
        except BeamIOError as error:
            raise ValueError(f"--input {pattern}: cannot be listed: {error}") from error
        root = re.split(r"[*?\[]", pattern)[0].rpartition("/")[0]
        return root, {f.path: (f.size_in_bytes, f.last_updated_in_seconds) for f in listed}
    paths = glob.glob(wanted, recursive=True) or ([pattern] if os.path.isfile(pattern) else [])
    files = [path for path in paths if os.path.isfile(path)]
    if wanted != pattern:  # a folder: other kinds of file in it are passed over, for nobody named them
        files = [path for path in files if _can_read(path)]
    return root, {path: (os.path.getsize(path), os.path.getmtime(path)) for path in files}


def _can_read(path: str) -> bool:
    try:
        format_of(path)
    except ValueError:
        return False
    return not os.path.basename(path).startswith(".")


def _names(roots: dict[str, str]) -> dict[str, str]:
    """A short name for each path: relative to its root, or the whole path where two would be called the same."""
    short = {path: path[len(root) :].lstrip("/\\") if root else path for path, root in roots.items()}
    taken: dict[str, int] = {}
    for name in short.values():
        taken[name] = taken.get(name, 0) + 1
    return {path: name if taken[name] == 1 else path for path, name in short.items()}


def _expected() -> str:
    return f"{' or '.join(FORMATS)}, plain or with {', '.join(CODECS)} behind it"
