"""The plan of a job over texts: from the flags to an estimate, and from the estimate to values and lines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from bertloom.counts import counted
from jobs.support.exclude import ExcludeConfig
from jobs.support.preview import size
from pipeline.examples.configuration import ExamplesConfig
from pipeline.stages.selection import OVER_BUDGET
from pipeline.tokenizer import TokenizeConfig, settled

if TYPE_CHECKING:
    from pipeline.inputs.named_inputs import NamedInput
    from pipeline.inputs.sources import Source
    from pipeline.job import JobConfig
    from pipeline.planning.estimate import Estimate, JobEstimate
    from pipeline.planning.sample import Sample


def estimate_texts(
    sources: Sequence[Source],
    tokenize: TokenizeConfig,
    examples: ExamplesConfig,
    vocab: str,
    test_sets: ExcludeConfig,
    *,
    sample_bytes: int,
    part_bytes: int | None,
    num_workers: int,
    inputs: Sequence[NamedInput] = (),
) -> tuple[JobEstimate, list[str]]:
    """Return the estimate for a job over these files, and what it cannot show.

    Args:
        vocab: the path of a vocabulary.
        test_sets: texts that are left out.
        sample_bytes: text to read.
        part_bytes: text in a part; None: as `preprocess` decides.
        inputs: the tables of --inputs.
    """
    from jobs.support.excluded_texts import read_excluded
    from pipeline.inputs.splitting import split_size
    from pipeline.job import JobConfig
    from pipeline.planning.estimate import estimate_job
    from pipeline.planning.sample import choose_sample
    from pipeline.planning.trial import run_trial
    from pipeline.vocabulary_files import read_vocabulary

    vocabulary = read_vocabulary(vocab)
    tokenize = settled(tokenize, vocabulary, vocab)
    samples = [tokenize.text.clean.sample, *(one.clean.sample for one in inputs)]
    if max(samples) > 1:
        raise ValueError(
            f"--sample {max(samples):g}: a number of documents is chosen by a reading of all texts, which a "
            f"plan does not do: give a share, such as 0.1"
        )
    about_test_sets = list[str]()
    excluded = read_excluded(test_sets, about_test_sets)
    job = JobConfig(tokenize, examples, vocabulary.sha256, vocabulary.special_tokens_sha256, inputs=tuple(inputs))
    part_bytes = part_bytes or split_size(sum(source.size for source in sources))
    with TemporaryDirectory(prefix="bertloom-plan-") as folder:
        sample = choose_sample(sources, sample_bytes, part_bytes, Path(folder))
        trial = run_trial(sample, job, vocabulary, Path(folder), excluded)
    estimate = estimate_job(sample, trial, job, vocabulary, part_bytes, num_workers)
    return estimate, [*about_test_sets, *what_is_not_seen(sample, job)]


def what_is_not_seen(sample: Sample, job: JobConfig) -> list[str]:
    """Return sentences about what the estimate cannot show."""
    notes = []
    if not sample.is_whole:
        notes.append(
            "Equal documents are seen only if both are in the sample, so the job may find more duplicates, and use fewer "
            "documents."
        )
    if sample.has_unread_ends:
        notes.append(
            "Of large compressed files only the beginning is read. If the rest differs, the ranges do not show it."
        )
    if job.examples.near_duplicates is not None:
        notes.append("Near duplicates are not searched for: all numbers include them.")
    if job.tokenize.max_line_repeats is not None:
        notes.append(
            "Repeated lines are not counted: all numbers include the lines that --max-line-repeats leaves out."
        )
    return notes


def about(estimate: JobEstimate, examples: ExamplesConfig, notes: list[str]) -> dict[str, Any]:
    """Return the estimate as plain values: for each quantity its value, and the range in which the truth is."""
    found = estimate.quantities
    per_copy = 1 / examples.dupe_factor
    return {
        "is_whole": estimate.is_whole,
        "documents": {
            "in": _numbers(found["documents_in"]),
            "used": _numbers(found["documents_used"]),
            "duplicate": _numbers(found["documents_duplicate"]),
            "rejected": {reason: _numbers(one) for reason, one in estimate.rejected.items()},
        },
        "text_bytes": _numbers(found["text_bytes"]),
        "sentences": _numbers(found["sentences"]),
        "tokens": _numbers(found["tokens"]),
        "tokens_of_sources": {name: _numbers(one) for name, one in estimate.tokens_of_sources.items()},
        "examples": {
            str(length): {
                split: _numbers(found[f"examples/{split}/{length}"])
                for split in ("train", "validation")
                if f"examples/{split}/{length}" in found
            }
            | {"tokens_per_copy": _numbers(found[f"example_tokens/{length}"].times(per_copy))}
            for length in examples.max_seq_length
        },
        "copies": examples.dupe_factor,
        "disk": {"parts": _numbers(estimate.part_bytes), "data_set": _numbers(estimate.dataset_bytes)},
        "memory_per_worker": estimate.memory,
        "cpu_seconds": _numbers(estimate.cpu_seconds, 1),
        "seconds": _numbers(estimate.seconds, 1),
        "notes": notes,
    }


def _numbers(one: Estimate, digits: int | None = None) -> dict[str, float]:
    """Return the value and its range, rounded to this number of digits after the point; None: to integers."""
    low, high = one.range
    return {"value": round(one.value, digits), "low": round(low, digits), "high": round(high, digits)}


def text_lines(found: dict[str, Any], num_workers: int) -> list[str]:
    """Return the lines of a plan of preprocessing."""
    documents, disk = found["documents"], found["disk"]
    lines = [
        _row("documents", documents["in"], _count),
        _row("  used", documents["used"], _count),
        *([_row("  duplicate", documents["duplicate"], _count)] if documents["duplicate"]["value"] else []),
        *(_row(f"  {reason}", one, _count) for reason, one in documents["rejected"].items()),
        _row("text", found["text_bytes"], _size),
        _row("tokens", found["tokens"], _count),
        *(_row(f"  {name}", one, _count) for name, one in found["tokens_of_sources"].items()),
    ]
    for length, splits in found["examples"].items():
        lines.append(_row(f"examples of {length}", splits["train"], _count) + f", in {counted_copies(found['copies'])}")
        if splits.get("validation", {}).get("value"):
            lines.append(_row("  held out", splits["validation"], _count))
    workers = counted(num_workers, "worker")
    besides = ", except in sources with a budget" if OVER_BUDGET in documents["rejected"] else ""
    return [
        *lines,
        _row("disk, data set", disk["data_set"], _size),
        _row("  while it runs", disk["parts"], _size) + " more",
        f"{'memory':<18}{size(found['memory_per_worker']):>16} for each of {workers}",
        _row("time", found["seconds"], duration) + f", with {workers}",
        *(
            ["", f"The sample is all of the input, so documents, tokens and examples are counted{besides}."]
            * found["is_whole"]
        ),
        *(["", *found["notes"]] if found["notes"] else []),
    ]


def counted_copies(number: int) -> str:
    return counted(number, "copy", "copies")


def _row(name: str, one: dict[str, float], shown: Callable[[float], str]) -> str:
    line = f"{name:<18}{shown(one['value']):>16}"
    low, high = shown(one["low"]), shown(one["high"])
    return line if low == high else f"{line}   {low} to {high}"


def _count(number: float) -> str:
    return f"{round(number):,}"


def _size(number: float) -> str:
    return size(round(number))


def duration(seconds: float) -> str:
    """Return a duration in the unit that suits it.

    >>> duration(95), duration(7200)
    ('1.6 minutes', '2.0 hours')
    """
    if round(seconds) == 1:
        return "1 second"
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.1f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
