"""FlashAttention's two operators, with the checks of their CUDA kernels and the numbers of plain attention.

torch has them for CUDA only. Here they are kernels of the CPU, which the fake device runs on its memory like all others.

Dimensions in the comments:
    T  tokens in the batch     N  sequences     S  tokens of one sequence     H  heads     D  size of a head
"""

from collections import Counter
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from tests.fake_cuda.library import load

CALLS: Counter[str] = Counter()
"""Calls so far of `forward` and `backward`."""
WINDOWS: Counter[str] = Counter()
"""Calls so far of `forward` and `backward` by window: "forward 64"; -1 is none."""
LIBRARIES: list[Any] = []
"""Registrations, which end when they are freed."""


def install() -> None:
    """Register both operators."""
    library = torch.library.Library("aten", "IMPL")
    library.impl("_flash_attention_forward", forward, "CPU")
    library.impl("_flash_attention_backward", backward, "CPU")
    LIBRARIES.append(library)


def forward(*arguments: Any, **options: Any) -> tuple[Tensor, ...]:
    """Return the mixed values (T, H, D), the logarithms of the sums (H, T), and what dropout and debugging would need."""
    call = named(torch.ops.aten._flash_attention_forward.default, arguments, options)
    check(call)
    count("forward", call)
    query = call.query
    mixed = torch.empty_like(query, memory_format=torch.contiguous_format)
    sums = torch.empty(query.shape[1], len(query), dtype=torch.float32)
    factor = scale_of(call)
    for part, (q, k, v) in sequences(call.cum_seq_q, query, call.key, call.value):
        scores = q @ k.mT * factor + hidden(call, q.shape[1])  # (H, S, S)
        mixed[part] = (scores.softmax(-1) @ v).transpose(0, 1).to(query.dtype)
        sums[:, part] = scores.logsumexp(-1)
    unused = torch.empty(0)
    return mixed, sums, torch.zeros(2, dtype=torch.uint64), unused, unused.clone()


def backward(*arguments: Any, **options: Any) -> tuple[Tensor, ...]:
    """Return the gradients of query, key and value, (T, H, D) each."""
    call = named(torch.ops.aten._flash_attention_backward.default, arguments, options)
    check(call)
    count("backward", call)
    query, gradient, mixed = call.query, call.grad_out, call.out
    expect(gradient.dtype == query.dtype, f"query and dout must have the same dtype, dout is {gradient.dtype}")
    expect(mixed.dtype == query.dtype, f"query and out must have the same dtype, out is {mixed.dtype}")
    expect(gradient.shape == query.shape, f"dout must have the shape of query, has {tuple(gradient.shape)}")
    of_query, of_key, of_value = (torch.empty_like(query, memory_format=torch.contiguous_format) for _ in range(3))
    factor = scale_of(call)
    for part, (q, k, v, g) in sequences(call.cum_seq_q, query, call.key, call.value, gradient):
        shares = (q @ k.mT * factor + hidden(call, q.shape[1])).softmax(-1)  # (H, S, S)
        of_shares = g @ v.mT
        of_scores = shares * (of_shares - (of_shares * shares).sum(-1, keepdim=True)) * factor
        of_query[part] = (of_scores @ k).transpose(0, 1).to(query.dtype)
        of_key[part] = (of_scores.mT @ q).transpose(0, 1).to(query.dtype)
        of_value[part] = (shares.mT @ g).transpose(0, 1).to(query.dtype)
    return of_query, of_key, of_value


def named(operator: Any, arguments: tuple[Any, ...], options: dict[str, Any]) -> SimpleNamespace:
    """Return the arguments of a call of torch's operator by the names of its schema."""
    parameters = operator._schema.arguments
    values = {parameter.name: parameter.default_value for parameter in parameters if parameter.has_default_value()}
    return SimpleNamespace(**values | dict(zip([one.name for one in parameters], arguments)) | options)


def scale_of(call: SimpleNamespace) -> float:
    """Return the factor of the scores."""
    scale: float | None = call.scale
    return call.query.shape[-1] ** -0.5 if scale is None else scale


def window_of(call: SimpleNamespace) -> tuple[int, int]:
    """Return how many keys a query sees to the left and to the right; -1 is all of them."""
    left, right = call.window_size_left, call.window_size_right
    return -1 if left is None else left, -1 if right is None else right


def hidden(call: SimpleNamespace, length: int) -> Tensor:
    """Return what a sequence's scores get added, (S, S): 0 where a query sees a key, else minus infinity."""
    place = torch.arange(length)
    distance = place - place[:, None]
    left, right = window_of(call)
    is_hidden = (distance > right) & (right >= 0) | (-distance > left) & (left >= 0)
    return torch.zeros(length, length).masked_fill(is_hidden, -torch.inf)


def count(name: str, call: SimpleNamespace) -> None:
    """Count a call."""
    CALLS[name] += 1
    left, right = window_of(call)
    WINDOWS[f"{name} {left}" if left == right else f"{name} {left} to {right}"] += 1


def sequences(starts: Tensor, *tensors: Tensor) -> Iterator[tuple[slice, list[Tensor]]]:
    """Yield the rows of each sequence, and the tensors (H, S, D) of these rows in 32 bits."""
    ends = starts.tolist()
    for begin, end in zip(ends, ends[1:]):
        if begin < end:
            yield slice(begin, end), [tensor[begin:end].float().transpose(0, 1) for tensor in tensors]


def check(call: SimpleNamespace) -> None:
    """Raise RuntimeError for what the CUDA kernel refuses, and for what would make it read or write wrong places."""
    expect(load().fake_cuda_is_running() > 0, "FlashAttention only supports CUDA, query is on cpu")
    expect(torch.cuda.get_device_capability() >= (8, 0), "FlashAttention only supports Ampere GPUs or newer.")
    query = call.query
    size = query.shape[-1]
    expect(size % 8 == 0 and size <= 256, f"head_size must be a multiple of 8 and at most 256, is {size}")
    for name, tensor in {"query": query, "key": call.key, "value": call.value}.items():
        is_short = tensor.dtype in (torch.float16, torch.bfloat16)
        expect(is_short, f"FlashAttention only support fp16 and bf16 data type, {name} is {tensor.dtype}")
        expect(tensor.dtype == query.dtype, "query and key must have the same dtype")
        expect(tensor.shape == query.shape and tensor.dim() == 3, f"{name} has the shape {tuple(tensor.shape)}")
        expect(tensor.stride(-1) == 1, f"Input tensor must have contiguous last dimension: {name}")
        is_aligned = all(stride % 8 == 0 for stride in tensor.stride()[:-1]) and tensor.storage_offset() % 8 == 0
        expect(is_aligned, f"the kernel reads 16 bytes at once: {name} has the strides {tensor.stride()}")
    for starts, longest in ((call.cum_seq_q, call.max_q), (call.cum_seq_k, call.max_k)):
        expect(starts.dtype == torch.int32, f"cu_seqlens must have dtype int32, has {starts.dtype}")
        expect(starts.is_contiguous() and starts.dim() == 1, "cu_seqlens must be contiguous")
        lengths = starts.diff()
        expect(len(lengths) > 0 and int(lengths.min()) >= 0, "cu_seqlens must not decrease")
        expect(int(lengths.max()) <= longest, f"max_seqlen {longest} is below a length of {int(lengths.max())}")
        ends = int(starts[0]), int(starts[-1])
        expect(ends == (0, len(query)), f"cu_seqlens goes from {ends[0]} to {ends[1]}, there are {len(query)} tokens")
    expect(call.dropout_p == 0 and not call.is_causal, "the fake FlashAttention has neither dropout nor causal masks")
    expect(min(window_of(call)) >= -1, f"a window is -1 or a number of keys, is {window_of(call)}")
    given = [name for name in ("seqused_k", "alibi_slopes", "block_table") if getattr(call, name, None) is not None]
    expect(not given, f"the fake FlashAttention has no {', '.join(given)}")


def expect(condition: bool, message: str) -> None:
    """Raise RuntimeError, as CUDA kernels do, unless the condition holds."""
    if not condition:
        raise RuntimeError(message)
