"""Tables of phases in TOML: what --phases reads, by the path of a file or the name of a preset.

A table has one `[[phase]]` for each part of training, in their order. `docs/training.md`, section "Phases", is the
definition. A preset is a file in `jobs/presets/phases`, and adding one takes only this file.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from importlib.resources import files
from itertools import accumulate, pairwise
from pathlib import Path
from typing import NamedTuple

from bertloom.json_files import read_toml
from bertloom.limits import MAX_SEQ_LENGTH, MIN_SEQ_LENGTH
from jobs.support.config import checked_table
from model.loading.sources import parse_sources
from model.schedule import Phase, PhaseDecay, Schedule, check_shares

FOLDER = files("jobs") / "presets" / "phases"


@dataclass(frozen=True, kw_only=True)
class PhaseTable:
    """The values of one `[[phase]]`, before they are checked."""

    share: float
    """Share of the whole training, above 0 and at most 1."""
    max_seq_length: int | None = None
    """Length of the examples, in tokens. The default is the shortest length of the data set."""
    batch_size: int | None = None
    """Examples per step. The default is --batch-size."""
    data: tuple[str, ...] = ()
    """Data sets of the phase, as --data takes them. The default is the data sets of --data."""
    temperature: float | None = None
    """Exponent that gives the shares of the data sets from their sizes. By default --temperature does."""
    masked_lm_prob: float | None = None
    """Share of an example's tokens to predict. The default is the data set's own share."""
    decay: PhaseDecay | None = None
    """Shape of the learning rate. By default it is constant, or linear if the phase has a final learning rate."""
    learning_rate: float | None = None
    """Learning rate at the beginning, as a share of the peak. The default is the rate that the last phase ended with."""
    final_learning_rate: float | None = None
    """Learning rate at the end of a decay, as a share of the peak. The default is 0."""

    @property
    def has_rate(self) -> bool:
        """Whether the phase decides its learning rate."""
        return not (self.decay is None and self.learning_rate is None and self.final_learning_rate is None)

    def describe(self) -> str:
        """Return the settings of the phase that decide the numbers, in one line. Data sets are without their paths.

        >>> PhaseTable(share=0.5, masked_lm_prob=0.3).describe()
        'share=0.5 masked_lm_prob=0.3'
        """
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        sources = parse_sources(self.data, has_shares=False) if self.data else ()
        given["data"] = ",".join(source.described() for source in sources) or None
        return " ".join(f"{name}={value}" for name, value in given.items() if value is not None)


@dataclass(frozen=True, kw_only=True)
class TableFile:
    """The file of a table."""

    phase: tuple[PhaseTable, ...] = ()


def table_names() -> list[str]:
    """Return the names of the shipped tables."""
    return sorted(entry.name.removesuffix(".toml") for entry in FOLDER.iterdir() if entry.name.endswith(".toml"))


def read_table(words: Sequence[str]) -> tuple[PhaseTable, ...]:
    """Return the phases of the table that the words of --phases name; none if these are phases themselves.

    Raises:
        ValueError: the table does not exist, cannot be read, or comes with other words.
    """
    named = [word for word in words if word.endswith(".toml") or ":" not in word]
    if not named:
        return ()
    word = named[0]
    path = Path(str(FOLDER / f"{word}.toml")) if word in table_names() else Path(word)
    if path.suffix != ".toml":
        raise ValueError(
            f"phases: {word!r} is not LENGTH:SHARE, LENGTH:SHARE:BATCH_SIZE or a table of phases: write "
            f"128:0.9 or 512:0.1:256, or give a .toml file or one of {', '.join(table_names())}"
        )
    if len(words) > 1:
        raise ValueError(
            f"phases: {' '.join(words)}: a table cannot be given with other phases: give {word} alone, or add the "
            f"others to a copy of it as [[phase]]"
        )
    try:
        content = read_toml(path)
    except FileNotFoundError:
        raise ValueError(
            f"phases: {path} does not exist: expected a TOML file with a [[phase]] for each phase, or one of "
            f"{', '.join(table_names())}"
        ) from None
    except (OSError, ValueError) as error:
        raise ValueError(f"phases: {error}") from None
    table: tuple[PhaseTable, ...] = checked_table(TableFile, content, str(path), "").get("phase", ())
    if not table:
        raise ValueError(f"phases: {path} has no [[phase]]: expected one for each phase, each with its share")
    return table


def phases_of(table: Sequence[PhaseTable], batch_size: int) -> tuple[Phase, ...]:
    """Return the phases of a table. The length of phases that give none is 0.

    Args:
        batch_size: of the phases that give none.

    Raises:
        ValueError: a value is out of range, or the phases do not fit together.
    """
    phases: list[Phase] = []
    has_rates = any(phase.has_rate for phase in table)
    for number, given in enumerate(table, 1):
        check_ranges(given, number)
        rates = (
            rates_of(given, number, phases[-1].final_learning_rate if phases else 1.0) if has_rates else (None, 1, 1)
        )
        decay, first, final = rates
        phases.append(
            Phase(
                max_seq_length=given.max_seq_length or 0,
                share=given.share,
                batch_size=given.batch_size or batch_size,
                data=given.data,
                temperature=given.temperature,
                masked_lm_prob=given.masked_lm_prob,
                decay=decay,
                learning_rate=first,
                final_learning_rate=final,
            )
        )
    check_shares([phase.share for phase in phases], f"the {len(phases)} phases")
    return tuple(phases)


def rates_of(given: PhaseTable, number: int, last: float) -> tuple[PhaseDecay, float, float]:
    """Return the shape of a phase's learning rate, and the rates of its beginning and end as shares of the peak.

    Args:
        last: the rate that the phase before it ended with.
    """
    first = last if given.learning_rate is None else given.learning_rate
    decay = given.decay or ("constant" if given.final_learning_rate is None else "linear")
    if not first:
        raise ValueError(
            f"phase {number} begins with the learning rate 0, because the phase before it ends with 0: give "
            f"phase {number - 1} a final_learning_rate above 0, or phase {number} a learning_rate"
        )
    if decay == "constant":
        if given.final_learning_rate not in (None, first):
            raise ValueError(
                f'phase {number}: final_learning_rate={given.final_learning_rate:g} with decay = "constant", which keeps '
                f'{first:g}: leave it out, or give decay = "linear", "cosine" or "sqrt"'
            )
        return decay, first, first
    final = given.final_learning_rate or 0.0
    if final >= first:
        raise ValueError(
            f"phase {number}: final_learning_rate={final:g} must be below the learning rate that the phase begins with, "
            f'{first:g}: give a lower one, or decay = "constant"'
        )
    return decay, first, final


def check_ranges(given: PhaseTable, number: int) -> None:
    """Raise ValueError if a value of a phase is out of its range."""
    bounds = {
        "share": (0 < given.share <= 1, "above 0 and at most 1: it is a share of training"),
        "max_seq_length": (
            given.max_seq_length is None or MIN_SEQ_LENGTH <= given.max_seq_length <= MAX_SEQ_LENGTH,
            f"{MIN_SEQ_LENGTH} to {MAX_SEQ_LENGTH} tokens",
        ),
        "temperature": (given.temperature is None or 0 <= given.temperature <= 1, "from 0 to 1"),
        "batch_size": (given.batch_size is None or given.batch_size >= 1, "at least 1"),
        "masked_lm_prob": (
            given.masked_lm_prob is None or 0 < given.masked_lm_prob <= 1,
            "above 0 and at most 1: it is a share of the tokens",
        ),
        "learning_rate": (
            given.learning_rate is None or 0 < given.learning_rate <= 1,
            "above 0 and at most 1: it is a share of the peak, which is --learning-rate",
        ),
        "final_learning_rate": (
            given.final_learning_rate is None or 0 <= given.final_learning_rate < 1 or given.decay == "constant",
            "at least 0 and below 1: it is a share of the peak, which is --learning-rate",
        ),
    }
    for name, (is_inside, expected) in bounds.items():
        if not is_inside:
            raise ValueError(f"phase {number}: {name}={getattr(given, name):g} must be {expected}")


class PhaseRow(NamedTuple):
    """A phase and its place in the training."""

    phase: Phase
    percent: str
    """Its share of the training."""
    first: int | None
    """Its first step, if the training is counted in steps."""
    last: int | None
    """Its last step, or the token that it ends with; None if neither is known."""
    rate: str
    """Its learning rate from the beginning to the end; empty if --decay gives the learning rate of the whole training."""


def phase_rows(phases: Sequence[Phase], unit: str, total: float, peak: float) -> list[PhaseRow]:
    """Return the phases of a training of this length. unit: steps, tokens, or another one, with which no place is known."""
    is_counted = unit in ("steps", "tokens")
    borders = [round(end) for end in accumulate((phase.share * total for phase in phases), initial=0.0)]
    return [
        PhaseRow(
            phase=phase,
            percent=f"{100 * phase.share:g} %",
            first=begin + 1 if unit == "steps" else None,
            last=end if is_counted else None,
            rate=describe_rate(phase, peak) if phase.decay else "",
        )
        for phase, (begin, end) in zip(phases, pairwise(borders))
    ]


def describe_phases(schedule: Schedule) -> list[str]:
    """Return a line about each phase: its place in the training, its examples, masks and learning rate.

    >>> table = [PhaseTable(share=0.9, max_seq_length=128), PhaseTable(share=0.1, max_seq_length=128, masked_lm_prob=0.05)]
    >>> phases = phases_of(table, 256)
    >>> values = {"peak": 1e-4, "warmup_ratio": 0.06, "shape": "linear", "decay_ratio": 0.2, "phases": phases}
    >>> print(*describe_phases(Schedule(unit="steps", total=2000, **values)), sep="\\n")
    phase 1: 90 % of the training, steps 1 to 1,800, length 128, batch size 256
    phase 2: 10 % of the training, steps 1,801 to 2,000, length 128, batch size 256, 5 % masks
    """
    lines = []
    rows = phase_rows(schedule.phases, schedule.unit, schedule.total, schedule.peak)
    for number, (phase, percent, first, last, rate) in enumerate(rows, 1):
        words = [f"phase {number}: {percent} of the training"]
        if first is not None:
            words.append(f"steps {first:,} to {last:,}" if first != last else f"step {last:,}")
        elif last is not None:
            words.append(f"to token {last:,}")
        words += [f"length {phase.max_seq_length}", f"batch size {phase.batch_size}"]
        if phase.masked_lm_prob:
            words.append(f"{100 * phase.masked_lm_prob:g} % masks")
        words += [f"learning rate {rate}"] if rate else []
        words += [f"data {' '.join(phase.data)}"] if phase.data else []
        words += [f"temperature {phase.temperature:g}"] if phase.temperature is not None else []
        lines.append(", ".join(words))
    return lines


def describe_rate(phase: Phase, peak: float) -> str:
    """Return the learning rate of a phase and its shape.

    >>> describe_rate(Phase(max_seq_length=8, share=1, batch_size=1, decay="sqrt", final_learning_rate=0), 1e-4)
    '0.0001 to 0 (sqrt)'
    """
    first, final = (f"{peak * share:.3g}" for share in (phase.learning_rate, phase.final_learning_rate))
    return first if phase.decay == "constant" else f"{first} to {final} ({phase.decay})"
