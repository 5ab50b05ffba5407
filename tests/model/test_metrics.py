import json
import math
import re

import pytest

from model.runs.metrics import MetricsWriter, parse_line, read_metrics


def test_lines_are_there_at_once_and_cut_back_to_the_step_of_a_checkpoint(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with MetricsWriter(path, 0) as metrics:
        metrics.write(0, "validation", mlm_loss=3.5)
        for step in (1, 2, 3):
            metrics.write(step, "train", loss=1 / step)
        metrics.write(3, "validation", mlm_loss=2.5)
        metrics.write(4, "train", loss=0.1)
        assert len(read_metrics(path)) == 6
    with open(path, "a") as file:
        file.write('{"step": 5, "spl')  # a kill in the middle of a line

    with MetricsWriter(path, 3) as metrics:
        assert metrics.is_evaluated(3) and metrics.is_evaluated(0) and not metrics.is_evaluated(2)
        metrics.write(4, "train", loss=0.25)
        metrics.sync()
    assert [(line["step"], line["split"]) for line in read_metrics(path)] == [
        (0, "validation"),
        (1, "train"),
        (2, "train"),
        (3, "train"),
        (3, "validation"),
        (4, "train"),
    ]
    assert read_metrics(path)[2]["loss"] == 1 / 2  # every bit of it
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_no_file_is_no_lines(tmp_path):
    assert read_metrics(tmp_path / "metrics.jsonl") == []


def written(path, *steps: int):
    with MetricsWriter(path, 0) as metrics:
        for step in steps:
            metrics.write(step, "train", loss=0.5)
    return path


@pytest.mark.parametrize(
    "damage", [b"\0" * 40 + b"\n", b'{"step": 4, "spl\xff\n', b"5\n", b'{"step": 4}\n', b"\0" * 40]
)
def test_damage_behind_the_step_of_a_checkpoint_is_cut_off_with_what_stands_there(tmp_path, damage):
    path = written(tmp_path / "metrics.jsonl", 1, 2, 3)
    with open(path, "ab") as file:
        file.write(damage + b'{"step": 5, "split": "train"}\n')
    with MetricsWriter(path, 3) as metrics:
        metrics.write(4, "train", loss=0.25)
    assert [line["step"] for line in read_metrics(path)] == [1, 2, 3, 4]


def test_damage_before_it_is_an_error_that_names_the_line(tmp_path):
    path = written(tmp_path / "metrics.jsonl", 1, 2, 3)
    content = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(content[0] + b"\0" * 40 + b"\n" + content[2])
    message = f"{path}: line 2 is damaged: "
    with pytest.raises(ValueError, match=re.escape(message)):
        read_metrics(path)
    with pytest.raises(ValueError, match=re.escape(message)):
        MetricsWriter(path, 3)
    with MetricsWriter(path, 1):
        assert [line["step"] for line in read_metrics(path)] == [1]


def test_a_line_has_a_number_for_each_source_of_a_mixture_and_no_empty_table(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with MetricsWriter(path, 0) as metrics:
        metrics.write(1, "train", loss=0.5, loss_by_source={})
        metrics.write(2, "train", loss_by_source={"web": math.nan, "书": 0.25}, tokens_by_source={"web": 7, "书": 9})
    assert read_metrics(path) == [
        {"step": 1, "split": "train", "loss": 0.5},
        {
            "step": 2,
            "split": "train",
            "loss_by_source": {"web": None, "书": 0.25},
            "tokens_by_source": {"web": 7, "书": 9},
        },
    ]


@pytest.mark.parametrize(
    "table",
    [
        {"web": {"a": 1}},
        {"web": [1]},
        {"web": "1"},
        {"web": 10**30},
        {str(number): 1 for number in range(1025)},
        [1],
        "web",
        None,
    ],
)
def test_a_table_that_no_run_writes_is_a_damaged_line(table):
    line = {"step": 1, "split": "train", "loss_by_source": table}
    assert parse_line(json.dumps(line).encode()) is None
    assert parse_line(json.dumps(line | {"loss_by_source": {"web": 1.5}}).encode()) is not None
