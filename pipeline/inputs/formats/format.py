"""The `Format` record: everything that the pipeline knows about one kind of input file."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO, Literal

from bertloom.extras import require
from pipeline.inputs.sources import ReadConfig, Source, Split
from pipeline.text.records import Item, PassedOver, Reject


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A file in an archive that may hold documents. pipeline/inputs/archives.py reads it."""

    name: str
    position: int
    """Position in the archive of its first record."""
    space: int
    """The next entry's position is at least `position + space`."""
    size: int
    """Bytes in the archive."""
    file: BinaryIO
    """Its bytes. If it is not seekable, it is read as a stream, before the next entry."""
    codec: str | None = None
    """How the archive has compressed it, as in `Source.codec`."""
    find_fault: Callable[[], str] = str
    """Returns why its content cannot be used, or "". Called before it is read."""


@dataclass(frozen=True, kw_only=True)
class Format:
    """One input format. `pipeline/inputs/formats/registry.py` lists them."""

    name: str
    """What manifests and `Source.format` call it."""
    description: str
    """What error messages call it."""
    endings: tuple[str, ...]
    """Endings of file names, without the ending of a compression."""
    shared_endings: tuple[str, ...] = ()
    """Endings that other files have, too. Such a file has this format only if it `begins` like one."""
    name_pattern: str | None = None
    """Regular expression for the end of other names."""
    magic: bytes | None = None
    """Regular expression for the first bytes of the uncompressed file. A file with these bytes must have the format's
    name, and the other way round. None: the first bytes can be any text."""
    begins: Callable[[bytes, ReadConfig], bool] | None = None
    """Returns whether a file whose name does not show its format has this one, by its first bytes as UTF-8. None: never."""
    check: Callable[[Source], None] | None = None
    """Raises ValueError where the options for reading do not fit the content of a file, such as a missing column. Called
    once, before a job begins; in an archive, `read` raises it."""
    read: Callable[[BinaryIO, Split, int], Iterator[Item]] | None = None
    """Yields the records of a split of an open file in order, from the one at this position. None: it is an archive."""
    open_entries: Callable[[BinaryIO, Split], Iterator[Entry | Reject | PassedOver]] | None = None
    """Yields the entries of a split of an open archive in order, and what cannot be read of it. None: it is no archive."""
    needs_seek: bool = False
    """Whether it reads an uncompressed file by random access. Otherwise the file is a stream, and only its first
    65,536 bytes can be read twice."""
    position_unit: Literal["byte", "row", "entry"] = "byte"
    """What a record's position counts, in the uncompressed file. entry: nothing but the order in an archive."""
    find_cuts: Callable[[Source, int], list[int]] | None = None
    """Returns the positions at which splits of about this many bytes of text begin, the first split excluded. Only called
    for files that are neither compressed nor in another encoding than UTF-8. None: a file is always one split."""
    count_rows: Callable[[Source], int] | None = None
    """Returns the number of rows of a file that is not compressed, for formats whose positions are rows."""
    has_records: bool = False
    """Whether `read` yields a `Row` for each record, so that --records decides what its documents are."""
    has_encodings: bool = False
    """Whether it is text that may be in another encoding than UTF-8, so that --encoding applies."""
    is_document: bool = False
    """Whether each file is one document, whatever the options are. It may be a README in a folder of data."""
    has_layouts: bool = False
    """Whether --text-layout decides what its documents are. Its records are lines, without columns."""
    text_per_byte: float = 1.0
    """Bytes of text in a byte of the file, about. Used for formats whose positions are rows; others are measured."""
    versions: tuple[str, ...] = ()
    """Packages whose version may change the text."""
    packages: tuple[str, ...] = ()
    """Modules that reading needs and that an extra installs (see bertloom/extras.py)."""

    def counts_records(self, config: ReadConfig) -> bool:
        """Return whether a file is always read from its beginning, because its records are counted and positions do not
        count them.
        """
        return self.has_records and self.position_unit == "byte" and config.records_per_document is not None

    def check_packages(self, path: str) -> None:
        """Raise ValueError when a package that reading `path` needs is not installed."""
        require(f"{path}: is {self.description}. Reading it", *self.packages)
