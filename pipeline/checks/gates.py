"""Gates: limits on the numbers of a report that show whether a data set is fit to train on. They never change the data.

A share measured on few examples may exceed its limit by chance, so every limit on a share is widened by four standard
errors. A corpus of a few documents then fails only where it is far off.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from pipeline.examples.configuration import ExamplesConfig

GUESSES = {
    "label_guess": (
        "B's length alone",
        "a model would learn lengths and not language. Many documents of one or two sentences, or few documents, can cause "
        "this; the report shows the lengths for each label",
    ),
    "border_guess": (
        "the lengths and ends of A and B",
        "a model would learn how the pairs were made, and not language. Very few documents, or one source with most of the "
        "text, can cause this; `bertloom explain` shows how an example was made",
    ),
}
"""What the labels are guessed from, and advice if that succeeds. The gate of each is max_NAME."""


@dataclass(frozen=True, kw_only=True)
class Gates:
    """Limits of a data set. If one is exceeded, `preprocess` and `report` end with status 1. No limit changes the data."""

    fail: bool = True
    """End with status 1 if a gate fails. With --gates.no-fail, failed gates are only printed."""
    max_unknown: float = 0.02
    """Largest accepted share of [UNK] among the words."""
    max_rejected: float = 0.1
    """Largest accepted share of rejected documents."""
    max_empty_inputs: float = 0.1
    """Largest accepted share of input files without a document."""
    max_one_input: float = 0.95
    """Largest accepted share of the tokens from one input file, if there are several files."""
    max_one_label: float = 0.75
    """Largest accepted share of pairs with the same label."""
    max_label_guess: float = 0.55
    """Largest accepted share of labels that can be guessed from B's length alone; 0.5 is chance."""
    max_border_guess: float = 0.52
    """Largest accepted share of labels that can be guessed from the lengths of A and B and from whether they begin and end
    inside a sentence; 0.5 is chance."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name != "fail" and not 0 <= value <= 1:
                raise ValueError(f"--gates.{field.name.replace('_', '-')} {value}: expected a share from 0 to 1")


@dataclass(frozen=True, kw_only=True)
class SourceGates:
    """Limits of one source of --inputs, which replace the flags: the table [input.gates]."""

    max_unknown: float | None = None
    max_rejected: float | None = None
    max_empty_inputs: float | None = None

    def __post_init__(self) -> None:
        limits: dict[str, Any] = self.given
        Gates(**limits)  # raises ValueError for a wrong value

    @property
    def given(self) -> dict[str, float]:
        """The limits that are given: name -> value."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class Gate:
    """One gate with what was measured."""

    name: str
    """The field of Gates that holds its threshold."""
    what: str
    """What the value is a share of: "of the words are [UNK]"."""
    value: float
    threshold: float
    slack: float
    """Four standard errors, which chance alone may add to the value."""
    advice: str
    """What to check if the gate fails."""
    source: str = ""
    """Name of the source of --inputs that the gate checks; empty for the data set."""
    is_own: bool = False
    """Whether the source has a limit of its own."""

    @property
    def passed(self) -> bool:
        return self.value <= self.threshold + self.slack

    @property
    def setting(self) -> str:
        """What sets the limit."""
        if self.is_own:
            return f"{self.name} in [input.gates] of {self.source}"
        return f"--gates.{self.name.replace('_', '-')}"

    def as_dict(self) -> dict[str, Any]:
        found = {**asdict(self), "passed": self.passed}
        return found if self.source else {name: found[name] for name in found if name not in ("source", "is_own")}


def check_gates(gates: Gates, report: dict[str, Any]) -> list[Gate]:
    """Return the gates that apply to this data set, in the order of the pipeline.

    The limits of `SourceGates` apply to each source of --inputs if there are any, otherwise to the data set.
    """

    def gate(name: str, value: float, what: str, advice: str, error: float, source: str = "") -> Gate:
        threshold, is_own = getattr(of_source.get(source, gates), name), name in own.get(source, {})
        slack = round(4 * error, 4) if 0 < threshold < 1 else 0.0
        fields = {"name": name, "value": value, "threshold": threshold, "slack": slack, "advice": advice}
        return Gate(what=what, source=source, is_own=is_own, **fields)

    own = report.get("source_gates", {})
    of_source = {name: replace(gates, **limits) for name, limits in own.items()}
    found = [gate(*one) for one in _measured(gates, report)]
    for source in report.get("sources", []):
        name = source["name"]
        found += [gate(*one, name) for one in _measured_of_source(of_source.get(name, gates), source, report)]
    return found


def _measured_of_source(
    gates: Gates, source: dict[str, Any], report: dict[str, Any]
) -> Iterator[tuple[str, float, str, str, float]]:
    """Yield what `_measured` yields, for a source."""
    yield _rejected(gates, source["counters"], report)
    if source["files"] > 1:
        yield _empty_inputs(source["num_empty"], source["files"], source["empty"])
    if source["unknown"] is not None:
        yield _unknown(gates, source["unknown"], source["sample"])


def _share_error(threshold: float, number: int) -> float:
    return math.sqrt(threshold * (1 - threshold) / max(number, 1))


def _rejected(gates: Gates, counters: dict[str, Any], report: dict[str, Any]) -> tuple[str, float, str, str, float]:
    layout = "".join(f". {note}" for note in report["notes"] if "--text-layout" in note)
    over = counters.get("rejected", {}).get("over-budget", 0)  # these are fit to be used
    number = counters["documents_in"]
    return (
        "max_rejected",
        (counters["documents_rejected"] - over) / max(1, number),
        "of the documents were rejected",
        f"rejects/rejects.jsonl.gz lists each with its file, position and reason; documents excluded by options count too"
        f"{layout}",
        _share_error(gates.max_rejected, number),
    )


def _empty_inputs(num_empty: int, files: int, empty: Sequence[str]) -> tuple[str, float, str, str, float]:
    return (
        "max_empty_inputs",
        num_empty / files,
        "of the input files have no document",
        f"check {', '.join(empty[:3])}: are they empty, damaged or not what you meant to give?",
        0.0,
    )


def _unknown(gates: Gates, unknown: float, num_examples: int) -> tuple[str, float, str, str, float]:
    return (
        "max_unknown",
        unknown,
        "of the words are [UNK]",
        "check that the vocabulary is for this language and casing (--do-lower-case) and that the text is not damaged; "
        "the report has the share of each input file",
        _share_error(gates.max_unknown, num_examples),
    )


def _measured(gates: Gates, report: dict[str, Any]) -> Iterator[tuple[str, float, str, str, float]]:
    """Yield (name, value, what it is a share of, advice, standard error) of each gate."""
    inputs, has_sources = report["inputs"], bool(report.get("sources"))
    objective = ExamplesConfig.of(report["configuration"]).objective
    layout = "".join(f". {note}" for note in report["notes"] if "--text-layout" in note)
    if not has_sources:
        yield _rejected(gates, report["counters"], report)
    if inputs["files"] > 1:
        if not has_sources:
            yield _empty_inputs(inputs["num_empty"], inputs["files"], inputs["empty"])
        largest = inputs["largest"][0]
        yield (
            "max_one_input",
            largest["share"],
            f"of all tokens come from {largest['name']}",
            "check the other files: were they read, and are they as large as you expect?",
            0.0,
        )
    if not has_sources:
        yield _unknown(gates, report["words"]["unknown"], report["sample"]["examples"])
    for length, found in report["lengths"].items():
        if found["one_label"] is not None:
            yield (
                "max_one_label",
                found["one_label"],
                f"of the pairs of length {length} have the same label",
                "documents of one sentence make no next pair: check that the input has no blank line after every sentence"
                f"{layout}",
                _share_error(gates.max_one_label, found["examples"]),
            )
        for guess, (from_what, advice) in GUESSES.items():
            if found[guess] is not None and not objective.form_tells_label:
                yield (
                    f"max_{guess}",
                    found[guess]["accuracy"],
                    f"of the labels of length {length} can be guessed from {from_what}",
                    advice,
                    found[guess]["error"],
                )
