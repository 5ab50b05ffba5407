"""Where documents are in the input: the name of the file and the position in it.

A document's row has the number of its part and its position. For a file in an archive, the part also lists where each file
begins.
"""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bertloom import storage
from bertloom.arrays import I64
from pipeline.stages.plan import Plan
from pipeline.text.records import EntryPlace, place_in_entry
from pipeline.tokens import read_entries


def find_places(plan: Plan, folder: str, part_of: NDArray[np.intp], positions: I64) -> tuple[list[str], I64]:
    """Return (name of the file of each document, position there). The file may be one in an archive.

    part_of: number of the part of each document. positions: as the part has them.
    """
    sources, found = [plan.parts[i].source for i in part_of], positions.astype(np.int64)
    order = np.argsort(part_of, kind="stable")
    files = [*plan.files]
    edges = np.searchsorted(part_of[order], [*(first for first, _ in files), len(plan.parts)])
    for number, (first, file) in enumerate(files):
        chosen = order[edges[number] : edges[number + 1]]
        if len(chosen) and (entries := read_entries(storage.join(folder, file.name), file)) is not None:
            _name_entries(sources, found, entries, chosen, part_of[chosen] - first)
    return sources, found


def _name_entries(
    sources: list[str], positions: I64, entries: pa.Table, chosen: NDArray[np.intp], parts: NDArray[np.intp]
) -> None:
    """Set the places of the documents with these numbers. parts: of each, as in the table of entries."""
    part_column, firsts = entries["part"].to_numpy(), entries["first"].to_numpy()
    for part in np.unique(parts):
        begin, end = np.searchsorted(part_column, [part, part + 1])
        if begin == end:
            continue  # not of an archive
        of_part = chosen[parts == part]
        at = begin + np.searchsorted(firsts[begin:end], positions[of_part], side="right") - 1
        for i, row, name in zip(of_part.tolist(), at.tolist(), entries["name"].take(at).to_pylist(), strict=True):
            sources[i], positions[i] = place_in_entry(sources[i], EntryPlace(name, int(firsts[row])), int(positions[i]))
