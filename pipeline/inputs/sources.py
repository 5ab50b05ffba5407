"""Input files and ranges of them, and the options that decide how they are read."""

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from pipeline.inputs.text_encodings import encoding_name
from pipeline.text.line_breaks import LineBreaks
from pipeline.text.records import ENTRY_MARK


@dataclass(frozen=True, kw_only=True)
class ReadConfig:
    """How input files are read."""

    format: str | None = None
    """Format of all input files, whatever their names, such as jsonl, csv or txt (docs/inputs.md lists them). By default a
    file's name and first bytes show its format."""
    encoding: str = "auto"
    """Encoding of text files, by its name in Python. `auto`: UTF-8, unless the first bytes clearly show another one."""
    text_layout: Literal["blank-line", "line", "file"] = "blank-line"
    """Documents in .txt files. `blank-line`: separated by blank lines, and a line break ends a sentence. `line`: one
    in each line. `file`: one in each file."""
    line_breaks: LineBreaks = "auto"
    """What a single line break is in records and, with --text-layout file, in .txt files. `paragraph`: the end of a
    paragraph. `space`: a space, for text that was wrapped at a column. `auto`: each document decides by its lines."""
    strip_gutenberg: bool = False
    """Remove the licence of Project Gutenberg before and after each text, by the lines that mark it. .txt files need
    --text-layout file. Texts without these lines stay as they are and are counted."""
    text_column: str = "text"
    """Field or column with the text. In .csv and .tsv files also a column's number, from 0."""
    id_column: str = "id"
    """Field or column with a record's own id, shown in the list of rejects. It may be missing."""
    header: Literal["auto", "yes", "no"] = "auto"
    """Whether the first record of a .csv or .tsv file names its columns. `auto`: if one of its fields is --text-column or,
    where that is a number, if it holds usual names, such as text or id."""
    records: Literal["documents", "sentences", "lines"] = "documents"
    """What a row of a table, an object of JSON or a line of a .txt file is. `documents`: a document (in .txt files see
    --text-layout). `sentences`: a part of a document, see --document-column and --records-per-document. `lines`: a line of
    a document, which an empty record ends. The end of a record that is a part or a line always ends a sentence."""
    document_column: str | None = None
    """With --records sentences: field or column that says which document a record is part of. Records in a row with the
    same value are one document."""
    records_per_document: int | None = None
    """With --records sentences: number of records in a document, counted from the beginning of the file. For files that do
    not say where documents begin."""
    document_start: str | None = None
    """With --records lines: regular expression. A document begins at each record in which it is found, and nowhere else."""
    skip_lines: str | None = None
    """With --records lines: regular expression. Records in which it is found are left out, such as headings."""

    def __post_init__(self) -> None:
        if self.encoding != "auto":
            encoding_name(self.encoding)
        self._check_records()

    def _check_records(self) -> None:
        by_sentences = {"document-column": self.document_column, "records-per-document": self.records_per_document}
        by_lines = {"document-start": self.document_start, "skip-lines": self.skip_lines}
        for records, flags in (("sentences", by_sentences), ("lines", by_lines)):
            for flag, value in flags.items():
                if value is not None and self.records != records:
                    raise ValueError(
                        f"--{flag} {value}: is for --records {records}, but --records is {self.records}: give --records "
                        f"{records}, or leave out --{flag}"
                    )
        if self.records == "sentences" and (self.document_column is None) == (self.records_per_document is None):
            raise ValueError(
                "--records sentences: expected either --document-column NAME or --records-per-document N, which decide "
                "which sentences are one document"
            )
        if self.records_per_document is not None and self.records_per_document < 1:
            raise ValueError(f"--records-per-document {self.records_per_document}: expected a number from 1")
        if self.records != "documents" and self.text_layout != "blank-line":
            raise ValueError(
                f"--text-layout {self.text_layout}: with --records {self.records} a record of a .txt file is a line: leave "
                f"out one of the two"
            )
        if self.records != "documents" and self.strip_gutenberg:
            raise ValueError(
                f"--strip-gutenberg: with --records {self.records} no record is a whole book: leave out one of the two"
            )
        for flag, value in by_lines.items():
            if value is not None:
                _check_expression(f"--{flag}", value)


def _check_expression(flag: str, value: str) -> None:
    try:
        re.compile(value)
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(
            f"{flag} {value}: {error}. Expected a regular expression of Python, such as '^ = [^=].* = $'"
        ) from None


def differences(config: Any, other: Any) -> dict[str, Any]:
    """Return the options of a configuration that another one of its class does not have."""
    return {name: value for name, value in asdict(config).items() if value != getattr(other, name)}


@dataclass(frozen=True)
class Input:
    """Files that are read with the same options."""

    patterns: tuple[str, ...]
    """Files, folders, globs or @LISTs."""
    read: ReadConfig


@dataclass(frozen=True, slots=True)
class Source:
    """One input file."""

    path: str
    """Where the file is."""
    name: str
    """Path relative to the input's root: the data set's name for the file."""
    format: str
    """Name of its `Format` in pipeline/inputs/formats/registry.py."""
    codec: str | None
    """Compression: gzip, bzip2, zstd, xz or None."""
    encoding: str | None
    """Encoding of text that is not UTF-8; None: UTF-8, or not a text format."""
    size: int
    """Bytes on disk."""
    fingerprint: str
    """Digest of name, size, modification time, first bytes and the options for reading. Token parts are used again only
    while it is the same."""
    read: ReadConfig = field(default_factory=ReadConfig)
    """How it is read."""
    held_out: bool = False
    """Whether --validation-input names it."""
    left_out: bool = False
    """Whether --leave-out names it: it is counted as one reject and not read."""
    input: int = -1
    """Number of the table of --inputs that names it (pipeline/inputs/named_inputs.py); -1: none does."""
    modified: float | None = None
    """Modification time in seconds; None: not known."""


def source_of(name: str, known: Collection[str]) -> str | None:
    """Return which of the known sources a name belongs to: to an archive if it is the name of a file in it, else None."""
    if name in known:
        return name
    ends = [i for i, c in enumerate(name) if c == ENTRY_MARK]
    return next((name[:end] for end in reversed(ends) if name[:end] in known), None)


def leave_out(sources: Sequence[Source], names: Sequence[str]) -> list[Source]:
    """Return the sources; those with these names are marked as left out. ValueError for a name that no source has."""
    if unknown := set(names) - {source.name for source in sources}:
        raise ValueError(
            f"--leave-out {sorted(unknown)[0]}: no input file has this name. Expected the name of a file below the folder "
            f"of --input, as in error messages and manifest.json"
        )
    return [
        replace(source, left_out=True, fingerprint=f"left out {source.fingerprint}") if source.name in names else source
        for source in sources
    ]


@dataclass(frozen=True, slots=True)
class Split:
    """A range of one file that begins and ends at a document border."""

    source: Source
    start: int
    """First byte of the uncompressed file, or first row: see `Format.position_unit`."""
    end: int | None
    """The byte or row after the last one; None: the end of the file."""
    num_bytes: int = 0
    """Size on disk, about; used to balance workers and for the progress bar."""

    @property
    def text_bytes(self) -> int:
        """Bytes of text, about: text is compressed about 3:1."""
        return self.num_bytes * (3 if self.source.codec else 1)


@dataclass(frozen=True)
class SplitGroup:
    """What a worker takes in one piece: a split of a large file, or the splits of many small files in the order of names."""

    splits: tuple[Split, ...]

    @property
    def name(self) -> str:
        """A name that no other group of the job has."""
        return f"{self.splits[0].source.name} {self.splits[0].start}"

    @property
    def held_out(self) -> bool:
        """Whether --validation-input names its files. No group has both kinds."""
        return self.splits[0].source.held_out

    @property
    def input(self) -> int:
        """Number of the table of --inputs to which all of its files belong; -1: to none."""
        return self.splits[0].source.input

    @property
    def num_bytes(self) -> int:
        """Size on disk, about."""
        return sum(split.num_bytes for split in self.splits)

    @property
    def text_bytes(self) -> int:
        """Bytes of text, about."""
        return sum(split.text_bytes for split in self.splits)

    @property
    def ranges(self) -> list[list[Any]]:
        """What names the splits in digests."""
        return [[split.source.fingerprint, split.source.encoding, split.start, split.end] for split in self.splits]

    def versions(self, of_format: Callable[[str], dict[str, str]]) -> dict[str, str]:
        """Return package -> version of what decides the content. of_format: the same of the files of a format."""
        found: dict[str, str] = {}
        for form in sorted({split.source.format for split in self.splits}):
            found |= of_format(form)
        return found
