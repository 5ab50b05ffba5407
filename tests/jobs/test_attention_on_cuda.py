"""Attention on the fake CUDA device where FlashAttention does not fit: one padded call for all sequences of a batch."""

from dataclasses import replace

import pytest

from tests.fake_cuda.device import Devices
from tests.fake_cuda.library import load, missing
from tests.fake_cuda.report import replace_compiler
from tests.fake_cuda.runs import on_devices, run
from tests.jobs.small_run import TINY
from tests.jobs.test_pretrain_on_cuda import data, losses, recorded

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())


__all__ = ["data"]  # a fixture


@on_devices()
def test_a_batch_is_one_call_and_the_host_waits_for_nothing():
    import torch
    import torch.nn.functional as F

    from model.attention import attention
    from tests.model.test_attention import packed_with_empty_rows, random_qkv, with_gradient

    calls = []
    own = F.scaled_dot_product_attention

    def counted(query, *others, **options):
        calls.append(query.shape)
        return own(query, *others, **options)

    F.scaled_dot_product_attention = counted
    for lengths, window, num_calls in (
        ([3, 1, 7], None, 1),
        ([16, 3, 16, 9], None, 1),
        ([1] * 30 + [20], None, 31),
        ([16, 3, 16, 9], 4, 1),
        ([16, 3, 16, 9], 15, 1),
        ([1] * 30 + [20], 4, 32),  # two blocks of queries in the long sequence
    ):
        batch = packed_with_empty_rows(lengths, 1)
        qkv = random_qkv(sum(lengths))
        expected = with_gradient(lambda leaf, batch=batch, window=window: attention(leaf, batch, window=window), qkv)
        there, leaf = batch.to(torch.device("cuda")), qkv.to("cuda").requires_grad_()
        calls.clear()
        before = load().fake_cuda_num_synchronizations()
        result = attention(leaf, there, window=window)
        assert load().fake_cuda_num_synchronizations() == before and len(calls) == num_calls
        weights = torch.linspace(-1, 1, result.numel()).view_as(result).to("cuda")
        (result * weights).sum().backward()
        torch.testing.assert_close(result.detach().cpu(), expected[0], atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(leaf.grad.cpu(), expected[1], atol=1e-6, rtol=1e-5)


@on_devices()
def test_flash_attention_gets_the_window_and_equals_the_other_forms():
    import torch

    from model.attention import attention
    from tests.fake_cuda.flash_attention import WINDOWS
    from tests.model.test_attention import packed_with_empty_rows, random_qkv, with_gradient

    batch = packed_with_empty_rows([16, 3, 16, 9], 1)
    for window, name in ((None, "-1"), (4, "4"), (15, "-1")):
        qkv = random_qkv(44).bfloat16().float()
        expected = with_gradient(lambda leaf, window=window: attention(leaf, batch, window=window), qkv)
        there, leaf = batch.to(torch.device("cuda")), qkv.to("cuda", torch.bfloat16).requires_grad_()
        WINDOWS.clear()
        result = attention(leaf, there, window=window)
        (result * torch.linspace(-1, 1, result.numel()).view_as(result).to("cuda")).sum().backward()
        assert dict(WINDOWS) == {f"forward {name}": 1, f"backward {name}": 1}
        torch.testing.assert_close(result.detach().cpu().float(), expected[0], atol=0.03, rtol=0.03)
        torch.testing.assert_close(leaf.grad.cpu().float(), expected[1], atol=0.03, rtol=0.03)


@on_devices()
def test_dropout_of_attention_depends_on_seed_step_and_micro_batch_alone(data, tmp_path):
    model = replace(TINY, attention_probs_dropout_prob=0.2)
    for precision in ("fp32", "bf16"):
        reports = [recorded(data, tmp_path / f"{precision}{n}", precision=precision, model=model) for n in (1, 2)]
        assert losses(tmp_path / f"{precision}1") == losses(tmp_path / f"{precision}2")
        assert reports[0].flash_backward == 0
        recorded(data, tmp_path / f"{precision}-other", precision=precision, model=model, seed=2)
        assert losses(tmp_path / f"{precision}-other") != losses(tmp_path / f"{precision}1")


@on_devices()
def test_heads_of_another_size_train_in_16_bits_and_compiled_regions_do_not_depend_on_lengths(data, tmp_path):
    replace_compiler()
    odd = replace(TINY, hidden_size=40)  # heads of 20
    report = recorded(data, tmp_path / "odd", model=odd, compile=True, num_steps=8)
    assert report.flash_forward == 0 and report.recompilations == [] and report.graph_breaks == {}
    assert report.graphs["BertLayer.after_attention"] == 1
    recorded(data, tmp_path / "exact", model=odd, precision="fp32", num_steps=8)
    assert losses(tmp_path / "odd") == pytest.approx(losses(tmp_path / "exact"), rel=5e-3)


def test_what_a_gpu_does_not_have_is_one_line_before_the_run(data, tmp_path):
    flags = ["--data", data, "--out", tmp_path / "run", "--num-steps", "1", "--device", "cuda", "--precision", "bf16"]
    old = Devices(name="NVIDIA T4", capability=(7, 5))
    ended = run("pretrain", "tiny", *flags, devices=old, status=2)
    assert ended.errors.splitlines()[-1].startswith("bertloom pretrain: error: precision=bf16: NVIDIA T4 has no bf16")
    assert not (tmp_path / "run").exists()
    ended = run("pretrain", "tiny", *flags, "--model.attention-probs-dropout-prob", "0.1")
    assert (
        "attention reads padded sequences, which is slower than FlashAttention: it has no dropout of attention weights"
        in ended.errors
    )
