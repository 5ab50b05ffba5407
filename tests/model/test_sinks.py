import math
import sys
import types

import pytest

from model.runs.metrics import MetricsWriter
from model.runs.sinks import numbers, open_sinks


def test_a_sink_that_is_not_installed_says_what_to_install(tmp_path, monkeypatch):
    for name, module in (("tensorboard", "torch.utils.tensorboard"), ("wandb", "wandb")):
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(ValueError, match=f"sinks: {name} is not installed: run `pip install {name}`"):
            open_sinks([name], tmp_path, 0, {})


def test_lines_of_metrics_reach_tensorboard_and_wandb(tmp_path, monkeypatch):
    told = []

    class SummaryWriter:
        def __init__(self, folder, purge_step):
            told.append((folder, purge_step))

        def add_scalar(self, name, value, step):
            told.append((name, value, step))

        def close(self):
            told.append("closed")

    run = types.SimpleNamespace(log=lambda values, step: told.append((values, step)), finish=lambda: told.append("end"))
    wandb = types.SimpleNamespace(init=lambda **words: told.append(words["config"]) or run)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", types.SimpleNamespace(SummaryWriter=SummaryWriter))
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    (tmp_path / ".lock").write_text("")
    sinks = open_sinks(["tensorboard", "wandb"], tmp_path, 7, {"seed": 1})
    with MetricsWriter(tmp_path / "metrics.jsonl", 7, sinks) as metrics:
        metrics.write(8, "train", loss=0.5, stream="00ff", loss_by_source={"web": 0.25, "books": math.nan})
    assert told == [
        (f"{tmp_path}/tensorboard", 8),
        {"seed": 1},
        ("train/loss", 0.5, 8),
        ("train/loss_by_source/web", 0.25, 8),
        ({"train/loss": 0.5, "train/loss_by_source/web": 0.25}, 8),
        "closed",
        "end",
    ]


def test_what_is_no_number_is_not_drawn_and_is_null_in_the_file(tmp_path):
    assert numbers({"loss": float("nan"), "stream": "00", "fill": 0.5}) == {"fill": 0.5}
    with MetricsWriter(tmp_path / "metrics.jsonl", 0) as metrics:
        metrics.write(1, "train", loss=float("nan"), norm=float("inf"))
    assert '"loss": null, "norm": null' in (tmp_path / "metrics.jsonl").read_text()
