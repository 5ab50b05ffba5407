"""What stages write in a data set in addition to its shards, and what reads it. Imports no Beam."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bertloom import storage
from bertloom.arrays import U64, Bools
from bertloom.draws import VALIDATION, mix, threshold

DOCUMENTS_SCHEMA = pa.schema(
    [
        pa.field("id", pa.uint64(), nullable=False),
        pa.field("source_key", pa.uint64(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("position", pa.int64(), nullable=False),
        pa.field("length", pa.int64(), nullable=False),
        pa.field("piece", pa.int32(), nullable=False),
        pa.field("num_sentences", pa.int32(), nullable=False),
        pa.field("num_tokens", pa.int32(), nullable=False),
    ]
)
"""Of a table in `documents/`: the used documents of a bucket, in id order."""
REPEATED = "repeated_lines.parquet"
"""The file of repeated lines, which --max-line-repeats leaves out of the texts."""


def is_validation(ids: U64, fraction: float) -> Bools:
    """Return which documents are held out. Their texts decide it, so a larger corpus holds out the same ones and more."""
    return mix(ids ^ np.uint64(VALIDATION)) < np.uint64(threshold(fraction, 64))


def read_repeated(folder: str) -> U64:
    """Return the hashes of the repeated lines of a folder of parts or of a data set: uint64 (lines,), sorted."""
    with storage.open_read(storage.join(folder, REPEATED)) as file:
        hashes: U64 = pq.read_table(file)["line"].to_numpy()
        return hashes
