"""The CUDA device in host memory: where it is as a GPU, and what it refuses as a GPU does."""

import pytest

from tests.fake_cuda.library import missing
from tests.fake_cuda.runs import on_devices

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())


@on_devices(count=2, name="NVIDIA A100", capability=(8, 0), memory_bytes=40 * 10**9)
def test_torch_finds_the_devices():
    import torch

    assert torch.cuda.is_available() and torch.cuda.device_count() == 2
    assert torch.cuda.get_device_name() == "NVIDIA A100" and torch.cuda.get_device_capability(1) == (8, 0)
    assert torch.cuda.current_device() == 0 and torch.ones(1, device="cuda").device == torch.device("cuda", 0)
    torch.cuda.set_device(1)
    assert torch.ones(1, device="cuda").device == torch.device("cuda", 1)
    with torch.cuda.device(0):
        assert torch.cuda.current_device() == 0
    assert torch.cuda.current_device() == 1
    assert torch.ones(2, device="cuda:0").add(1).device.index == 0
    with pytest.raises(RuntimeError, match="invalid device ordinal"):
        torch.ones(1, device="cuda:2")


@on_devices(count=2)
def test_tensors_on_two_devices_do_not_mix():
    import torch

    device, host = torch.ones(3, device="cuda"), torch.ones(3)
    weight = torch.ones(5, 2, device="cuda")
    for mistake in (
        lambda: device + host,
        lambda: device + torch.ones(3, device="cuda:1"),
        lambda: torch.cat([device, host]),
        lambda: torch.nn.functional.embedding(torch.tensor([1]), weight),
        lambda: weight.index_select(0, torch.tensor([1])),
        lambda: torch.ops.aten._foreach_mul_.Tensor([device], torch.tensor(2.0)),
        lambda: torch.nn.functional.cross_entropy(weight, torch.zeros(5, dtype=torch.int64)),
    ):
        with pytest.raises(RuntimeError, match="Expected all tensors to be on the same device"):
            mistake()
    assert (device + torch.tensor(2.0)).tolist() == [3, 3, 3]  # a number of the CPU
    assert weight[torch.tensor([1, 2])].shape == (2, 2)  # indices may be on the CPU


@on_devices()
def test_memory_is_counted_until_it_is_freed():
    import torch

    before = torch.cuda.memory_allocated()
    tensor = torch.zeros(1000, device="cuda")
    other = tensor + 1
    assert torch.cuda.memory_allocated() - before == 8000
    del tensor
    assert torch.cuda.memory_allocated() - before == 4000 and torch.cuda.max_memory_allocated() - before == 8000
    view = other[10:]
    del other
    assert torch.cuda.memory_allocated() - before == 4000 and view.sum() == 990
    del view
    torch.cuda.reset_peak_memory_stats()
    assert torch.cuda.max_memory_allocated() == torch.cuda.memory_allocated() == before
    free, total = torch.cuda.mem_get_info()
    assert total - free == before and total == 141 * 10**9


@on_devices()
def test_the_host_waits_where_it_reads_a_value_a_size_or_memory_that_is_not_pinned():
    import torch

    from tests.fake_cuda.library import load

    def waits(action):
        before = load().fake_cuda_num_synchronizations()
        action()
        return load().fake_cuda_num_synchronizations() - before

    device, host = torch.tensor([0.0, 1.0, 2.0], device="cuda"), torch.ones(3)
    pinned = host.pin_memory()
    mask = device > 0
    assert pinned.is_pinned() and not host.is_pinned()
    for expected, action in (
        (1, lambda: device.sum().item()),
        (1, lambda: device.tolist()),
        (1, lambda: bool(mask.any())),
        (1, lambda: device.cpu()),
        (1, lambda: host.to("cuda")),
        (1, lambda: host.to("cuda", non_blocking=True)),  # CUDA copies pageable memory in pieces, and waits
        (1, lambda: pinned.to("cuda")),
        (1, lambda: torch.tensor([1, 2], device="cuda")),
        (1, lambda: device[mask]),
        (1, lambda: device.nonzero()),
        (1, lambda: device.unique()),
        (1, lambda: device.repeat_interleave(torch.ones(3, dtype=torch.int64, device="cuda"))),
        (1, lambda: torch.cuda.synchronize()),
        (1, lambda: torch.cuda.current_stream().synchronize()),
        (0, lambda: pinned.to("cuda", non_blocking=True)),
        (0, lambda: device.to("cpu", non_blocking=True)),  # torch pins what it makes here
        (0, lambda: device.masked_fill_(mask, 1.0)),
        (0, lambda: device.__setitem__(mask, 2.0)),
        (0, lambda: torch.zeros(3, device="cuda").sum()),
        (0, lambda: torch.nn.utils.clip_grad_norm_([torch.nn.Parameter(device)], 1.0)),
    ):
        assert waits(action) == expected, action.__code__.co_firstlineno


@on_devices(count=2)
def test_each_device_draws_from_its_own_generator_what_a_cpu_of_the_same_seed_draws():
    import torch

    torch.manual_seed(7)
    expected = torch.rand(4)
    drawn = torch.rand(4, device="cuda")  # not affected by the draw before
    assert drawn.cpu().equal(expected)
    state = torch.cuda.get_rng_state()
    first = torch.nn.functional.dropout(torch.ones(64, device="cuda"))
    torch.cuda.set_rng_state(state)
    assert torch.nn.functional.dropout(torch.ones(64, device="cuda")).equal(first)
    assert torch.rand(4, device="cuda:1").cpu().equal(expected)


@on_devices()
def test_flash_attention_equals_attention_in_32_bits_forward_and_backward():
    import torch
    from torch.nn.attention.varlen import varlen_attn

    torch.manual_seed(0)
    qkv = torch.randn(12, 3, 2, 8, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    starts = torch.tensor([0, 0, 5, 12], dtype=torch.int32, device="cuda")
    mixed = varlen_attn(*qkv.unbind(1), starts, starts, 7, 7)
    weights = torch.randn_like(mixed)
    (mixed * weights).sum().backward()
    twin = qkv.detach().cpu().float().requires_grad_()
    parts = [
        torch.nn.functional.scaled_dot_product_attention(*twin[part].permute(1, 2, 0, 3)).transpose(0, 1)
        for part in (slice(0, 5), slice(5, 12))
    ]
    (torch.cat(parts) * weights.cpu().float()).sum().backward()
    torch.testing.assert_close(mixed.cpu().float(), torch.cat(parts), atol=0.02, rtol=0)
    torch.testing.assert_close(qkv.grad.cpu().float(), twin.grad, atol=0.05, rtol=0.02)


@on_devices()
def test_flash_attention_with_a_window_equals_masked_attention_forward_and_backward():
    import torch
    from torch.nn.attention.varlen import varlen_attn

    from tests.fake_cuda.flash_attention import WINDOWS

    torch.manual_seed(0)
    starts = torch.tensor([0, 3, 12], dtype=torch.int32, device="cuda")
    for left, right in ((2, 2), (0, 4), (-1, 1), (3, -1), (20, 20)):
        qkv = torch.randn(12, 3, 2, 8, device="cuda", dtype=torch.bfloat16, requires_grad=True)
        mixed = varlen_attn(*qkv.unbind(1), starts, starts, 9, 9, window_size=(left, right))
        mixed.square().sum().backward()
        twin = qkv.detach().cpu().float().requires_grad_()
        place = torch.arange(12)
        ahead = place - place[:, None]  # of the key, seen from the query
        is_seen = (place < 3) == (place < 3)[:, None]
        is_seen &= (ahead <= (right if right >= 0 else 12)) & (-ahead <= (left if left >= 0 else 12))
        query, key, value = twin.permute(1, 2, 0, 3)
        expected = torch.nn.functional.scaled_dot_product_attention(query, key, value, is_seen).transpose(0, 1)
        expected.square().sum().backward()
        torch.testing.assert_close(mixed.cpu().float(), expected, atol=0.02, rtol=0.02)
        torch.testing.assert_close(qkv.grad.cpu().float(), twin.grad, atol=0.05, rtol=0.05)
    assert WINDOWS["forward 2"] == WINDOWS["backward 2"] == 1 and WINDOWS["backward 3 to -1"] == 1


@on_devices()
def test_flash_attention_refuses_what_its_kernel_refuses_or_reads_wrongly():
    import torch
    from torch.nn.attention.varlen import varlen_attn

    def attend(size=8, dtype=torch.bfloat16, starts=(0, 5, 12), kind=torch.int32, longest=7, change=lambda x: x):
        qkv = torch.randn(12, 3, 2, size, device="cuda", dtype=dtype)
        starts = torch.tensor(starts, dtype=kind, device="cuda")
        return varlen_attn(*map(change, qkv.unbind(1)), starts, starts, longest, longest)

    attend()
    with pytest.raises(RuntimeError, match="only supports CUDA"):
        starts = torch.tensor([0, 12], dtype=torch.int32)
        varlen_attn(*torch.zeros(12, 3, 2, 8, dtype=torch.bfloat16).unbind(1), starts, starts, 12, 12)
    for message, changes in (
        ("only support fp16 and bf16", {"dtype": torch.float32}),
        ("cu_seqlens must have dtype int32", {"kind": torch.int64}),
        ("max_seqlen 6 is below a length of 7", {"longest": 6}),
        ("goes from 0 to 11, there are 12 tokens", {"starts": (0, 11), "longest": 12}),
        ("multiple of 8", {"size": 12, "change": lambda x: x.contiguous()}),
        ("16 bytes at once", {"change": lambda x: torch.nn.functional.pad(x, (0, 1))[..., :8]}),
        ("contiguous last dimension", {"change": lambda x: x.transpose(0, 2).contiguous().transpose(0, 2)}),
    ):
        with pytest.raises(RuntimeError, match=message):
            attend(**changes)


@on_devices(capability=(7, 5), name="NVIDIA T4")
def test_flash_attention_refuses_an_old_gpu():
    import torch
    from torch.nn.attention.varlen import varlen_attn

    qkv = torch.randn(4, 3, 2, 8, device="cuda", dtype=torch.float16)
    starts = torch.tensor([0, 4], dtype=torch.int32, device="cuda")
    with pytest.raises(RuntimeError, match="Ampere"):
        varlen_attn(*qkv.unbind(1), starts, starts, 4, 4)


@on_devices()
def test_softmax_reads_16_bits_and_writes_32_in_one_call():
    import torch

    host = torch.randn(3, 5, dtype=torch.float16)
    device = host.to("cuda").requires_grad_()
    twin = host.float().requires_grad_()
    for function in (torch.softmax, torch.log_softmax):
        result = function(device, -1, dtype=torch.float32)
        expected = function(twin, -1)
        assert result.dtype == torch.float32 and result.cpu().equal(expected)
        (gradient,) = torch.autograd.grad(result[:, 0].sum(), device)
        assert gradient.dtype == torch.float16
        (of_twin,) = torch.autograd.grad(expected[:, 0].sum(), twin)
        torch.testing.assert_close(gradient.cpu().float(), of_twin, atol=1e-3, rtol=0)
