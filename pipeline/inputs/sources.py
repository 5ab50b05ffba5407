"""Input files and ranges of them, and the options that decide how they are read."""

from dataclasses import dataclass
from typing import Literal

from pipeline.inputs.text_encodings import encoding_name


@dataclass(frozen=True, kw_only=True)
class ReadConfig:
    """How files are read."""

    text_layout: Literal["blank-line", "line", "file"] = "blank-line"
    """How documents lie in .txt files: parted by blank lines, each line a sentence or more; one a line; one a file."""
    text_column: str = "text"
    """The field or column that holds the text, in .jsonl, .parquet and .arrow."""
    id_column: str = "id"
    """The field or column with a record's own id, by which rejects name it; it need not be there."""
    encoding: str = "auto"
    """Of .txt and .jsonl. auto: UTF-8, and what the first bytes of a file leave no doubt of; a name is that of Python."""

    def __post_init__(self) -> None:
        if self.encoding != "auto":
            encoding_name(self.encoding)


@dataclass(frozen=True)
class Source:
    """One input file."""

    path: str
    """Where it lies."""
    name: str
    """Its path relative to the input's root: what the data set calls it."""
    format: str
    """One of pipeline.formats.FORMATS."""
    codec: str | None
    """gzip, bzip2, zstd, xz, or None."""
    encoding: str | None
    """Of text that is not UTF-8; None: UTF-8."""
    size: int
    """Bytes on disk."""
    fingerprint: str
    """Digest of name, size, modification time and first bytes: a token part is used again only while it holds."""


@dataclass(frozen=True)
class Split:
    """A range of one file that begins and ends at a document border."""

    source: Source
    start: int
    """First byte, in the uncompressed file; of Parquet and Arrow files the first row."""
    end: int | None
    """The byte, or row, after the last; None: to the end of the file."""
    num_bytes: int = 0
    """On disk, about: for the balance between workers and the progress bar."""
