"""Mutated data sets, each read by three of the readers in a process of its own with limits on memory and time.

    python -m tests.jobs.data_set_mutants 1000 7    1000 mutants, from seed 7

A reader may accept a mutant, list its faults, or end with one line of error. Anything else is printed, and the mutant is
kept.
"""

import gzip
import hashlib
import io
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bertloom.manifest import manifest_sha256, manifest_text
from bertloom.shards import SHARDS_SCHEMA, digest_of
from jobs.explain import Explainer
from jobs.inspect_shards import InspectConfig, inspect
from jobs.support.report import write_report
from jobs.verify import verify
from model.loading.data import DataSet
from model.loading.remask import remasking_of
from pipeline.checks.gates import Gates
from tests.pipeline.mutants import EXTREMES, mutate

BATCH = 16  # mutants read by one process
MORE_MEMORY, SECONDS = 2_000_000_000, 30  # of address space beyond what the process has, and of time, for one mutant
GOLDEN = Path(__file__).parent.parent / "golden/dataset"
PLACES = [
    "../../victim",
    "/dev/zero",
    "../../../../../../dev/zero",
    "",
    "a\0b",
    "train/seq8/copy0/00000.tar",
    "é" * 300,
]
JSON_VALUES: list[Any] = [*EXTREMES, -1, 0.5, 1e300, "", *PLACES, [], {}, None, True, [[]], "0" * 64]


def change_json(value: Any, draw: random.Random) -> Any:
    """Return a JSON value with one part of it replaced, removed or repeated."""
    if not isinstance(value, (dict, list)) or not value or draw.random() < 0.1:
        return draw.choice(JSON_VALUES)
    copy = dict(value) if isinstance(value, dict) else list(value)
    key = draw.choice(list(copy)) if isinstance(copy, dict) else draw.randrange(len(copy))
    kind = draw.randrange(8)
    if kind == 0:
        del copy[key]
    elif kind == 1 and isinstance(copy, dict):
        copy[draw.choice([*map(str, PLACES), "other"])] = copy[key]
    elif kind == 1:
        copy.append(copy[key])
    else:
        copy[key] = change_json(copy[key], draw)
    return copy


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


def make_mutant(whole: Path, folder: Path, draw: random.Random) -> None:
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
    if name == "manifest.json" and draw.random() < 0.8:
        for _ in range(draw.choice((1, 1, 2))):
            manifest = change_json(manifest, draw)
    elif name == "shards.parquet" and draw.random() < 0.7:
        change_rows(rows, draw)
    elif name.endswith(".gz") and draw.random() < 0.5:
        path.write_bytes(gzip.compress(mutate(gzip.decompress(path.read_bytes()), others, draw)))
    else:
        path.write_bytes(mutate(path.read_bytes(), others, draw))
        rows = None if name == "shards.parquet" else rows
    if draw.random() < 0.15 or not isinstance(manifest, dict):
        if name == "manifest.json" and isinstance(manifest, (dict, list)):
            path.write_bytes(json.dumps(manifest).encode())
        return
    if name != "manifest.json" or manifest != json.loads((whole / "manifest.json").read_bytes()):
        seal(folder, rows, manifest, name)


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


READERS = {
    "verify": verify,
    "inspect": lambda folder: inspect(InspectConfig(path=folder)),
    "inspect a shard": lambda folder: inspect(InspectConfig(path=f"{folder}/train/seq8/copy0/00000.tar")),
    "explain": explain_some,
    "report": lambda folder: write_report(folder, Gates()),
    "train": read_all_rows,
}


def use(folder: Path, readers: list[str]) -> int:
    """Read a data set with these readers, and return 1 and print it if one fails in another way than by one line."""
    pages = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (pages + MORE_MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    failed = 0
    for name in readers:
        signal.alarm(SECONDS)
        print(f"[{name}]", flush=True)
        try:
            with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
                READERS[name](str(folder))
        except (ValueError, OSError) as error:
            if "\n" in str(error) or len(str(error)) > 2000:
                failed = 1
                traceback.print_exc()
        except BaseException:
            failed = 1
            traceback.print_exc()
    return failed


def read_apart(batch: list[tuple[Path, list[str]]]) -> str:
    """Read mutants in one process of their own, and return what went wrong with one of them, or nothing."""
    with tempfile.TemporaryFile() as said:
        if (child := os.fork()) == 0:
            os.dup2(said.fileno(), 1)
            os.dup2(said.fileno(), 2)
            status = max(use(mutant, readers) for mutant, readers in batch)
            sys.stdout.flush()
            os._exit(status)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        said.seek(0)
        text = said.read().decode(errors="replace").strip()
    return "" if status == 0 else f"{signal.Signals(-status).name if status < 0 else 'error'} {text[-3000:]}"


def faults(number: int, seed: int, folder: Path) -> Iterator[str]:
    """Yield what is wrong with each mutant that is not handled well; it stays in the folder."""
    draw = random.Random(seed)
    whole = make_whole(folder / "whole")
    for read in READERS.values():  # what they import is then there in every child
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            read(str(whole))
    for first in range(0, number, BATCH):
        batch = []
        for i in range(first, min(first + BATCH, number)):
            make_mutant(whole, folder / f"{seed}-{i:06d}", random.Random(draw.getrandbits(64)))
            batch.append((folder / f"{seed}-{i:06d}", draw.sample(list(READERS), 3)))
        failed = read_apart(batch)
        for mutant, readers in batch:
            if failed and (fault := read_apart([(mutant, readers)])):
                yield f"{mutant}: {fault}"
            else:
                shutil.rmtree(mutant)


def main() -> None:
    number, seed = int(sys.argv[1]), int(sys.argv[2])
    folder = Path(sys.argv[3] if len(sys.argv) > 3 else tempfile.mkdtemp())
    found = 0
    for line in faults(number, seed, folder):
        found += 1
        print(line, flush=True)
    print(f"{number} mutants, {found} faults")
    sys.exit(found > 0)


if __name__ == "__main__":
    main()
