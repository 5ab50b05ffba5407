"""The input files of a data set: their rows in the manifest by name, and the largest of many."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from bertloom.arrays import I64
from jobs.browser.data_set import BrowsedDataSet
from jobs.browser.per_data_set import PerDataSet

MOST_FILES = 20
"""Files that a table shows. The others are one row."""


def _rows_by_name(data_set: BrowsedDataSet) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in data_set.manifest["inputs"]}


inputs_of = PerDataSet(_rows_by_name)
"""Name of an input file -> its row in the manifest."""


def unit_of(inputs: Mapping[str, Mapping[str, Any]], file: str) -> str:
    """Return what positions in a file count: bytes or rows. file: an input, or one in an archive."""
    from pipeline.inputs.formats.registry import position_unit
    from pipeline.inputs.sources import source_of

    name = source_of(file, inputs)
    return "byte" if name is None else position_unit(name, inputs[name]["format"], file)


def largest(values: I64, most: int = MOST_FILES) -> tuple[list[int], int, int]:
    """Return (indexes of the largest values above 0, from the largest; number of others above 0; their sum).

    >>> largest(np.array([3, 0, 9, 4, 1]), 2)
    ([2, 3], 2, 4)
    """
    order = np.argsort(-values, kind="stable")
    order = order[values[order] > 0]
    return order[:most].tolist(), max(0, len(order) - most), int(values[order[most:]].sum())
