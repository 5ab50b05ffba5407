"""The counters of each source of a data set, for the manifest."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from bertloom.arrays import I64
from pipeline.inputs.sources import Source
from pipeline.job import JobConfig
from pipeline.stages.plan import Plan
from pipeline.stages.weave import BucketRecord
from pipeline.tokens import PartRecord


def about_sources(
    plan: Plan, buckets: Sequence[BucketRecord], job: JobConfig, files: Sequence[Source], known_near: I64
) -> list[dict[str, Any]]:
    """Return the sources of a data set with their options and counters, in the order of their tables.

    Args:
        known_near: number of the part of each document that resembles one of a data set of --extend.

    Raises:
        ValueError: documents are missing. Nothing may be lost in silence.
    """
    found, resembling = [], Counter(plan.parts[part].input for part in known_near.tolist())
    for number, one in enumerate(job.inputs):
        own = [source for source in files if source.input == number]
        if own or not job.per_source:
            counters = _counters(number, plan, buckets, job, resembling[number])
            options = one.options(job.tokenize.text.clean)
            found.append({"name": one.name, "options": options, "files": len(own), "counters": counters})
    return found


def _counters(
    number: int, plan: Plan, buckets: Sequence[BucketRecord], job: JobConfig, num_known_near: int
) -> dict[str, Any]:
    parts = [part for part in plan.parts if part.input == number]
    woven = add_counts(bucket.by_input.get(str(number), {}) for bucket in buckets)
    selection, rejected = plan.selection, add_counts(part.rejected for part in parts)
    duplicates = woven["documents_duplicate"]
    if selection is not None:
        rejected["over-budget"] += selection.over_budget.get(str(number), 0)
        duplicates += selection.duplicates.get(str(number), 0)
    rejected["no-example"] += woven["no-example"]
    counters: dict[str, Any] = {
        "documents_in": sum(part.num_documents + sum(part.rejected.values()) for part in parts),
        "documents_used": woven["documents_used"],
        "documents_duplicate": duplicates,
        "documents_rejected": rejected.total(),
        "rejected": _sorted(rejected),
        "passed_over": _sorted(add_counts(part.passed_over for part in parts)),
        "cleaned": _sorted(add_counts(part.cleaned for part in parts)),
        "text_bytes": sum(part.text_bytes for part in parts),
        "sentences": woven["sentences"],
        "tokens": woven["tokens"],
        "examples": {str(length): woven[f"examples/{length}"] for length in job.examples.max_seq_length},
    }
    if plan.near_duplicates_sha256:
        counters["documents_near_duplicate"] = woven["documents_near_duplicate"] - num_known_near
    ends = counters["documents_used"] + counters["documents_rejected"] + duplicates
    if ends != counters["documents_in"]:
        raise ValueError(
            f"{counters['documents_in']} documents of the source {job.inputs[number].name} came in, but {ends} were used, "
            f"rejected or duplicate. This is a bug in bertloom: please report it with the numbers {counters}"
        )
    return counters


def selected_counts(plan: Plan, parts: Iterable[PartRecord]) -> tuple[int, int]:
    """Return (documents over a budget, duplicates that were left out before the weave stage) of the sources of parts."""
    if plan.selection is None:
        return 0, 0
    numbers = {str(part.input) for part in parts}
    over, duplicates = (
        sum(count for number, count in of.items() if number in numbers)
        for of in (plan.selection.over_budget, plan.selection.duplicates)
    )
    return over, duplicates


def add_counts(counts: Iterable[dict[str, int]]) -> Counter[str]:
    """Return the sum of counters."""
    total = Counter[str]()
    for some in counts:
        total.update(some)
    return total


def _sorted(counts: Counter[str]) -> dict[str, int]:
    return {name: count for name, count in sorted(counts.items()) if count}
