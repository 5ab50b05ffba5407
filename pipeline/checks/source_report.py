"""What the report shows of each source of --inputs: exact counters, and scripts and languages from the sample."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from bertloom.arrays import I64
from bertloom.extras import needed_by
from pipeline.checks.report import DocumentInputs, Examples, scripts, share_unknown
from pipeline.text.language import language_of
from pipeline.vocabulary import Vocabulary

MOST_KINDS = 6
"""Largest number of scripts, and of languages, that are listed of a source."""
LEAST_SHARE = 0.0005
"""Smallest share of a script that is listed."""
IDENTIFIED = 200
"""Largest number of examples of a source whose language is identified."""


def check_detector() -> None:
    """Raise ValueError unless py3langid is installed."""
    with needed_by("--detect-languages"):
        import py3langid  # noqa: F401


def about_sources(
    manifest: dict[str, Any], documents: pa.Table, e: Examples, vocabulary: Vocabulary, detects_languages: bool
) -> list[dict[str, Any]]:
    """Return the sources of a data set; none if it was made without --inputs.

    Args:
        documents: the rows of documents/ of the sample.
        e: the examples of the sample. An example belongs to the source of its segment A.
    """
    sources = manifest.get("sources", [])
    numbers = {source["name"]: i for i, source in enumerate(sources)}
    of_files = {row["name"]: str(row.get("source")) for row in manifest["inputs"]}
    files = {name: numbers[source] for name, source in of_files.items() if source in numbers}
    if not sources:
        return []
    source_of = DocumentInputs.of(documents, files).place(e.document_a)
    total = max(1, sum(source["counters"]["tokens"] for source in sources))
    found = []
    for i, source in enumerate(sources):
        empty = [row["name"] for row in manifest["inputs"] if files.get(row["name"]) == i and not row["documents"]]
        chosen = np.flatnonzero(source_of == i)
        found.append(
            {name: source[name] for name in ("name", "options", "files", "counters")}
            | {"share": source["counters"]["tokens"] / total, "num_empty": len(empty), "empty": empty[:3]}
            | words_of(e, chosen, vocabulary)
            | ({"languages": languages_of(e, chosen, vocabulary)} if detects_languages else {})
        )
    return found


def words_of(e: Examples, chosen: I64, vocabulary: Vocabulary) -> dict[str, Any]:
    """Return the number of the chosen examples, and the [UNK] and scripts of their segments A."""
    words = np.concatenate([np.zeros(0, e.truth.dtype), *(_segment_a(e, i) for i in chosen.tolist())])
    if not len(words):
        return {"sample": 0, "unknown": None, "scripts": {}}
    names, index = scripts(vocabulary)
    of_words = np.bincount(words, minlength=len(vocabulary.words))
    counts = np.bincount(index, of_words, len(names)) / len(words)
    kinds = {names[i]: round(float(counts[i]), 5) for i in np.argsort(-counts, kind="stable")[:MOST_KINDS]}
    shown = {name: share for name, share in kinds.items() if share >= LEAST_SHARE}
    return {"sample": len(chosen), "unknown": share_unknown(of_words, vocabulary), "scripts": shown}


def languages_of(e: Examples, chosen: Sequence[int] | I64, vocabulary: Vocabulary) -> dict[str, float]:
    """Return language -> share of the chosen examples, at most IDENTIFIED of them, by a detector that reads segment A."""
    some = list(chosen)[:IDENTIFIED]
    counts = Counter(language_of(vocabulary.readable.text(_segment_a(e, i)))[0] for i in some)
    return {language: round(number / len(some), 4) for language, number in counts.most_common(MOST_KINDS)}


def _segment_a(e: Examples, i: int) -> Any:
    start = int(e.starts[i])
    return e.truth[start + 1 : start + int(e.segment_b[i]) - 1]
