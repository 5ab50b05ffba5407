"""Estimates of the counts of a whole job from the counts of a sample, each with a standard error.

Within a stratum a quantity grows with the bytes on disk: the estimate is the ratio of both in the sample, times the bytes of
the stratum (Cochran, Sampling Techniques, chapters 6 and 9: a ratio estimate from clusters, separate by stratum).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.job import JobConfig
from pipeline.planning.sample import Sample
from pipeline.planning.trial import Repeats, Trial
from pipeline.stages.plan import count_buckets
from pipeline.tokens import INDEX, RANGES
from pipeline.vocabulary import Vocabulary

ERRORS = 2.0
"""Standard errors to both sides of an estimate, in its range: about 95 of 100 times the truth is inside."""
UNKNOWN_ERROR = 0.3
"""Relative standard error of a stratum with only one place that was read."""
PAGE_BYTES = 30
"""Bytes of a document in documents/."""
BUCKET_TOKEN_BYTES = 40
"""Memory for a token of a bucket, while its shards are made."""
FILES_BYTES = 110_000
"""Manifest, shards.parquet and report of a small job."""
START = 1.9
"""CPU time of the start of a job with one worker, and of the report at its end, in units of the time that the start of this
process took: benchmarks/results/plan.md."""
LOOK_BYTES = 2_000_000
"""Text that a job reads before it begins, to look at its files and to estimate its disk space."""
WORKER_START = 1.2
"""CPU time of the start of a worker process, in the same unit. The job waits for the first ones."""
EFFICIENCY = 0.9
"""Share of their time for which several workers work: benchmarks/results/workers.md has 0.89."""


@dataclass(frozen=True)
class Estimate:
    """A quantity of a whole job."""

    value: float
    error: float
    """Standard error; 0 if it was counted."""
    least: float = 0.0
    """The value of the sample alone, which the true value cannot be below."""

    @property
    def range(self) -> tuple[float, float]:
        """The values between which the truth is, about 95 of 100 times."""
        return max(self.least, self.value - ERRORS * self.error), self.value + ERRORS * self.error

    def times(self, factor: float) -> "Estimate":
        """Return the estimate of a quantity that is this many times as large."""
        return Estimate(self.value * factor, self.error * factor, self.least * factor)

    def plus(self, amount: float) -> "Estimate":
        """Return the estimate of a quantity that is larger by a known amount."""
        return Estimate(self.value + amount, self.error, self.least + amount)


@dataclass(frozen=True, kw_only=True)
class JobEstimate:
    """What a job of `bertloom preprocess` makes and needs."""

    is_whole: bool
    """Whether the sample was all of the input, so that documents, tokens and examples are counted."""
    quantities: dict[str, Estimate]
    rejected: dict[str, Estimate]
    """Reason -> rejects."""
    part_bytes: Estimate
    """Token parts, which are removed at the end."""
    dataset_bytes: Estimate
    """Shards and all other files of the data set."""
    cpu_seconds: Estimate
    """CPU time of all processes together."""
    seconds: Estimate
    """Wall-clock time on a machine that does nothing else."""
    memory: int
    """Peak of resident memory of a worker, in bytes."""
    tokens_of_sources: dict[str, Estimate]
    """Name of a source of --inputs -> its tokens."""


def total_of(
    values: NDArray[np.float64], extents: NDArray[np.float64], strata: NDArray[np.intp], sizes: Sequence[int]
) -> Estimate:
    """Return the estimate of a quantity over all strata.

    Args:
        values: of the quantity, in each cell.
        extents: bytes on disk of each cell that were read.
        strata: number of the stratum of each cell.
        sizes: bytes on disk of each stratum.
    """
    value = variance = 0.0
    for number, size in enumerate(sizes):
        own = strata == number
        read = float(extents[own].sum())
        if not own.any() or not read:
            continue
        q, x = values[own], extents[own]
        ratio = float(q.sum()) / read
        value += ratio * size
        left = max(0.0, 1 - read / size)
        count = len(q)
        if count == 1:
            variance += left * (UNKNOWN_ERROR * ratio * size) ** 2
        else:
            scatter = float(((q - ratio * x) ** 2).sum())
            variance += left * count / (count - 1) * scatter * (size / read) ** 2
    return Estimate(value, math.sqrt(variance), float(values.sum()))


def estimate_job(
    sample: Sample, trial: Trial, job: JobConfig, vocabulary: Vocabulary, part_bytes: int, num_workers: int
) -> JobEstimate:
    """Return what a whole job makes and needs.

    Args:
        part_bytes: text in a part.
        num_workers: worker processes on this machine.
    """
    strata = np.array([cell.stratum for cell in sample.cells], np.intp)
    extents, sizes = trial.extents, sample.stratum_bytes

    def total(values: NDArray[np.float64]) -> Estimate:
        if sample.is_whole:
            return Estimate(float(values.sum()), 0.0, float(values.sum()))
        return total_of(values, extents, strata, sizes)

    copies = job.examples.dupe_factor / trial.copies
    source_of = np.array([cell.group.splits[0].source.input for cell in sample.cells])
    kept = _kept_by_budgets(trial, job, source_of, total)
    counts = {name: values * kept if _is_of_used(name) else values for name, values in trial.counts.items()}
    found = {name: total(values) for name, values in counts.items()}
    rejected = {reason: total(values) for reason, values in trial.rejected.items()}
    if (kept < 1).any():
        rejected["over-budget"] = total(trial.counts["documents_used"] * (1 - kept))
    if found["documents_without_example"].value:
        rejected["no-example"] = found.pop("documents_without_example")
    found["documents_duplicate"] = total(trial.counts["part_documents"] - trial.counts["distinct_documents"])
    if not sample.is_whole:
        found = _with_unseen_duplicates(found, trial)
        found |= _examples_of_splits(sample, trial, found, job, total)
    distinct = found["tokens"].value / max(1.0, float(total(counts["tokens"]).value))
    tokens_of = {one.name: total(counts["tokens"] * (source_of == i)) for i, one in enumerate(job.inputs)}
    for name in found:
        if name.startswith("example"):
            found[name] = found[name].times(copies)
    dataset = _dataset_bytes(found, trial, job, vocabulary)
    parts = found["part_bytes"].plus(_index_bytes(found, part_bytes))
    cpu, seconds = _seconds(found, trial, job.examples.dupe_factor, sample.unpack_seconds, num_workers)
    return JobEstimate(
        is_whole=sample.is_whole,
        quantities=found,
        rejected=rejected,
        part_bytes=parts,
        dataset_bytes=dataset,
        cpu_seconds=cpu,
        seconds=seconds,
        memory=_memory(found, trial),
        tokens_of_sources={name: one.times(distinct) for name, one in tokens_of.items()},
    )


def _is_of_used(name: str) -> bool:
    """Return whether a quantity counts the documents that are used instead of all documents."""
    return name in ("documents_used", "distinct_documents", "sentences", "tokens") or name.startswith("example")


def _kept_by_budgets(
    trial: Trial, job: JobConfig, source_of: NDArray[np.int64], total: Callable[[NDArray[np.float64]], Estimate]
) -> NDArray[np.float64]:
    """Return the share of the tokens of each cell that the budget of its source of --inputs leaves."""
    kept = np.ones(len(source_of))
    for number, one in enumerate(job.inputs):
        if one.tokens is not None:
            own = source_of == number
            kept[own] = min(1.0, one.tokens / max(1.0, total(trial.counts["tokens"] * own).value))
    return kept


def distinct_documents(repeats: Repeats, share: float) -> float:
    """Return the number of distinct documents of an input, from a sample with this share of its documents.

    The estimator of Chao and Lin (2012) for samples without replacement. It is right, on average, where each document occurs
    once, or each twice, and up to a seventh too small where some occur once and some twice.
    """
    r = repeats
    if share >= 1 or not r.once:
        return float(r.distinct)
    weight = r.documents / max(1, r.documents - 1)
    return r.distinct + r.once**2 / (weight * 2 * r.twice + share / (1 - share) * r.once)


def _with_unseen_duplicates(found: dict[str, Estimate], trial: Trial) -> dict[str, Estimate]:
    """Return the quantities without documents that are duplicates outside the sample."""
    repeats = trial.repeats
    assert repeats
    total = found["part_documents"].value
    share = repeats.documents / max(1.0, total)
    if repeats.distinct == repeats.documents or share >= 1:
        return found
    distinct = distinct_documents(repeats, share)
    mean_once = repeats.tokens_once / max(1, repeats.once)
    tokens = repeats.tokens + (distinct - repeats.distinct) * mean_once
    of_documents = distinct * share / repeats.distinct
    of_tokens = tokens * share / max(1, repeats.tokens)
    used = found["documents_used"].value + found["documents_duplicate"].value
    changed = dict(found)
    for name, one in found.items():
        if name in ("documents_used", "distinct_documents"):
            changed[name] = _corrected(one, of_documents)
        elif name in ("tokens", "sentences") or name.startswith("example"):
            changed[name] = _corrected(one, of_tokens)
    duplicate = max(0.0, used - changed["documents_used"].value)
    error = changed["documents_used"].error
    changed["documents_duplicate"] = Estimate(duplicate, error, found["documents_duplicate"].least)
    return changed


def _corrected(one: Estimate, factor: float) -> Estimate:
    """Return a quantity times a factor that is itself estimated: half of the correction is its error."""
    value = one.value * factor
    return Estimate(value, math.hypot(one.error * factor, (one.value - value) / 2), min(one.least, value))


def _examples_of_splits(
    sample: Sample,
    trial: Trial,
    found: dict[str, Estimate],
    job: JobConfig,
    total: Callable[[NDArray[np.float64]], Estimate],
) -> dict[str, Estimate]:
    """Return the examples of both splits. A sample is not divided: the files or the fraction divide its examples."""
    held_out = np.array([cell.group.held_out for cell in sample.cells])
    divided: dict[str, Estimate] = {}
    for length in job.examples.max_seq_length:
        train, validation = (f"examples/{split}/{length}" for split in ("train", "validation"))
        share = job.examples.validation_fraction
        if held_out.any():
            all_of, of_files = total(trial.counts[train]).value, total(trial.counts[train] * held_out).value
            share = of_files / max(1.0, all_of)
        divided |= {train: found[train].times(1 - share), validation: found[train].times(share)}
    return divided


def _dataset_bytes(found: dict[str, Estimate], trial: Trial, job: JobConfig, vocabulary: Vocabulary) -> Estimate:
    """Return the bytes of the data set: shards, pages of documents, vocabulary and manifest."""
    parts = []
    for length, (num_tokens, num_bytes) in trial.shards.items():
        parts.append(found[f"example_tokens/{length}"].times(num_bytes / num_tokens))
    parts.append(found["distinct_documents"].times(PAGE_BYTES))
    known = FILES_BYTES + sum(map(len, vocabulary.files(job.tokenize.casing).values()))
    # The parts grow and shrink together, with the text of the sample.
    return Estimate(sum(p.value for p in parts), sum(p.error for p in parts), sum(p.least for p in parts)).plus(known)


def _index_bytes(found: dict[str, Estimate], part_bytes: int) -> float:
    """Return the bytes of the indexes of all parts: a power of two of ranges, four to eight for each document."""
    num_parts = max(1.0, found["text_bytes"].value / part_bytes)
    per_part = found["part_documents"].value / num_parts
    ranges = min(RANGES, 4 << max(0, math.ceil(per_part) - 1).bit_length())
    return num_parts * ranges * INDEX.itemsize


def _seconds(
    found: dict[str, Estimate], trial: Trial, copies: int, unpack_seconds: float, num_workers: int
) -> tuple[Estimate, Estimate]:
    """Return (CPU time of all processes, wall-clock time).

    The first texts take longer, because the tokenizer keeps the ids of words that it has seen. So the second half of the
    sample gives the speed, and the first half what each worker takes in addition.
    """
    text, times = np.array(trial.tokenize_seconds).T
    half = min(len(text) - 1, int(np.searchsorted(np.cumsum(text), text.sum() / 2)))
    rate = float(times[half:].sum() / max(1.0, text[half:].sum()))
    warm_up = max(0.0, float(times[:half].sum()) - rate * float(text[:half].sum()))
    text_bytes = found["text_bytes"]
    per_copy = trial.pair_seconds / trial.copies + trial.shard_seconds / trial.written_copies
    weave = (trial.read_seconds + per_copy * copies) / max(1.0, float(trial.counts["tokens"].sum()))
    work = unpack_seconds + text_bytes.value * rate + found["tokens"].value * weave
    error = text_bytes.error * rate + found["tokens"].error * weave
    fixed = START * trial.start_seconds + rate * min(LOOK_BYTES, found["text_bytes"].value)
    per_worker = WORKER_START * trial.start_seconds if num_workers > 1 else 0.0
    cpu = work + (warm_up + per_worker) * num_workers + fixed
    at_a_time = num_workers * (EFFICIENCY if num_workers > 1 else 1.0)
    wall = work / at_a_time + warm_up + per_worker + fixed
    return Estimate(cpu, error), Estimate(wall, error / at_a_time)


def _memory(found: dict[str, Estimate], trial: Trial) -> int:
    """Return the peak of a worker's memory: while it tokenizes, as here, or while it makes the shards of a bucket."""
    assert trial.memory
    tokens = math.ceil(found["tokens"].value)
    in_bucket = tokens / count_buckets(tokens)
    return round(max(trial.memory.tokenize, trial.memory.before + BUCKET_TOKEN_BYTES * in_bucket))
