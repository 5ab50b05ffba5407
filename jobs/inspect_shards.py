"""Show what is in a data set or in one shard: columns, counts, lengths, labels, and examples as text.

    bertloom inspect DATASET --examples 5
    bertloom inspect DATASET/train/seq128/copy0/00000.tar --json

A masked word is shown with what replaced it: ⟦MASK→paris⟧ for the 80 % that became [MASK], ⟦cat→paris⟧ for the 10 % that
became a random word, ⟦=paris⟧ for the 10 % that were kept.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from bertloom import storage
from jobs.support.config import parse
from jobs.support.outputs import json_line
from pipeline.examples.configuration import ExamplesConfig

if TYPE_CHECKING:
    import pyarrow as pa

    from pipeline.vocabulary import Vocabulary

LABELS: Mapping[int, str] = {0: "next", 1: "random or swapped", -1: "none"}
"""Labels of a shard that is outside of its data set."""


@dataclass(frozen=True, kw_only=True)
class InspectConfig:
    """Show what is in a data set or in one shard."""

    path: Annotated[str, tyro.conf.Positional]
    """A data set, or one of its .tar shards."""
    examples: int = 3
    """Number of examples to show as text."""
    seed: int = 0
    """Seed for the choice of these examples."""
    split: str = "train"
    """Split of a data set: train or validation."""
    max_seq_length: int | None = None
    """Length of the examples to show, in tokens. The default is the shortest length of the data set."""
    vocab: str | None = None
    """The vocabulary, as for `preprocess`, for a shard that is not inside its data set."""
    json: bool = False
    """Print one JSON object instead of text."""


def main(argv: Sequence[str]) -> None:
    config = parse(InspectConfig, argv, prog="bertloom inspect")
    found = inspect(config)
    if config.json:
        print(json_line(found, sys.stdout.encoding, indent=1), end="")
    else:
        print("\n".join(_lines(found)))


def inspect(config: InspectConfig) -> dict[str, Any]:
    """Return everything that the command prints, as plain values."""
    import numpy as np

    from bertloom.draws import bounded, draw, fold
    from bertloom.manifest import read_dataset
    from bertloom.members import check_ids, metadata_of
    from pipeline.dataset import vocabulary_of
    from pipeline.examples.decoding import decode
    from pipeline.vocabulary_files import read_vocabulary

    if config.examples < 0:
        raise ValueError(f"--examples {config.examples}: expected 0 or more")
    found: dict[str, Any] = {"path": config.path}
    shard, dataset, labels = config.path, _dataset_of(config.path), LABELS
    if dataset is not None:
        manifest, rows = read_dataset(dataset)
        labels = ExamplesConfig.of(manifest["configuration"]).objective.labels
        if dataset == config.path:
            found["counters"], found["configuration"] = manifest["counters"], manifest["configuration"]
            found["versions"], found["shards"] = manifest["versions"], rows.num_rows
            found["bytes"] = sum(rows["bytes"].to_pylist())
            shard = _choose_shard(config, rows)
    vocabulary = (
        read_vocabulary(config.vocab) if config.vocab else vocabulary_of(dataset, manifest) if dataset else None
    )
    table = _open(shard)
    metadata = metadata_of(table.schema)
    if vocabulary and metadata.get("vocabulary_sha256") != vocabulary.sha256:
        raise ValueError(
            f"{shard} was not made with the vocabulary of {config.vocab or dataset}: give the right one with --vocab"
        )
    if vocabulary:
        for batch in table.to_batches():
            check_ids(batch, len(vocabulary.words))
    found["shard"] = shard
    found["schema"] = {field.name: str(field.type) for field in table.schema}
    found["metadata"] = metadata
    found["statistics"] = statistics(table, vocabulary, labels)
    if vocabulary:
        number = min(config.examples, table.num_rows)
        rows = np.unique(bounded(draw(fold(config.seed), np.arange(number * 4 + 4)), table.num_rows), return_index=True)
        chosen = rows[0][np.argsort(rows[1])][:number]
        found["examples"] = [
            decode(table.slice(int(row), 1).to_pylist()[0], vocabulary, labels) | {"row": int(row)} for row in chosen
        ]
    return found


def statistics(table: pa.Table, vocabulary: Vocabulary | None, labels: Mapping[int, str]) -> dict[str, Any]:
    """Return lengths, labels and masks of a table of examples."""
    from pipeline.checks.report import flatten, shape, treatment

    examples = flatten(table)
    return shape(examples, labels) | ({"masks_as_drawn": treatment(examples, vocabulary)} if vocabulary else {})


def _choose_shard(config: InspectConfig, table: pa.Table) -> str:
    """Return the first shard of the split and length that are asked for."""
    rows = [row for row in table.to_pylist() if row["split"] == config.split]
    if not rows:
        raise ValueError(
            f"--split {config.split}: the data set has {' and '.join(sorted(set(table['split'].to_pylist())))}"
        )
    lengths = sorted({row["max_seq_length"] for row in rows})
    length = config.max_seq_length or lengths[0]
    if length not in lengths:
        raise ValueError(f"--max-seq-length {length}: the data set has {', '.join(map(str, lengths))}")
    first = next(row for row in rows if row["max_seq_length"] == length)
    return storage.file_below(config.path, first["path"])


def _open(path: str) -> pa.Table:
    from bertloom.manifest import DAMAGED
    from bertloom.members import read_shard

    try:
        return read_shard(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as a shard ({error}); {DAMAGED}") from error


def _dataset_of(path: str) -> str | None:
    """Return the data set of a path: itself, or the one around a shard."""
    if not path.endswith(".tar"):
        return path
    folder = os.path.normpath(os.path.join(os.path.dirname(path), "..", "..", ".."))
    return folder if storage.is_local(path) and os.path.exists(os.path.join(folder, "manifest.json")) else None


def _lines(found: dict[str, Any]) -> list[str]:
    lines = [found["path"]]
    if "counters" in found:
        c = found["counters"]
        lines += [
            f"  {found['shards']} shards, {found['bytes'] / 1e6:,.1f} MB; "
            f"{c['tokens']:,} tokens of {c['text_bytes'] / 1e6:,.1f} MB of text",
            f"  documents {c['documents_in']:,} in = {c['documents_used']:,} used"
            f" + {c['documents_rejected']:,} rejected + {c['documents_duplicate']:,} duplicate",
            "  configuration " + ", ".join(f"{key} {value}" for key, value in found["configuration"].items()),
        ]
    lines += ["", f"examples of {found['shard']}", "  columns"]
    lines += [f"    {name:<20} {kind}" for name, kind in found["schema"].items()]
    s = found["statistics"]
    lines += [
        f"  examples {s['examples']:,}, tokens {s['tokens']:,}, "
        f"fill {s['fill']:.1%} of {found['metadata']['max_seq_length']}",
        f"  labels: {', '.join(f'{count:,} {name}' for name, count in s['labels'].items() if count)}; "
        f"mean length of B by label {s['segment_b_mean']}",
        f"  masks per example {s['masks_per_example']}, {s['masked_share']:.2%} of the tokens; "
        f"as drawn {s.get('masks_as_drawn', 'unknown without a vocabulary')}",
        "  lengths",
    ]
    most = max(s["length_histogram"].values())
    lines += [f"    {name:>9} {'█' * round(40 * n / most):<40} {n:,}" for name, n in s["length_histogram"].items()]
    for example in found.get("examples", []):
        lines += [
            "",
            f"example {example['row']}: {example['label']}, {example['tokens']} tokens, {example['masks']} masks",
            f"  A {example['document_a']} from token {example['token_a']}: {example['a']}",
        ]
        if example["b"]:
            lines.append(f"  B {example['document_b']} from token {example['token_b']}: {example['b']}")
    return lines
