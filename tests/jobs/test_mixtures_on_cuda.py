"""A mixture on a CUDA device in host memory: the stream of other devices, and no more waits and graphs than one data set."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from jobs.pretrain import pretrain
from jobs.verify import verify_run
from tests.fake_cuda.library import load, missing
from tests.fake_cuda.report import Recorder, Report, replace_compiler
from tests.fake_cuda.runs import on_devices
from tests.jobs.small_run import make_data, run_config, train_lines

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """A folder with two data sets."""
    folder = tmp_path_factory.mktemp("mixture")
    for seed, (name, rows) in enumerate({"web": (300,), "pep": (40, 35)}.items()):
        make_data(folder / name, rows=rows, num_validation=20, seed=seed)
    return folder


@on_devices()
def test_batches_padded_for_cuda_graphs_have_the_stream_of_others(data, tmp_path):
    words = (f"web={data}/web:0.8", f"pep={data}/pep:0.2")
    lines, replays = {}, {}
    for name in ("plain", "graphs"):
        recorder = Recorder(load())
        config = run_config("set", tmp_path / name, device="cuda", max_seq_length=32, cuda_graphs=name == "graphs")
        pretrain(replace(config, data=words))
        lines[name], replays[name] = train_lines(tmp_path / name), recorder.report().replays
        assert verify_run(tmp_path / name) == ([], 6)
    assert replays["graphs"] > 6 and not replays["plain"]
    for line, twin in zip(lines["graphs"], lines["plain"], strict=True):
        assert line["stream"] == twin["stream"] and line["tokens_by_source"] == twin["tokens_by_source"]
        assert line["loss"] == pytest.approx(twin["loss"], rel=2e-2)
        assert line["loss_by_source"] == pytest.approx(twin["loss_by_source"], rel=5e-2)


@on_devices()
def test_a_step_of_a_mixture_waits_for_the_device_as_often_as_one_of_one_data_set(data, tmp_path):
    few, more = (Counter(recorded(data, tmp_path / f"{steps}", num_steps=steps).synchronizations) for steps in (2, 5))
    assert more - few == {
        "model/step.py train_step: aten::_local_scalar_dense": 3,  # the norm of the gradient
        "model/step.py train_step: copy to the CPU": 3,  # the losses, with the losses of the sources
    }


@pytest.mark.slow
@on_devices()
def test_a_mixture_is_compiled_once_without_a_break(data, tmp_path):
    replace_compiler()
    report = recorded(data, tmp_path / "run", compile=True, num_steps=8)
    assert report.graphs == {"BertEmbeddings.forward": 1, "BertLayer.forward": 1, "PretrainingModel.word_losses": 1}
    assert report.graph_breaks == {} and report.recompilations == []
    lines = train_lines(tmp_path / "run")
    assert {name for line in lines for name in line["loss_by_source"]} == {"web", "pep"}


def recorded(data: Path, out: Path, **changes: object) -> Report:
    """What a run on both data sets did."""
    recorder = Recorder(load())
    config = run_config("set", out, **{"device": "cuda", "max_seq_length": 32, "save_every": 100} | changes)
    pretrain(replace(config, data=(f"web={data}/web:0.8", f"pep={data}/pep:0.2")))
    return recorder.report()
