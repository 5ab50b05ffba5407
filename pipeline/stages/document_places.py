"""Where documents are in the input: the name of the file and the position in it.

A document's row has the number of its file in its part, and its position. For a file in an archive, the part also lists
where each file begins.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.part_sources import read_entries, read_names
from pipeline.text.records import EntryPlace, place_in_entry
from pipeline.tokens import PartRecord


def find_places(
    parts: Sequence[PartRecord], folder: str, part_of: NDArray[np.intp], rows: NDArray[np.void]
) -> tuple[list[str], NDArray[np.int64]]:
    """Return (name of the file of each document, position there). The file may be one in an archive.

    Args:
        parts: of the job.
        part_of: number of the part of each document.
        rows: the documents, with their `file` and `position`.
    """
    sources, positions = [""] * len(rows), rows["position"].astype(np.int64)
    order = np.argsort(part_of, kind="stable")
    numbers, begins = np.unique(part_of[order], return_index=True)
    for number, chosen in zip(numbers.tolist(), np.split(order, begins[1:])):
        part = parts[number]
        files = rows["file"][chosen]
        for i, name in zip(chosen.tolist(), read_names(folder, part).take(pa.array(files)).to_pylist(), strict=True):
            sources[i] = name
        if (entries := read_entries(folder, part)) is not None:
            _name_entries(sources, positions, entries, chosen, files)
    return sources, positions


def _name_entries(
    sources: list[str],
    positions: NDArray[np.int64],
    entries: pa.Table,
    chosen: NDArray[np.intp],
    files: NDArray[np.unsignedinteger],
) -> None:
    """Set the places of the documents with these numbers. files: the file of each."""
    file_column, firsts = entries["file"].to_numpy(), entries["first"].to_numpy()
    for file in np.unique(files):
        begin, end = np.searchsorted(file_column, [file, file + 1])
        if begin == end:
            continue  # not an archive
        of_file = chosen[files == file]
        at = begin + np.searchsorted(firsts[begin:end], positions[of_file], side="right") - 1
        for i, row, name in zip(of_file.tolist(), at.tolist(), entries["name"].take(at).to_pylist(), strict=True):
            sources[i], positions[i] = place_in_entry(sources[i], EntryPlace(name, int(firsts[row])), int(positions[i]))
