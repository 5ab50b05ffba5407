"""Compare our loader, in global and in windowed order, with others: one process, from shards to packed batches.

    python benchmarks/bench_loader.py --data DATASET --max-seq-length 128 --members 10000 --examples 65536

With --members the shards of copy 0 are copied until they have this number of members, which takes about 0.4 MB of disk per
member. Each of the other readers gets examples of the same data in its own format: plain webdataset with .npy columns and
with one pickle per example, and Hugging Face datasets and mosaicml-streaming if they are installed. Every reader returns the
same columns as packed torch tensors in batches of the same size. All files are read once before. Rounds are interleaved, and
our readers read new examples in each. The report shows rates by CPU time, which other work on the machine disturbs less, and
by the clock. Without --data: the shipped sample.
"""

import argparse
import hashlib
import io
import json
import pickle
import shutil
import statistics
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from bench_train import sample_data_set
from setting import header, write_report

from model.distributed import Ranks
from model.loading.batches import BatchReader
from model.loading.data import DataSet, Examples
from model.loading.data_sets import DataSets
from model.loading.stream import Leg
from model.loading.webdataset_pipeline import example_pipeline as pipeline_of

COLUMNS = ("input_ids", "segment_b_start", "masked_lm_positions", "masked_lm_ids", "next_sentence_label")
EXAMPLES_PER_TAR = 10_000
SLOWER = 8
"""Readers that take one example at a time get this number of times fewer examples."""
BASE = "webdataset, npy per example"


@dataclass(frozen=True, kw_only=True)
class Reader:
    """One way to read, and its rates."""

    name: str
    read: Callable[[int], Iterator[int]]
    """Yields the number of examples in each batch of a round, given the number of the round."""
    cpu_rates: list[float] = field(default_factory=list)
    """Examples per second of the process's CPU time, for each round."""
    rates: list[float] = field(default_factory=list)
    """Examples per second by the clock."""

    def run(self, number: int) -> None:
        cpu, clock, seen = time.process_time(), time.perf_counter(), sum(self.read(number))
        if number:  # the first round is a warm-up
            self.cpu_rates.append(seen / (time.process_time() - cpu))
            self.rates.append(seen / (time.perf_counter() - clock))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="data set; default: one made from the shipped sample")
    parser.add_argument("--max-seq-length", type=int, help="default: the shortest of the data set")
    parser.add_argument("--members", type=int, help="copy the shards of copy 0 until they have this number of members")
    parser.add_argument(
        "--examples", type=int, default=8192, help=f"examples in a round; slow readers get {SLOWER} times fewer"
    )
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--name", default="loader", help="name of the file in benchmarks/results/")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        lines = measure(arguments, Path(arguments.data or sample_data_set(Path(folder))), Path(folder))
    write_report(arguments.name, lines, is_sample=not arguments.data)


def measure(arguments: argparse.Namespace, data: Path, folder: Path) -> list[str]:
    size = arguments.batch_size
    length = DataSet(data).examples("train", arguments.max_seq_length).max_seq_length
    if arguments.members:
        data = repeated(data, folder / "repeated", length, arguments.members)
    examples = DataSet(data).examples("train", length)
    if examples.rows_per_copy[0] < SLOWER * size:
        raise SystemExit(f"{data} has {examples.rows_per_copy[0]} examples in copy 0, fewer than {SLOWER} batches")
    count = max(min(arguments.examples, examples.rows_per_copy[0]) // size, SLOWER) * size
    rows = list(rows_of(examples, count))
    few = rows[: count // SLOWER // size * size]
    readers = []
    for seed, (shuffle, name) in enumerate((("global", "global order"), ("window:16", "windows of 16 members"))):
        read, without = (ours(data, length, shuffle, 2 * seed + i, count, size) for i in range(2))
        readers.append(Reader(name=f"bertloom, {name}", read=read))
        readers.append(Reader(name=f"bertloom, {name}, no stream digest", read=undigested(without)))
    readers.append(Reader(name="bertloom, in the order of the files", read=in_order(data, length, count, size)))
    for name, write, decode in (("npy", write_npy, decode_npy), ("one pickle", write_pickle, decode_pickle)):
        paths = write_tars(folder / name.replace(" ", "-"), few, write)
        for shuffle in (0, 16_384):
            label = f"webdataset, {name} per example" + (f", shuffle {shuffle:,}" if shuffle else "")
            readers.append(Reader(name=label, read=partial(one_by_one, paths, decode, shuffle, size)))
    web = pipeline_of([str(data / path) for path in examples.shards.paths])
    name = "bertloom.example_pipeline, an example of our shards at a time"
    readers.append(Reader(name=name, read=lambda _: batched(islice(web, len(few)), size)))
    absent = []
    if find_spec("datasets"):
        readers.append(Reader(name="datasets, rows shuffled, iter(batch) as Arrow", read=hugging_face(rows, size)))
    else:
        absent.append("datasets")
    if find_spec("streaming"):
        readers.append(Reader(name="mosaicml-streaming, py1e", read=mosaic(folder / "mds", few, size)))
    else:
        absent.append("mosaicml-streaming")
    for number in range(arguments.rounds + 1):
        for reader in readers:
            reader.run(number)
    packages = ["torch", "numpy", "webdataset"]
    packages += [name for name in ("datasets", "mosaicml-streaming") if name not in absent]
    lines = header(
        "The loader",
        f"One process, one thread, length {length}, batches of {size}. Our data set has "
        f"{len(examples.shards.member_bytes):,} members and {examples.rows_per_copy[0]:,} examples. {arguments.rounds} "
        f"interleaved rounds of {count:,} examples ({len(few):,} for readers of one example at a time): medians [least, "
        f"most], and the median of the rounds' ratios.",
        *packages,
    )
    lines += [
        "| reader | examples per second of CPU time | ratio | by the clock | ratio |",
        "|---|---|---|---|---|",
    ]
    base = next(reader for reader in readers if reader.name == BASE)
    for reader in readers:
        cells = [reader.name]
        for values, theirs in ((reader.cpu_rates, base.cpu_rates), (reader.rates, base.rates)):
            ratio = statistics.median(value / other for value, other in zip(values, theirs))
            cells += [f"{statistics.median(values):,.0f} [{min(values):,.0f}, {max(values):,.0f}]", f"{ratio:.1f}"]
        lines.append(f"| {' | '.join(cells)} |")
    lines.append("")
    for with_it, without in ((readers[0], readers[1]), (readers[2], readers[3])):
        share = statistics.median(1 - a / b for a, b in zip(with_it.cpu_rates, without.cpu_rates))
        lines.append(f"Share of the stream digest in the time of {with_it.name}: {share:.0%}.")
    lines += [f"Not installed, so not measured: {', '.join(absent)}."] if absent else []
    return lines


# ---- ours


def repeated(data: Path, out: Path, length: int, members: int) -> Path:
    """Make a data set of the training shards of copy 0 of this length, copied until it has this number of members."""
    table = pq.read_table(data / "shards.parquet")
    wanted = ("train", length, 0)
    rows = [row for row in table.to_pylist() if (row["split"], row["max_seq_length"], row["copy"]) == wanted]
    shards: list[dict[str, Any]] = []
    while sum(len(shard["member_offsets"]) for shard in shards) < members:
        row = rows[len(shards) % len(rows)]
        path = f"train/seq{length}/copy0/{len(shards):05d}.tar"
        (out / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(data / row["path"], out / path)
        shards.append(row | {"path": path, "number": len(shards)})
    pq.write_table(pa.Table.from_pylist(shards, schema=table.schema), out / "shards.parquet")
    manifest = json.loads((data / "manifest.json").read_text())
    manifest["configuration"]["dupe_factor"] = 1
    digest = hashlib.sha256((out / "shards.parquet").read_bytes()).hexdigest()
    manifest["shards_parquet"] = {"sha256": digest, "rows": len(shards)}
    del manifest["sha256"]
    text = json.dumps(manifest, indent=1, ensure_ascii=False) + "\n"
    manifest["sha256"] = hashlib.sha256(text.encode()).hexdigest()
    (out / "manifest.json").write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n")
    return out


def ours(data: Path, length: int, shuffle: str, seed: int, count: int, size: int) -> Callable[[int], Iterator[int]]:
    """Return the trainer's own reader without its thread; it computes the stream digest and the counts for the losses."""
    data_sets = DataSets({"": DataSet(data)})
    leg = Leg(step=0, max_seq_length=length, item=0, batch_size=size, seed=seed, shuffle=shuffle, shards_digest="")
    reader = BatchReader(data_sets, [leg], size, Ranks(device=torch.device("cpu")))
    for _ in data_sets.examples_of(leg)[0].in_order(8192):  # opens all members and brings all files into memory
        pass

    def read(number: int) -> Iterator[int]:
        for step in range(number * count // size, (number + 1) * count // size):
            yield from (len(batch.lengths) for batch in reader.read(leg, step).micro_batches)

    return read


def undigested(read: Callable[[int], Iterator[int]]) -> Callable[[int], Iterator[int]]:
    """Return the same reader without the work for the digest."""

    @contextmanager
    def off() -> Iterator[None]:
        with (
            patch("model.loading.batches.rows_sum", lambda *_: 0),
            patch("model.loading.members.list_sums", lambda *_: 0),
        ):
            yield

    def read_undigested(number: int) -> Iterator[int]:
        with off():
            yield from read(number)

    return read_undigested


def in_order(data: Path, length: int, count: int, size: int) -> Callable[[int], Iterator[int]]:
    examples = DataSet(data).examples("train", length)
    return lambda _: (len(batch.lengths) for batch in islice(examples.in_order(size), count // size))


# ---- theirs


def rows_of(examples: Examples, count: int) -> Iterator[dict[str, np.ndarray]]:
    """Yield the first rows of copy 0, each as five arrays."""
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


def one_by_one(
    paths: list[str], decode: Callable[..., dict[str, Any]], shuffle: int, size: int, number: int
) -> Iterator[int]:
    import webdataset as wds

    samples = wds.WebDataset(paths, shardshuffle=False)
    return batched(map(decode, samples.shuffle(shuffle) if shuffle else samples), size)


def batched(rows: Iterable[dict[str, Any]], size: int) -> Iterator[int]:
    """Yield the sizes of batches that are collated efficiently: concatenated by NumPy, then converted to torch."""
    iterator = iter(rows)
    while part := list(islice(iterator, size)):
        yield len(pack([[row[name] for row in part] for name in COLUMNS])["labels"])


def pack(columns: list[list[Any]]) -> dict[str, torch.Tensor]:
    ids, b_starts, positions, true_ids, labels = columns
    lengths = np.array([len(values) for values in ids])
    starts = np.cumsum(lengths) - lengths
    places = np.arange(lengths.sum()) - np.repeat(starts, lengths)
    num_masks = [len(values) for values in positions]
    types = places >= np.repeat(np.array(b_starts, dtype=np.int64), lengths)
    flat = {
        "input_ids": np.concatenate(ids).astype(np.int64),
        "token_type_ids": types.astype(np.int64),
        "position_ids": places,
        "masked_positions": np.concatenate(positions) + np.repeat(starts, num_masks),
        "masked_ids": np.concatenate(true_ids).astype(np.int64),
        "labels": np.array(labels, dtype=np.int64),
    }
    return {name: torch.from_numpy(values) for name, values in flat.items()}


def hugging_face(rows: list[dict[str, np.ndarray]], size: int) -> Callable[[int], Iterator[int]]:
    from datasets import Dataset

    data = Dataset.from_dict({name: [row[name] for row in rows] for name in COLUMNS})

    def read(number: int) -> Iterator[int]:
        for table in data.shuffle(seed=number).with_format("arrow").iter(size):
            yield len(pack([arrays(table[name].combine_chunks()) for name in COLUMNS])["labels"])

    return read


def arrays(column: pa.Array) -> list[Any]:
    """Return the lists of a column as views of its values, or its numbers."""
    if not pa.types.is_list(column.type):
        return column.to_pylist()
    offsets, values = column.offsets.to_numpy(), column.values.to_numpy()
    return [values[start:end] for start, end in zip(offsets.tolist(), offsets[1:].tolist())]


def mosaic(folder: Path, rows: list[dict[str, np.ndarray]], size: int) -> Callable[[int], Iterator[int]]:
    from streaming import MDSWriter, StreamingDataset

    lists = ("input_ids", "masked_lm_positions", "masked_lm_ids")
    kinds = {name: "ndarray:uint16" if name in lists else "int" for name in COLUMNS}
    with MDSWriter(out=str(folder), columns=kinds) as writer:
        for row in rows:
            writer.write({name: row[name] if name in lists else int(row[name]) for name in COLUMNS})
    data = StreamingDataset(local=str(folder), shuffle=True, shuffle_algo="py1e", batch_size=size)
    return lambda _: batched(data, size)


if __name__ == "__main__":
    main()
