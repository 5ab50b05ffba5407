"""A full disk while a model is trained or exported: one line that names the file, and what was whole stays.

A limit on the size of files stands for the full disk: the kernel then refuses to write in the same places.
"""

import resource
import shutil
from collections import namedtuple
from contextlib import contextmanager

import pytest

from jobs import cli
from model.optimizer import build_optimizer
from model.runs.checkpoint import latest_checkpoint
from model.runs.checkpoint_writer import check_space, checkpoint_bytes
from model.runs.state import TrainingState
from tests.jobs.small_run import make_data, make_run, run_config, train_lines
from tests.model.small_model import random_model, save_checkpoint, training_state
from tests.model.test_checkpoint import trained

Usage = namedtuple("Usage", "total used free")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("data") / "set")


@contextmanager
def no_room_for(num_bytes: int):
    """Let no file grow beyond this size."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def flags(data, out) -> list[str]:
    config = run_config(data, out)
    return [
        *("--data", str(data), "--out", str(out), "--num-steps", "6", "--batch-size", "16", "--save-every", "4"),
        *("--learning-rate", "3e-3", "--device", "cpu", "--num-threads", "1", "--eval-every", "100"),
        *("--micro-batch-size", "8", "--num-eval-examples", "40"),
        *(
            f"--model.{name.replace('_', '-')}={getattr(config.model, name)}"
            for name in ("hidden_size", "num_hidden_layers")
        ),
        *("--model.num-attention-heads=2", "--model.intermediate-size=64", "--model.max-position-embeddings=64"),
    ]


@pytest.mark.parametrize("name", ["adamw", "lamb", "muon"])
def test_the_size_of_a_checkpoint_is_known_before_the_first_step(tmp_path, name):
    model = random_model()
    expected = checkpoint_bytes(model, build_optimizer(model, 0.01, name))
    path = save_checkpoint(tmp_path, *trained(name), training_state(model, 1), keep=1)
    size = sum((path / file).stat().st_size for file in ("model.safetensors", "optimizer.safetensors"))
    assert expected <= size <= expected + 30_000  # the names of the tensors


def test_training_does_not_begin_without_room_for_its_checkpoints(data, tmp_path, monkeypatch, capsys):
    out = tmp_path / "run"
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**9, 10**9, 1000))
    assert cli.main(["pretrain", *flags(data, out)]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert (
        f"{out}/checkpoints needs " in error
        and "MB for 2 more checkpoints of " in error
        and "make room, keep fewer" in error
    )
    assert not (out / "checkpoints").exists() and not (out / "metrics.jsonl").exists()


def test_checkpoints_that_will_be_replaced_need_no_more_room(tmp_path, monkeypatch):
    model, optimizer = trained()
    size, folder = checkpoint_bytes(model, optimizer), tmp_path / "checkpoints"
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, size))
    with pytest.raises(ValueError, match="for 3 more checkpoints"):
        check_space(folder, model, optimizer, 3)
    for step in (1, 2):
        save_checkpoint(folder, model, optimizer, training_state(model, step), keep=2)
    check_space(folder, model, optimizer, 3)


def test_room_is_needed_only_for_checkpoints_that_will_be_written(data, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, 900_000))
    assert cli.main(["pretrain", *flags(data, tmp_path / "run"), "--keep-checkpoints", str(2**40)]) == 0


def test_a_disk_that_becomes_full_leaves_the_last_whole_checkpoint(data, tmp_path, capsys):
    out = make_run(data, tmp_path / "run", num_steps=12, keep_every=4)
    expected = train_lines(out)
    for step in (8, 12):
        shutil.rmtree(out / f"checkpoints/step-{step:08d}")
    words = ["pretrain", *flags(data, out), "--num-steps", "12", "--keep-every", "4"]
    with no_room_for(50_000):
        assert cli.main(words) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f"bertloom pretrain: error: {out}/checkpoints/step-000000")
    assert error.endswith("model.safetensors: File too large: make room, then start the same command again")
    assert [path.name for path in (out / "checkpoints").iterdir()] == ["step-00000004"]
    assert latest_checkpoint(out / "checkpoints", TrainingState)[1].step == 4
    assert cli.main(words) == 0
    assert train_lines(out) == expected


@pytest.mark.parametrize(
    "num_bytes, name", [(50_000, "model.safetensors"), (1000, "tokenizer.json"), (0, "tokenizer.json")]
)
def test_an_export_to_a_full_disk_is_one_line_and_leaves_nothing(data, tmp_path, capsys, num_bytes, name):
    run, out = make_run(data, tmp_path / "run"), tmp_path / "out" / "hf"
    with no_room_for(num_bytes):
        assert cli.main(["export", "--checkpoint", str(run), "--out", str(out)]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f"bertloom export: error: {out}") and "make room" in error and ".tmp-" not in error
    assert "File too large" in error and list(out.parent.iterdir()) == []
