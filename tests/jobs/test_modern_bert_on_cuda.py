"""ModernBERT on the fake CUDA device: FlashAttention gets its windows; layers work compiled, in graphs and sharded."""

import pytest

from model.modern_bert_config import ModernBertShape
from tests.fake_cuda.library import missing
from tests.fake_cuda.report import replace_compiler
from tests.fake_cuda.runs import on_devices, run, run_ranks
from tests.jobs.test_pretrain_on_cuda import EVALUATIONS, PARTS, RANKS, data, losses, recorded

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())

__all__ = ["data"]  # a fixture

SHAPE = {
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
    "local_attention": 8,
}
TINY_MODERN = ModernBertShape(**SHAPE)
FLAGS = [word for name, value in SHAPE.items() for word in (f"--model.{name.replace('_', '-')}", value)]


@on_devices()
def test_losses_in_32_bits_are_those_of_a_cpu_in_the_padded_form(data, tmp_path):
    from tests.jobs.small_run import make_run

    changes = {"model": TINY_MODERN, "precision": "fp32", "phases": ("32:0.5", "64:0.5"), "max_seq_length": None}
    report = recorded(data, tmp_path / "cuda", **changes)
    make_run(data, tmp_path / "cpu", **changes)
    assert losses(tmp_path / "cuda") == pytest.approx(losses(tmp_path / "cpu"), rel=1e-6)
    assert report.flash_forward == 0


@on_devices()
def test_flash_attention_gets_the_window_in_two_layers_of_three(data, tmp_path):
    recorded(data, tmp_path / "exact", model=TINY_MODERN, precision="fp32")
    for precision in ("fp16", "bf16"):
        report = recorded(data, tmp_path / precision, model=TINY_MODERN, precision=precision)
        assert report.flash_windows == {
            "forward -1": 2 * (6 * PARTS + EVALUATIONS),
            "forward 4": 2 * (6 * PARTS + EVALUATIONS),
            "backward -1": 2 * 6 * PARTS,
            "backward 4": 2 * 6 * PARTS,
        }
        assert losses(tmp_path / precision) == pytest.approx(losses(tmp_path / "exact"), rel=5e-3)


@pytest.mark.slow
@on_devices()
def test_layers_with_and_without_a_window_are_compiled_once_for_each_length_and_work_in_graphs(data, tmp_path):
    replace_compiler()
    changes = {"model": TINY_MODERN, "phases": ("32:0.5", "64:0.5"), "max_seq_length": None, "num_steps": 8}
    recorded(data, tmp_path / "plain", **changes)
    report = recorded(data, tmp_path / "compiled", compile=True, **changes)
    assert report.graphs == {
        "ModernBertEmbeddings.forward": 1,
        "ModernBertLayer.forward": 2 * 3,  # the first layer has no norm, and others see all or a window
        "PretrainingModel.word_losses": 1,
    }
    assert report.graph_breaks == {}
    assert losses(tmp_path / "compiled") == pytest.approx(losses(tmp_path / "plain"), rel=5e-3)
    report = recorded(data, tmp_path / "graphs", cuda_graphs=True, **changes)
    assert report.replays == 4 * 2 + 4 * 4
    assert losses(tmp_path / "graphs") == pytest.approx(losses(tmp_path / "plain"), rel=1e-5)


def test_sharded_ranks_compute_what_one_device_computes(data, tmp_path):
    def flags(name: str, size: int, *more: object) -> list[object]:
        words = ["pretrain", "modern-tiny", "--data", data, "--out", tmp_path / name, "--max-seq-length", 32]
        return [*words, *RANKS.split(), "--micro-batch-size", size, *FLAGS, *more]

    run(*flags("one", 16))
    ranks = run_ranks(2, *flags("sharded", 8, "--shard-model"))
    assert losses(tmp_path / "sharded") == pytest.approx(losses(tmp_path / "one"), rel=2e-3)
    for ended in ranks:
        assert ended.report.flash_windows["backward 4"] == ended.report.flash_windows["backward -1"] == 2 * 6
