"""The losses of sources on a CUDA device in host memory, with CUDA graphs too: the same numbers, and not one wait more."""

from pathlib import Path

import pytest

from tests.fake_cuda.library import missing
from tests.fake_cuda.runs import on_devices

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())


@on_devices()
def test_losses_of_sources_cost_no_wait_for_the_device_and_are_the_same_in_cuda_graphs(data_set: Path):
    from dataclasses import replace

    import pytest
    import torch

    from model.cuda_graphs import StepGraphs
    from model.loading.data import DataSet
    from model.loading.padding import pad_batch
    from model.mixed_precision import ComputeCopy
    from model.optimizer import build_optimizer
    from model.step import train_step
    from tests.fake_cuda.library import load
    from tests.fake_cuda.report import Recorder
    from tests.model.small_model import random_model
    from tests.model.test_losses_of_sources import NAMES, SHAPE, STEP, mixed, take_batch

    plain = take_batch(DataSet(data_set).examples("train", 32), 12)
    results, waits = {}, {}
    for name in ("plain", "mixed", "mixed in graphs", "plain in graphs"):
        batch = mixed(plain) if "mixed" in name else plain
        batch = replace(batch, micro_batches=[pad_batch(part, SHAPE).pinned() for part in batch.micro_batches])
        model = random_model().cuda()
        copy = ComputeCopy(model, torch.bfloat16)
        graphs = StepGraphs(copy.model, model, [SHAPE]) if "graphs" in name else None
        optimizer = build_optimizer(model, 0.01)
        found = []
        for step in range(3):
            recorder = Recorder(load())
            result = train_step(model, optimizer, batch, copy=copy, graphs=graphs, **STEP | {"step": step})
            found.append(result)
        report = recorder.report()
        assert report.replays == (2 if graphs else 0)
        waits[name] = report.num_synchronizations  # of a step in which nothing is recorded
        results[name] = [vars(result) for result in found]
    assert set(waits.values()) == {2}
    for step in range(3):
        assert results["mixed"][step].pop("loss_by_source").keys() == set(NAMES[:3])
        assert results["plain"][step].pop("loss_by_source") == {}
        assert results["mixed"][step] == results["plain"][step]
        assert results["plain in graphs"][step]["mlm_loss"] == results["mixed in graphs"][step]["mlm_loss"]
    host = random_model()
    expected = train_step(host, build_optimizer(host, 0.01), mixed(plain), **STEP).loss_by_source
    assert results["mixed in graphs"][0]["loss_by_source"] == pytest.approx(expected, rel=2e-2)


@on_devices()
def test_a_phase_with_another_number_of_sources_has_graphs_of_its_own(data_set: Path):
    from dataclasses import replace

    import pytest
    import torch

    from model.cuda_graphs import StepGraphs
    from model.loading.data import DataSet
    from model.loading.padding import pad_batch
    from model.mixed_precision import ComputeCopy
    from model.optimizer import build_optimizer
    from model.step import train_step
    from tests.model.small_model import random_model
    from tests.model.test_losses_of_sources import SHAPE, STEP, mixed, take_batch

    plain = take_batch(DataSet(data_set).examples("train", 32), 12)
    several = mixed(plain)
    alone = replace(
        several,
        micro_batches=[replace(part, sources=torch.zeros_like(part.sources)) for part in several.micro_batches],
        source_names=("web",),
        masked_by_source=(plain.num_masked,),
    )
    model = random_model().cuda()
    copy = ComputeCopy(model, torch.bfloat16)
    graphs, optimizer = StepGraphs(copy.model, model, [SHAPE]), build_optimizer(model, 0.01)
    for batch in (several, alone, plain, several, plain):
        padded = replace(batch, micro_batches=[pad_batch(part, SHAPE).pinned() for part in batch.micro_batches])
        result = train_step(model, optimizer, padded, copy=copy, graphs=graphs, **STEP)
        assert len(result.loss_by_source) == min(3, len(batch.source_names))
        if batch is alone:
            assert result.loss_by_source["web"] == pytest.approx(result.mlm_loss)
