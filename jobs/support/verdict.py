"""The table of `bertloom compare`, and its sentence of verdict."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from scipy import stats

from bertloom.counts import counted

SURE = 1.96
"""Standard deviations on both sides of the mean that hold 95 % of a normal distribution."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A difference between two models, and its uncertainty."""

    value: float
    margin: float | None
    """Half the width of its 95 % interval; None if it is not known."""

    @property
    def is_clear(self) -> bool:
        """Whether the interval excludes 0."""
        return self.margin is not None and abs(self.value) > self.margin

    def __str__(self) -> str:
        return f"{self.value:+.3f}" + ("" if self.margin is None else f" ± {self.margin:.3f}")


@dataclass(frozen=True, kw_only=True)
class TaskScores:
    """The scores of the models on a task."""

    name: str
    metric: str
    """Name of the metric. More is better."""
    num_rows: int
    num_seeds: int
    mean: dict[str, float]
    """Mean over the seeds, by model."""
    deviation: dict[str, float]
    """Standard deviation over the seeds, by model; empty for one seed."""

    def difference(self, model: str, other: str) -> Difference:
        """Return how much better the first model is. The margin is Welch's, over the seeds."""
        value = self.mean[model] - self.mean[other]
        if not self.deviation:
            return Difference(value=value, margin=None)
        first, second = (self.deviation[name] ** 2 / self.num_seeds for name in (model, other))
        if first + second == 0:
            return Difference(value=value, margin=0.0)
        freedom = (first + second) ** 2 / ((first**2 + second**2) / (self.num_seeds - 1))
        return Difference(value=value, margin=float(stats.t.ppf(0.975, freedom)) * math.sqrt(first + second))


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Everything that was measured."""

    text: dict[str, Any]
    """About the held-out text."""
    models: dict[str, dict[str, Any]]
    """The values of each model by its name. The others are compared with the first one."""
    differences: dict[str, Difference]
    """Difference in bits per byte between each other model with a loss and the first model."""
    tasks: list[TaskScores]
    notes: list[str]
    """What the reader of the table should know."""

    @property
    def names(self) -> list[str]:
        return list(self.models)

    def as_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        first, *others = self.names
        return {
            "verdict": self.verdict(),
            "text": self.text,
            "models": self.models,
            "differences": {name: vars(found) for name, found in self.differences.items()},
            "tasks": {
                task.name: vars(task) | {"differences": {name: vars(task.difference(name, first)) for name in others}}
                for task in self.tasks
            },
            "notes": self.notes,
        }

    # ---- the verdict

    def verdict(self) -> str:
        """Return a sentence that compares each other model with the first one.

        A difference counts if its 95 % interval excludes 0.
        """
        first, *others = self.names
        sentences = []
        for name in others:
            parts = "; ".join([*self._about_text(name, first), *self._about_tasks(name, first)])
            sentences.append((parts or f"nothing was measured that compares {name} with {first}") + ".")
        return " ".join(sentences)

    def _about_text(self, name: str, first: str) -> Iterator[str]:
        if (found := self.differences.get(name)) is None:
            lacking = [one for one in (first, name) if self.models[one]["bits_per_byte"] is None]
            verb = "do" if len(lacking) > 1 else "does"
            yield f"{' and '.join(lacking)} {verb} not predict masked words, so losses on the text cannot be compared"
            return
        margin = f" ± {found.margin:.3f} (95 %)" if found.margin is not None else ", of unknown uncertainty"
        better, worse = (name, first) if found.value < 0 else (first, name)
        low, high = (f"{self.models[one]['bits_per_byte']:.3f}" for one in (better, worse))
        amount = f"a difference of {abs(found.value):.3f}{margin}"
        if found.is_clear:
            yield f"{better} predicts this text better: {low} bits per byte against {high} of {worse}, {amount}"
        else:
            yield f"{better} and {worse} show no clear difference on this text: {low} and {high} bits per byte, {amount}"

    def _about_tasks(self, name: str, first: str) -> Iterator[str]:
        for task in self.tasks:
            found = task.difference(name, first)
            values = f"{task.metric} {task.mean[name]:.3f} against {task.mean[first]:.3f}"
            if found.margin is None:
                order = "above" if found.value > 0 else "below" if found.value < 0 else "level with"
                yield f"on {task.name} {name} is {order} {first} with one seed ({values}), which shows no uncertainty"
            elif found.is_clear:
                better, worse = (name, first) if found.value > 0 else (first, name)
                yield f"on {task.name} {better} is better than {worse} ({values}, {found}, 95 % over seeds)"
            else:
                yield f"on {task.name} they show no clear difference ({values}, {found}, 95 % over seeds)"

    # ---- the table

    def table(self) -> str:
        """Return it as a Markdown table with a column for each model, and notes below."""
        lines = [["", *self.names], ["---"] * (1 + len(self.names)), *self._rows()]
        return "".join(f"| {' | '.join(line)} |\n" for line in lines)

    def _rows(self) -> Iterator[list[str]]:
        models, (first, *_) = self.models.values(), self.names
        yield ["loss of the text, bits per byte", *best([model["bits_per_byte"] for model in models], 3, min)]
        if self.differences:
            cells = [str(self.differences[name]) if name in self.differences else "" for name in self.names]
            yield [f"difference to {first}", *cells]
        yield ["tokens per word", *(f"{model['tokens_per_word']:.2f}" for model in models)]
        yield ["share of [UNK]", *(f"{model['unknown_share']:.2%}" for model in models)]
        for task in self.tasks:
            about = f"{task.metric}, {counted(task.num_rows, 'row')}, {counted(task.num_seeds, 'seed')}"
            marked = best([task.mean[name] for name in self.names], 3, max)
            spreads = [f" ± {task.deviation[name]:.3f}" if task.deviation else "" for name in self.names]
            yield [f"{task.name} ({about})", *map("".join, zip(marked, spreads))]
        yield ["parameters of the encoder, millions", *(f"{model['parameters'] / 1e6:.1f}" for model in models)]
        yield ["weights, MB", *(f"{model['weights_bytes'] / 1e6:.1f}" for model in models)]
        yield ["texts per second", *(f"{model['texts_per_second']:,.1f}" for model in models)]
        yield ["tokens per second", *(f"{model['tokens_per_second']:,.0f}" for model in models)]

    def page(self) -> str:
        """Return the verdict, the table and the notes as Markdown."""
        return f"{self.verdict()}\n\n{self.table()}\n" + "".join(f"- {note}\n" for note in self.notes)


def best(values: Sequence[float | None], digits: int, choose: Any) -> list[str]:
    """Return the values as text with the best in bold; a missing one is a dash.

    >>> best([0.5, None, 0.25], 2, max)
    ['**0.50**', '–', '0.25']
    """
    texts = ["–" if value is None else f"{value:.{digits}f}" for value in values]
    chosen = choose((value for value in values if value is not None), default=None)
    return [f"**{text}**" if value is not None and value == chosen else text for value, text in zip(values, texts)]
