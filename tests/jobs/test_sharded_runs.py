"""Training with `--shard-model`: each rank has a part of the model, and the numbers are those of whole models."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from jobs.pretrain import pretrain
from jobs.support.pretrain_config import PretrainConfig
from jobs.verify import verify_run
from model.runs.checkpoint import load_model
from model.runs.metrics import read_metrics
from tests.jobs.test_several_ranks import (
    CODE,
    COMMON,
    MODEL,
    alone,
    assert_resumed_has_the_same_bits,
    assert_same_batches_and_losses,
    data,
    weights,
    words,
)
from tests.ranks import finish, start_ranks

__all__ = ["data"]  # a fixture

SHARDED = "--shard-model"
COUNTS = ("step", "num_examples", "num_masked", "num_pairs")


def train(size: int, arguments: list[str], code: str = CODE) -> list[tuple[int | None, str | None, str | None]]:
    """Exit status, output and errors of each rank."""
    return finish(start_ranks(size, code, arguments))


def assert_success(ended: list[tuple[int | None, str | None, str | None]]) -> None:
    assert [status for status, _, _ in ended] == [0] * len(ended), ended


def assert_same_evaluations(out: Path, other: Path) -> None:
    ours, theirs = (
        [line for line in read_metrics(run / "metrics.jsonl") if line["split"] == "validation"] for run in (out, other)
    )
    for line, twin in zip(ours, theirs, strict=True):
        assert [line[name] for name in COUNTS] == [twin[name] for name in COUNTS]
        assert line["mlm_loss"] == pytest.approx(twin["mlm_loss"], rel=1e-4)


def test_sharded_runs_have_the_losses_of_one_process_and_all_layouts_resume_each_other(data, tmp_path):
    one = tmp_path / "one"
    alone(data, one, 12, 16)
    # With three ranks and micro-batches of one example, ranks have 6, 5 and 5 of them in a step, or 1 each.
    for size, micro_batch_size in ((2, 4), (3, 1)):
        out = tmp_path / f"sharded-{size}"
        ended = train(size, [*words(data, out, 12, micro_batch_size), SHARDED])
        assert_success(ended)
        assert f"parameters, sharded over {size} ranks of cpu in fp32" in ended[0][1]
        assert_same_batches_and_losses(out, one)
        assert_same_evaluations(out, one)
        assert sorted(weights(out)) == sorted(weights(one))
        for name, tensor in weights(out).items():
            torch.testing.assert_close(tensor, weights(one)[name], atol=2e-3, rtol=0)
        assert verify_run(out) == ([], 12)

    for origin, size, flags in (("sharded-2", 1, []), ("sharded-3", 2, []), ("one", 3, [SHARDED])):
        out = Path(shutil.copytree(tmp_path / origin, tmp_path / f"{origin}-then-{size}"))
        shutil.rmtree(out / "checkpoints/step-00000012")
        if size == 1:
            alone(data, out, 12, 5)
        else:
            ended = train(size, [*words(data, out, 12, 4), *flags])
            assert_success(ended)
            assert "resuming at step 6" in ended[0][1]
        assert_same_batches_and_losses(out, one)


LOAD = """
import json, sys, torch
from safetensors.torch import save_file
from jobs.pretrain import prepare, resume
from jobs.support.config import parse
from jobs.support.pretrain_config import PretrainConfig
from model.distributed import join_ranks
from model.runs.checkpoint import snapshot, take_part_in_snapshot
from model.runs.recorder import make_recorder
from model.sharding import own_parts

config = parse(PretrainConfig, sys.argv[2:], prog="")
with join_ranks(torch.device("cpu")) as ranks:
    training = prepare(config, make_recorder(config.out, ranks), ranks)
    training.evaluate(resume(training))  # afterwards no rank keeps more than its part
    moments = [tensor for state in training.optimizer.state.values() for tensor in state.values() if tensor.ndim]
    print(json.dumps([sum(part.numel() for part in own_parts(group)) for group in (training.model.parameters(), moments)]))
    if ranks.is_first:
        weights, moments = snapshot(training.model, training.optimizer)
        save_file(weights | moments, sys.argv[1])
    else:
        take_part_in_snapshot(training.model, training.optimizer)
"""


def test_every_rank_loads_its_part_of_the_weights_and_moments_bit_for_bit(data, tmp_path):
    alone(data, tmp_path / "run", 6, 16)
    checkpoint = tmp_path / "run/checkpoints/step-00000006"
    model = load_model(checkpoint)
    num_weights = sum(parameter.numel() for parameter in model.parameters())
    saved = load_file(checkpoint / "model.safetensors") | load_file(checkpoint / "optimizer.safetensors")
    model.encoder.initialize_weights(model, PretrainConfig.seed)
    initial = {name: tensor.detach() for name, tensor in model.named_parameters()}
    for out, expected in ((tmp_path / "run", saved), (tmp_path / "new", initial)):
        out.mkdir(exist_ok=True)
        flags = [*words(data, out, 12, 4), SHARDED, "--allow-change", "num_steps"]
        ended = train(3, [str(tmp_path / "tensors"), *flags], LOAD)
        assert_success(ended)
        found = load_file(tmp_path / "tensors")
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in expected)
        parts = [json.loads(said.splitlines()[-1]) for _, said, _ in ended]
        assert sum(own for own, _ in parts) == num_weights
        assert max(own for own, _ in parts) < 0.4 * num_weights
        assert [moments for _, moments in parts] == [2 * own if expected is saved else 0 for own, _ in parts]


def test_a_sharded_run_that_is_stopped_and_resumed_has_the_same_bits(data, tmp_path):
    flags = [SHARDED, "--recompute-activations", "--model.hidden-dropout-prob", "0.1"]
    assert_resumed_has_the_same_bits(data, tmp_path, 4, flags)


EACH = "import model.sharding; model.sharding.have_room_for_gradients = lambda *_: False; "
EAGER = "import functools, torch, warnings; warnings.simplefilter('ignore'); "
EAGER += "torch.compile = functools.partial(torch.compile, backend='aot_eager'); "


@pytest.mark.parametrize(
    "flags, code",
    [
        ("--precision bf16", EACH),
        ("--precision fp16 --model.num-hidden-layers 3", ""),
        ("--optimizer lamb --recompute-activations --model.hidden-dropout-prob 0.1 --init-from {first}", ""),
        pytest.param("--compile --model.num-hidden-layers 3", EAGER, marks=pytest.mark.slow),
    ],
    ids=["bf16, gradients summed in each micro-batch", "fp16", "lamb, recomputed, dropout, other weights", "compiled"],
)
def test_sharded_and_whole_models_agree_in_all_kinds_of_training(data, tmp_path, flags, code):
    arguments = flags.split()
    if "{first}" in arguments:
        alone(data, tmp_path / "first", 4, 16)
        arguments = [str(tmp_path / "first") if word == "{first}" else word for word in arguments]
        arguments += ["--model.hidden-size", "32"]
    for name, sharded in (("whole", []), ("sharded", [SHARDED])):
        ended = train(2, [*words(data, tmp_path / name, 6, 4), *arguments, *sharded], code + CODE)
        assert_success(ended)
    assert_same_batches_and_losses(tmp_path / "sharded", tmp_path / "whole")
    assert_same_evaluations(tmp_path / "sharded", tmp_path / "whole")


def test_what_a_sharded_model_cannot_do_is_refused(data, tmp_path):
    with pytest.raises(
        ValueError, match="--cuda-graphs is for small models and --shard-model for large ones: omit one"
    ):
        PretrainConfig(data=str(data), out=tmp_path, num_steps=1, cuda_graphs=True, shard_model=True)
    for flags, message in (
        (
            ["--optimizer", "muon"],
            "--optimizer muon needs whole matrices: omit --shard-model, or take --optimizer adamw",
        ),
        (["--model.normalization", "batch"], "--shard-model has no batch normalisation: omit it, or take"),
    ):
        for status, _, errors in train(2, [*words(data, tmp_path / "run", 4, 8), SHARDED, *flags]):
            assert status == 2 and message in errors
        assert not (tmp_path / "run/checkpoints").exists()


def test_one_device_holds_the_whole_model_and_a_warning_names_torchrun(data, tmp_path, caplog):
    from model.bert_config import BertShape

    values = COMMON | {"data": data, "out": tmp_path / "run", "num_steps": 2, "model": BertShape(**MODEL)}
    assert pretrain(PretrainConfig(**values, shard_model=True)).step == 2
    assert "--shard-model has no effect on one device" in caplog.text
