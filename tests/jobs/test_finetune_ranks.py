"""Fine-tuning in several processes: the same losses as in one, for losses of single items and of whole batches."""

import pytest
import torch
from safetensors.torch import load_file

from jobs.bench_tasks import main as bench_main
from jobs.finetune import finetune
from jobs.support import finetune_run
from jobs.support.finetuning import Finetuning
from tests.jobs.small_finetune import config, lines, weights
from tests.ranks import finish, start_ranks

CODE = "import sys; from jobs.cli import main; sys.exit(main(sys.argv[1:]))"
VALUES = {"num_epochs": 1.0, "batch_size": 16, "micro_batch_size": 9, "learning_rate": 3e-3, "save_every": 4}


def trained(size: int, encoder, task_files, out, task: str, *more: str) -> str:
    """Train in this number of processes, and return what rank 0 printed; the others print nothing."""
    train, dev = task_files[task]
    values = VALUES | {"task": task, "model": encoder, "train": train, "dev": dev, "out": out, "num_threads": 1}
    flags = [word for name, value in values.items() for word in ("--" + name.replace("_", "-"), str(value))]
    ended = finish(start_ranks(size, CODE, ["finetune", *flags, "--device", "cpu", *more]))
    assert [status for status, _, _ in ended] == [0] * size, ended
    assert [said for _, said, _ in ended[1:]] == [""] * (size - 1)
    return str(ended[0][1])


@pytest.mark.parametrize("task, more", [("classify", ()), ("embed", ("--symmetric", "True"))])
def test_two_and_three_ranks_have_the_losses_and_metrics_of_one(task, more, encoder, task_files, tmp_path):
    finetune(config(encoder, task_files, tmp_path / "one", task, **VALUES, symmetric=True if more else None))
    alone = lines(tmp_path / "one")
    for size in (2, 3):
        out = tmp_path / str(size)
        trained(size, encoder, task_files, out, task, *more)
        assert [line["step"] for line in lines(out)] == [line["step"] for line in alone]
        for line, twin in zip(lines(out), alone):
            assert line["loss"] == pytest.approx(twin["loss"], rel=1e-4, abs=1e-5)
        theirs = load_file(tmp_path / "one" / "model" / "model.safetensors")
        for name, tensor in load_file(out / "model" / "model.safetensors").items():
            torch.testing.assert_close(tensor, theirs[name], atol=2e-3, rtol=0)
        assert sorted(path.name for path in out.iterdir()) == sorted(path.name for path in (tmp_path / "one").iterdir())


def test_ranks_resume_to_the_same_bits_and_find_a_finished_run(encoder, task_files, tmp_path):
    whole, out = tmp_path / "whole", tmp_path / "again"
    trained(2, encoder, task_files, whole, "embed")
    trained(2, encoder, task_files, out, "embed")
    assert weights(out) == weights(whole) and lines(out) == lines(whole)
    assert "is finished: ndcg_at_10" in trained(2, encoder, task_files, out, "embed")


def test_ranks_go_on_from_a_checkpoint_of_one_process(encoder, task_files, tmp_path, monkeypatch):
    finetune(config(encoder, task_files, tmp_path / "one", "embed", **VALUES))
    monkeypatch.setattr(finetune_run, "finish", lambda training, progress: pytest.fail("it has ended"))
    monkeypatch.setattr(Finetuning, "is_over", lambda training, progress: progress.step == 6)
    with pytest.raises(pytest.fail.Exception):
        finetune(config(encoder, task_files, tmp_path / "run", "embed", **VALUES))
    said = trained(2, encoder, task_files, tmp_path / "run", "embed")
    assert "resuming at step 6" in said
    losses = [[line["loss"] for line in lines(tmp_path / name) if line["split"] == "train"] for name in ("run", "one")]
    assert len(losses[0]) == 10 and losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_bench_tasks_is_for_one_process(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="bench-tasks runs in one process, on one device: start it without torchrun"):
        bench_main([str(tmp_path / "tasks.toml"), "--model", "x", "--out", str(tmp_path / "out")])
