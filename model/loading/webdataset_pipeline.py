"""The shards as a webdataset pipeline, for trainers of one's own.

    pipeline = examples("DATASET/train/seq128/copy0/{00000..00007}.tar", shardshuffle=8, seed=1).shuffle(10_000)
    for example in pipeline:
        example["input_ids"], example["segment_b_start"]

What follows is webdataset's own way: it opens paths, brace globs and URLs, gives each node and each worker of a
DataLoader shards of its own, and shuffles in a buffer. It neither resumes nor gives the same batches to any number of
ranks; `bertloom pretrain` and its loader (`model/loading/batches.py`) do.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import webdataset as wds


def members(urls: str | Sequence[str], **options: Any) -> wds.WebDataset:
    """A pipeline of members: `{"__key__": "00000-000003", "__url__": …, "member": a pyarrow.RecordBatch}` each.

    For who can use a thousand examples at once: it is the faster one by far.

    Args:
        urls: of shards, with or without braces.
        options: of webdataset.WebDataset. Unless they say otherwise, shards are read in their order, are shared out to
            nodes and workers, and a worker that gets none is no error.
    """
    defaults = {"shardshuffle": False, "nodesplitter": wds.split_by_node, "empty_check": False}
    return wds.WebDataset(urls, **defaults | options).map(_open_member)


def examples(urls: str | Sequence[str], **options: Any) -> wds.WebDataset:
    """A pipeline of examples, a dict each: the columns of docs/shard-format.md by name, lists as NumPy arrays of the
    type that they have in the shard and the others as Python integers, and `__key__` and `__url__`.

    Args:
        urls, options: see `members`.
    """
    return members(urls, **options).compose(_rows)


def _open_member(sample: dict[str, Any]) -> dict[str, Any]:
    if "arrow" not in sample:
        raise ValueError(f"{sample['__url__']} holds {sample['__key__']} without .arrow: it is no shard of bertloom")
    member = pa.ipc.open_file(sample["arrow"]).get_batch(0)
    return {"__key__": sample["__key__"], "__url__": sample["__url__"], "member": member}


def _rows(samples: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for sample in samples:
        names = sample["member"].schema.names
        for number, values in enumerate(zip(*(_items(column) for column in sample["member"].columns))):
            key = f"{sample['__key__']}-{number:04d}"
            yield {"__key__": key, "__url__": sample["__url__"], **dict(zip(names, values))}


def _items(column: pa.Array) -> Iterable[Any]:
    """Its items: of lists views, not copies."""
    if not pa.types.is_list(column.type):
        items: Iterable[Any] = column.to_numpy().tolist()
        return items
    offsets, values = column.offsets.to_numpy().tolist(), column.values.to_numpy()
    return (values[start:end] for start, end in zip(offsets, offsets[1:]))
