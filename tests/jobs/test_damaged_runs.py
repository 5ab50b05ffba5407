"""Files of training runs that were damaged between two starts, and what a kill left in a folder."""

import errno
import json
import logging
import os
import shutil

import pytest

from bertloom.locks import file_lock
from jobs import cli
from jobs.finetune import finetune
from jobs.support.errors import describe
from model.runs.metrics import missing_after
from pipeline.inputs.sources import Source, Split
from pipeline.stages.reading_notes import reading
from tests.jobs.small_finetune import config
from tests.jobs.small_run import make_data, make_run


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("data") / "set")


def stop_before(monkeypatch, name: str, encoder, task_files, out) -> None:
    """Train until a function of finetune_run is called."""

    def stop(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(f"jobs.support.finetune_run.{name}", stop)
        with pytest.raises(KeyboardInterrupt):
            finetune(config(encoder, task_files, out))


@pytest.mark.parametrize("what", ["damaged", "missing"])
def test_a_damaged_file_of_the_best_model_is_named(encoder, task_files, tmp_path, monkeypatch, what):
    out = tmp_path / "run"
    stop_before(monkeypatch, "finish", encoder, task_files, out)
    [path] = (out / "models").glob("*/vocab.txt")
    content = path.read_bytes()
    path.unlink()
    if what == "damaged":
        path.write_bytes(bytes(len(content)))
    with pytest.raises(ValueError, match=rf"models/step-\d+/vocab.txt, of the best model, is {what}: put it back as"):
        finetune(config(encoder, task_files, out))
    path.write_bytes(content)
    finetune(config(encoder, task_files, out))
    (out / "model/config.json").write_text("{}")
    with pytest.raises(ValueError, match="run/model/config.json, of the best model, is damaged"):
        finetune(config(encoder, task_files, out))


@pytest.mark.parametrize(
    "content, said",
    [(b"", "ends at step 0: the metrics of 6 steps"), (bytes(500), "step 0"), (None, "step 3: the metrics of 3 steps")],
)
def test_lost_lines_of_metrics_are_reported(data, tmp_path, caplog, content, said):
    out = make_run(data, tmp_path / "run")
    path = out / "metrics.jsonl"
    lines = [line for line in path.read_text().splitlines(keepends=True) if json.loads(line)["step"] <= 3]
    path.write_bytes("".join(lines).encode() if content is None else content)
    with caplog.at_level(logging.WARNING):
        make_run(data, out)
    assert f"{path} ends at " in caplog.text and said in caplog.text


def test_metrics_of_every_tenth_step_are_complete_between_two_lines():
    lines = [{"step": step, "split": "train"} for step in (10, 20)]
    assert [missing_after(lines, step, 10) for step in (20, 25, 29, 30)] == [None, None, None, 21]
    assert missing_after(lines, 25, 1) is None, "the lines were ten steps apart before"
    assert missing_after([], 5, 10) is None and missing_after([None], 10, 10) == 1


def test_what_a_kill_left_in_a_run_or_a_complete_data_set_is_removed(data, job, tmp_path):
    run, left = make_run(data, tmp_path / "run"), ".tmp-99999999-1-config.toml"
    (run / left).touch()
    make_run(data, run)
    assert not (run / left).exists()
    out = tmp_path / "out"
    assert cli.main(job.argv(out)) == 0
    (out / left).touch()
    assert cli.main(job.argv(out)) == 0
    assert not (out / left).exists()


def test_a_lock_or_a_note_that_cannot_be_written_is_named(tmp_path):
    if not os.path.exists("/dev/full"):
        pytest.skip("this system has no /dev/full")
    (tmp_path / "lock").symlink_to("/dev/full")
    with pytest.raises(OSError) as error, file_lock(tmp_path / "lock"):
        pass
    assert error.value.errno in (errno.ENOSPC, errno.EINVAL)
    assert describe("bertloom", error.value)[0].startswith(f"{tmp_path}/lock: ")


def test_a_note_of_a_reader_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    split = Split(Source("/a.txt", "a.txt", "txt", None, None, 1, "digest"), 0, None)
    with reading(str(tmp_path / "notes")) as note:
        [path] = (tmp_path / "notes").iterdir()
        note(split, 0)
        monkeypatch.setattr("json.dumps", lambda value: (_ for _ in ()).throw(OSError(errno.EIO, "Input/output error")))
        with pytest.raises(OSError) as error:
            note(split, 1)
    assert error.value.filename == str(path)
    shutil.rmtree(tmp_path / "notes")
