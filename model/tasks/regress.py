"""regress: a text, or two texts together, have a number."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from model.tasks.data import TaskData
from model.tasks.sequence import SequenceTask, TextRow
from model.tasks.values import BadRow, ClassName


@dataclass(frozen=True, kw_only=True)
class RegressTask(SequenceTask):
    """A number for each text or pair of texts."""

    name = "regress"
    has_classes = False

    @property
    def num_outputs(self) -> int:
        return 1

    @property
    def metrics(self) -> tuple[str, ...]:
        return ("pearson", "spearman")

    def parse_label(self, value: Any) -> float:
        return number_of(value)

    def label_counts(self, rows: Sequence[TextRow]) -> Mapping[str, int]:
        return {}

    def label_array(self, rows: Sequence[TextRow]) -> np.ndarray:
        return np.array([row.label or 0.0 for row in rows], dtype=np.float32)

    def measure(self, rows: Sequence[TextRow], data: TaskData, logits: np.ndarray) -> dict[str, float]:
        return correlations(data.labels, logits[:, 0])

    def answer(self, rows: Sequence[TextRow], data: TaskData, logits: np.ndarray, top_k: int) -> list[dict[str, Any]]:
        return [{"value": round(float(value), 6)} for value in logits[:, 0]]

    def cells(self, answer: Mapping[str, Any]) -> dict[str, Any]:
        return {"label": answer["value"]}

    def configuration(self) -> dict[str, Any]:
        names = {"id2label": {0: "value"}, "label2id": {"value": 0}}
        return super().configuration() | {"problem_type": "regression"} | names


def number_of(value: Any, name: str = "label") -> float:
    """Return the number that a row has under this name; raise BadRow if the value is not a number."""
    try:
        value = value.number if isinstance(value, ClassName) else value
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):  # an integer of 400 digits overflows
        number = math.nan
    if not math.isfinite(number):
        raise BadRow(f"{name} is {value!r:.40}, expected a number")
    return number


def correlations(true: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """Return Pearson's and Spearman's coefficients; 0 where they are undefined, as all numbers of a side are equal."""
    from scipy.stats import pearsonr, spearmanr

    if np.ptp(true) == 0 or np.ptp(predicted) == 0:
        return {"pearson": 0.0, "spearman": 0.0}
    return {name: float(f(true, predicted).statistic) for name, f in (("pearson", pearsonr), ("spearman", spearmanr))}
