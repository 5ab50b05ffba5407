"""Every command that computes with a model, on the fake CUDA device and on a CPU, with the same results."""

import contextlib
import io
import json
from pathlib import Path

import pytest

from tests.fake_cuda.library import load, missing
from tests.fake_cuda.report import Recorder
from tests.fake_cuda.runs import on_devices
from tests.jobs.small_run import make_data, make_run, numbers
from tests.model.small_task import ROWS, write_jsonl

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return make_data(tmp_path_factory.mktemp("data") / "set")


def command(*words: object) -> str:
    """What a command prints."""
    from jobs import cli

    with contextlib.redirect_stdout(io.StringIO()) as output:
        assert cli.main([str(word) for word in words]) == 0
    return output.getvalue()


def json_lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@on_devices()
def test_a_pretrained_model_is_evaluated_scored_embedded_and_exported(data, tmp_path):
    import numpy as np
    import pyarrow.parquet as pq

    run = make_run(data, tmp_path / "run", device="cuda", max_seq_length=32)
    texts = write_jsonl(tmp_path / "texts.jsonl", [{"text": "the house w1 w2 w3"}, {"text": "w7 " * 20}, {"text": "x"}])
    recorder = Recorder(load())
    for device in ("cuda", "cpu"):
        common = ["--model", run, "--device", device]
        results = json.loads(command("evaluate", "--data", data, "--max-examples", 40, "--json", *common))
        (tmp_path / f"evaluate-{device}").write_text(json.dumps(results))
        command("score", "--input", texts, "--out", tmp_path / f"score-{device}", *common)
        command("embed", "--input", texts, "--out", tmp_path / f"embed-{device}", *common)
        filled = command("predict", "--fill", "the [MASK] w1", "--out", tmp_path / f"fill-{device}", *common)
        assert filled == ""
    report = recorder.report()
    assert report.flash_forward > 0 and report.flash_backward == 0
    scores = [[line["perplexity"] for line in json_lines(tmp_path / f"score-{d}")] for d in ("cuda", "cpu")]
    assert scores[0] == pytest.approx(scores[1], rel=0.02)
    vectors = [np.stack(pq.read_table(tmp_path / f"embed-{d}")["vector"].to_numpy()) for d in ("cuda", "cpu")]
    np.testing.assert_allclose(*vectors, atol=0.05)
    command("export", "--checkpoint", run, "--out", tmp_path / "exported")
    assert (tmp_path / "exported" / "model.safetensors").exists()


@on_devices()
def test_each_task_is_fine_tuned_as_on_a_cpu_and_predicts(tmp_path):
    from tests.model.small_task import write_model

    model = write_model(tmp_path / "model")
    for task, rows in ROWS.items():
        train = write_jsonl(tmp_path / f"{task}.jsonl", rows(48))
        dev = write_jsonl(tmp_path / "dev.jsonl", rows(16, seed=9))
        common = ["--task", task, "--model", model, "--train", train, "--dev", dev]
        common += ["--batch-size", 16, "--num-epochs", 1]
        recorder = Recorder(load())
        command("finetune", *common, "--out", tmp_path / task, "--device", "cuda", "--precision", "fp32")
        command("finetune", *common, "--out", tmp_path / f"{task}-cpu", "--device", "cpu")
        on_cuda, on_cpu = numbers(tmp_path / task), numbers(tmp_path / f"{task}-cpu")
        assert [line["loss"] for line in on_cuda] == pytest.approx([line["loss"] for line in on_cpu], rel=1e-5)
        assert recorder.report().flash_forward == 0
        texts = [{"text": row["query"]} for row in rows(16)] if task == "embed" else rows(16)
        asked = write_jsonl(tmp_path / "asked.jsonl", texts)
        command("predict", "--model", tmp_path / task, "--input", asked, "--out", tmp_path / f"{task}-out.jsonl")
        assert len(json_lines(tmp_path / f"{task}-out.jsonl")) >= 16
    report = Recorder(load())
    command("finetune", *common, "--out", tmp_path / "bf16", "--device", "cuda")
    assert report.report().flash_backward > 0
