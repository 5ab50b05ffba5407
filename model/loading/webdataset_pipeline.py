"""The shards as a webdataset pipeline, for other trainers.

    shards = "DATASET/train/seq128/copy0/{00000..00007}.tar"
    for example in bertloom.example_pipeline(shards, shardshuffle=8, seed=1).shuffle(10_000):
        example["input_ids"], example["segment_b_start"]

webdataset opens paths, brace globs and URLs, gives each node and each worker of a DataLoader shards of its own, and
shuffles in a buffer. It does not resume, and its batches depend on the number of ranks; `ShardDataset`
(`model/loading/shard_dataset.py`) has neither limit.
"""

import tarfile
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import webdataset as wds

from bertloom.members import check_values, metadata_of, read_member


def member_pipeline(urls: str | Sequence[str], **options: Any) -> wds.WebDataset:
    """Return a pipeline of members: `{"__key__": "00000-000003", "__url__": …, "member": a pyarrow.RecordBatch}`.

    A member has up to 1,024 examples. This is much faster than `example_pipeline`.

    Args:
        urls: of shards, with or without braces.
        options: of webdataset.WebDataset. By default shards are read in their order and split between nodes and workers,
            and a worker without shards is no error.

    Raises:
        ValueError: while it is read: a file is not a shard of bertloom, or is damaged.
    """
    defaults = {"shardshuffle": False, "nodesplitter": wds.split_by_node, "empty_check": False}
    return wds.WebDataset(urls, **defaults | options).map(_open_member).compose(_readable)


def example_pipeline(urls: str | Sequence[str], **options: Any) -> wds.WebDataset:
    """Return a pipeline of examples as dicts: the columns of docs/shard-format.md, `__key__` and `__url__`.

    Lists are NumPy arrays of the type that they have in the shard, the other columns Python integers. `collate` makes a
    batch of these dicts.

    Args:
        urls: of shards, with or without braces.
        options: of webdataset.WebDataset, see `member_pipeline`.

    Raises:
        ValueError: while it is read: a file is not a shard of bertloom, or is damaged.
    """
    return member_pipeline(urls, **options).compose(_rows)


def _open_member(sample: dict[str, Any]) -> dict[str, Any]:
    if "arrow" not in sample:
        raise ValueError(
            f"{sample['__url__']} holds {sample['__key__']} without .arrow: it is not a shard of bertloom. Give the tar "
            f"files below DATASET/train or DATASET/validation"
        )
    try:
        member = read_member(pa.py_buffer(sample["arrow"]))
        check_values(member, int(metadata_of(member.schema)["max_seq_length"]))
    except ValueError as error:
        raise ValueError(f"{sample['__url__']}: {sample['__key__']}.arrow cannot be read: {error}") from None
    return {"__key__": sample["__key__"], "__url__": sample["__url__"], "member": member}


def _rows(samples: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for sample in samples:
        names = sample["member"].schema.names
        for number, values in enumerate(zip(*(_items(column) for column in sample["member"].columns))):
            key = f"{sample['__key__']}-{number:04d}"
            yield {"__key__": key, "__url__": sample["__url__"], **dict(zip(names, values))}


def _readable(samples: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield samples; ValueError, with the file's name, for a damaged tar file."""
    try:
        yield from samples
    except tarfile.TarError as error:
        reason, *opened, url = error.args  # webdataset adds the open file and its name
        for file in opened:
            file.close()
        raise ValueError(f"{url} is not a tar file, or is damaged: {reason}") from None


def _items(column: pa.Array) -> Iterable[Any]:
    """Return the column's items; lists are views, not copies."""
    if not pa.types.is_list(column.type):
        items: Iterable[Any] = column.to_numpy().tolist()
        return items
    offsets, values = column.offsets.to_numpy().tolist(), column.values.to_numpy()
    return (values[start:end] for start, end in zip(offsets, offsets[1:]))
