"""What stages write in a data set in addition to its shards, and what reads it. Imports no Beam."""

import gzip
import hashlib
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bertloom import storage
from bertloom.arrays import U64, Bools
from bertloom.draws import VALIDATION, mix, threshold
from bertloom.json_files import Damaged, parse_json
from bertloom.manifest import read_below, vocabulary_file
from bertloom.parquet_files import parse_parquet
from bertloom.shapes import TEXT, Kind, check_shape
from pipeline.vocabulary import Vocabulary
from pipeline.vocabulary_files import parse_copy

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
NEAR_DUPLICATES = "near-duplicates.parquet"
"""The file of documents that were left out because they resemble another one."""
NEAR_DUPLICATES_SCHEMA = pa.schema(
    {
        "id": pa.uint64(),
        "resembles": pa.uint64(),
        "similarity": pa.float64(),
        "source": pa.string(),
        "position": pa.int64(),
        "piece": pa.int32(),
    }
)
"""In id order. `resembles`: a document of smaller id, which may be left out, too, because it resembles a third one."""
SKETCHES_SCHEMA = pa.schema(
    [
        pa.field("id", pa.uint64(), nullable=False),
        pa.field("num_shingles", pa.int32(), nullable=False),
        pa.field("bands", pa.list_(pa.field("item", pa.uint64(), nullable=False)), nullable=False),
        pa.field("least", pa.list_(pa.field("item", pa.uint32(), nullable=False)), nullable=False),
    ]
)
"""Columns of a table in `sketches/`: hashes of a bucket's documents, in id order, for the search for near duplicates."""
KNOWN_NEAR_DUPLICATES = "near-duplicates-of-others.parquet"
"""The file of documents that were left out because they resemble one of another data set."""
KNOWN_NEAR_DUPLICATES_SCHEMA = NEAR_DUPLICATES_SCHEMA.append(pa.field("data_set", pa.string())).append(
    pa.field("is_exact", pa.bool_())
)
"""In id order. `resembles`: a document of the data set of this name. `is_exact`: whether the similarity is not estimated."""
REPEATED = "repeated_lines.parquet"
"""The file of repeated lines, which --max-line-repeats leaves out of the texts."""
REPEATED_SCHEMA = pa.schema(
    [
        pa.field("line", pa.uint64(), nullable=False),  # the first 8 bytes, little-endian, of the SHA-256 of the line
        pa.field("documents", pa.int64(), nullable=False),
    ]
)
DOCUMENT_LIMITS = {
    "position": (0, (1 << 63) - 1),
    "piece": (0, (1 << 31) - 1),
    "length": (1, 1 << 24),
    "num_sentences": (1, 1 << 24),
    "num_tokens": (1, 1 << 24),
}
"""Least and greatest value of columns of documents/: a text of more than 4 MB is cut into documents."""
ROW_BYTES = 8
"""Bytes of each row of these tables that cannot be compressed: a hash."""
MAX_REJECT_BYTES = 1 << 26
"""Longest line of the log of rejects that is read. It holds 200 characters of a text, but the whole id of a record."""
REJECT = {
    **dict.fromkeys(("source", "reason", "detail", "text"), TEXT),
    "position": Kind("a whole number", lambda value: type(value) is int),
}
"""The fields of a reject that readers use."""


def is_validation(ids: U64, fraction: float) -> Bools:
    """Return which documents are held out. Their texts decide it, so a larger corpus holds out the same ones and more."""
    return mix(ids ^ np.uint64(VALIDATION)) < np.uint64(threshold(fraction, 64))


@dataclass(frozen=True)
class HeldOut:
    """Which documents are in the validation split."""

    fraction: float
    """Share of the documents, see `is_validation`."""
    ids: U64 | None = None
    """Sorted ids of the documents of --validation-input. Only documents with these ids are held out. None: the fraction
    decides."""

    def __call__(self, ids: U64) -> Bools:
        """Return which of these documents are held out: bool (n,)."""
        if self.ids is None:
            return is_validation(ids, self.fraction)
        found: Bools = np.searchsorted(self.ids, ids, "right") > np.searchsorted(self.ids, ids, "left")
        return found


def read_repeated(folder: str) -> U64:
    """Return the hashes of the repeated lines in a folder of parts: uint64 (lines,), sorted."""
    with storage.open_read(storage.join(folder, REPEATED)) as file:
        hashes: U64 = pq.read_table(file)["line"].to_numpy()
        return hashes


def repeated_lines_of(dataset: str, manifest: Mapping[str, Any]) -> U64:
    """Return the hashes of the repeated lines in a data set: uint64 (lines,), sorted."""
    content = read_listed(dataset, REPEATED, manifest["files"])
    hashes: U64 = parse_parquet(content, REPEATED, REPEATED_SCHEMA, ROW_BYTES)["line"].to_numpy()
    return hashes


def vocabulary_of(dataset: str, manifest: Mapping[str, Any]) -> Vocabulary:
    """Return the vocabulary of a data set; ValueError if it differs from the manifest's."""
    vocabulary = parse_copy(vocabulary_file(manifest), partial(read_below, dataset), dataset)
    expected, found = manifest["vocabulary"], vocabulary.as_dict()
    for name, value in found.items():
        if value != expected[name]:
            raise ValueError(
                f"{storage.join(dataset, vocabulary.file)} has the {name} {value}, but manifest.json has "
                f"{expected[name]}: copy it again"
            )
    return vocabulary


def read_listed(dataset: str, name: str, listed: Mapping[str, str]) -> bytes:
    """Return a file of a data set. listed: the sha256 of each file that the manifest lists in this place."""
    if name not in listed:
        raise ValueError(f"manifest.json of {dataset} does not list {name}")
    content = read_below(dataset, name)
    if hashlib.sha256(content).hexdigest() != listed[name]:
        raise Damaged(f"{storage.join(dataset, name)}: its sha256 differs from the one in manifest.json")
    return content


def check_listed(dataset: str, name: str, sha256: str) -> None:
    """Raise ValueError unless a file of a data set has this sha256. It may be of any size."""
    try:
        with storage.open_read(storage.file_below(dataset, name)) as file:
            digest = hashlib.file_digest(file, "sha256")  # type: ignore[arg-type]  # BinaryIO lacks readinto, files have it
    except FileNotFoundError:
        raise ValueError(f"{name}: is missing") from None
    except (OSError, ValueError) as error:
        raise ValueError(f"{name}: cannot be read ({error})") from None
    if digest.hexdigest() != sha256:
        raise ValueError(f"{name}: its sha256 differs from the one in manifest.json")


def parse_documents(content: bytes, name: str) -> pa.Table:
    """Return a page of documents/ from its content; ValueError if a value is not possible."""
    table = parse_parquet(content, name, DOCUMENTS_SCHEMA, ROW_BYTES)
    for column, (least, most) in DOCUMENT_LIMITS.items():
        values = table[column].to_numpy()
        if len(values) and not least <= int(values.min()) <= int(values.max()) <= most:
            raise ValueError(
                f"{name} has values of {column} from {values.min()} to {values.max()}: expected {least} to {most}"
            )
    return table


def read_rejects(dataset: str, name: str) -> Iterator[dict[str, Any]]:
    """Yield the rejects of a log, one line at a time: the uncompressed log may be a thousand times as large as the file."""
    path = storage.file_below(dataset, name)
    with storage.open_read(path) as file, gzip.open(file) as lines:
        number = 0
        try:
            while line := lines.readline(MAX_REJECT_BYTES + 1):
                number += 1
                if len(line) > MAX_REJECT_BYTES:
                    raise ValueError(f"{path}: line {number} has more than {MAX_REJECT_BYTES:,} bytes")
                reject = parse_json(line, f"{path}: line {number}")
                check_shape(reject, REJECT, f"{path}: line {number}")
                if "test_sets" in reject:
                    check_shape(reject, {"test_sets": [TEXT]}, f"{path}: line {number}")
                yield reject
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"{path}: not a complete gzip file ({error})") from None
