"""Tables as Arrow streams, for files of several sections."""

import pyarrow as pa


def as_stream(table: pa.Table) -> bytes:
    """Return a table as an Arrow stream, for `pyarrow.ipc.open_stream`."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())
