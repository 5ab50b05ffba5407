"""Fine-tuning runs that are killed or stopped, and resumed to the same numbers."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jobs.finetune import finetune
from tests.forked import DEVNULL, Forked
from tests.jobs.small_finetune import config, lines, weights


def start(encoder: Path, task_files, out: Path, task: str = "classify") -> Forked:
    """`bertloom finetune` in a process of its own, as in `finetuned`."""
    train, dev = task_files[task]
    words = ["finetune", "--task", task, "--model", encoder, "--train", train, "--dev", dev, "--out", out]
    words += ["--num-epochs", "2", "--batch-size", "16", "--learning-rate", "3e-3", "--device", "cpu"]
    words += ["--num-threads", "1", "--save-every", "3"]
    code = "import sys; from jobs.cli import main; sys.exit(main(sys.argv[1:]))"
    return Forked(code, *map(str, words), stderr=DEVNULL)


def kill_at(process: Forked, out: Path, number: int, kind: int) -> None:
    """Send a signal as soon as metrics.jsonl has this number of lines."""
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        path = out / "metrics.jsonl"
        if path.exists() and path.read_bytes().count(b"\n") >= number:
            process.send_signal(kind)
            return
        time.sleep(0.001)
    raise AssertionError("it ended before it could be stopped")


def test_a_run_that_was_killed_and_then_stopped_ends_with_the_numbers_of_an_uninterrupted_run(
    finetuned, encoder, task_files, tmp_path
):
    out = tmp_path / "run"
    process = start(encoder, task_files, out)
    kill_at(process, out, 5, signal.SIGKILL)
    process.communicate()
    process = start(encoder, task_files, out)
    kill_at(process, out, 8, signal.SIGTERM)
    text, _ = process.communicate()
    assert process.returncode == 143 and "stopped by SIGTERM at step" in text
    process = start(encoder, task_files, out)
    text, _ = process.communicate()
    assert process.returncode == 0 and "resuming at step" in text
    assert lines(out) == lines(finetuned) and weights(out) == weights(finetuned)
    assert json.loads((out / "results.json").read_text()) == json.loads((finetuned / "results.json").read_text())


@pytest.mark.parametrize("task", ["multilabel", "choice", "embed"])
def test_killed_runs_with_thresholds_or_endings_or_vectors_end_with_the_numbers_of_an_uninterrupted_run(
    task, encoder, task_files, tmp_path
):
    whole, out = tmp_path / "whole", tmp_path / "run"
    finetune(config(encoder, task_files, whole, task, save_every=3))
    process = start(encoder, task_files, out, task)
    kill_at(process, out, 14, signal.SIGKILL)  # after the first evaluation
    process.communicate()
    process = start(encoder, task_files, out, task)
    text, _ = process.communicate()
    assert process.returncode == 0 and "resuming at step" in text
    assert lines(out) == lines(whole) and weights(out) == weights(whole)
    for name in ("results.json", "model/config.json"):
        assert (out / name).read_bytes() == (whole / name).read_bytes()


def test_results_of_another_file_are_refused_by_name(finetuned, encoder, task_files, tmp_path):
    out = shutil.copytree(finetuned, tmp_path / "run")
    for content in ('{"tokenizer_class": "BertTokenizer"}', '{"settings": {}, "step": 1}'):
        (out / "results.json").write_text(content)
        with pytest.raises(ValueError, match="run/results.json: "):
            finetune(config(encoder, task_files, out))


# Runs in a process of its own. Fork N exits after the N-th change of the file system; another fork resumes its run.
KILLER = """
import os, shutil, sys
from tests.forked import preload
preload()
from jobs.finetune import main
import model.runs.checkpoint, model.hub.weights
left = 10**9
def counted(f):
    def call(*args, **kwargs):
        global left
        result = f(*args, **kwargs)
        left -= 1
        if left == 0:
            os._exit(9)
        return result
    return call
os.rename, os.replace, shutil.rmtree = counted(os.rename), counted(os.replace), counted(shutil.rmtree)
for module in (model.runs.checkpoint, model.hub.weights):
    module.write_tensors = counted(module.write_tensors)
out, words = sys.argv[1], sys.argv[2:]
stage, alive = 0, True
while alive:
    stage += 1
    child = os.fork()
    if child == 0:
        left = stage
        sys.stdout = sys.stderr = open(os.devnull, "w")
        os._exit(main([*words, "--out", f"{out}/{stage}"]))
    alive = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    if os.fork() == 0:
        sys.stdout = sys.stderr = open(os.devnull, "w")
        os._exit(main([*words, "--out", f"{out}/{stage}"]))
    assert os.waitstatus_to_exitcode(os.wait()[1]) == 0, stage
print(stage)
"""


@pytest.mark.slow
def test_a_run_that_was_killed_after_any_change_of_its_folder_is_finished_by_the_next_start(
    encoder, task_files, tmp_path
):
    train, dev = task_files["classify"]
    flags = ["--task", "classify", "--model", encoder, "--train", train, "--dev", dev, "--num-epochs", "0.3"]
    flags += ["--batch-size", "16", "--learning-rate", "3e-3", "--device", "cpu", "--num-threads", "1"]
    flags += ["--eval-every", "2"]
    done = subprocess.run(
        [sys.executable, "-c", KILLER, tmp_path, *flags],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"TOKENIZERS_PARALLELISM": "false"},
    )
    assert done.returncode == 0, done.stderr
    last = int(done.stdout)
    assert last > 15, "it was killed at too few points"
    for stage in range(1, last):
        assert lines(tmp_path / str(stage)) == lines(tmp_path / str(last)), stage
        assert weights(tmp_path / str(stage)) == weights(tmp_path / str(last)), stage
        names = sorted(path.name for path in (tmp_path / str(stage)).iterdir())
        assert names == [".lock", "config.toml", "metrics.jsonl", "model", "results.json"], stage
