"""Data sets to change and read with some of the readers, see `tests/mutants.py`.

python -m tests.jobs.data_set_mutants set 1000 7
"""

import gzip
import hashlib
import io
import itertools
import json
import random
import shutil
import tempfile
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout, suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from webdataset.handlers import reraise_exception

from bertloom.manifest import manifest_sha256, manifest_text
from bertloom.shards import SHARDS_SCHEMA, digest_of
from jobs.browser.data_set import BrowsedDataSet
from jobs.browser.filters import Filters, Range
from jobs.browser.search import Search
from jobs.explain import Explainer
from jobs.export_data import ExportDataConfig, export_data
from jobs.inspect_shards import InspectConfig, inspect
from jobs.support.report import write_report
from jobs.verify import verify
from model.loading.data import DataSet
from model.loading.remask import remasking_of
from model.loading.shard_dataset import ShardDataset
from model.loading.webdataset_pipeline import example_pipeline
from pipeline.checks.gates import Gates
from tests.mutants import EXTREMES, PLACES, Target, Use, change_value, main, mutate

GOLDEN = Path(__file__).parent.parent / "golden/dataset"


def change_rows(rows: list[dict[str, Any]], draw: random.Random) -> None:
    """Change values of shards.parquet in place."""
    for _ in range(draw.choice((1, 1, 2, 5))):
        row = draw.choice(rows)
        name = draw.choice(list(row))
        if isinstance(row[name], str):
            row[name] = draw.choice(PLACES + [other[name] for other in rows])
            continue
        bits = 31 if name in ("max_seq_length", "copy", "number", "member_examples") else 63
        numbers = [n % (1 << bits) for n in EXTREMES] + [-1, -(1 << bits)]
        if not isinstance(row[name], list):
            row[name] = draw.choice([*numbers, row[name] + 1, draw.choice(rows)[name]])
        elif row[name] and draw.random() < 0.7:
            at = draw.randrange(len(row[name]))
            row[name][at] = draw.choice([*numbers, row[name][at] + 512, row[name][at] - 1])
        else:
            row[name] = row[name][1:] if draw.random() < 0.5 else row[name] * 2


def make_whole(folder: Path) -> Path:
    """Copy the golden data set. `explain` finds its sources."""
    shutil.copytree(GOLDEN, folder)
    manifest = json.loads((folder / "manifest.json").read_bytes())
    for source in manifest["inputs"]:
        source["path"] = str(GOLDEN.parent / source["path"])
    seal(folder, None, manifest, "manifest.json")
    return folder


def make_mutant(whole: Path, folder: Path, draw: random.Random) -> Path:
    """Copy a data set into a folder and damage it. Mostly, all checksums are made right again."""
    shutil.copytree(whole, folder)
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    shards = [name for name in files if name.endswith(".tar")]
    name = draw.choice(
        [draw.choice(shards)] * 4 + ["shards.parquet"] * 3 + ["manifest.json"] * 3 + [draw.choice(files)]
    )
    path = folder / name
    others = [(folder / other).read_bytes() for other in files]
    rows: list[dict[str, Any]] | None = pq.read_table(folder / "shards.parquet").to_pylist()
    manifest = json.loads((folder / "manifest.json").read_bytes())
    if name == "manifest.json" and draw.random() < 0.2:
        path.write_bytes(mutate(path.read_bytes(), others, draw))
        return folder
    if name == "manifest.json":
        for _ in range(draw.choice((1, 1, 2))):
            manifest = change_value(manifest, draw)
        path.write_bytes(json.dumps(manifest).encode())
    elif name == "shards.parquet" and draw.random() < 0.7:
        change_rows(rows, draw)
    elif name.endswith(".gz") and draw.random() < 0.5:
        path.write_bytes(gzip.compress(mutate(gzip.decompress(path.read_bytes()), others, draw)))
    else:
        path.write_bytes(mutate(path.read_bytes(), others, draw))
        rows = None if name == "shards.parquet" else rows
    if draw.random() < 0.85 and isinstance(manifest, dict):
        # Half of a character has no checksum, and a column cannot hold every value.
        with suppress(UnicodeEncodeError, pa.ArrowInvalid):
            seal(folder, rows, manifest, name)
    return folder


def seal(folder: Path, rows: list[dict[str, Any]] | None, manifest: dict[str, Any], changed: str) -> None:
    """Make the checksums of a data set right, as far as its files still have them."""

    def sha256(name: str) -> str:
        return hashlib.sha256((folder / name).read_bytes()).hexdigest()

    if rows is not None:
        for row in rows:
            if row["path"] == changed:
                row |= {"bytes": (folder / changed).stat().st_size, "sha256": sha256(changed)}
        sink = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(rows, schema=SHARDS_SCHEMA), sink, compression="zstd")
        if changed != "manifest.json":
            (folder / "shards.parquet").write_bytes(sink.getvalue())
            manifest["shards_digest"] = digest_of(rows)
    if changed != "manifest.json":
        manifest["shards_parquet"]["sha256"] = sha256("shards.parquet")
        for listed in (manifest["documents"], manifest["files"]):
            if changed in listed:
                listed[changed] = sha256(changed)
    manifest.pop("sha256", None)
    manifest["sha256"] = manifest_sha256(manifest)
    (folder / "manifest.json").write_bytes(manifest_text(manifest))


def read_all_rows(folder: str) -> None:
    data = DataSet(folder)
    for split in ("train", "validation"):
        for length in data.max_seq_lengths(split):
            examples = data.examples(split, length)
            examples.check_shards()
            for copy, count in enumerate(examples.rows_per_copy):
                rows = np.arange(min(count, 5000))
                examples.gather(np.full_like(rows, copy), rows)
            if split == "train":
                examples.order(1, "window:2").items(0, 10)
    remasking_of(data)


def explain_some(folder: str) -> None:
    explainer = Explainer(folder)
    for index in {0, 1, explainer.num_examples // 2, explainer.num_examples - 1}:
        explainer.explain(index)


def browse_some(folder: str) -> None:
    """Search all examples with a filter on columns, a word and a script, and show a page."""
    data_set = BrowsedDataSet(folder, None, 1.0)
    for filters in (Filters(label=1, tokens=Range(3, 8)), Filters(word="a"), Filters(unknown=True, script="Latin")):
        search = Search(data_set, filters)
        while not search.is_complete:
            search.count(0.0)
    for index in {0, data_set.num_examples // 2, data_set.num_examples - 1}:
        data_set.document(data_set.example(index)["document_a"])


def iterate_some(folder: str) -> None:
    """Read as trainers of other people do: batches from the middle on, single examples, and members by webdataset."""
    data = ShardDataset(folder, batch_size=5, seed=3)
    batches = list(itertools.islice(data, 4))
    again = ShardDataset(folder, batch_size=5, seed=3)
    again.load_state_dict(data.state_dict() | {"position": 15})
    for batch, other in zip(batches[3:], again, strict=False):
        assert all(bool((batch[name] == other[name]).all()) for name in batch)
    list(itertools.islice(ShardDataset(folder, shuffle="window:2"), 5))
    shards = [str(path) for path in sorted(Path(folder).rglob("*.tar"))]
    list(itertools.islice(example_pipeline(shards[:2], handler=reraise_exception), 50))


def export_some(folder: str) -> None:
    with tempfile.TemporaryDirectory() as out:
        export_data(ExportDataConfig(dataset=folder, out=Path(out) / "a.parquet", with_text=True))


READERS: dict[str, Callable[[str], object]] = {
    "verify": verify,
    "inspect": lambda folder: inspect(InspectConfig(path=folder)),
    "inspect a shard": lambda folder: inspect(InspectConfig(path=f"{folder}/train/seq8/copy0/00000.tar")),
    "explain": explain_some,
    "browse": browse_some,
    "report": lambda folder: write_report(folder, Gates()),
    "train": read_all_rows,
    "iterate": iterate_some,
    "export": export_some,
}


def prepare(folder: Path) -> Path:
    whole = make_whole(folder)
    for read in READERS.values():  # what they import is then there in every child
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            read(str(whole))
    return whole


def uses(whole: Path, folder: Path, draw: random.Random) -> list[Use]:
    return [partial(read, str(folder)) for read in draw.sample(list(READERS.values()), 3)]


TARGETS = {"set": Target(prepare, make_mutant, uses, 1500, seconds=30)}

if __name__ == "__main__":
    main(TARGETS)
