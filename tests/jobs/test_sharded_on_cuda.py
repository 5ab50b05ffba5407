"""Training with `--shard-model` on two devices of the fake CUDA: the losses of whole models, in less memory."""

import shutil
from pathlib import Path

import pytest

from tests.fake_cuda.library import missing
from tests.fake_cuda.runs import run_ranks
from tests.jobs.test_pretrain_on_cuda import data, flags, losses
from tests.jobs.test_several_ranks import weights

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())

__all__ = ["data"]  # a fixture

WIDE = ["--model.hidden-size", 128, "--model.intermediate-size", 512, "--recompute-activations"]


def waits(report) -> dict[str, int]:
    """How often the steps waited for the device, by place."""
    return {place: number for place, number in report.synchronizations.items() if place.startswith("model/step.py")}


@pytest.mark.slow
def test_sharded_ranks_compute_what_whole_models_compute_with_as_few_waits_and_less_memory(data, tmp_path):
    whole, sharded = tmp_path / "whole", tmp_path / "sharded"
    plain = run_ranks(2, *flags(data, whole, "--micro-batch-size", 2, *WIDE))
    found = run_ranks(2, *flags(data, sharded, "--micro-batch-size", 2, *WIDE, "--shard-model"))
    assert "sharded over 2 ranks of cuda in bf16" in found[0].output
    assert losses(sharded) == pytest.approx(losses(whole), rel=1e-4)
    num_parameters = sum(tensor.numel() for tensor in weights(whole).values())
    for rank in range(2):
        few, many = found[rank].report, plain[rank].report
        assert few.flash_forward == many.flash_forward and few.flash_backward == many.flash_backward
        assert waits(few) == waits(many)
        # 18 bytes per parameter (weights, gradients, moments, weights in 16 bits) against 8, and 4 for gradients of the
        # whole model, which are kept between micro-batches because the device has room for them.
        assert many.peak_bytes[rank] - few.peak_bytes[rank] > (18 - 8 - 4) * num_parameters
        assert few.peak_bytes[1 - rank] == 0


@pytest.mark.slow
def test_sharded_layers_are_compiled_as_often_as_whole_ones_and_runs_resume_each_other(data, tmp_path):
    whole, sharded = tmp_path / "whole", tmp_path / "sharded"
    plain = run_ranks(2, *flags(data, whole, "--micro-batch-size", 8, "--compile"))
    found = run_ranks(2, *flags(data, sharded, "--micro-batch-size", 8, "--compile", "--shard-model"))
    assert found[0].report.graphs == plain[0].report.graphs
    assert found[0].report.graph_breaks == {}
    assert losses(sharded) == pytest.approx(losses(whole), rel=1e-4)
    for origin, more in ((whole, ["--shard-model"]), (sharded, [])):
        out = Path(shutil.copytree(origin, tmp_path / f"from-{origin.name}"))
        shutil.rmtree(out / "checkpoints/step-00000006")
        ended = run_ranks(2, *flags(data, out, "--micro-batch-size", 8, *more))
        assert "resuming at step 3" in ended[0].output
        assert losses(out) == pytest.approx(losses(whole), rel=1e-3)
