"""The sample of a plan: which ranges of the input files are read.

Files of one kind are a stratum, and so is each large file. A stratum is cut into cells at document borders: ranges of a
large file, or several small files. Keyed draws choose cells that are spread over the stratum. The documents are read that
begin in a cell before a limit. A compressed file is first unpacked, up to a limit. An input smaller than the sample is read
whole.
"""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from bertloom import storage
from bertloom.draws import bounded, draw, fold
from pipeline.inputs.formats.registry import format_named
from pipeline.inputs.sources import Source, Split, SplitGroup
from pipeline.inputs.splitting import check_source, group_splits, split_source
from pipeline.inputs.streams import Damaged, read_chunks

PLAN = 0x706C616E20202020  # "plan    ", the purpose of the draws
CELL_BYTES = 150_000
"""Text that is read of a cell."""
GRID = 4
"""Cells of a stratum, per cell that is read, if it is much larger than the sample. To find a cell takes a read."""
MIN_CELLS = 4
"""Smallest number of cells that are read of a stratum. With fewer, the error of an estimate cannot be measured."""
LARGE_FILE = 1 / 24
"""A file with at least this share of all bytes is a stratum of its own."""
UNPACKED_BYTES = 400_000_000
"""Largest amount of text that is unpacked of all compressed files together ..."""
MIN_UNPACKED_BYTES = 4_000_000
"""... and of one file, if that is more."""


@dataclass(frozen=True)
class Readable:
    """A file that can be read in places."""

    source: Source
    """The input file, or its unpacked copy."""
    bytes_per_position: float
    """Bytes on disk of the input file for a byte or a row of text; 0 if positions do not show it."""
    size: int
    """Bytes on disk of the input file."""


@dataclass(frozen=True)
class Cell:
    """What is read at one place of the input."""

    stratum: int
    group: SplitGroup
    """Splits that are read in this order."""
    files: tuple[Readable, ...]
    """The file of each split."""
    limit: float | None
    """Bytes on disk after which reading ends with the document that is read; None: all splits are read."""


@dataclass(frozen=True)
class Sample:
    """The cells to read, and the sizes of their strata."""

    cells: list[Cell]
    stratum_bytes: list[int]
    """Bytes on disk of each stratum."""
    part_bytes: int
    """Text in a part of a real job."""
    is_whole: bool
    """Whether all of the input is read."""
    has_unread_ends: bool = False
    """Whether files were unpacked only in part. The rest of them cannot be chosen."""
    unpack_seconds: float = 0.0
    """CPU time that it takes to unpack all compressed files."""


def text_size(source: Source) -> float:
    """Return the bytes of text in a file, about."""
    return source.size * (3.0 if source.codec else format_named(source.format).text_per_byte)


def choose_sample(sources: Sequence[Source], sample_bytes: int, part_bytes: int, folder: Path) -> Sample:
    """Return the cells to read of the input files.

    Args:
        sample_bytes: text to read, about.
        part_bytes: text in a part of a real job.
        folder: for unpacked files.
    """
    total = sum(map(text_size, sources))
    if total <= sample_bytes:
        return _all_of(sources, part_bytes)
    read = [source for source in sources if not source.left_out and source.size]
    for source in read:
        check_source(source)
    unpacker = Unpacker(folder, sum(source.size for source in read if source.codec))
    strata = make_strata(read)
    cells = [
        cell
        for number, stratum in enumerate(strata)
        for cell in choose_cells(number, stratum, sample_bytes * sum(map(text_size, stratum)) / total, unpacker)
    ]
    sizes = [sum(source.size for source in stratum) for stratum in strata]
    return Sample(
        _mixed(cells),
        sizes,
        part_bytes,
        is_whole=False,
        has_unread_ends=unpacker.has_unread_ends,
        unpack_seconds=unpacker.seconds_for_all,
    )


def _mixed(cells: Sequence[Cell]) -> list[Cell]:
    """Return the cells in an order in which every stretch has cells of all strata, so that it shows the speed of a job."""
    strata = Counter(cell.stratum for cell in cells)
    seen = Counter[int]()
    keyed = list[tuple[float, int]]()
    for number, cell in enumerate(cells):
        keyed.append(((seen[cell.stratum] + 0.5) / strata[cell.stratum], number))
        seen[cell.stratum] += 1
    return [cells[number] for _, number in sorted(keyed)]


def _all_of(sources: Sequence[Source], part_bytes: int) -> Sample:
    """Return the sample that is all of the input, in the groups of splits of a real job."""
    splits = [split for source in sources for split in split_source(source, part_bytes)]
    cells = [
        Cell(0, group, tuple(Readable(one.source, 0.0, one.source.size) for one in group.splits), None)
        for group in group_splits(splits, part_bytes)
    ]
    return Sample(cells, [sum(source.size for source in sources)], part_bytes, is_whole=True)


def make_strata(sources: Sequence[Source]) -> list[list[Source]]:
    """Return the files by kind, each large file on its own."""
    total = sum(source.size for source in sources)
    strata: dict[object, list[Source]] = {}
    for source in sources:
        kind = (source.format, source.codec, source.encoding, source.read, source.held_out, source.input)
        own = source.path if source.size >= LARGE_FILE * total else None
        strata.setdefault((kind, own), []).append(source)
    return list(strata.values())


def choose_cells(number: int, sources: list[Source], budget: float, unpacker: "Unpacker") -> Iterator[Cell]:
    """Yield the cells to read of a stratum, in the order of its files.

    Args:
        number: of the stratum.
        budget: bytes of text to read.
    """
    size = sum(source.size for source in sources)
    text_per_byte = sum(map(text_size, sources)) / size
    count = max(MIN_CELLS, round(budget / CELL_BYTES))
    limit = budget / count / text_per_byte
    cell_bytes = max(limit, size / (GRID * count))
    runs = _runs(sources, cell_bytes)
    weights = [max(1, round(run[0].size / cell_bytes)) if len(run) == 1 else 1 for run in runs]
    edges = np.cumsum(weights)
    read_until = (-1, -1)
    opened: tuple[Readable, list[Split]] | None = None
    for position in _positions(number, count, int(edges[-1])):
        first = int(np.searchsorted(edges, position, side="right"))
        run = runs[first]
        if len(run) > 1 or run[0].size < cell_bytes:
            if first > read_until[0]:
                files = tuple(unpacker.open(source, None)[0] for source in run)
                splits = tuple(Split(file.source, 0, None, file.size) for file in files)
                yield Cell(number, SplitGroup(splits), files, None)
            read_until = (first, 0)
            continue
        if first != read_until[0] or opened is None:
            opened = unpacker.open(run[0], cell_bytes)
        file, splits_of_file = opened
        at = int((position - (edges[first] - weights[first])) * len(splits_of_file) / weights[first])
        at = max(at, read_until[1] + 1) if first == read_until[0] else at
        if at < len(splits_of_file):
            split = splits_of_file[at]
            is_long = split.num_bytes > 1.5 * limit and (file.bytes_per_position > 0 or len(splits_of_file) == 1)
            yield Cell(number, SplitGroup((split,)), (file,), limit if is_long else None)
            read_until = (first, at)


def _runs(sources: Sequence[Source], cell_bytes: float) -> list[list[Source]]:
    """Return the files in order, consecutive small files in runs of about `cell_bytes`."""
    runs, held, size = list[list[Source]](), list[Source](), 0
    for source in sources:
        if source.size >= cell_bytes:
            runs += [held] * bool(held) + [[source]]
            held, size = [], 0
            continue
        held.append(source)
        size += source.size
        if size >= cell_bytes:
            runs.append(held)
            held, size = [], 0
    return runs + [held] * bool(held)


def _positions(stratum: int, count: int, size: int) -> list[float]:
    """Return numbers from 0 to `size`, in order: one in each of `count` equal ranges, or all integers if they are fewer."""
    if size <= count:
        return [float(i) for i in range(size)]
    draws = bounded(draw(fold(PLAN, stratum), np.arange(count)), 1 << 20) / (1 << 20)
    return [(i + u) * size / count for i, u in enumerate(draws.tolist())]


class Unpacker:
    """Opens input files so that they can be read in places."""

    def __init__(self, folder: Path, total_bytes: int):
        """total_bytes: of all compressed files, on disk."""
        self.folder, self.total_bytes = folder, total_bytes
        self.num_files = 0
        self.has_unread_ends = False
        self.seconds, self.unpacked_bytes = 0.0, 0.0

    @property
    def seconds_for_all(self) -> float:
        """Return the CPU time that it takes to unpack all files, from the CPU time of the files that were opened."""
        return self.seconds * self.total_bytes / self.unpacked_bytes if self.unpacked_bytes else 0.0

    def open(self, source: Source, cell_bytes: float | None) -> tuple[Readable, list[Split]]:
        """Return the file, and its splits of about `cell_bytes` on disk; None: one split."""
        size, form = source.size, format_named(source.format)
        packed_share = 1.0
        if source.codec:
            source, packed_share = self._unpack(source)
        num_positions = source.size if form.position_unit == "byte" else 0
        if form.count_rows and not source.codec:
            num_positions = form.count_rows(source)
        worth = size * packed_share / num_positions if num_positions else 0.0
        file = Readable(source, worth, size)
        if cell_bytes is None:
            return file, [Split(source, 0, None, size)]
        if form.count_rows and num_positions and source.read.records == "documents":
            count = max(1, round(size / cell_bytes))
            rows = [num_positions * i // count for i in range(count + 1)]
            return file, [Split(source, a, b, round((b - a) * worth)) for a, b in pairwise(rows) if a < b]
        per_byte = source.size / (size * packed_share) * (form.text_per_byte if num_positions != source.size else 1.0)
        splits = split_source(source, max(1, round(cell_bytes * per_byte)))
        scale = size * packed_share / max(1, source.size)
        return file, [replace(split, num_bytes=round(split.num_bytes * scale)) for split in splits]

    def _unpack(self, source: Source) -> tuple[Source, float]:
        """Return the unpacked copy of a compressed file, and the share of the file that it holds."""
        most = max(MIN_UNPACKED_BYTES, UNPACKED_BYTES * source.size // self.total_bytes)
        path = self.folder / f"unpacked-{self.num_files}"
        self.num_files += 1
        written, packed_share, start = 0, 1.0, time.process_time()
        with storage.open_read(source.path, source.size) as file, path.open("wb") as copy:
            try:
                for chunk in read_chunks(file, source.codec):
                    copy.write(chunk)
                    written += len(chunk)
                    if written >= most:
                        packed_share = min(1.0, file.tell() / source.size)
                        self.has_unread_ends |= packed_share < 1
                        break
            except Damaged:
                pass  # its undamaged part is taken for all of it
        self.seconds += time.process_time() - start
        self.unpacked_bytes += packed_share * source.size
        return replace(source, path=str(path), codec=None, size=written, modified=None), packed_share
