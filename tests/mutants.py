"""Files and folders in which bytes or values were changed, each used in a process of its own with limits on memory and time.

What is changed, and how it is used, is in the lists of targets: `tests/*/*_mutants.py`. Each list is a command too:

    python -m tests.pipeline.input_mutants arrow 1000 7    1000 mutants of the Arrow files, from seed 7

A mutant may be used, or give one line of error. A traceback, a signal or an endless loop is a fault; its mutant is kept.
"""

import faulthandler
import io
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

MORE_MEMORY = 2_000_000_000  # bytes of address space beyond what the process has
LONGEST_LINE = 2000
EXTREMES = [0, 1, 7, 127, 128, 255, 2**15, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**63, 2**64 - 1]
PLACES = [
    "../../victim",
    "/dev/zero",
    "../../../../../../dev/zero",
    "",
    "a\0b",
    "train/seq8/copy0/00000.tar",
    "é" * 300,
]
VALUES: list[Any] = [*EXTREMES, -1, 10**30, 0.5, 1e300, -0.0, float("inf"), float("nan"), *PLACES, "x", "1", "0" * 64]
VALUES += ["\ud800", [], {}, None, True, False, [[]], [0], {"a": {}}]

Seeds = dict[str, bytes]  # name of a file -> what it holds
Use = Callable[[], object]


@dataclass(frozen=True)
class Target:
    """What is changed, and how it is used."""

    prepare: Callable[[Path], Any]
    """Return what the mutants are changed copies of. It may fill a new folder."""
    mutate: Callable[[Any, Path, random.Random], Path]
    """Make a mutant. Its path begins with the one that is given."""
    uses: Callable[[Any, Path, random.Random], Iterable[Use]]
    """Return how a mutant is used: each call may end in one line of error."""
    number: int
    """How many mutants the slow test makes."""
    errors: tuple[type[Exception], ...] = (ValueError, OSError)
    """The errors that become one line."""
    is_named: bool = False
    """Whether the line must name the mutant."""
    seconds: int = 20
    """Time limit of a use."""
    inputs: int = 1
    """Inputs of a mutant: a file of texts has many."""


def target_of_files(seeds: Callable[[], Seeds], uses: Callable[[Path], Iterable[Use]], number: int) -> Target:
    """Return a target whose mutants are single files. An error names the file."""

    def prepare(folder: Path) -> Seeds:
        """Use each seed once: what that imports and builds is then there in every child."""
        folder.mkdir(parents=True, exist_ok=True)
        originals = seeds()
        for name, content in originals.items():
            (folder / name).write_bytes(content)
            for use in uses(folder / name):
                with suppress(ValueError), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
                    use()
        return originals

    def mutate_one(original: Seeds, place: Path, draw: random.Random) -> Path:
        name = draw.choice(sorted(original))
        path = place.with_name(f"{place.name}-{name}")
        path.write_bytes(mutate(original[name], list(original.values()), draw))
        return path

    return Target(
        prepare,
        mutate_one,
        lambda original, path, draw: uses(path),
        number,
        errors=(ValueError,),
        is_named=True,
    )


def mutate(data: bytes, others: list[bytes], draw: random.Random) -> bytes:
    """Return the file with a few bytes, numbers, or pieces changed; half of the changes are near an end of the file."""
    changed = bytearray(data)
    for _ in range(draw.choice((1, 1, 1, 2, 4, 8))):
        size = len(changed)
        at = draw.randrange(size or 1)
        if size > 100 and draw.random() < 0.5:
            at = draw.choice((at % 100, size - 1 - at % min(size, 400)))
        kind = draw.randrange(8)
        if kind <= 1:
            changed[at : at + 1] = bytes([draw.randrange(256)])
        elif kind == 2:
            changed[at : at + 1] = bytes([changed[at] ^ 1 << draw.randrange(8)]) if size else b""
        elif kind <= 4:
            width = draw.choice((2, 4, 8))
            at -= at % width if draw.random() < 0.7 else 0
            value = (draw.choice(EXTREMES) + draw.randrange(-2, 3)) % (1 << 8 * width)
            changed[at : at + width] = value.to_bytes(width, "little")
        elif kind == 5:
            del changed[at : at + draw.randrange(1, 40)]
        elif kind == 6:
            other = draw.choice(others)
            begin = draw.randrange(len(other))
            changed[at : at + draw.randrange(40)] = other[begin : begin + draw.randrange(40)]
        elif draw.random() < 0.2:
            del changed[at:]
    return bytes(changed)


def change_value(value: Any, draw: random.Random) -> Any:
    """Return a JSON value with one part of it replaced, removed, renamed or repeated."""
    if not isinstance(value, (dict, list)) or not value or draw.random() < 0.1:
        return draw.choice(VALUES)
    copy = dict(value) if isinstance(value, dict) else list(value)
    key = draw.choice(list(copy)) if isinstance(copy, dict) else draw.randrange(len(copy))
    kind = draw.randrange(9)
    if kind == 0:
        del copy[key]
    elif kind == 1 and isinstance(copy, dict):
        item = copy.pop(key) if draw.random() < 0.5 else copy[key]
        copy[draw.choice(["other", "é", key[:-1], *PLACES])] = item
    elif kind == 1:
        copy.append(copy[key])
    else:
        copy[key] = change_value(copy[key], draw)
    return copy


def arrow_files(tables: Mapping[str, pa.Table]) -> Seeds:
    """Return each table as Arrow files and streams, of several batches unless it has a dictionary for all of them."""
    seeds = {}
    for name, table in tables.items():
        table = table.combine_chunks()
        rows = table.num_rows if any(pa.types.is_dictionary(kind) for kind in table.schema.types) else 5
        for compression in (None, "lz4", "zstd"):
            for kind, new in (("file", pa.ipc.new_file), ("stream", pa.ipc.new_stream)):
                sink = io.BytesIO()
                with new(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as writer:
                    writer.write_table(table, max_chunksize=rows)
                seeds[f"{name}-{kind}-{compression}.arrow"] = sink.getvalue()
    return seeds


def parquet_files(tables: Mapping[str, pa.Table]) -> Seeds:
    """Return each table as Parquet files, which have no string views."""
    seeds = {}
    for name, table in tables.items():
        fields = [field.with_type(pa.string()) if field.type == pa.string_view() else field for field in table.schema]
        table = table.cast(pa.schema(fields, table.schema.metadata))
        for version, page, codec in (("1.0", "1.0", "none"), ("2.6", "2.0", "zstd"), ("2.6", "1.0", "snappy")):
            sink = io.BytesIO()
            options = {"version": version, "data_page_version": page, "compression": codec}
            pq.write_table(
                table, sink, row_group_size=5, use_dictionary=page == "1.0", write_page_index=True, **options
            )
            seeds[f"{name}-{codec}.parquet"] = sink.getvalue()
    return seeds


def faults(target: Target, number: int, seed: int, folder: Path) -> Iterator[str]:
    """Yield what is wrong with each mutant that is not handled well; it stays in the folder."""
    original = target.prepare(folder / "originals")
    for i in range(number):
        draw = random.Random(f"{seed} {i}")
        mutant = target.mutate(original, folder / f"{i:06d}", draw)
        if found := fault(target, mutant, target.uses(original, mutant, draw)):
            yield f"{mutant}: {found}"
        else:
            remove(mutant)


def fault(target: Target, mutant: Path, uses: Iterable[Use]) -> str:
    """Return what is wrong, or nothing, with how a mutant is used in a process of its own."""
    with tempfile.TemporaryFile("w+", errors="replace") as said:
        if (child := os.fork()) == 0:
            faulthandler.disable()  # pytest has enabled it
            os.dup2(said.fileno(), 2)  # what C code writes when it ends the process
            is_fault = True
            try:
                limit_memory()
                is_fault = has_fault(target, mutant, uses, said)
            finally:
                said.flush()
                os._exit(is_fault)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        said.seek(0)
        text = said.read().strip()
    return "" if status == 0 else f"{ending(status)} {text[-3000:]}"


def ending(status: int) -> str:
    """Return how a process ended, whose exit status is not 0."""
    return signal.Signals(-status).name if status < 0 else "error"


def remove(mutant: Path) -> None:
    """Remove the files of a mutant."""
    shutil.rmtree(mutant) if mutant.is_dir() else mutant.unlink(missing_ok=True)


def has_fault(target: Target, mutant: Path, uses: Iterable[Use], said: IO[str]) -> bool:
    """Use a mutant, and write down how that ended if it is a fault."""
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        return any(_is_fault(target, mutant, use, said) for use in uses)


def limit_memory() -> None:
    """Allow this process MORE_MEMORY bytes beyond what it has."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MORE_MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _is_fault(target: Target, mutant: Path, use: Use, said: IO[str]) -> bool:
    signal.alarm(target.seconds)
    try:
        use()
    except BaseException as error:
        text = str(error)
        is_line = isinstance(error, target.errors) and "\n" not in text and len(text) <= LONGEST_LINE
        if is_line and (mutant.name in text or not target.is_named):
            return False
        traceback.print_exc(file=said)
        return True
    return False


def main(targets: Mapping[str, Target]) -> None:
    """Make and use mutants: TARGET NUMBER SEED [FOLDER]."""
    name, number, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    folder = Path(sys.argv[4] if len(sys.argv) > 4 else tempfile.mkdtemp())
    found = 0
    for line in faults(targets[name], number, seed, folder):
        found += 1
        print(line, flush=True)
    print(f"{name}: {number} mutants, {found} faults")
    sys.exit(found > 0)
