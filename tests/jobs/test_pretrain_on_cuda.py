"""Pretraining on the fake CUDA device: the same numbers as on a CPU, by FlashAttention, without needless waits."""

import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from tests.fake_cuda.library import load, missing
from tests.fake_cuda.report import Recorder, Report, replace_compiler
from tests.fake_cuda.runs import on_devices, run, run_ranks
from tests.jobs.small_run import TINY, learnt, make_data, make_run, numbers, train_lines

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())

LAYERS, PARTS, EVALUATIONS = 2, 2, 2 * 5
"""Layers of the model, micro-batches of a step, and batches of the two evaluations of a run."""


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return make_data(tmp_path_factory.mktemp("data") / "set")


def recorded(data: Path, out: Path, **changes) -> Report:
    """What a run on the device did."""
    recorder = Recorder(load())
    make_run(data, out, **{"device": "cuda", "max_seq_length": 32, "save_every": 100} | changes)
    return recorder.report()


def losses(out: Path) -> list[float]:
    return [line["loss"] for line in train_lines(out)]


@on_devices()
def test_losses_in_32_bits_are_those_of_a_cpu(data, tmp_path):
    settings = [
        {"phases": ("32:0.5", "64:0.5"), "max_seq_length": None},
        {"optimizer": "lamb", "model": replace(TINY, hidden_dropout_prob=0.1)},
        {"recompute_activations": True, "remask": True, "model": replace(TINY, hidden_dropout_prob=0.1)},
    ]
    for number, changes in enumerate(settings):
        cpu, cuda = tmp_path / f"cpu-{number}", tmp_path / f"cuda-{number}"
        changes = {"precision": "fp32", "max_seq_length": 32} | changes
        report = recorded(data, cuda, **changes)
        make_run(data, cpu, **changes)
        assert losses(cuda) == pytest.approx(losses(cpu), rel=1e-6), changes
        assert numbers(cuda)[-1]["mlm_loss"] == pytest.approx(numbers(cpu)[-1]["mlm_loss"], rel=1e-6)
        assert report.flash_forward == 0


@on_devices()
def test_attention_in_16_bits_is_one_call_of_flash_attention_per_layer_and_micro_batch(data, tmp_path):
    for precision in ("fp16", "auto"):
        report = recorded(data, tmp_path / precision, precision=precision)
        assert report.flash_forward == LAYERS * (6 * PARTS + EVALUATIONS)
        assert report.flash_backward == LAYERS * 6 * PARTS
    report = recorded(data, tmp_path / "recompute", recompute_activations=True)
    assert report.flash_forward == LAYERS * (2 * 6 * PARTS + EVALUATIONS)
    assert losses(tmp_path / "recompute") == losses(tmp_path / "auto")


@on_devices()
def test_a_step_waits_twice_for_the_device_once_for_the_losses_and_once_for_the_norm(data, tmp_path):
    for changes in (
        {},
        {"optimizer": "lamb"},
        {"optimizer": "muon"},
        {"precision": "fp16", "remask": True, "recompute_activations": True},
    ):
        few, more = (
            Counter(recorded(data, tmp_path / f"{changes}-{steps}", num_steps=steps, **changes).synchronizations)
            for steps in (2, 5)
        )
        assert more - few == {
            "model/step.py train_step: aten::_local_scalar_dense": 3,  # the norm of the gradient
            "model/step.py train_step: copy to the CPU": 3,  # the losses
        }, changes
    small, large = (
        recorded(data, tmp_path / f"evaluation-{number}", num_steps=1, num_eval_examples=number).synchronizations
        for number in (8, 40)
    )
    assert small == large  # an evaluation waits once, after its last batch


@pytest.mark.slow
@on_devices()
def test_a_layer_is_compiled_once_for_each_length_and_never_again(data, tmp_path):
    replace_compiler()
    changes = {"compile": True, "phases": ("32:0.5", "64:0.5"), "max_seq_length": None, "num_steps": 8}
    report = recorded(data, tmp_path / "run", **changes)
    # Both lengths have micro-batches of 256 tokens, so embeddings and losses are the same for both.
    assert report.graphs == {"BertEmbeddings.forward": 1, "BertLayer.forward": 2, "PretrainingModel.word_losses": 1}
    assert report.graph_breaks == {}
    assert report.flash_forward == LAYERS * (4 * 2 + 4 * 4 + EVALUATIONS + 5)
    plain = recorded(data, tmp_path / "plain", **changes | {"compile": False})
    assert losses(tmp_path / "run") == pytest.approx(losses(tmp_path / "plain"), rel=5e-3)
    assert plain.num_graphs == 0


@on_devices()
def test_a_run_that_is_stopped_and_resumed_has_the_same_bits(data, tmp_path):
    with_dropout = {"cuda_graphs": True, "model": replace(TINY, hidden_dropout_prob=0.1)}
    for name, changes in {"bf16": {}, "fp16": {"precision": "fp16"}, "graphs": with_dropout}.items():
        whole, resumed = tmp_path / name, tmp_path / f"{name}-resumed"
        recorded(data, whole, save_every=4, **changes)
        shutil.copytree(whole, resumed)
        shutil.rmtree(resumed / "checkpoints" / "step-00000006")
        report = recorded(data, resumed, save_every=4, **changes)
        assert report.replays or report.flash_backward == LAYERS * 2 * PARTS
        assert learnt(resumed) == learnt(whole) and numbers(resumed) == numbers(whole), name


@on_devices()
def test_losses_by_cuda_graphs_are_those_without_them(data, tmp_path):
    changes = {"phases": ("32:0.5", "64:0.5"), "max_seq_length": None, "num_steps": 8}
    recorded(data, tmp_path / "plain", **changes)
    report = recorded(data, tmp_path / "graphs", cuda_graphs=True, **changes)
    assert report.replays == 4 * 2 + 4 * 4
    assert losses(tmp_path / "graphs") == pytest.approx(losses(tmp_path / "plain"), rel=1e-5)


@pytest.mark.slow
@on_devices()
def test_compiled_layers_and_other_optimizers_work_in_cuda_graphs(data, tmp_path):
    replace_compiler()
    for name, changes in {
        "compiled": {"compile": True, "num_steps": 8, "phases": ("32:0.5", "64:0.5"), "max_seq_length": None},
        "lamb": {"optimizer": "lamb", "precision": "fp16"},
        "muon": {"optimizer": "muon", "remask": True},
    }.items():
        recorded(data, tmp_path / f"{name}-plain", **changes)
        recorded(data, tmp_path / name, cuda_graphs=True, **changes)
        assert losses(tmp_path / name) == pytest.approx(losses(tmp_path / f"{name}-plain"), rel=5e-3), name


@on_devices(capability=(7, 5), name="NVIDIA T4")
def test_a_gpu_before_ampere_trains_in_fp16_without_flash_attention(data, tmp_path):
    report = recorded(data, tmp_path / "run")
    assert report.flash_forward == 0
    lines = train_lines(tmp_path / "run")
    assert [line["loss_scale"] for line in lines] and lines[-1]["loss"] < lines[0]["loss"]
    with pytest.raises(ValueError, match="NVIDIA T4 has no bf16"):
        recorded(data, tmp_path / "bf16", precision="bf16")


RANKS = "--batch-size 16 --learning-rate 3e-3 --num-steps 6 --num-eval-examples 40 --save-every 3 --eval-every 100"
SHAPE = {
    "hidden-size": 32,
    "num-hidden-layers": 2,
    "num-attention-heads": 2,
    "intermediate-size": 64,
    "max-position-embeddings": 64,
}


def flags(data: Path, out: Path, *more: object) -> list[object]:
    shape = [word for name, value in SHAPE.items() for word in (f"--model.{name}", value)]
    return ["pretrain", "--data", data, "--out", out, "--phases", "32:0.5", "64:0.5", *RANKS.split(), *shape, *more]


def test_two_ranks_on_two_devices_have_the_losses_of_one_and_resume_with_the_same_bits(data, tmp_path):
    one, two, again = tmp_path / "one", tmp_path / "two", tmp_path / "again"
    run(*flags(data, one, "--micro-batch-size", 16))
    ranks = run_ranks(2, *flags(data, two, "--micro-batch-size", 8))
    assert losses(two) == pytest.approx(losses(one), rel=2e-3)
    for rank, ended in enumerate(ranks):
        assert ended.report.peak_bytes[rank] > 0 and ended.report.peak_bytes[1 - rank] == 0
        assert ended.report.flash_backward == LAYERS * (3 * 1 + 3 * 2)
        assert "model/distributed.py sum_numbers: copy from the CPU" not in ended.report.synchronizations
    shutil.copytree(two, again)
    shutil.rmtree(again / "checkpoints" / "step-00000006")
    run_ranks(2, *flags(data, again, "--micro-batch-size", 8))
    assert learnt(again) == learnt(two) and numbers(again) == numbers(two)
