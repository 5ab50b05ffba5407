"""Splits: where files are cut, so that several workers share one. A cut is at a document border and never shows in shards.

A file that is compressed, or not UTF-8, cannot be cut. It is one split, read as a stream. With --records, a cut is between
two records, and the documents there have one split each (pipeline/inputs/groups.py).

Small files share a group of splits, which a worker takes in one piece. The last split of a group is chosen by the files
themselves, so new files in a folder change few groups, and the tokens of the others can be used again.
"""

import hashlib
from collections.abc import Iterable

from pipeline.inputs.formats.format import Format
from pipeline.inputs.formats.registry import format_named
from pipeline.inputs.sources import Source, Split, SplitGroup

FILE_BYTES = 4096
"""To open a file takes about as long as to read this many bytes of text."""


def split_source(source: Source, split_bytes: int) -> list[Split]:
    """Return the splits of a file, each of about `split_bytes` of text.

    Raises ValueError where the file cannot be read: a package or the text column is missing.
    """
    if source.left_out:
        return [Split(source, 0, None, 0)]
    form = format_named(source.format)
    check_source(source)
    cuts = [0]
    if form.find_cuts and not (source.codec or source.encoding or form.counts_records(source.read)):
        cuts += form.find_cuts(source, split_bytes)
    ends: list[int | None] = [*cuts[1:], None]
    if form.position_unit == "byte":
        sizes = [(source.size if end is None else end) - start for start, end in zip(cuts, ends)]
    else:
        sizes = [source.size // len(cuts)] * len(cuts)
    return [Split(source, start, end, size) for start, end, size in zip(cuts, ends, sizes, strict=True)]


def check_source(source: Source) -> None:
    """Raise ValueError where a file cannot be read: a package or a column is missing, or an option does not fit it."""
    form = format_named(source.format)
    check_options(form, source)
    if form.check:
        form.check(source)


def check_options(form: Format, source: Source) -> None:
    """Raise ValueError where a package is missing, or an option for reading does not fit the format."""
    form.check_packages(source.path)
    read = source.read
    if form.has_layouts and read.document_column is not None:
        raise ValueError(
            f"{source.path}: is {form.description}, whose lines have no columns, so --document-column "
            f"{read.document_column} cannot be read. Leave the file out, or give --records-per-document or --records lines"
        )
    if form.has_layouts and read.strip_gutenberg and read.text_layout != "file":
        raise ValueError(
            f"{source.path}: is {form.description} in the layout {read.text_layout}, so --strip-gutenberg cannot find where "
            f"a book begins. Give --text-layout file if each file is a book"
        )


def split_size(total_bytes: int) -> int:
    """Return the bytes of text in a split: 8 MB, or 64 MB from 100 GB of input, to limit the number of parts."""
    return 64_000_000 if total_bytes >= 100_000_000_000 else 8_000_000


def group_splits(splits: Iterable[Split], group_bytes: int) -> list[SplitGroup]:
    """Return groups of consecutive splits with at most `group_bytes` of text, and half of it on average.

    A larger split is a group of its own. No group has files of both --input and --validation-input, or of two tables of
    --inputs.
    """
    groups, held, size = list[SplitGroup](), list[Split](), 0
    for split in sorted(splits, key=lambda split: split.source.input):
        weight = max(FILE_BYTES, split.text_bytes)
        is_other = bool(held) and _kind(held[-1]) != _kind(split)
        if held and (is_other or size + weight > group_bytes):
            groups.append(SplitGroup(tuple(held)))
            held, size = [], 0
        held.append(split)
        size += weight
        if 2 * weight > group_bytes * _draw(split):
            groups.append(SplitGroup(tuple(held)))
            held, size = [], 0
    return groups + ([SplitGroup(tuple(held))] if held else [])


def _kind(split: Split) -> tuple[bool, int]:
    """Return what the splits of a group have in common."""
    return split.source.held_out, split.source.input


def _draw(split: Split) -> float:
    """Return a number from 0 to 1 that depends on the split alone."""
    key = f"{split.source.fingerprint} {split.start}".encode()
    return int.from_bytes(hashlib.sha256(key).digest()[:4], "little") / (1 << 32)
