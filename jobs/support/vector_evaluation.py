"""Measures the vectors of a model: cosines of pairs against their scores, and searches for relevant texts."""

import sys
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from bertloom.counts import counted
from jobs.support.messages import errors_of
from model.inference.embed import Embedder
from model.tasks.embed import SCORED, parse_row
from model.tasks.regress import correlations
from model.tasks.retrieval import Retrieval, read_retrieval
from model.tasks.rows import read_task
from model.tasks.similarity import Search, cosines, search_metrics

TEXTS_AT_ONCE = 1024
"""Texts that are in memory together."""


def measure_similarity(embedder: Embedder, path: Path, columns: Mapping[str, str], on_bad_row: str) -> dict[str, Any]:
    """Return the correlations of the cosines of a file's pairs with their scores, and counts."""
    with errors_of("--similarity"):
        rows, rejected = read_task(path, SCORED, parse_row, columns, on_bad_row)
    vectors, cut = zip(*(embedder.embed([row.texts[side] for row in rows]) for side in (0, 1)))
    found = correlations(np.array([row.score for row in rows]), cosines(*vectors))
    counts = {"num_pairs": len(rows), "num_skipped": len(rejected), "num_truncated": sum(cut)}
    return {"spearman": found["spearman"], "pearson": found["pearson"]} | counts


def measure_retrieval(embedder: Embedder, path: Path, columns: Mapping[str, str], on_bad_row: str) -> dict[str, Any]:
    """Return how well the queries of a file or folder find their relevant texts, and counts."""
    with errors_of("--retrieval"):
        found = read_retrieval(path, columns, on_bad_row)
    vectors, num_cut = embedder.embed([query.text for query in found.queries])
    search = Search(vectors)
    asked = {name for query in found.queries for name in query.relevant}
    numbers: dict[str, int] = {}  # of the relevant texts alone
    num_texts = 0
    with tqdm(desc="texts", unit=" texts", file=sys.stderr, disable=None) as bar:
        for part in portions(found):
            for number, (name, _) in enumerate(part, num_texts):
                if name in asked and numbers.setdefault(name, number) != number:
                    raise ValueError(f"--retrieval {path}: two texts have the id {name!r:.60}: give each its own")
            vectors, cut = embedder.embed([text for _, text in part])
            search.add(vectors)
            num_texts, num_cut = num_texts + len(part), num_cut + cut
            bar.update(len(part))
    grades = [
        {numbers[name]: grade for name, grade in query.relevant.items() if name in numbers} for query in found.queries
    ]
    if (lost := len(asked) - len(numbers)) and on_bad_row == "stop":
        missing = min(asked - numbers.keys())
        raise ValueError(
            f"--retrieval {path}: {counted(lost, 'relevant text')} not among the texts, such as {missing!r:.60}: add "
            f"them, or leave them out with --on-bad-row skip"
        )
    known = [number for number, own in enumerate(grades) if own]
    if not known:
        raise ValueError(f"--retrieval {path}: no relevant text is among the {num_texts:,} texts: check the ids")
    return search_metrics(search.best[known], [grades[number] for number in known]) | {
        "num_queries": len(known),
        "num_texts": num_texts,
        "num_queries_without_relevant_text": found.num_unjudged + len(grades) - len(known),
        "num_unknown_relevant_texts": lost,
        "num_skipped": len(found.rejected),
        "num_truncated": num_cut,
    }


def portions(found: Retrieval) -> Iterator[list[tuple[str, str]]]:
    """Yield the ids and texts in lists."""
    while part := list(islice(found.texts, TEXTS_AT_ONCE)):
        yield part


def as_lines(what: str, values: Mapping[str, Any]) -> str:
    """Return metrics and counts as text; counts of 0 that only warn are left out."""
    lines = [what]
    for name, value in values.items():
        if isinstance(value, float):
            lines.append(f"{name:<14} {value:.4f}")
        elif value or name in ("num_pairs", "num_queries", "num_texts"):
            lines.append(f"{name.removeprefix('num_').replace('_', ' ')}: {value:,}")
    return "\n".join(lines)
