"""Runs by steps, tokens and the clock, in one phase and in two, with either optimizer, with and without pairs."""

import dataclasses
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from jobs.pretrain import pretrain
from jobs.support.pretrain_config import PretrainConfig
from jobs.verify import verify_run
from model.bert_config import BertShape
from model.runs.state import TrainingState, read_state
from tests.jobs.small_run import learnt, train_lines
from tests.model.synthetic import write_data_set

TINY = BertShape(
    hidden_size=32,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=64,
    max_position_embeddings=64,
    hidden_dropout_prob=0.1,
)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("data") / "set"
    return write_data_set(directory, rows=(100, 80), num_validation=20, max_seq_lengths=(32, 64))


def config(data: Path, out: Path, **changes) -> PretrainConfig:
    values = {
        "batch_size": 8,
        "micro_batch_size": 8,
        "learning_rate": 3e-3,
        "model": TINY,
        "device": "cpu",
        "num_eval_examples": 10,
        "save_every": 5,
        "num_threads": 1,
    }
    return PretrainConfig(data=data, out=out, **values | changes)


def cut_off(run: Path, step: int, out: Path) -> Path:
    """A copy of a run that was killed after a checkpoint."""
    shutil.copytree(run, out)
    for path in (out / "checkpoints").iterdir():
        if int(path.name[5:]) > step:
            shutil.rmtree(path)
    return out


@pytest.mark.parametrize("optimizer", ["adamw", "lamb", "muon"])
def test_two_phases_are_one_run_that_resumes_in_either_of_them(data, tmp_path, optimizer):
    phases = {"phases": ("32:0.5", "64:0.25:4", "32:0.25"), "num_steps": 16, "optimizer": optimizer}
    pretrain(config(data, tmp_path / "run", keep_checkpoints=9, **phases))
    lines = train_lines(tmp_path / "run")
    assert [line["max_seq_length"] for line in lines] == [32] * 8 + [64] * 4 + [32] * 4
    last = read_state(tmp_path / "run/checkpoints/step-00000016", TrainingState)
    legs = [(leg.step, leg.max_seq_length, leg.item, leg.batch_size) for leg in last.progress.legs]
    assert legs == [(0, 32, 0, 8), (8, 64, 0, 4), (12, 32, 64, 8)]  # the second part at 32 goes on with item 64
    assert last.progress.legs[-1].item_at(16) == 64 + 4 * 8
    assert verify_run(tmp_path / "run") == ([], 16)
    for step in (5, 10):
        out = cut_off(tmp_path / "run", step, tmp_path / f"cut-{step}")
        pretrain(config(data, out, **phases))
        assert train_lines(out) == lines and learnt(out) == learnt(tmp_path / "run")


def test_by_tokens_the_learning_rate_and_the_phases_follow_the_tokens(data, tmp_path):
    chosen = {"num_tokens": 2000, "phases": ("32:0.6", "64:0.4"), "decay": "cosine"}
    pretrain(config(data, tmp_path / "run", keep_checkpoints=9, **chosen))
    lines = train_lines(tmp_path / "run")
    assert lines[-2]["tokens"] < 2000 <= lines[-1]["tokens"]
    before = [0, *(line["tokens"] for line in lines)]
    assert [line["max_seq_length"] for line in lines] == [32 if tokens < 1200 else 64 for tokens in before[:-1]]
    assert lines[-1]["learning_rate"] < 0.3 * max(line["learning_rate"] for line in lines)
    out = cut_off(tmp_path / "run", 5, tmp_path / "cut")
    pretrain(config(data, out, **chosen))
    assert train_lines(out) == lines and learnt(out) == learnt(tmp_path / "run")
    assert verify_run(out)[0] == []


def test_by_the_clock_it_ends_on_time_and_the_time_before_a_stop_counts(data, tmp_path):
    result = pretrain(config(data, tmp_path / "run", budget="2s", phases=("32:0.5", "64:0.5"), save_every=5))
    lines = train_lines(tmp_path / "run")
    assert {line["max_seq_length"] for line in lines} == {32, 64}
    state = read_state(result.checkpoint, TrainingState)
    assert 1 <= state.progress.seconds < 12
    assert min(line["learning_rate"] for line in lines) > 0  # no step is thrown away
    assert lines[-1]["learning_rate"] < 0.5 * max(line["learning_rate"] for line in lines)
    assert verify_run(tmp_path / "run")[0] == []
    assert pretrain(config(data, tmp_path / "run", budget="2s", phases=("32:0.5", "64:0.5"))).step == result.step


def test_without_pairs_the_next_sentence_head_is_left_as_it_was_drawn(tmp_path, capsys):
    data = write_data_set(tmp_path / "set", rows=(60,), num_validation=10, pairs=False)
    pretrain(config(data, tmp_path / "run", num_steps=7))
    printed = capsys.readouterr()
    assert "next sentence prediction is not trained" in printed.out
    assert "validation: MLM loss" in printed.err and "NSP loss" not in printed.err
    early, late = (load_file(tmp_path / f"run/checkpoints/step-0000000{n}/model.safetensors") for n in (5, 7))
    assert not early["mlm.dense.weight"].equal(late["mlm.dense.weight"])
    assert all(early[name].equal(late[name]) for name in early if name.startswith("nsp."))
    line = train_lines(tmp_path / "run")[-1]
    assert line["nsp_loss"] == 0 and line["loss"] == line["mlm_loss"]
    moments = load_file(tmp_path / "run/checkpoints/step-00000007/optimizer.safetensors")
    assert not any(".nsp." in name for name in moments)
    out = cut_off(tmp_path / "run", 5, tmp_path / "cut")
    pretrain(config(data, out, num_steps=7))
    assert train_lines(out) == train_lines(tmp_path / "run") and learnt(out) == learnt(tmp_path / "run")
    assert torch.isfinite(late["nsp.pooler.weight"]).all()


@pytest.mark.filterwarnings(
    "ignore:The .grad attribute of a Tensor that is not a leaf",
    "ignore:`torch.jit.script_method` is deprecated",
    "ignore:Guards may run slower on Python 3.13.0",
)
@pytest.mark.slow
def test_a_compiled_run_reads_and_learns_what_another_does_and_resumes_exactly(data, tmp_path, capsys):
    if not shutil.which("g++"):
        pytest.skip("torch.compile needs g++ on a CPU")
    model = dataclasses.replace(TINY, hidden_dropout_prob=0.0)
    chosen = {"num_steps": 7, "model": model, "phases": ("32:0.7", "64:0.3")}
    pretrain(config(data, tmp_path / "plain", **chosen))
    pretrain(config(data, tmp_path / "run", compile=True, **chosen))
    assert "length 32: micro-batches are padded to 256 tokens" in capsys.readouterr().out
    for ours, plain in zip(train_lines(tmp_path / "run"), train_lines(tmp_path / "plain"), strict=True):
        assert ours.pop("stream") == plain.pop("stream") and ours.pop("split") == plain.pop("split")
        assert ours == pytest.approx(plain, rel=1e-3)
    out = cut_off(tmp_path / "run", 5, tmp_path / "cut")
    pretrain(config(data, out, compile=True, **chosen))
    assert train_lines(out) == train_lines(tmp_path / "run") and learnt(out) == learnt(tmp_path / "run")
    assert verify_run(out) == ([], 7)


def test_with_new_masks_it_resumes_exactly_and_reads_the_same_rows(data, tmp_path):
    pretrain(config(data, tmp_path / "plain", num_steps=30))
    pretrain(config(data, tmp_path / "run", num_steps=30, remask=True, keep_checkpoints=9))
    lines, plain = train_lines(tmp_path / "run"), train_lines(tmp_path / "plain")
    assert [line["stream"] for line in lines] == [line["stream"] for line in plain]
    assert [line["tokens"] for line in lines] == [line["tokens"] for line in plain]
    assert lines[0]["loss"] != plain[0]["loss"]
    out = cut_off(tmp_path / "run", 15, tmp_path / "cut")
    with pytest.raises(ValueError, match="remask is False, but this run began with True: .* --allow-change remask"):
        pretrain(config(data, out, num_steps=30))
    pretrain(config(data, out, num_steps=30, remask=True))
    assert train_lines(out) == lines and learnt(out) == learnt(tmp_path / "run")
    assert verify_run(out) == ([], 30)


def test_with_batch_normalization_it_resumes_exactly_and_what_cannot_be_right_is_refused(data, tmp_path):
    model = dataclasses.replace(TINY, normalization="batch")
    pretrain(config(data, tmp_path / "run", num_steps=12, model=model, keep_checkpoints=9))
    out = cut_off(tmp_path / "run", 5, tmp_path / "cut")
    pretrain(config(data, out, num_steps=12, model=model))
    assert train_lines(out) == train_lines(tmp_path / "run") and learnt(out) == learnt(tmp_path / "run")
    with pytest.raises(ValueError, match="compile pads batches, but batch normalisation must not count padding"):
        pretrain(config(data, out, num_steps=12, model=model, compile=True))
    with pytest.raises(ValueError, match="batch_size=8 must be at least the number of ranks, 1, and at most .* = 4;"):
        pretrain(config(data, tmp_path / "cut-up", num_steps=12, model=model, micro_batch_size=4))
    with pytest.raises(ValueError, match="model.normalization is layer, but this run began with batch"):
        pretrain(config(data, cut_off(tmp_path / "run", 5, tmp_path / "other"), num_steps=12))
