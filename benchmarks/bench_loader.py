"""The loader alone, one process, shards to packed batches: ours in global order against one tar entry per example.

    python benchmarks/bench_loader.py --data DATASET --max-seq-length 128 --examples 65536

The other readers get as many examples of the same data, the first ones, written for each in its own form: plain
webdataset with .npy columns and with one pickle an example; Hugging Face datasets and mosaicml-streaming where they are
installed. Every reader gives the same columns, as packed torch tensors, in batches of the same size. Files are read once
before, so they lie in memory. Without arguments: the shipped sample.
"""

import argparse
import io
import json
import pickle
import statistics
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
import torch
from bench_train import sample_data_set
from setting import header, write_report

from model.batches import BatchReader
from model.data import DataSet, Examples
from model.distributed import Ranks
from model.stream import Leg

COLUMNS = ("input_ids", "segment_b_start", "masked_lm_positions", "masked_lm_ids", "next_sentence_label")
EXAMPLES_PER_TAR = 10_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="a data set; by default one is made of the shipped sample")
    parser.add_argument("--max-seq-length", type=int, help="the shortest of the data set by default")
    parser.add_argument("--examples", type=int, default=8192, help="how many to read with each")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--name", default="loader", help="of the file in benchmarks/results/")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        lines = measure(arguments, Path(arguments.data or sample_data_set(Path(folder))), Path(folder))
    write_report(arguments.name, lines, not arguments.data)


def measure(arguments: argparse.Namespace, data: Path, folder: Path) -> list[str]:
    examples = DataSet(data).examples("train", arguments.max_seq_length)
    count = min(arguments.examples, examples.rows_per_copy[0]) // arguments.batch_size * arguments.batch_size
    if not count:
        raise SystemExit(f"{data} has {examples.rows_per_copy[0]} examples in copy 0, fewer than a batch")
    size = arguments.batch_size
    rows = list(rows_of(examples, count))
    reader = BatchReader(DataSet(data), [examples.max_seq_length], 1, size, Ranks(device=torch.device("cpu")))
    readers: dict[str, Callable[[], Iterator[dict[str, torch.Tensor]]]] = {
        "bertloom, global order, one example at a time from anywhere": lambda: ours(
            reader, examples.max_seq_length, count, size
        ),
        "bertloom, in the order of the files": lambda: (
            tensors(batch) for batch in islice(in_order(examples, size), count // size)
        ),
    }
    for name, write, decode in (("npy", write_npy, decode_npy), ("one pickle", write_pickle, decode_pickle)):
        paths = write_tars(folder / name.replace(" ", "-"), rows, write)
        for shuffle in (0, 16_384):
            label = f"webdataset, {name} per example" + (f", shuffle {shuffle:,}" if shuffle else "")
            readers[label] = lambda p=paths, d=decode, s=shuffle: batched(per_example(p, d, s), size)
    if find_spec("datasets"):
        readers["datasets, rows shuffled, iter(batch) as Arrow"] = hugging_face(rows, size)
    if find_spec("streaming"):
        readers["mosaicml-streaming, py1e"] = mosaic(folder / "mds", rows, size)
    rates: dict[str, list[float]] = {name: [] for name in readers}
    for number in range(arguments.rounds + 1):
        for name, read in readers.items():
            start, seen = time.perf_counter(), 0
            for batch in read():
                seen += len(batch["labels"])
            assert seen == count, (name, seen)
            if number:  # the first round fills the page cache
                rates[name].append(seen / (time.perf_counter() - start))
    base = statistics.median(rates["webdataset, npy per example"])
    num_members = len(examples.shards.member_bytes)
    what = (
        f"{count:,} examples of {examples.max_seq_length}, one process, batches of {size}, {arguments.rounds} interleaved "
        f"rounds, median [min, max], all files in memory, opened before. Our data set has {num_members:,} members in all."
    )
    lines = [
        *header("The loader", what, "torch", "numpy", "webdataset"),
        "| reader | examples/s | ratio |",
        "|---|---|---|",
    ]
    for name, values in rates.items():
        middle = statistics.median(values)
        lines.append(f"| {name} | {middle:,.0f} [{min(values):,.0f}, {max(values):,.0f}] | {middle / base:.1f} |")
    return lines


# ---- ours


def ours(reader: BatchReader, length: int, count: int, size: int) -> Iterator[dict[str, torch.Tensor]]:
    """The trainer's own reader, stream digest and counts for the losses included, without its thread."""
    leg = Leg(step=0, max_seq_length=length, item=0, batch_size=size, seed=1, shards_digest="")
    for step in range(count // size):
        yield tensors(reader.read(leg, step).micro_batches[0])


def in_order(examples: Examples, size: int) -> Iterator[Any]:
    return examples.in_order(size)


def tensors(batch: Any) -> dict[str, torch.Tensor]:
    return {"input_ids": batch.input_ids, "labels": batch.next_sentence_label}


# ---- theirs


def rows_of(examples: Examples, count: int) -> Iterator[dict[str, np.ndarray]]:
    """The first rows of copy 0, each as five arrays."""
    for start in range(0, count, 1024):
        rows = np.arange(start, min(start + 1024, count))
        columns = examples.read(np.zeros_like(rows), rows)
        ids = np.split(columns["input_ids"], np.cumsum(columns["lengths"])[:-1])
        ends = np.cumsum(columns["num_masks"])[:-1]
        masks, true_ids = np.split(columns["positions"], ends), np.split(columns["masked_ids"], ends)
        scalars = zip(columns["segment_b_start"].tolist(), columns["labels"].tolist())
        for row, (b_start, label) in enumerate(scalars):
            values = (ids[row], np.uint16(b_start), masks[row], true_ids[row], np.int8(label))
            yield {name: np.asarray(value) for name, value in zip(COLUMNS, values)}


def write_npy(row: dict[str, np.ndarray]) -> dict[str, bytes]:
    parts = {}
    for name in ("input_ids", "masked_lm_positions", "masked_lm_ids"):
        buffer = io.BytesIO()
        np.save(buffer, row[name])
        parts[f"{name}.npy"] = buffer.getvalue()
    scalars = {name: int(row[name]) for name in ("segment_b_start", "next_sentence_label")}
    return parts | {"json": json.dumps(scalars).encode()}


def decode_npy(sample: dict[str, Any]) -> dict[str, Any]:
    row = {
        name: np.load(io.BytesIO(sample[f"{name}.npy"]))
        for name in ("input_ids", "masked_lm_positions", "masked_lm_ids")
    }
    return row | json.loads(sample["json"])


def write_pickle(row: dict[str, np.ndarray]) -> dict[str, bytes]:
    return {"pickle": pickle.dumps(row)}


def decode_pickle(sample: dict[str, Any]) -> dict[str, Any]:
    return pickle.loads(sample["pickle"])


def write_tars(folder: Path, rows: list[dict[str, np.ndarray]], write: Callable[..., dict[str, bytes]]) -> list[str]:
    folder.mkdir()
    paths = []
    for start in range(0, len(rows), EXAMPLES_PER_TAR):
        paths.append(str(folder / f"{start // EXAMPLES_PER_TAR:05d}.tar"))
        with tarfile.open(paths[-1], "w", format=tarfile.USTAR_FORMAT) as tar:
            for number, row in enumerate(rows[start : start + EXAMPLES_PER_TAR], start):
                for ending, content in write(row).items():
                    info = tarfile.TarInfo(f"{number:09d}.{ending}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
    return paths


def per_example(paths: list[str], decode: Callable[..., dict[str, Any]], shuffle: int) -> Iterator[dict[str, Any]]:
    import webdataset as wds

    samples = wds.WebDataset(paths, shardshuffle=False)
    return map(decode, samples.shuffle(shuffle) if shuffle else samples)


def batched(rows: Iterable[dict[str, Any]], size: int) -> Iterator[dict[str, torch.Tensor]]:
    """Rows collated as a careful person would: concatenated by NumPy, then to torch."""
    iterator = iter(rows)
    while part := list(islice(iterator, size)):
        yield pack([[row[name] for row in part] for name in COLUMNS])


def pack(columns: list[list[Any]]) -> dict[str, torch.Tensor]:
    ids, b_starts, positions, true_ids, labels = columns
    lengths = np.array([len(values) for values in ids])
    starts = np.cumsum(lengths) - lengths
    places = np.arange(lengths.sum()) - np.repeat(starts, lengths)
    num_masks = [len(values) for values in positions]
    types = places >= np.repeat(np.array(b_starts, dtype=np.int64), lengths)
    flat = {
        "input_ids": np.concatenate(ids).astype(np.int64), "token_type_ids": types.astype(np.int64),
        "position_ids": places, "masked_positions": np.concatenate(positions) + np.repeat(starts, num_masks),
        "masked_ids": np.concatenate(true_ids).astype(np.int64), "labels": np.array(labels, dtype=np.int64),
    }  # fmt: skip
    return {name: torch.from_numpy(values) for name, values in flat.items()}


def hugging_face(rows: list[dict[str, np.ndarray]], size: int) -> Callable[[], Iterator[dict[str, torch.Tensor]]]:
    from datasets import Dataset

    data = Dataset.from_dict({name: [row[name] for row in rows] for name in COLUMNS})

    def read() -> Iterator[dict[str, torch.Tensor]]:
        for table in data.shuffle(seed=1).with_format("arrow").iter(size):
            yield pack(
                [
                    [np.asarray(value.values) for value in table[name]]
                    if name not in ("segment_b_start", "next_sentence_label")
                    else table[name].to_pylist()
                    for name in COLUMNS
                ]
            )

    return read


def mosaic(
    folder: Path, rows: list[dict[str, np.ndarray]], size: int
) -> Callable[[], Iterator[dict[str, torch.Tensor]]]:
    from streaming import MDSWriter, StreamingDataset

    lists = ("input_ids", "masked_lm_positions", "masked_lm_ids")
    kinds = {name: "ndarray:uint16" if name in lists else "int" for name in COLUMNS}
    with MDSWriter(out=str(folder), columns=kinds) as writer:
        for row in rows:
            writer.write({name: row[name] if name in lists else int(row[name]) for name in COLUMNS})
    data = StreamingDataset(local=str(folder), shuffle=True, shuffle_algo="py1e", batch_size=size)
    return lambda: batched(data, size)


if __name__ == "__main__":
    main()
