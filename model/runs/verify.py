"""Did a run read what an unbroken one reads? Its stream digest, computed again from the data set; and is it whole?

Every checkpoint's files are held to the sizes and checksums in its state.json. Then the rows of each step are read
again in the order that the state's legs say, and the digest is compared with every line of metrics.jsonl and every
checkpoint: the first step where they part is named. The weights are not trained again.
"""

import json
import os
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from model.loading.cache import DEFAULT_CACHE_GB
from model.loading.data import DataSet, Examples
from model.loading.order import ORDER_VERSION, ItemsAhead
from model.loading.stream import START, Leg, extend, rows_sum
from model.runs.checkpoint import TrainingState, check_files, read_state

ROWS_AT_ONCE = 8192


def check_run(
    run: Path,
    data: str | os.PathLike[str] | None = None,
    last_steps: int | None = None,
    cache_dir: Path | None = None,
    cache_gb: float = DEFAULT_CACHE_GB,
) -> Iterator[str | None]:
    """Yields a sentence for each fault, and None after each step whose rows were read again, for a progress bar.

    Args:
        run: the run folder.
        data: its data set, a folder or a URL, if that is not where config.toml says.
        last_steps: read only so many steps again, starting from the digest that metrics.jsonl has there; all, if None.
        cache_dir, cache_gb: see `DataSet`.

    Raises:
        ValueError: there is nothing that could be looked at, or the data set cannot be read.
    """
    states = {}
    for path in sorted((run / "checkpoints").glob("step-*")):
        try:
            state = read_state(path)
            check_files(path)
        except ValueError as error:
            yield f"{error}"
            continue
        states[state.step] = state
        if path.name != f"step-{state.step:08d}":
            yield f"{path}: holds step {state.step}"
    if not states:
        raise ValueError(f"{run} has no whole checkpoint: there is nothing to hold the data against")
    lines: dict[int, dict[str, Any]] = {}
    last = 0
    for line in read_lines(run / "metrics.jsonl"):
        if isinstance(line, str):
            yield line
        elif line["split"] == "train":
            if line["step"] <= last:
                yield f"metrics.jsonl: step {line['step']} stands behind step {last}"
            lines[line["step"]] = line
            last = max(last, line["step"])
    latest = states[max(states)]
    config = config_of(run)
    if latest.step >= config.get("log_every", 1) and min(lines, default=latest.step + 1) > latest.step:
        yield f"metrics.jsonl: has no line of a step up to {latest.step}, the latest checkpoint's"
    if data is None and "data" not in config:
        raise ValueError(f"{run / 'config.toml'} does not say which data set the run was trained on: give it as --data")
    data_set = DataSet(data or config["data"], cache_dir, cache_gb)
    yield from check_stream(data_set, latest, states, lines, last_steps)


def check_stream(
    data_set: DataSet,
    latest: TrainingState,
    states: dict[int, TrainingState],
    lines: dict[int, dict[str, Any]],
    last_steps: int | None,
) -> Iterator[str | None]:
    """Yields None after each step up to the latest checkpoint, and where the digest first differs a sentence."""
    if latest.order_version != ORDER_VERSION:
        raise ValueError(f"the run has order version {latest.order_version}, this program knows {ORDER_VERSION}")
    legs = [Leg(**leg) for leg in latest.legs]
    step, digest, tokens = 0, START, 0
    if last_steps is not None and latest.step > last_steps:
        step = max((known for known in lines if known <= latest.step - last_steps), default=0)
        if step:
            digest, tokens = lines[step]["stream"], lines[step]["tokens"]
    readers: dict[Leg, tuple[Examples, ItemsAhead]] = {}
    while step < latest.step:
        leg = next(leg for leg in reversed(legs) if leg.step <= step)
        if leg.shards_digest != data_set.shards_digest:
            yield (
                f"step {step + 1}: read another data set than {data_set.folder} (sha256 of shards.parquet "
                f"{leg.shards_digest[:12]}…, here {data_set.shards_digest[:12]}…): what it read is not proved"
            )
            return
        if leg not in readers:
            examples = data_set.examples("train", leg.max_seq_length)
            order = examples.order(leg.seed, leg.shuffle)
            readers = {leg: (examples, examples.items_ahead(order))}  # one is read at a time
        try:
            total, num_tokens = read_again(*readers[leg], leg.item_at(step), leg.batch_size)
        except ValueError as error:
            yield f"step {step + 1}: {error}"
            return
        step, digest, tokens = step + 1, extend(digest, total), tokens + num_tokens
        line, state = lines.get(step), states.get(step)
        found = [("metrics.jsonl", line["stream"], line["tokens"])] if line else []
        found += [(f"checkpoint step-{step:08d}", state.stream, state.tokens)] if state else []
        for name, stream, count in found:
            if stream != digest:
                yield f"step {step}: {name} has the stream digest {stream}, the data set gives {digest}"
            elif count != tokens:
                yield f"step {step}: {name} has {count:,} tokens, the data set gives {tokens:,}"
        if any(stream != digest for _, stream, _ in found):
            return  # the digests are chained: from here on all differ
        yield None


def read_again(examples: Examples, items: ItemsAhead, start: int, batch_size: int) -> tuple[int, int]:
    """Sum of the rows' hashes and number of tokens of one global batch."""
    total = num_tokens = 0
    for place in range(0, batch_size, ROWS_AT_ONCE):
        places = np.arange(place, min(place + ROWS_AT_ONCE, batch_size))
        columns = examples.read(*items.items(start + place, start + int(places[-1]) + 1))
        total += rows_sum(columns, places)
        num_tokens += int(columns["lengths"].sum())
    return total, num_tokens


def read_lines(path: Path) -> Iterator[dict[str, Any] | str]:
    """The lines of metrics.jsonl; for one that is none, a sentence. A last line that a kill cut short is left out."""
    content = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    for number, text in enumerate(content, 1):
        try:
            line = json.loads(text)
            expected = {"step", "split"} | ({"stream", "tokens"} if line.get("split") == "train" else set())
            if not expected <= set(line):
                raise ValueError
        except (ValueError, TypeError, AttributeError):
            if text.endswith(b"\n"):
                yield f"metrics.jsonl: line {number} is damaged"
            continue
        yield line


def config_of(run: Path) -> dict[str, Any]:
    """What a run's config.toml says; nothing where it is missing or damaged."""
    try:
        return tomllib.loads((run / "config.toml").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
