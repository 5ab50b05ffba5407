import json
import logging
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bertloom.whole_files import sweep_temporary
from model.optimizer import build_optimizer, set_learning_rate
from model.runs.checkpoint import (
    check_files,
    latest_checkpoint,
    load_checkpoint,
    load_model,
    optimizer_tensors,
    snapshot,
    write_checkpoint,
)
from model.runs.checkpoint_writer import CheckpointWriter
from model.runs.state import TrainingState, read_state
from tests.model.small_model import random_model, save_checkpoint, training_state


def trained(name: str = "adamw"):
    """A model and an optimizer after two updates."""
    model = random_model()
    optimizer = build_optimizer(model, 0.01, name)
    set_learning_rate(optimizer, 1e-3)
    for _ in range(2):
        for parameter in model.parameters():
            parameter.grad = torch.randn_like(parameter)
        optimizer.step()
    return model, optimizer


def equal(a: dict, b: dict) -> bool:
    return set(a) == set(b) and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("name", ["adamw", "lamb", "muon"])
def test_weights_moments_and_state_come_back_bit_for_bit(tmp_path, name):
    model, optimizer = trained(name)
    path = save_checkpoint(tmp_path, model, optimizer, training_state(model, 12), keep=1)
    assert path == tmp_path / "step-00000012"
    assert sorted(p.name for p in path.iterdir()) == ["model.safetensors", "optimizer.safetensors", "state.json"]
    assert latest_checkpoint(tmp_path, TrainingState) == (path, training_state(model, 12))
    assert equal(load_model(path).state_dict(), model.state_dict())

    again = random_model()
    its_optimizer = build_optimizer(again, 0.01, name)
    load_checkpoint(path, again, its_optimizer)
    assert equal(again.state_dict(), model.state_dict())
    assert equal(optimizer_tensors(again, its_optimizer), optimizer_tensors(model, optimizer))
    for one, other in ((model, optimizer), (again, its_optimizer)):  # and the next update is the same
        for parameter in one.parameters():
            parameter.grad = torch.ones_like(parameter)
        set_learning_rate(other, 1e-3)
        other.step()
    assert equal(again.state_dict(), model.state_dict())


def test_moments_that_another_optimizer_does_not_know_begin_anew(tmp_path):
    model, optimizer = trained("adamw")
    path = save_checkpoint(tmp_path, model, optimizer, training_state(model, 2), keep=1)
    muon = build_optimizer(model, 0.01, "muon")
    load_checkpoint(path, model, muon)
    found = optimizer_tensors(model, muon)
    assert equal(found, {k: v for k, v in optimizer_tensors(model, optimizer).items() if k in found})
    assert "exp_avg.mlm.bias" in found and not any("qkv.weight" in name for name in found)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    muon.step()
    path = save_checkpoint(tmp_path, model, muon, training_state(model, 3), keep=1)
    back = build_optimizer(model, 0.01)
    load_checkpoint(path, model, back)
    back.step()
    steps = {name: int(tensor) for name, tensor in optimizer_tensors(model, back).items() if name.startswith("step.")}
    assert steps["step.mlm.bias"] == 4 and steps["step.encoder.layers.0.qkv.weight"] == 1


def test_only_the_last_few_are_kept(tmp_path):
    model, optimizer = trained()
    for step in (1, 2, 3, 4):
        save_checkpoint(tmp_path, model, optimizer, training_state(model, step), keep=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000003", "step-00000004"]


def test_those_of_every_so_many_steps_are_kept_for_good(tmp_path):
    model, optimizer = trained()
    for step in range(1, 9):
        write_checkpoint(tmp_path, *snapshot(model, optimizer), training_state(model, step), keep=1, keep_every=3)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000003", "step-00000006", "step-00000008"]


def test_the_writer_writes_what_was_when_it_was_asked_and_one_at_a_time(tmp_path):
    model, optimizer = trained()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    told = []
    with CheckpointWriter(tmp_path, keep=3) as writer:
        for step in (1, 2):
            writer.save(
                model, optimizer, training_state(model, step), before=lambda: told.append(len(list(tmp_path.iterdir())))
            )
            with torch.no_grad():  # training goes on
                for parameter in model.parameters():
                    parameter.add_(1)
    assert told == [0, 1]  # the first was on disk when the second began
    assert equal(load_model(tmp_path / "step-00000001").state_dict(), before)
    assert equal(load_model(tmp_path / "step-00000002").state_dict(), {name: t + 1 for name, t in before.items()})


def test_an_error_of_the_writer_is_raised_by_the_next_call(tmp_path):
    model, optimizer = trained()
    (tmp_path / "file").write_text("")
    writer = CheckpointWriter(tmp_path / "file", keep=1)
    writer.save(model, optimizer, training_state(model, 1))
    with pytest.raises(FileExistsError):
        writer.wait()
    writer.wait()


def test_an_empty_or_missing_folder_has_no_checkpoint(tmp_path):
    assert latest_checkpoint(tmp_path, TrainingState) is None
    assert latest_checkpoint(tmp_path / "nowhere", TrainingState) is None
    sweep_temporary(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "name, damage, message",
    [
        ("model.safetensors", lambda b: b[:-1], "bytes, but state.json records"),
        ("optimizer.safetensors", lambda b: b[:-1] + bytes([b[-1] ^ 1]), "does not match its sha256 in state.json"),
        ("optimizer.safetensors", None, "optimizer.safetensors is missing"),
        ("state.json", lambda b: b[: len(b) // 2], "is damaged: expected the JSON of a checkpoint"),
        (
            "state.json",
            lambda b: b.replace(b'"seed": 1', b'"seed": 2'),
            "is damaged: its content does not match its sha256",
        ),
        ("state.json", None, "state.json is missing"),
    ],
)
def test_a_damaged_checkpoint_is_named_and_skipped(tmp_path, caplog, name, damage, message):
    model, optimizer = trained()
    for step in (1, 2):
        save_checkpoint(tmp_path, model, optimizer, training_state(model, step), keep=2)
    file = tmp_path / "step-00000002" / name
    content = file.read_bytes()
    file.unlink()
    if damage:
        file.write_bytes(damage(content))
    with caplog.at_level(logging.WARNING, "bertloom"):
        path, found = latest_checkpoint(tmp_path, TrainingState)
    assert (path.name, found.step) == ("step-00000001", 1)
    assert "skipping a damaged checkpoint: " + str(file) in caplog.text and message in caplog.text

    shutil.rmtree(tmp_path / "step-00000001")
    with pytest.raises(ValueError, match="has no intact checkpoint .1 damaged.: restore"):
        latest_checkpoint(tmp_path, TrainingState)
    save_checkpoint(tmp_path, model, optimizer, training_state(model, 2), keep=1)  # takes the place of the damaged one
    assert latest_checkpoint(tmp_path, TrainingState)[1].step == 2


def test_the_latest_is_found_by_content_and_not_by_name(tmp_path):
    model, optimizer = trained()
    for step in (1, 2):
        save_checkpoint(tmp_path, model, optimizer, training_state(model, step), keep=2)
    (tmp_path / "step-00000001").rename(tmp_path / "step-00000007")
    assert latest_checkpoint(tmp_path, TrainingState)[0].name == "step-00000002"


def test_a_good_checkpoint_is_not_removed_for_damaged_ones_after_it(tmp_path, caplog):
    model, optimizer = trained()
    for step in (1, 9):
        save_checkpoint(tmp_path, model, optimizer, training_state(model, step), keep=2)
    (tmp_path / "step-00000009" / "model.safetensors").unlink()
    save_checkpoint(tmp_path, model, optimizer, training_state(model, 3), keep=1)
    assert latest_checkpoint(tmp_path, TrainingState)[1].step == 3


def test_another_version_is_refused_by_name(tmp_path):
    model, optimizer = trained()
    path = save_checkpoint(tmp_path, model, optimizer, training_state(model, 1), keep=1)
    content = json.loads((path / "state.json").read_text())
    (path / "state.json").write_text(json.dumps(content | {"format_version": 2}))
    with pytest.raises(ValueError, match="'bertloom-checkpoint' has version 2, expected 1"):
        read_state(path, TrainingState)


# In a process of its own, which is forked once for every stage: exit after the stage-th thing done to the file system.
KILLER = """
import builtins, os, shutil, sys, torch
from pathlib import Path
import model.runs.checkpoint as checkpoint
from model.runs.checkpoint_writer import CheckpointWriter
from tests.model.small_model import save_checkpoint, training_state
from tests.model.test_checkpoint import trained

def exit_at(stage):
    done = 0
    def event():
        nonlocal done
        if done == stage:
            os._exit(9)
        done += 1
    def watched(function, halve=False):
        def call(*args, **kwargs):
            event()
            result = function(*args, **kwargs)
            if halve:  # as if killed in the middle of the write
                path = args[0] if isinstance(args[0], Path) else args[1]
                size = path.stat().st_size
                if done == stage:
                    os.truncate(path, size // 2)
                event()
            event()
            return result
        return call
    checkpoint.write_tensors = watched(checkpoint.write_tensors, halve=True)
    Path.write_text = watched(Path.write_text, halve=True)
    Path.mkdir = watched(Path.mkdir)
    for name in ("fsync", "rename", "unlink", "rmdir"):
        setattr(os, name, watched(getattr(os, name)))

torch.set_num_threads(1)
model, optimizer = trained()
for stage in range(1000):
    folder = Path(sys.argv[1]) / f"stage-{stage}"
    save_checkpoint(folder, model, optimizer, training_state(model, 1), keep=1)
    child = os.fork()
    if child == 0:
        exit_at(stage)
        with CheckpointWriter(folder, keep=1) as writer:
            writer.save(model, optimizer, training_state(model, 2))
        os._exit(0)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0:
        print(stage)
        break
"""


def test_killed_at_any_stage_of_the_write_a_whole_checkpoint_is_there(tmp_path):
    command = [sys.executable, "-W", "ignore", "-c", KILLER, str(tmp_path)]
    num_stages = int(subprocess.run(command, check=True, capture_output=True, text=True, timeout=100).stdout)
    assert num_stages > 20
    model, optimizer = trained()
    steps = []
    for stage in range(num_stages + 1):
        folder = tmp_path / f"stage-{stage}"
        path, found = latest_checkpoint(folder, TrainingState)
        check_files(path)
        steps.append(found.step)
        sweep_temporary(folder)
        assert all(p.name.startswith("step-") for p in folder.iterdir())
        save_checkpoint(folder, model, optimizer, training_state(model, 3), keep=1)
        assert [p.name for p in folder.iterdir()] == ["step-00000003"]
    assert steps == sorted(steps) and set(steps) == {1, 2}


def test_loading_runs_no_pickle():
    source = Path(sys.modules["model.runs.checkpoint"].__file__).read_text()
    assert "torch.load" not in source and "import pickle" not in source
