"""A new task is one file and one line in the registry: this one is a class in a test, registered for a while."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import pytest

from jobs.bench_tasks import measure_baselines
from jobs.finetune import finetune
from jobs.support.finetune_config import FinetuneConfig
from model.inference.predict import TaskPredictor, load
from model.tasks.registry import TASKS
from model.tasks.sequence import SequenceTask, TextRow
from tests.model.small_task import write_jsonl, write_model


@dataclass(frozen=True, kw_only=True)
class LengthTask(SequenceTask):
    """Whether a text has more than `limit` words. The label follows from the text, so rows have no label."""

    limit: int = 6
    """Words of the longest text that is short."""

    name = "length"
    text_forms = [("text",)]
    baselines = ("majority",)

    def forms(self, labelled: bool) -> list[tuple[str, ...]]:
        return self.text_forms

    def parse(self, place: str, values: Mapping[str, Any]) -> TextRow:
        row = super().parse(place, values)
        return row._replace(label="long" if len(row.first.split()) > self.limit else "short")


@pytest.fixture
def length(monkeypatch):
    module = ModuleType("length_task")
    module.LengthTask = LengthTask
    monkeypatch.setitem(sys.modules, "length_task", module)
    monkeypatch.setitem(TASKS, "length", "length_task:LengthTask")


def test_a_task_that_is_only_registered_is_trained_measured_saved_and_applied(length, tmp_path):
    texts = [{"text": " ".join(["good", "film"][number % 2] for number in range(size))} for size in range(1, 13)]
    rows = write_jsonl(tmp_path / "rows.jsonl", texts * 8)
    config = FinetuneConfig(
        task="length",
        model=write_model(tmp_path / "encoder"),
        train=rows,
        dev=rows,
        out=tmp_path / "tuned",
        num_epochs=20.0,
        learning_rate=3e-3,
        dropout=0.0,
        device="cpu",
        num_threads=1,
    )
    assert finetune(config).mean["accuracy"] > 0.9
    metric, num_rows, baselines = measure_baselines(config)
    assert metric == "accuracy" and num_rows == 96 and baselines["majority"]["accuracy"] == 0.5
    model = load(tmp_path / "tuned", "cpu")
    assert isinstance(model, TaskPredictor) and isinstance(model.task, LengthTask)
    assert [answer["label"] for answer in model.predict(["good film", "film good " * 6])] == ["short", "long"]
