"""Input files that change while they are read."""

import gzip
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bertloom.store_errors import StoreError
from pipeline.inputs.discovery import find_sources
from pipeline.inputs.documents import read_documents
from pipeline.inputs.sources import Split

TEXTS = [f"This is text {number} of many, with words." for number in range(100_000)]


def write(path: Path) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.table({"text": TEXTS}), path, row_group_size=5000)
    else:
        data = "\n\n".join(TEXTS).encode()
        path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"\n\nA new text.")


CHANGES = {
    "had": lambda path: os.truncate(path, path.stat().st_size // 2),
    "and has": grow,
    "another modification time": lambda path: path.write_bytes(path.read_bytes().swapcase()),
}


@pytest.mark.parametrize("said", CHANGES)
@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz", "a.parquet"])
def test_a_file_that_changes_before_or_while_it_is_read_is_named(tmp_path, name, said):
    path = write(tmp_path / name)
    os.utime(path, (1, 1))
    [source] = find_sources([str(path)])
    records = read_documents(Split(source, 0, None, source.size))
    next(records)
    CHANGES[said](path)
    with pytest.raises(StoreError, match=rf"{name} has changed since the job began \(.*{said}.*start the same command"):
        list(records)
    with pytest.raises(StoreError, match=f"{name} has changed"):
        list(read_documents(Split(source, 0, None, source.size)))


def test_a_file_that_is_replaced_while_it_is_read_is_read_as_it_was(tmp_path):
    path = write(tmp_path / "a.txt")
    [source] = find_sources([str(path)])
    records = read_documents(Split(source, 0, None, source.size))
    found = [next(records)]
    (tmp_path / "b").write_text("Another text.")
    os.replace(tmp_path / "b", path)
    assert [record.text for record in [*found, *records]] == [text.encode() for text in TEXTS]
    with pytest.raises(StoreError, match="has changed"):
        list(read_documents(Split(source, 0, None, source.size)))
