"""Gates: what a data set must not be, with thresholds; they look at the report and never touch the data.

A share measured on few examples may be over its threshold by chance: every threshold on a share has four standard errors
of slack. So a corpus of a few documents passes unless it is far off.
"""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Gates:
    """What makes `preprocess` and `report` end with status 1. The data set is there all the same; no threshold here
    changes a byte of it."""

    fail: bool = True
    """End with status 1 where a gate is not passed; --gates.no-fail only says so."""
    max_unknown: float = 0.02
    """Share of [UNK] among the words."""
    max_rejected: float = 0.1
    """Share of documents rejected."""
    max_empty_inputs: float = 0.1
    """Share of input files that gave no document."""
    max_one_input: float = 0.95
    """Share of all tokens that one input file gave, where there are several."""
    max_one_label: float = 0.75
    """Share of pairs with the same label, next or random."""
    max_label_guess: float = 0.55
    """Share of labels guessed right from B's length alone; a half is chance."""

    def __post_init__(self):
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name != "fail" and not 0 <= value <= 1:
                raise ValueError(f"--gates.{field.name.replace('_', '-')} {value}: expected a share from 0 to 1")


@dataclass(frozen=True, kw_only=True)
class Gate:
    """One gate, looked at."""

    name: str
    """The field of Gates that holds its threshold."""
    what: str
    """What was measured, in words."""
    value: float
    threshold: float
    slack: float
    """What chance alone may add to the value: four standard errors."""
    advice: str
    """What to look at where it is not passed."""

    @property
    def passed(self) -> bool:
        return self.value <= self.threshold + self.slack

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "passed": self.passed}


def look(gates: Gates, report: dict[str, Any]) -> list[Gate]:
    """All gates that this data set has to pass, in the order of the work."""

    def gate(name: str, value: float, what: str, advice: str, error: float) -> Gate:
        threshold = getattr(gates, name)
        slack = round(4 * error, 4) if 0 < threshold < 1 else 0.0
        return Gate(name=name, what=what, value=value, threshold=threshold, slack=slack, advice=advice)

    return [gate(*found) for found in _measured(gates, report)]


def _measured(gates: Gates, report: dict[str, Any]) -> Iterator[tuple[str, float, str, str, float]]:
    """(name, value, what it is, advice, standard error) of each gate."""
    counters, words, inputs = report["counters"], report["words"], report["inputs"]

    def share_error(name: str, number: int) -> float:
        threshold = getattr(gates, name)
        return math.sqrt(threshold * (1 - threshold) / max(number, 1))

    yield (
        "max_rejected",
        counters["documents_rejected"] / counters["documents_in"],
        "of the documents were rejected",
        "rejects/rejects.jsonl.gz tells each with its file, position and reason; what your options turn away counts, too",
        share_error("max_rejected", counters["documents_in"]),
    )
    if inputs["files"] > 1:
        yield (
            "max_empty_inputs",
            inputs["num_empty"] / inputs["files"],
            "of the input files gave no document",
            f"is {', '.join(inputs['empty'][:3])} what you meant to give? An empty or damaged file is easily overlooked",
            0.0,
        )
        largest = inputs["largest"][0]
        yield (
            "max_one_input",
            largest["share"],
            f"of all tokens come from {largest['name']}",
            "the other files hardly count: were they read, and are they as long as you think?",
            0.0,
        )
    yield (
        "max_unknown",
        words["unknown"],
        "of the words are [UNK]",
        "is it the vocabulary of this language and casing (--do-lower-case)? Is the text damaged? "
        "The report has the share of each input",
        share_error("max_unknown", report["sample"]["examples"]),
    )
    for length, found in report["lengths"].items():
        if found["one_label"] is not None:
            yield (
                "max_one_label",
                found["one_label"],
                f"of the pairs of length {length} have the same label",
                "documents of one sentence make no next pair: is there a blank line behind every sentence of the input?",
                share_error("max_one_label", found["examples"]),
            )
        if found["label_guess"] is not None and report["configuration"]["compat"] != "google":  # a fault asked for
            guess = found["label_guess"]
            yield (
                "max_label_guess",
                guess["accuracy"],
                f"of the labels of length {length} are guessed from B's length alone",
                "a model would learn lengths and not language: the report draws both labels' lengths; many documents of "
                "one or two sentences, or few documents, can do this",
                guess["error"],
            )
