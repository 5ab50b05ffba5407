"""What table formats share: a document is the text of one column in one row, and a position is a row number from 0."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, BinaryIO

from bertloom import storage
from pipeline.inputs.sources import ReadConfig, Source, Split
from pipeline.inputs.streams import Damaged, read_chunks
from pipeline.text.records import Document, Record, Reject, or_empty, paragraphs, whole_or_pieces

if TYPE_CHECKING:  # functions import it: --help does not need it
    import pyarrow as pa

BATCH_BYTES, BATCH_ROWS = 8_000_000, 4096  # most text and rows held as Python objects at a time, about

ReadBatches = Callable[[Source, BinaryIO, list[str], int], Iterator[tuple[int, "pa.RecordBatch"]]]
"""(source, its uncompressed file, columns, row to start from) -> (first row, batch), in order."""


def read_table(read_batches: ReadBatches, split: Split, start: int, config: ReadConfig) -> Iterator[Record]:
    """Yield the records of a split of a table from row `start`, then a reject when the file is damaged."""
    import pyarrow as pa

    source, row, broken = split.source, start, ""
    with storage.open_read(source.path) as packed, tempfile.TemporaryFile() if source.codec else packed as file:
        if source.codec:
            broken = _unpack(packed, source.codec, file)
        try:
            for first, batch in read_batches(source, file, [config.text_column, config.id_column], start):
                if split.end is not None and first >= split.end:
                    return
                step = rows_held(batch.num_rows, batch.column(config.text_column).nbytes)
                for begin in range(max(0, start - first), batch.num_rows, step):
                    yield from _read_rows(batch[begin : begin + step], first + begin, config)
                row = max(start, first + batch.num_rows)
        except (pa.ArrowInvalid, OSError) as error:
            broken = broken or str(error)
    if broken:
        yield Reject(row, "damaged-file", f"{broken}: what came before it was kept")


def find_row_cuts(sizes: Iterator[tuple[int, int]], split_bytes: int) -> list[int]:
    """Return the rows before which a table is cut, so that each split has about `split_bytes` of text.

    sizes: (rows, bytes of text) of each row group or record batch; cuts are between two of them.
    """
    import pyarrow as pa

    cuts: list[int] = []
    row = size = 0
    try:
        for num_rows, num_bytes in sizes:
            if size >= split_bytes:
                cuts.append(row)
                size = 0
            row, size = row + num_rows, size + num_bytes
    except (pa.ArrowInvalid, OSError):
        pass  # the reader will report it
    return cuts


def check_column(source: Source, schema: pa.Schema, text_column: str) -> None:
    """Raise ValueError where a table has no such column, or the column holds no strings."""
    import pyarrow as pa

    text_types = (
        *(pa.string(), pa.large_string(), pa.string_view()),
        *(pa.binary(), pa.large_binary(), pa.binary_view(), pa.null()),
    )
    if text_column not in schema.names:
        raise ValueError(
            f"{source.path}: has no column {text_column!r}. Its columns are {', '.join(schema.names)}: choose one with "
            f"--text-column"
        )
    kind = schema.field(text_column).type
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    if kind not in text_types:
        raise ValueError(
            f"{source.path}: column {text_column!r} holds {kind}. Expected strings: choose another column with "
            f"--text-column"
        )


def rows_held(num_rows: int, num_bytes: int) -> int:
    """Return how many rows of a row group or batch to hold at a time."""
    return max(1, min(BATCH_BYTES * num_rows // max(1, num_bytes), BATCH_ROWS))


def _unpack(packed: BinaryIO, codec: str, file: BinaryIO) -> str:
    """Write what can be unpacked to `file` and return the error, if any. Tables need random access, not a stream."""
    try:
        file.writelines(read_chunks(packed, codec))
    except Damaged as damage:
        return str(damage)
    finally:
        file.seek(0)
    return ""


def _read_rows(batch: pa.RecordBatch, first: int, config: ReadConfig) -> Iterator[Document | Reject]:
    import pyarrow as pa

    texts = batch.column(config.text_column).cast(pa.large_binary()).to_pylist()
    ids = batch.column(config.id_column) if config.id_column in batch.schema.names else pa.nulls(len(texts))
    if pa.types.is_temporal(ids.type) and not pa.types.is_interval(ids.type):
        ids = ids.cast(pa.string())  # Python's own times have no nanoseconds
    names: Sequence[object] = ids.to_pylist()
    for row, (raw, name) in enumerate(zip(texts, names, strict=True), first):
        record_id = None if name is None else str(name)
        if raw is None:
            yield Reject(row, "text-not-a-string", "null", record_id=record_id)
            continue
        text = raw.decode(errors="replace")
        num_replaced = text.count("\ufffd") - raw.count(b"\xef\xbf\xbd")
        data, _ = paragraphs(text)
        documents = whole_or_pieces(data, row, num_replaced, record_id)
        yield from or_empty(documents, row, raw, record_id)
