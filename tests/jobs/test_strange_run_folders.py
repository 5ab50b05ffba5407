"""Run folders that somebody else has touched: each fault is one line, before the first step where it can be."""

import logging
import os
import shutil
import signal
from collections import namedtuple
from dataclasses import replace

import pytest

from jobs.export import ExportConfig, export
from jobs.finetune import finetune
from jobs.pretrain import pretrain
from jobs.support import pretraining
from model.hub.pretrained import open_pretrained
from model.runs.checkpoint_writer import check_space
from model.runs.metrics import read_metrics
from model.runs.recorder import Recorder
from model.runs.state import TrainingState, read_state
from tests.jobs.restartable_job import wait_for
from tests.jobs.small_finetune import config as finetune_config
from tests.jobs.small_run import learnt, make_data, make_run, numbers, run_config, train_lines
from tests.model.test_checkpoint import trained

Counts = namedtuple(
    "Counts", "f_files f_favail f_blocks f_bfree f_bavail f_frsize", defaults=(2**30, 2**30, 2**30, 4096)
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("data") / "set")


@pytest.fixture(scope="module")
def unbroken(data, tmp_path_factory):
    return make_run(data, tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture
def run(unbroken, tmp_path):
    return shutil.copytree(unbroken, tmp_path / "run")


def at_step(monkeypatch, step: int, action) -> None:
    """Call `action` when the line of a step is written."""
    write = Recorder.write_metrics

    def write_metrics(self, number, split, **values):
        write(self, number, split, **values)
        if (number, split) == (step, "train"):
            action()

    monkeypatch.setattr(Recorder, "write_metrics", write_metrics)


# ---- unexpected objects among checkpoints


def test_other_objects_among_checkpoints_are_skipped_with_a_word_and_stay(data, unbroken, run, caplog):
    folder = run / "checkpoints"
    shutil.rmtree(folder / "step-00000006")
    (folder / "step-00000002").write_text("a file")
    os.mkfifo(folder / "step-00000003")
    (folder / "step-00000001").symlink_to("nowhere")
    (folder / "backup").mkdir()
    (folder / "notes.txt").write_text("mine")
    before = sorted(os.listdir(folder))
    assert pretrain(run_config(data, run)).exit_status == 0
    [line] = [record.message for record in caplog.records if "also holds" in record.message]
    assert line == (
        f"{folder} also holds 'backup', 'notes.txt', 'step-00000001' and 2 more: expected only folders of checkpoints; "
        f"others are not read"
    )
    assert sorted(os.listdir(folder)) == sorted([*before, "step-00000006"])
    assert numbers(run) == numbers(unbroken) and learnt_of(run) == learnt(unbroken)


def learnt_of(run) -> dict[str, bytes]:
    last = run / "checkpoints/step-00000006"
    return {name: (last / name).read_bytes() for name in ("model.safetensors", "optimizer.safetensors")}


def test_a_link_to_a_checkpoint_is_read_and_never_removed(data, unbroken, run, tmp_path):
    folder = run / "checkpoints"
    shutil.rmtree(folder / "step-00000006")
    (folder / "step-00000004").rename(tmp_path / "elsewhere")
    (folder / "step-00000004").symlink_to(tmp_path / "elsewhere")
    pretrain(run_config(data, run, keep_checkpoints=1))
    assert (folder / "step-00000004").is_symlink() and (tmp_path / "elsewhere/state.json").exists()
    assert numbers(run) == numbers(unbroken)


@pytest.mark.parametrize("name", ["checkpoints/step-00000006", "checkpoints"])
def test_what_is_in_the_way_of_a_checkpoint_is_named_before_the_first_step(data, run, name):
    shutil.rmtree(run / name)
    (run / name).write_text("a file")
    before = (run / "metrics.jsonl").read_bytes()
    with pytest.raises(ValueError, match=f"{run / name} is not a folder, but .*: move it away"):
        pretrain(run_config(data, run))
    assert (run / "metrics.jsonl").read_bytes() == before


@pytest.mark.parametrize("name", ["bad_steps.jsonl", "metrics.jsonl"])
def test_a_pipe_in_the_place_of_a_file_is_an_error_and_is_not_waited_for(data, run, name):
    shutil.rmtree(run / "checkpoints/step-00000006")
    (run / name).unlink(missing_ok=True)
    os.mkfifo(run / name)
    with pytest.raises(ValueError, match=f"{run / name} is not a regular file"):
        pretrain(run_config(data, run))


# ---- a run folder that is moved


@pytest.mark.parametrize("step", [3, 4])  # without a checkpoint and with one
def test_a_run_folder_that_is_moved_ends_the_run_and_goes_on_in_its_new_place(
    data, unbroken, tmp_path, monkeypatch, step
):
    out, moved = tmp_path / "run", tmp_path / "moved"

    def move() -> None:
        wait_for(lambda: (out / "checkpoints/step-00000002").exists())  # a thread writes it
        out.rename(moved)

    with monkeypatch.context() as patch:
        at_step(patch, step, move)
        with pytest.raises(ValueError, match=f"{out} was moved or removed during training: move it back and start"):
            pretrain(run_config(data, out, save_every=2))
    assert not out.exists() and max(os.listdir(moved / "checkpoints")) == "step-00000002"
    pretrain(run_config(data, moved, save_every=2))
    assert train_lines(moved) == train_lines(unbroken)


def test_a_run_folder_that_is_removed_is_not_made_again(data, tmp_path, monkeypatch):
    out = tmp_path / "run"
    at_step(monkeypatch, 3, lambda: shutil.rmtree(out))
    with pytest.raises(ValueError, match=f"{out} was moved or removed during training"):
        pretrain(run_config(data, out))
    assert not out.exists()


def test_another_folder_of_the_same_name_is_not_written_to(data, tmp_path, monkeypatch):
    out = tmp_path / "run"

    def exchange() -> None:
        out.rename(tmp_path / "moved")
        out.mkdir()

    at_step(monkeypatch, 3, exchange)
    with pytest.raises(ValueError, match=f"{out} was moved or removed during training"):
        pretrain(run_config(data, out))
    assert list(out.iterdir()) == []


def test_a_fine_tuning_whose_folder_is_moved_ends_with_the_same_line(encoder, task_files, tmp_path, monkeypatch):
    out = tmp_path / "tuned"
    at_step(monkeypatch, 2, lambda: out.rename(tmp_path / "moved"))
    with pytest.raises(ValueError, match=f"{out} was moved or removed during training"):
        finetune(finetune_config(encoder, task_files, out))
    assert not out.exists()


# ---- the end of a run


def test_a_signal_in_the_last_step_does_not_stop_a_finished_run(data, unbroken, tmp_path, monkeypatch, capsys):
    update = pretraining.train_step

    def train_step(*arguments, step, **options):
        if step == 5:
            os.kill(os.getpid(), signal.SIGTERM)
        return update(*arguments, step=step, **options)

    monkeypatch.setattr(pretraining, "train_step", train_step)
    result = pretrain(run_config(data, tmp_path / "run"))
    assert result.exit_status == 0 and result.step == 6 and result.validation
    said = capsys.readouterr().out.splitlines()[-1]
    assert said.startswith("finished 6 steps") and said.endswith(f"the model is {result.checkpoint}")
    assert read_state(result.checkpoint, TrainingState).is_finished
    assert numbers(tmp_path / "run") == numbers(unbroken)


def test_an_evaluation_that_ends_the_run_before_a_step_leaves_a_finished_checkpoint(
    data, run, tmp_path, monkeypatch, capsys
):
    """Also in the folder of a run that continues another one: it had no checkpoint yet, but the path was printed."""
    evaluate = pretraining.evaluate
    monkeypatch.setattr(pretraining, "evaluate", lambda *a, **k: replace(evaluate(*a, **k), mlm_loss=99.0))
    path = run / "checkpoints/step-00000004"
    config = run_config(
        data, tmp_path / "other", resume_from=path, eval_every=4, patience=1, allow_change=("patience",)
    )
    result = pretrain(config)
    assert result.step == 4 and read_state(result.checkpoint, TrainingState).is_finished
    assert capsys.readouterr().out.splitlines()[-1].endswith(f"the model is {result.checkpoint}")
    assert not read_state(path, TrainingState).is_finished
    pretrain(config)
    assert "is finished after 4 steps" in capsys.readouterr().out


def test_a_run_that_is_shortened_to_its_last_checkpoint_is_finished_and_can_be_exported(data, tmp_path, capsys):
    out = tmp_path / "run"
    make_run(data, out, num_steps=12)
    shutil.rmtree(out / "checkpoints/step-00000012")
    result = pretrain(run_config(data, out, num_steps=8, allow_change=("num_steps",)))
    assert result.step == 8 and read_state(result.checkpoint, TrainingState).is_finished
    export(ExportConfig(checkpoint=out, out=tmp_path / "exported"))
    pretrain(run_config(data, out, num_steps=8))
    assert f"is finished after 8 steps; the model is {out}/checkpoints/step-00000008" in capsys.readouterr().out


def test_a_finished_run_names_the_checkpoint_that_it_found(data, run, capsys):
    (run / "checkpoints/step-00000006").rename(run / "checkpoints/step-00000009")
    result = pretrain(run_config(data, run))
    assert result.checkpoint == run / "checkpoints/step-00000009"
    assert capsys.readouterr().out.splitlines()[-1].endswith(f"the model is {result.checkpoint}")


# ---- missing files


def test_a_missing_metrics_file_is_mentioned(data, run, tmp_path, caplog):
    (run / "metrics.jsonl").unlink()
    assert pretrain(run_config(data, run)).validation == {}
    assert [record.message for record in caplog.records] == [
        f"{run}/metrics.jsonl is missing: the metrics of the first 6 steps are lost"
    ]
    caplog.clear()
    export(ExportConfig(checkpoint=run, out=tmp_path / "exported"))
    assert [record.message for record in caplog.records] == [
        f"{run} has no metrics.jsonl: the model card has no metrics"
    ]
    caplog.clear()
    shutil.rmtree(run / "checkpoints/step-00000006")
    pretrain(run_config(data, run))
    assert f"{run}/metrics.jsonl is missing: the metrics of the first 4 steps are lost" in caplog.text
    (run / "metrics.jsonl").unlink()
    caplog.clear()
    config = run_config(data, tmp_path / "other", resume_from=run / "checkpoints/step-00000004")
    with caplog.at_level(logging.WARNING):
        pretrain(config)
    assert f"{run}/metrics.jsonl is missing" in caplog.text


def test_a_fine_tuning_without_what_its_result_needs_is_one_line(finetuned, encoder, task_files, tmp_path, monkeypatch):
    tuned = shutil.copytree(finetuned, tmp_path / "tuned")
    shutil.rmtree(tuned / "model")
    with pytest.raises(ValueError, match=f"{tuned} is finished, but {tuned}/model is missing: put it back"):
        finetune(finetune_config(encoder, task_files, tuned, save_every=3))
    out = tmp_path / "out"

    def stop() -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        number = next(line["step"] for line in read_metrics(finetuned / "metrics.jsonl") if line["split"] != "train")
        at_step(patch, number + 1, stop)
        finetune(finetune_config(encoder, task_files, out, save_every=3))
    lost = (out / "metrics.jsonl").read_bytes()
    (out / "metrics.jsonl").unlink()
    with pytest.raises(
        ValueError, match="metrics.jsonl has no evaluation of step .*, the best so far: put the file back"
    ):
        finetune(finetune_config(encoder, task_files, out, save_every=3))
    (out / "metrics.jsonl").write_bytes(lost)
    (out / "models/notes.txt").write_text("mine")
    finetune(finetune_config(encoder, task_files, out, save_every=3))
    assert (out / "models/notes.txt").read_text() == "mine" and not (out / "checkpoints").exists()


# ---- room


def test_a_disk_without_inodes_is_an_error_before_the_first_step(tmp_path, monkeypatch):
    model, optimizer = trained()
    monkeypatch.setattr(os, "statvfs", lambda path: Counts(1000, 5))
    with pytest.raises(ValueError, match=r"its disk can hold 5 more files \(inodes\), too few for a checkpoint"):
        check_space(tmp_path / "checkpoints", model, optimizer, 1)
    monkeypatch.setattr(os, "statvfs", lambda path: Counts(0, 0))  # as btrfs
    check_space(tmp_path / "checkpoints", model, optimizer, 1)


def test_the_models_of_a_fine_tuning_need_room_too(tmp_path, monkeypatch):
    model, optimizer = trained()
    size = sum(parameter.numel() * 4 for parameter in model.parameters())
    usage = namedtuple("Usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(8 * size - 1))
    check_space(tmp_path / "checkpoints", model, optimizer, 2)
    with pytest.raises(ValueError, match="for 2 more checkpoints of .* MB and 2 models, but its disk has"):
        check_space(tmp_path / "checkpoints", model, optimizer, 2, num_models=2)


def test_room_is_looked_for_where_a_link_leads(tmp_path, monkeypatch):
    model, optimizer = trained()
    (tmp_path / "scratch").mkdir()
    (tmp_path / "checkpoints").symlink_to("scratch")
    asked = []
    disk_usage = shutil.disk_usage
    monkeypatch.setattr(shutil, "disk_usage", lambda path: asked.append(path) or disk_usage(path))
    check_space(tmp_path / "checkpoints", model, optimizer, 1)
    assert asked == [tmp_path / "checkpoints"]


# ---- export


@pytest.mark.parametrize("dropout, expected", [(0.0, 0.1), (0.2, 0.2)])
def test_export_gives_transformers_a_dropout_for_fine_tuning(data, tmp_path, dropout, expected):
    model = run_config(data, tmp_path / "run").model
    values = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    run = make_run(data, tmp_path / "run", num_steps=1, model=type(model)(**vars(model) | values))
    export(ExportConfig(checkpoint=run, out=tmp_path / "exported"))
    configuration = open_pretrained(tmp_path / "exported").configuration
    assert configuration["hidden_dropout_prob"] == configuration["attention_probs_dropout_prob"] == expected
