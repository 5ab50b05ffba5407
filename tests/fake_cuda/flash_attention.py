"""FlashAttention's two operators, with the checks of their CUDA kernels and the numbers of plain attention.

They are kernels of the CPU, which has none of its own, and run as all others do: on the memory of the device.

Dimensions in the comments:
    T  tokens in the batch     N  sequences     S  tokens of one sequence     H  heads     D  size of a head
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from tests.fake_cuda.library import load

CALLS: Counter[str] = Counter()
"""Calls so far of `forward` and `backward`."""
LIBRARIES: list[Any] = []
"""Registrations, which end when they are freed."""


def install() -> None:
    """Register both operators."""
    library = torch.library.Library("aten", "IMPL")
    library.impl("_flash_attention_forward", forward, "CPU")
    library.impl("_flash_attention_backward", backward, "CPU")
    LIBRARIES.append(library)


def forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_query: Tensor,
    cu_key: Tensor,
    longest_query: int,
    longest_key: int,
    dropout: float,
    is_causal: bool,
    return_debug_mask: bool,
    *,
    scale: float | None = None,
    **options: Any,
) -> tuple[Tensor, ...]:
    """Return the mixed values (T, H, D), the logarithms of the sums (H, T), and what dropout and debugging would need."""
    CALLS["forward"] += 1
    check(query, key, value, cu_query, cu_key, longest_query, longest_key, dropout, is_causal, options)
    mixed = torch.empty_like(query, memory_format=torch.contiguous_format)
    sums = torch.empty(query.shape[1], len(query), dtype=torch.float32)
    for part, (q, k, v) in sequences(cu_query, query, key, value):
        scores = q @ k.mT * scaled(scale, query)  # (H, S, S)
        mixed[part] = (scores.softmax(-1) @ v).transpose(0, 1).to(query.dtype)
        sums[:, part] = scores.logsumexp(-1)
    unused = torch.empty(0)
    return mixed, sums, torch.zeros(2, dtype=torch.uint64), unused, unused.clone()


def backward(
    gradient: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mixed: Tensor,
    sums: Tensor,
    cu_query: Tensor,
    cu_key: Tensor,
    longest_query: int,
    longest_key: int,
    dropout: float,
    is_causal: bool,
    seed: Tensor,
    offset: Tensor,
    *,
    scale: float | None = None,
    **options: Any,
) -> tuple[Tensor, ...]:
    """Return the gradients of query, key and value, (T, H, D) each."""
    CALLS["backward"] += 1
    check(query, key, value, cu_query, cu_key, longest_query, longest_key, dropout, is_causal, options)
    expect(gradient.dtype == query.dtype, f"query and dout must have the same dtype, dout is {gradient.dtype}")
    expect(mixed.dtype == query.dtype, f"query and out must have the same dtype, out is {mixed.dtype}")
    expect(gradient.shape == query.shape, f"dout must have the shape of query, has {tuple(gradient.shape)}")
    of_query, of_key, of_value = (torch.empty_like(query, memory_format=torch.contiguous_format) for _ in range(3))
    factor = scaled(scale, query)
    for part, (q, k, v, g) in sequences(cu_query, query, key, value, gradient):
        shares = (q @ k.mT * factor).softmax(-1)  # (H, S, S)
        of_shares = g @ v.mT
        of_scores = shares * (of_shares - (of_shares * shares).sum(-1, keepdim=True)) * factor
        of_query[part] = (of_scores @ k).transpose(0, 1).to(query.dtype)
        of_key[part] = (of_scores.mT @ q).transpose(0, 1).to(query.dtype)
        of_value[part] = (shares.mT @ g).transpose(0, 1).to(query.dtype)
    return of_query, of_key, of_value


def scaled(scale: float | None, query: Tensor) -> float:
    """Return the factor of the scores."""
    return query.shape[-1] ** -0.5 if scale is None else scale


def sequences(starts: Tensor, *tensors: Tensor) -> Iterator[tuple[slice, list[Tensor]]]:
    """Yield the rows of each sequence, and the tensors (H, S, D) of these rows in 32 bits."""
    ends = starts.tolist()
    for begin, end in zip(ends, ends[1:]):
        if begin < end:
            yield slice(begin, end), [tensor[begin:end].float().transpose(0, 1) for tensor in tensors]


def check(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_query: Tensor,
    cu_key: Tensor,
    longest_query: int,
    longest_key: int,
    dropout: float,
    is_causal: bool,
    options: dict[str, Any],
) -> None:
    """Raise RuntimeError for what the CUDA kernel refuses, and for what would make it read or write wrong places."""
    expect(load().fake_cuda_is_running() > 0, "FlashAttention only supports CUDA, query is on cpu")
    expect(torch.cuda.get_device_capability() >= (8, 0), "FlashAttention only supports Ampere GPUs or newer.")
    size = query.shape[-1]
    expect(size % 8 == 0 and size <= 256, f"head_size must be a multiple of 8 and at most 256, is {size}")
    for name, tensor in {"query": query, "key": key, "value": value}.items():
        is_short = tensor.dtype in (torch.float16, torch.bfloat16)
        expect(is_short, f"FlashAttention only support fp16 and bf16 data type, {name} is {tensor.dtype}")
        expect(tensor.dtype == query.dtype, "query and key must have the same dtype")
        expect(tensor.shape == query.shape and tensor.dim() == 3, f"{name} has the shape {tuple(tensor.shape)}")
        expect(tensor.stride(-1) == 1, f"Input tensor must have contiguous last dimension: {name}")
        is_aligned = all(stride % 8 == 0 for stride in tensor.stride()[:-1]) and tensor.storage_offset() % 8 == 0
        expect(is_aligned, f"the kernel reads 16 bytes at once: {name} has the strides {tensor.stride()}")
    for starts, longest in ((cu_query, longest_query), (cu_key, longest_key)):
        expect(starts.dtype == torch.int32, f"cu_seqlens must have dtype int32, has {starts.dtype}")
        expect(starts.is_contiguous() and starts.dim() == 1, "cu_seqlens must be contiguous")
        lengths = starts.diff()
        expect(len(lengths) > 0 and int(lengths.min()) >= 0, "cu_seqlens must not decrease")
        expect(int(lengths.max()) <= longest, f"max_seqlen {longest} is below a length of {int(lengths.max())}")
        ends = int(starts[0]), int(starts[-1])
        expect(ends == (0, len(query)), f"cu_seqlens goes from {ends[0]} to {ends[1]}, there are {len(query)} tokens")
    expect(dropout == 0 and not is_causal, "the fake FlashAttention has neither dropout nor causal masks")
    windows = {options.pop(name, None) for name in ("window_size_left", "window_size_right")}
    expect(windows <= {None, -1}, "the fake FlashAttention has no windows")
    given = [name for name, option in options.items() if option is not None and name != "num_splits"]
    expect(not given, f"the fake FlashAttention has no {', '.join(given)}")


def expect(condition: bool, message: str) -> None:
    """Raise RuntimeError, as CUDA kernels do, unless the condition holds."""
    if not condition:
        raise RuntimeError(message)
