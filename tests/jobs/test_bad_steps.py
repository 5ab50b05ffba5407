"""Steps whose loss is no number or a spike: the run stops or leaves the update out, and either way says which they were."""

import json
import shutil
from pathlib import Path

import pytest

from jobs.pretrain import PretrainConfig, pretrain
from jobs.verify import verify_run
from model.bert_config import BertShape
from model.loading.data import DataSet
from model.loading.order import TrainingOrder
from tests.jobs.small_run import learnt, numbers
from tests.model.synthetic import write_data_set

TINY = BertShape(
    hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, max_position_embeddings=64
)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_data_set(tmp_path_factory.mktemp("data") / "set", rows=(300, 280), num_validation=60)


def config(data: Path, out: Path, **changes) -> PretrainConfig:
    values = {
        "batch_size": 16,
        "micro_batch_size": 8,
        "model": TINY,
        "device": "cpu",
        "eval_every": 4,
        "num_eval_examples": 40,
        "num_threads": 1,
        "warmup_ratio": 0.0,
    }
    return PretrainConfig(data=data, out=out, **values | changes)


def bad_steps(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "bad_steps.jsonl").read_text().splitlines()]


def test_a_loss_that_is_no_number_stops_the_run_with_a_checkpoint_or_is_skipped(data, tmp_path):
    # Weights of 1e36 after the first step: what they give is no number.
    changes = {"weight_decay": 1e38, "learning_rate": 1.0, "num_steps": 5, "save_every": 100}
    out = tmp_path / "stopped"
    for _ in range(2):
        with pytest.raises(ValueError, match=r"at step 2 the loss is nan .* or continue with --on-bad-step skip"):
            pretrain(config(data, out, **changes))
        assert [(line["step"], line["loss"], line["action"]) for line in bad_steps(out)] == [(2, "nan", "stop")]
        assert [path.name for path in (out / "checkpoints").iterdir()] == ["step-00000001"]
        assert verify_run(out) == ([], 1)
    pretrain(config(data, tmp_path / "skipped", on_bad_step="skip", **changes))
    pretrain(config(data, out, on_bad_step="skip", **changes))
    assert numbers(out) == numbers(tmp_path / "skipped") and learnt(out) == learnt(tmp_path / "skipped")
    assert bad_steps(out) == bad_steps(tmp_path / "skipped")
    assert [(line["step"], line["action"]) for line in bad_steps(out)] == [(step, "skip") for step in range(2, 6)]


def test_a_spike_names_its_examples_and_stops_or_is_skipped(data, tmp_path, capsys):
    # Far too high a learning rate: the loss soon is several times its mean.
    changes = {"learning_rate": 1.0, "spike_factor": 1.5, "num_steps": 8, "save_every": 3}
    with pytest.raises(ValueError, match=r"at step \d the loss is .*; its examples are rows \d+, .*: check these"):
        pretrain(config(data, tmp_path / "stopped", **changes))
    pretrain(config(data, tmp_path / "run", on_bad_step="skip", keep_checkpoints=9, **changes))
    assert "skipping this update" in capsys.readouterr().err
    lines = [line for line in numbers(tmp_path / "run") if line["split"] == "train"]
    bad = bad_steps(tmp_path / "run")
    assert len(lines) == 8 and [line["step"] for line in lines if line.get("skipped")] == [line["step"] for line in bad]
    step, rows = bad[0]["step"], bad[0]["examples"]
    assert bad[0]["action"] == "skip" and len(rows) == 16 and all(0 <= row < 580 for row in rows)
    examples = DataSet(data).examples("train", 32)
    items = TrainingOrder(examples.rows_per_copy, 1, 32).items((step - 1) * 16, step * 16)
    assert rows == (items[1] + 300 * items[0]).tolist()
    # and it resumes with the same judgement
    shutil.rmtree(tmp_path / "run/checkpoints/step-00000008")
    pretrain(config(data, tmp_path / "run", on_bad_step="skip", **changes))
    assert [line for line in numbers(tmp_path / "run") if line["split"] == "train"] == lines
    assert bad_steps(tmp_path / "run") == bad
