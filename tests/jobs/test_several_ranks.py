"""Training in several processes that talk by gloo: the same global batches, and losses that agree, in any layout."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file

from bertloom.processes import PROCESS_LOST
from jobs.pretrain import pretrain
from jobs.support.pretrain_config import PretrainConfig
from jobs.verify import verify_run
from model.bert_config import BertShape
from model.runs.metrics import read_metrics
from tests.forked import Forked
from tests.jobs.small_run import train_lines
from tests.model.synthetic import write_data_set
from tests.ranks import finish, start_rank, start_ranks

MODEL = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
COMMON = {
    "learning_rate": 3e-3,
    "device": "cpu",
    "eval_every": 6,
    "num_eval_examples": 40,
    "save_every": 6,
    "num_threads": 1,
}
CODE = "import sys; from jobs.cli import main; sys.exit(main(['pretrain', *sys.argv[1:]]))"
# Two lengths, the second one with fewer examples in a step than there are ranks.
PHASES = ("32:0.75", "64:0.25:3")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("data") / "set"
    return write_data_set(directory, rows=(100, 80), num_validation=50, max_seq_lengths=(32, 64))


def words(data: Path, out: Path, num_steps: int, micro_batch_size: int, **model: str) -> list[str]:
    values = COMMON | {"data": data, "out": out, "num_steps": num_steps, "batch_size": 16}
    values |= {"micro_batch_size": micro_batch_size} | {
        f"model.{name}": value for name, value in (MODEL | model).items()
    }
    flags = [word for name, value in values.items() for word in ("--" + name.replace("_", "-"), str(value))]
    return [*flags, "--phases", *PHASES]


def alone(data: Path, out: Path, num_steps: int, micro_batch_size: int, **changes: str):
    model = BertShape(**MODEL | changes)
    return pretrain(
        PretrainConfig(
            data=data,
            out=out,
            num_steps=num_steps,
            batch_size=16,
            micro_batch_size=micro_batch_size,
            phases=PHASES,
            model=model,
            **COMMON,
        )
    )


def assert_same_batches_and_losses(out: Path, other: Path) -> None:
    ours, theirs = train_lines(out), train_lines(other)
    assert [(line["stream"], line["tokens"]) for line in ours] == [(line["stream"], line["tokens"]) for line in theirs]
    for line, twin in zip(ours, theirs, strict=True):
        assert line["loss"] == pytest.approx(twin["loss"], rel=1e-4)
        assert line["gradient_norm"] == pytest.approx(twin["gradient_norm"], rel=1e-2)
        assert line["learning_rate"] == twin["learning_rate"]


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(max((out / "checkpoints").iterdir()) / "model.safetensors")


def test_one_two_and_four_ranks_see_the_same_batches_and_losses_and_go_on_from_each_other(data, tmp_path):
    alone(data, tmp_path / "one", 12, 16)
    for size, micro_batch_size in ((2, 8), (4, 3)):
        out = tmp_path / f"ranks-{size}"
        ended = finish(start_ranks(size, CODE, words(data, out, 12, micro_batch_size)))
        assert [status for status, _, _ in ended] == [0] * size, ended
        assert [said for _, *said in ended[1:]] == [["", ""]] * (size - 1) and f"on {size} ranks of cpu" in ended[0][1]
        assert_same_batches_and_losses(out, tmp_path / "one")
        names = [".lock", "checkpoints", "config.toml", "metrics.jsonl", "tokenizer.json", "vocab.txt"]
        assert sorted(p.name for p in out.iterdir()) == names
        for name, tensor in weights(out).items():
            torch.testing.assert_close(tensor, weights(tmp_path / "one")[name], atol=2e-3, rtol=0)
        evaluations = [
            [line["mlm_loss"] for line in read_metrics(run / "metrics.jsonl") if line["split"] == "validation"]
            for run in (out, tmp_path / "one")
        ]
        assert evaluations[0] == pytest.approx(evaluations[1], rel=1e-4)
        assert verify_run(out) == ([], 12)
    assert {line["max_seq_length"] for line in train_lines(tmp_path / "one")} == {32, 64}

    # stopped at step 6 under two ranks, resumed by one; stopped under one, resumed by four
    for origin, size in (("ranks-2", 1), ("one", 4)):
        out = Path(shutil.copytree(tmp_path / origin, tmp_path / f"{origin}-then-{size}"))
        shutil.rmtree(out / "checkpoints/step-00000012")
        if size == 1:
            alone(data, out, 12, 5)
        else:
            assert [status for status, _, _ in finish(start_ranks(size, CODE, words(data, out, 12, 4)))] == [0] * 4
        assert_same_batches_and_losses(out, tmp_path / "one")


def assert_resumed_has_the_same_bits(data: Path, folder: Path, micro_batch_size: int, flags: list[str]) -> None:
    """Train two ranks for 12 steps, and again from step 6, and compare losses and checkpoints."""
    run, again = folder / "run", folder / "again"
    for out in (run, again):
        ended = finish(start_ranks(2, CODE, [*words(data, out, 12, micro_batch_size), *flags]))
        assert [status for status, _, _ in ended] == [0, 0], ended
        if out == run:
            shutil.copytree(run, again)
            shutil.rmtree(again / "checkpoints/step-00000012")
    assert "resuming at step 6" in ended[0][1]
    assert train_lines(again) == train_lines(run)
    for name in ("model.safetensors", "optimizer.safetensors"):
        first, second = (out / "checkpoints/step-00000012" / name for out in (run, again))
        assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_stopped_and_resumed_by_as_many_ranks_it_has_the_same_bits(data, tmp_path, optimizer):
    assert_resumed_has_the_same_bits(data, tmp_path, 8, ["--optimizer", optimizer])


def test_batch_normalization_is_over_the_tokens_of_all_ranks(data, tmp_path):
    alone(data, tmp_path / "one", 12, 16, normalization="batch")
    out = tmp_path / "two"
    ended = finish(start_ranks(2, CODE, words(data, out, 12, 8, normalization="batch")))
    assert [status for status, _, _ in ended] == [0, 0], ended
    assert_same_batches_and_losses(out, tmp_path / "one")
    for name, tensor in weights(out).items():
        torch.testing.assert_close(tensor, weights(tmp_path / "one")[name], atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize("flags", [[], ["--shard-model"]])
def test_a_rank_that_dies_ends_the_others_with_a_message(data, tmp_path, flags):
    processes = start_ranks(2, CODE, [*words(data, tmp_path / "run", 100_000, 8), *flags])
    wait_for(lambda: len(read_metrics(tmp_path / "run/metrics.jsonl")) > 3, processes)
    processes[1].kill()
    (status, _, errors), (killed, _, _) = finish(processes)
    assert killed == -signal.SIGKILL
    assert status == PROCESS_LOST
    assert "rank 0 of 2 lost the connection to the others: one of them ended, see its own message" in errors


IN_VAIN = """
import sys
from datetime import timedelta
from jobs.cli import main
from model import distributed
distributed.CONNECT_TIMEOUT = timedelta(seconds=1)
sys.exit(main(["pretrain", *sys.argv[1:]]))
"""


def test_ranks_of_a_torchrun_that_has_ended_end_with_a_message(data, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]  # nobody listens there after the block
    rank = start_rank(1, 2, port, [IN_VAIN, *words(data, tmp_path / "run", 10, 8)])
    ((status, _, errors),) = finish([rank])
    assert status == PROCESS_LOST
    assert f"rank 1 of 2 cannot connect to torchrun at 127.0.0.1:{port}: it has ended" in errors


JOIN = """
import os, torch
from model.distributed import join_ranks
with join_ranks(torch.device("cpu")) as ranks:
    print(ranks.share_json(os.environ["ROUND"]))
"""


def test_ranks_meet_again_in_a_store_that_torchrun_keeps_whatever_each_machine_has_counted():
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    # A machine that joins or leaves starts all ranks again, and raises the count of none.
    for number, counts in enumerate([(0, 0), (1, 0)], start=1):
        ranks = []
        for rank, count in enumerate(counts):
            environment = {"TORCHELASTIC_RESTART_COUNT": str(count)}
            ranks.append(start_rank(rank, 2, store.port, [JOIN], ROUND=str(number), **environment))
        ended = finish(ranks)
        assert [(status, said) for status, said, _ in ended] == [(0, f"{number}\n")] * 2, ended


def test_torchrun_starts_the_ranks_again_and_stops_them_cleanly(data, tmp_path):
    out = tmp_path / "run"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["--max-restarts", "1", "--no-python", sys.executable, "-c", CODE, *words(data, out, 100_000, 8)]
    with open(tmp_path / "log", "w") as log:
        launcher = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        wait_for(lambda: (out / "checkpoints/step-00000006").exists(), [launcher], tmp_path / "log")
        os.kill(int((out / ".lock").read_text().split()[1]), signal.SIGKILL)  # rank 0
        # Both are started again, and go on from the last checkpoint.
        wait_for(lambda: "resuming at step" in (tmp_path / "log").read_text(), [launcher], tmp_path / "log")
        lines = len(train_lines(out))
        wait_for(lambda: len(train_lines(out)) > lines + 3, [launcher], tmp_path / "log")
        launcher.send_signal(signal.SIGTERM)
        launcher.wait(60)
    finally:
        children = psutil.Process(launcher.pid).children() if launcher.poll() is None else []
        for process in (*children, launcher):
            process.kill()
        launcher.wait()
    assert "stopped by SIGTERM at step" in (tmp_path / "log").read_text()
    faults, steps = verify_run(out)
    assert faults == [] and steps == train_lines(out)[-1]["step"] > 6


def wait_for(condition, processes: list[Forked] | list[subprocess.Popen], log: Path | None = None) -> None:
    for _ in range(12_000):
        if condition():
            return
        ended = [process.returncode for process in processes if process.poll() is not None]
        assert not ended, (ended, log.read_text()[-3000:] if log else finish(processes))
        time.sleep(0.01)
    raise AssertionError(f"nothing in two minutes: {log.read_text()[-3000:] if log else ''}")
