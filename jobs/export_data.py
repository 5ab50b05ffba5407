"""Write the examples of a data set as Parquet, for DuckDB, Polars, pandas and Hugging Face `datasets`.

    bertloom export-data DATASET --out examples.parquet --split validation
    bertloom export-data DATASET --out FOLDER --with-text

A name that ends in .parquet is one file. Any other name is a folder with a file for each shard, such as
train/seq128/copy0/00000.parquet. The columns of the shards (docs/shard-format.md) keep their names and types. In addition:

    token_type_ids                    list of uint8; 0 before segment_b_start, 1 from there on
    split, max_seq_length, copy       where the example is in the data set
    shard, member, row                number of the shard, of the member in the shard, and of the example in the member
    tokens                            list of string, with --with-text; the tokens, masks applied
    text_a, text_b                    string, with --with-text; the true text of the segments
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from bertloom import storage
from bertloom.counts import counted
from bertloom.whole_files import whole_file, whole_folder
from jobs.support.config import parse

if TYPE_CHECKING:
    import pyarrow as pa

    from pipeline.vocabulary import Vocabulary

GROUP_MEMBERS = 16
"""Members of a row group: up to 16,384 examples."""
TRUTH = ("input_ids", "segment_b_start", "masked_lm_positions", "masked_lm_ids")
"""The columns that hold the true text."""


@dataclass(frozen=True, kw_only=True)
class ExportDataConfig:
    """Write the examples of a data set as Parquet."""

    dataset: Annotated[str, tyro.conf.Positional]
    """The data set, a local folder or a URL."""
    out: Path
    """Parquet file to write if it ends in .parquet, otherwise a folder with a Parquet file for each shard. It must not exist
    yet."""
    split: Literal["all", "train", "validation"] = "all"
    """Split to write."""
    max_seq_length: tuple[int, ...] = ()
    """Lengths to write. The default is all."""
    with_text: bool = False
    """Add the columns `tokens`, `text_a` and `text_b`. This takes about three times as long."""


def main(argv: Sequence[str]) -> None:
    config = parse(ExportDataConfig, argv, prog="bertloom export-data")
    num_examples, num_shards = export_data(config)
    print(f"{config.out}: {counted(num_examples, 'example')} of {counted(num_shards, 'shard')}")


def export_data(config: ExportDataConfig) -> tuple[int, int]:
    """Write the file or the folder, which appears when it is complete. Return the numbers of examples and shards."""
    import pyarrow.parquet as pq
    from tqdm import tqdm

    from bertloom.manifest import read_dataset
    from pipeline.dataset import vocabulary_of

    check_out(config)
    manifest, shards = read_dataset(config.dataset)
    rows = chosen_shards(config, shards.to_pylist())
    columns = _Columns(vocabulary_of(config.dataset, manifest), config.with_text)
    num_examples = sum(row["examples"] for row in rows)

    def write(file: Any, some: Sequence[Mapping[str, Any]]) -> None:
        with pq.ParquetWriter(file, columns.schema, compression="zstd") as writer:
            for row in some:
                for table in columns.tables(config.dataset, row):
                    writer.write_table(table)
                    bar.update(table.num_rows)

    with tqdm(total=num_examples, desc="export-data", unit=" examples", file=sys.stderr, disable=None) as bar:
        if config.out.suffix == ".parquet":
            with whole_file(config.out) as file:
                write(file, rows)
        else:
            with whole_folder(config.out) as folder:
                for row in rows:
                    path = (folder / row["path"]).with_suffix(".parquet")
                    path.parent.mkdir(parents=True, exist_ok=True)
                    with open(path, "wb") as file:
                        write(file, [row])
    return num_examples, len(rows)


def check_out(config: ExportDataConfig) -> None:
    """Raise ValueError if the output exists, has no folder to be in, or is inside the data set."""
    out = config.out.absolute()
    if os.path.lexists(out):
        raise ValueError(f"--out {config.out} already exists: give a new name, or remove it first")
    if not out.parent.is_dir():
        raise ValueError(f"--out {config.out}: the folder {out.parent} does not exist: create it first")
    if storage.is_local(config.dataset) and out.resolve().is_relative_to(Path(config.dataset).resolve()):
        raise ValueError(f"--out {config.out} is inside the data set, which must not change: give a path outside it")


def chosen_shards(config: ExportDataConfig, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows of shards.parquet with the split and the lengths that were asked for."""
    of_split = [row for row in rows if config.split in ("all", row["split"])]
    if not of_split:
        raise ValueError(f"{config.dataset} has no {config.split} split: leave out --split, or give another one")
    lengths = sorted({row["max_seq_length"] for row in of_split})
    for length in config.max_seq_length:
        if length not in lengths:
            raise ValueError(f"--max-seq-length {length}: the data set has {', '.join(map(str, lengths))}")
    return [row for row in of_split if row["max_seq_length"] in (config.max_seq_length or lengths)]


class _Columns:
    """The columns of the Parquet files."""

    def __init__(self, vocabulary: Vocabulary, with_text: bool) -> None:
        self.vocabulary, self.with_text = vocabulary, with_text

    @cached_property
    def schema(self) -> pa.Schema:
        import pyarrow as pa

        from bertloom.arrays import id_type
        from bertloom.shards import schema

        added = {
            "token_type_ids": pa.list_(pa.field("item", pa.uint8(), nullable=False)),
            "split": pa.string(),
            "max_seq_length": pa.int32(),
            "copy": pa.int32(),
            "shard": pa.int32(),
            "member": pa.int32(),
            "row": pa.int32(),
        }
        if self.with_text:
            strings = pa.list_(pa.field("item", pa.string(), nullable=False))
            added |= {"tokens": strings, "text_a": pa.string(), "text_b": pa.string()}
        columns = schema(id_type(len(self.vocabulary.words)))
        return pa.schema([*columns, *(pa.field(name, kind, nullable=False) for name, kind in added.items())])

    def tables(self, dataset: str, row: Mapping[str, Any]) -> Iterator[pa.Table]:
        """Yield the examples of a shard, a few members at a time. row: of shards.parquet."""
        import pyarrow as pa

        from pipeline.checks.sample import read_members

        group: list[pa.RecordBatch] = []
        for number, member in enumerate(read_members(dataset, dict(row), len(self.vocabulary.words))):
            group.append(self._extended(member, row, number))
            if len(group) == GROUP_MEMBERS:
                yield pa.Table.from_batches(group).combine_chunks()
                group = []
        if group:
            yield pa.Table.from_batches(group).combine_chunks()

    def _extended(self, member: pa.RecordBatch, row: Mapping[str, Any], number: int) -> pa.RecordBatch:
        """Return a member with the added columns."""
        import numpy as np
        import pyarrow as pa

        n, ids = member.num_rows, member.column("input_ids")
        lengths = ids.value_lengths().to_numpy().astype(np.int64)
        place = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        in_b = place >= np.repeat(member.column("segment_b_start").to_numpy(), lengths)
        offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())

        def constant(value: Any) -> pa.Array:
            return pa.repeat(pa.scalar(value), n)

        def list_of(items: pa.Array, name: str) -> pa.Array:
            return pa.ListArray.from_arrays(offsets, items, type=self.schema.field(name).type)

        added = [
            list_of(pa.array(in_b.astype(np.uint8)), "token_type_ids"),
            *(constant(row[name]) for name in ("split", "max_seq_length", "copy", "number")),
            constant(number),
            pa.array(np.arange(n)),
        ]
        if self.with_text:
            pieces = pa.array(self.vocabulary.readable.names).take(ids.flatten())
            added += [
                list_of(pieces, "tokens"),
                *(pa.array(texts) for texts in zip(*map(self._texts, member.select(TRUTH).to_pylist()))),
            ]
        columns = [*member.columns, *added]
        return pa.RecordBatch.from_arrays(
            [column.cast(field.type) for column, field in zip(columns, self.schema, strict=True)], schema=self.schema
        )

    def _texts(self, example: Mapping[str, Any]) -> tuple[str, str]:
        """Return the true text of A and of B, which is empty if there is no B."""
        from pipeline.examples.decoding import true_ids

        ids, b, readable = true_ids(example), example["segment_b_start"], self.vocabulary.readable
        return readable.text(ids[1 : b - 1]), readable.text(ids[b:-1])
