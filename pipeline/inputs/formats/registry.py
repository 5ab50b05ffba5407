"""The list of input formats, and the search for a file's format by its name and its first bytes.

To add a format, write one file with its `Format` and add that to `FORMATS`.
"""

import io
import os
import re
from typing import BinaryIO

from pipeline.inputs.formats.arrow import ARROW
from pipeline.inputs.formats.delimited import CSV, TSV
from pipeline.inputs.formats.format import Format
from pipeline.inputs.formats.html_files import HTML
from pipeline.inputs.formats.json_array import JSON_ARRAY
from pipeline.inputs.formats.json_lines import JSON_LINES
from pipeline.inputs.formats.markdown import MARKDOWN
from pipeline.inputs.formats.mediawiki import MEDIAWIKI
from pipeline.inputs.formats.parquet import PARQUET
from pipeline.inputs.formats.plain_text import PLAIN_TEXT
from pipeline.inputs.formats.restructured_text import RESTRUCTURED_TEXT
from pipeline.inputs.formats.tape_archive import TAPE_ARCHIVE
from pipeline.inputs.formats.web_archive import WEB_ARCHIVE
from pipeline.inputs.formats.wikiextractor import WIKIEXTRACTOR
from pipeline.inputs.formats.zip_archive import ZIP_ARCHIVE
from pipeline.inputs.sources import ReadConfig
from pipeline.inputs.streams import CODECS, first_bytes
from pipeline.inputs.text_encodings import as_utf8, encoding_of

FORMATS: list[Format] = [
    PLAIN_TEXT,
    WIKIEXTRACTOR,  # before JSON Lines, which it may be, too
    JSON_LINES,
    JSON_ARRAY,
    CSV,
    TSV,
    PARQUET,
    ARROW,
    MEDIAWIKI,
    WEB_ARCHIVE,
    MARKDOWN,
    RESTRUCTURED_TEXT,
    HTML,
    TAPE_ARCHIVE,
    ZIP_ARCHIVE,
]

_CODEC_MAGIC = {
    "gzip": re.compile(rb"\x1f\x8b\x08"),
    "bzip2": re.compile(rb"BZh[1-9](1AY&SY|\x17rE8P\x90)"),
    "zstd": re.compile(rb"\x28\xb5\x2f\xfd"),
    "xz": re.compile(rb"\xfd7zXZ\0"),
}
_ENDING = re.compile(r"\.(?!\d+\Z)[^/\\.]*\Z")  # part.00017 has none
_UNREADABLE = {
    "a document or a program in a zip": re.compile(
        rb"PK\x03\x04[\s\S]{26}(mimetype|\[Content_Types\]\.xml|_rels/|docProps/|META-INF/)"
    ),
    "a shard that bertloom made": re.compile(rb"\d{5}-\d{6}\.arrow\0"),
    "a PDF": re.compile(rb"%PDF-"),
    "a 7z archive": re.compile(rb"7z\xbc\xaf\x27\x1c"),
    "lz4": re.compile(rb"\x04\x22M\x18"),
}
_OTHER_JSON = {
    "one JSON object": rb"\s*\{\s*\"",
    "a JSON array": rb"\s*\[\s*[\"\[\d-]",
}
_SHORT = {".tgz": ".tar.gz", ".tbz2": ".tar.bz2", ".tbz": ".tar.bz2", ".txz": ".tar.xz", ".tzst": ".tar.zst"}


def format_named(name: str) -> Format:
    """Return the format that sources, manifests and --format call `name`."""
    for form in FORMATS:
        if form.name == name:
            return form
    raise ValueError(f"--format {name}: expected one of {', '.join(form.name for form in FORMATS)}")


def expected_names() -> str:
    """Return the names that are understood, for error messages."""
    endings = [ending for form in FORMATS for ending in form.endings]
    endings += dict.fromkeys(ending for form in FORMATS for ending in form.shared_endings)
    return (
        f"a name that ends in {', '.join(endings)}, followed by {', '.join(CODECS)} if it is compressed; --format reads "
        f"files with other names"
    )


def format_by_name(path: str) -> tuple[Format | None, str | None]:
    """Return (format, codec) by the endings of a file's name; None for what they do not show."""
    name = path.lower()  # capitals mean the same
    stem, ending = os.path.splitext(name)
    name = stem + _SHORT.get(ending, ending)
    codec = next((codec for ending, codec in CODECS.items() if name.endswith(ending)), None)
    stem = name.rpartition(".")[0] if codec else name
    for form in FORMATS:
        if stem.endswith(form.endings) or (form.name_pattern and re.search(rf"(?:{form.name_pattern})\Z", stem)):
            return form, codec
    return None, codec


def codec_by_content(head: bytes) -> str | None:
    """Return how a file that begins with these bytes is compressed; None if it is not."""
    return _match(head, _CODEC_MAGIC)


def position_unit(source: str, form: str, file: str) -> str:
    """Return what positions in a file count. source, form: the input file and its format; `file` is the same or in it."""
    found = format_named(form) if file == source else format_by_name(file)[0]
    return found.position_unit if found and found.read else "byte"


def has_open_name(path: str) -> bool:
    """Return whether only the first bytes can show a file's format: its name has no ending, or one of several formats."""
    form, codec = format_by_name(path)
    if form:
        return False
    name = path.lower()
    stem = name.rpartition(".")[0] if codec else name
    shared = tuple(ending for form in FORMATS for ending in form.shared_endings)
    return stem.endswith(shared) or not _ENDING.search(stem)


def find_format(
    path: str, head: bytes, file: BinaryIO, config: ReadConfig | None = None
) -> tuple[Format, str | None, bytes]:
    """Return (format, codec, first uncompressed bytes) of an open file that begins with `head`.

    Raises ValueError where its name and its first bytes contradict each other, or neither shows a format.
    """
    config = config or ReadConfig()
    named, codec = format_by_name(path)
    if config.format:
        named = format_named(config.format)
    packed = codec_by_content(head)
    if packed and packed != codec:
        raise ValueError(_contradiction(path, f"those of {packed}", codec or "not compressed"))
    if codec:
        if other := _format_by_magic(head):
            raise ValueError(_contradiction(path, f"those of {other.description}", codec))
        head = first_bytes(io.BytesIO(head), codec) or first_bytes(file, codec)  # a block of bzip2 may be longer
        if again := codec_by_content(head):
            raise ValueError(f"{path}: is compressed twice, the second time as {again}. Unpack it once")
    if unreadable := _match(head, _UNREADABLE):
        raise ValueError(f"{path}: is {unreadable}, which cannot be read. Unpack it or extract its text first")
    found = _format_by_magic(head)
    if config.format and found and found.open_entries:  # --format is that of the files in it
        return found, codec, head
    if named is None:
        found = found or _format_by_beginning(head, config)
        if found is None:
            raise ValueError(f"{path}: {_unknown(head, config)}")
        return found, codec, head
    if found != (named if named.magic and head else None):
        actual = f"those of {found.description}" if found else f"not those of {named.description}"
        if config.format:
            raise ValueError(f"{path}: its first bytes are {actual}. --format {named.name} does not fit this file")
        raise ValueError(_contradiction(path, actual, named.description))
    return named, codec, head


def _unknown(head: bytes, config: ReadConfig) -> str:
    """Return what is wrong with a file whose name and first bytes show no format."""
    json = next((kind for kind, begin in _OTHER_JSON.items() if re.match(begin, head)), None)
    if json is None:
        return f"its name does not show its format. Expected {expected_names()}"
    return (
        f"is {json}, not records of which each is an object with a field {config.text_column!r}. Write its texts as JSON "
        f"Lines, one such object in each line"
    )


def _contradiction(path: str, actual: str, named: str) -> str:
    return f"{path}: its first bytes are {actual}, but its name says {named}. Rename it to match its contents"


def _format_by_magic(head: bytes) -> Format | None:
    return next((form for form in FORMATS if form.magic and re.match(form.magic, head)), None)


def _format_by_beginning(head: bytes, config: ReadConfig) -> Format | None:
    encoding = encoding_of(head, config.encoding)
    text = b"".join(as_utf8([head], encoding)) if encoding else head
    return next((form for form in FORMATS if form.begins and form.begins(text, config)), None)


def _match(head: bytes, magic: dict[str, re.Pattern[bytes]]) -> str | None:
    return next((name for name, begin in magic.items() if begin.match(head)), None)
