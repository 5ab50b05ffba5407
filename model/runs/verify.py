"""Verifies a run: its checkpoints are intact, and it read what an uninterrupted run reads.

The files of every checkpoint are compared with the sizes and checksums in its state.json. Then the rows of each step are
read again in the recorded order, and the stream digest is compared with every line of metrics.jsonl and every checkpoint.
The first step that differs is reported. The weights are not trained again.
"""

import os
import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bertloom.json_files import check_regular
from model.loading.cache import DEFAULT_CACHE_GB
from model.loading.data import DataSet
from model.loading.data_sets import LegReader
from model.loading.order import ORDER_VERSION
from model.loading.sources import parse_sources, sources_of_run
from model.loading.stream import START, Leg, extend, rows_sum
from model.runs.checkpoint import check_files
from model.runs.metrics import parse_line
from model.runs.progress import add_tokens
from model.runs.state import TrainingState, checkpoint_path, read_state, run_settings

ROWS_PER_READ = 8192
MAX_STEPS_APART = 100_000
"""Largest number of steps between two recorded digests that are read again. A damaged state may claim any number of steps,
but each line of metrics.jsonl and each checkpoint takes space on the disk."""
STREAM = re.compile("[0-9a-f]{16}")


def check_run(
    run: Path,
    data: Sequence[str | os.PathLike[str]] = (),
    last_steps: int | None = None,
    cache_dir: Path | None = None,
    cache_gb: float = DEFAULT_CACHE_GB,
) -> Iterator[str | None]:
    """Yield a sentence for each fault, and None after each step whose rows were read again.

    Args:
        run: the run folder.
        data: its data sets, folders or URLs; by default those in config.toml.
        last_steps: number of steps whose rows to read again, from the digest in metrics.jsonl on; all by default.
        cache_dir, cache_gb: see `DataSet`.

    Raises:
        ValueError: there is nothing to check, or the data set cannot be read.
    """
    states: dict[int, TrainingState] = {}
    yield from read_checkpoints(run, states)
    if not states:
        raise ValueError(f"{run} has no intact checkpoint: expected at least one to compare the data with")
    latest = states[max(states)]
    lines: dict[int, dict[str, Any]] = {}
    yield from read_train_lines(run / "metrics.jsonl", lines)
    config = run_settings(run)
    log_every = config.get("log_every")
    if (
        latest.step >= (log_every if type(log_every) is int else 1)
        and min(lines, default=latest.step + 1) > latest.step
    ):
        yield f"metrics.jsonl: expected lines of steps up to {latest.step}, the latest checkpoint, and found none"
    words = [str(path) for path in data]
    sources = parse_sources(words, has_shares=False) if words else sources_of_run(config)
    if not sources:
        raise ValueError(f"{run / 'config.toml'} does not name the data set of the run: give it as --data")
    data_sets = {source.path: DataSet(source.path, cache_dir, cache_gb) for source in sources}
    yield from check_stream(list(data_sets.values()), latest, states, lines, last_steps)


def read_checkpoints(run: Path, states: dict[int, TrainingState]) -> Iterator[str]:
    """Add the state of every intact checkpoint to `states` by step, and yield a sentence for each fault."""
    for path in sorted((run / "checkpoints").glob("step-*")):
        if not path.is_dir():
            yield f"{path} is not a folder: expected a checkpoint"
            continue
        try:
            state = read_state(path, TrainingState)
            check_files(path)
        except ValueError as error:
            yield f"{error}"
            continue
        states[state.step] = state
        if path != checkpoint_path(path.parent, state.step):
            yield f"{path}: contains step {state.step}"


def read_train_lines(path: Path, lines: dict[int, dict[str, Any]]) -> Iterator[str]:
    """Add the training lines of metrics.jsonl to `lines` by step, and yield a sentence for each fault.

    A last line that a kill left incomplete is ignored.
    """
    last = 0
    content = check_regular(path).read_bytes().splitlines(keepends=True) if path.exists() else []
    for number, text in enumerate(content, 1):
        line = parse_line(text)
        is_train = line is not None and line["split"] == "train"
        if line is None or (is_train and not ("tokens" in line and isinstance(line.get("stream"), str))):
            if text.endswith(b"\n"):
                yield f"metrics.jsonl: line {number} is damaged"
            continue
        if not is_train:
            continue
        if line["step"] <= last:
            yield f"metrics.jsonl: step {line['step']} appears after step {last}: the lines are out of order"
        lines[line["step"]] = line
        last = max(last, line["step"])


def check_stream(
    data_sets: Sequence[DataSet],
    latest: TrainingState,
    states: Mapping[int, TrainingState],
    lines: Mapping[int, dict[str, Any]],
    last_steps: int | None,
) -> Iterator[str | None]:
    """Yield None after each step up to the latest checkpoint, and a sentence for the first step that differs.

    Steps are not read on where the next record of a digest is more than MAX_STEPS_APART later.
    """
    if latest.order_version != ORDER_VERSION:
        raise ValueError(f"the run has order version {latest.order_version}, expected {ORDER_VERSION}")
    step, digest, tokens, by_source = 0, START, 0, dict[str, int]()
    if last_steps is not None and latest.step > last_steps:
        chained = (known for known, line in lines.items() if STREAM.fullmatch(line["stream"]))
        step = max((known for known in chained if known <= latest.step - last_steps), default=0)
        if step:
            digest, tokens = lines[step]["stream"], lines[step]["tokens"]
            counted = lines[step].get("tokens_by_source") or {}
            by_source = {name: count for name, count in counted.items() if type(count) is int}
    reader: LegReader | None = None
    recorded = sorted({*lines, *states})
    while step < latest.step:
        following = recorded[bisect_right(recorded, step)]  # the latest checkpoint at most
        if following - step > MAX_STEPS_APART:
            yield (
                f"step {step + 1}: neither metrics.jsonl nor a checkpoint has a digest of the next {MAX_STEPS_APART:,} "
                f"steps, so that step {latest.step:,} cannot be verified"
            )
            return
        leg = next(leg for leg in reversed(latest.progress.legs) if leg.step <= step)
        if reader is None or reader.leg != leg:
            reader = None  # only one is open
            opened = open_leg(data_sets, leg)
            if isinstance(opened, str):
                yield f"step {step + 1}: {opened}"
                return
            reader = opened
        try:
            total, counts = read_step(reader, leg.item_at(step), leg.batch_size)
        except ValueError as error:
            yield f"step {step + 1}: {error}"
            return
        step, digest, tokens = step + 1, extend(digest, total), tokens + sum(counts)
        by_source |= add_tokens(by_source, [leg], counts if leg.sources else ())
        records = []
        if line := lines.get(step):
            records.append(("metrics.jsonl", line["stream"], line["tokens"], line.get("tokens_by_source") or {}))
        if state := states.get(step):
            progress = state.progress
            name = f"checkpoint step-{step:08d}"
            records.append((name, progress.stream, progress.tokens, progress.tokens_by_source))
        for name, stream, count, of_sources in records:
            if stream != digest:
                yield f"step {step}: {name} has the stream digest {stream}, but the data set gives {digest}"
            elif count != tokens:
                yield f"step {step}: {name} has {count:,} tokens, but the data set gives {tokens:,}"
            elif of_sources != by_source:
                yield f"step {step}: {name} has tokens_by_source {of_sources}, but the data sets give {by_source}"
        if any(stream != digest for _, stream, _, _ in records):
            return  # the digests are chained, so all later ones differ, too
        yield None


def open_leg(data_sets: Sequence[DataSet], leg: Leg) -> LegReader | str:
    """Return the rows of a leg and their order, or what is wrong: a data set that it read is not among these."""
    sources = []
    for name, digest in leg.digests().items():
        found = next((data_set for data_set in data_sets if data_set.shards_digest == digest), None)
        if found is None:
            given = ", ".join(f"{data_set.folder}" for data_set in data_sets)
            here = ", ".join(f"{data_set.shards_digest[:12]}…" for data_set in data_sets)
            what = f" for {name}" if name else ""
            return (
                f"the run read another data set than {given}{what} (sha256 of shards.parquet {digest[:12]}…, here {here}), "
                f"so its rows cannot be verified"
            )
        sources.append(found.examples("train", leg.max_seq_length))
    return LegReader(sources, leg)


def read_step(reader: LegReader, start: int, batch_size: int) -> tuple[int, list[int]]:
    """Return the sum of the row hashes of the global batch at item `start`, and the number of tokens of each data set."""
    total, counts = 0, np.zeros(max(1, len(reader.leg.sources)), np.int64)
    for place in range(0, batch_size, ROWS_PER_READ):
        places = np.arange(place, min(place + ROWS_PER_READ, batch_size))
        copies, rows = reader.items.items(start + place, start + int(places[-1]) + 1)
        columns = reader.examples.read(copies, rows)
        total += rows_sum(columns, places)
        sources = reader.examples.sources_of(copies)
        np.add.at(counts, np.zeros_like(rows) if sources is None else sources, columns["lengths"])
    return total, counts.tolist()
