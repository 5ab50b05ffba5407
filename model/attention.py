"""Attention on packed sequences, in the fastest correct way of each device.

    CUDA, 16 bits, no dropout, and nothing that `flash_obstacle` names   one call of FlashAttention over all sequences
    CUDA otherwise                                                       one call over all sequences, padded
    CPU, Apple's GPUs                                                    one call for each sequence

With a window, a token sees only as many tokens to each side. FlashAttention takes the window as an argument. The other ways
compute blocks of neighbouring queries with the keys that these see, so that time and memory are linear in the length.

Dimensions in the comments:
    T  real tokens in the batch     N  sequences in the batch    S  tokens of one sequence, or of the longest one
    H  num_attention_heads          D  hidden_size / H           W  window
"""

from contextlib import nullcontext
from inspect import signature

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from model.packing import PackedSequences, PaddedPlaces

try:
    from torch.nn.attention.varlen import varlen_attn

    if "window_size" not in signature(varlen_attn).parameters:  # torch 2.10
        varlen_attn = None  # type: ignore[assignment]
except ImportError:  # pragma: no cover
    varlen_attn = None  # type: ignore[assignment]

WINDOWS_OF_BLOCK = 3
"""Length of a block of queries, in windows. Longer ones make fewer calls, shorter ones have fewer keys that a query does not
see; three are the fastest measured with two threads."""
MOST_PADDING = 8
"""Largest number of places per token in the padded form. A batch of many short texts and a long one has more. It is computed
sequence by sequence, so that memory stays in proportion to its tokens."""
MASKED_KERNELS = [SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
"""The kernels for masks on CUDA. Those of cuDNN, which torch prefers on H100 to B200, give NaN as the gradient of some
queries under a mask, if the longest sequence is 64 above a multiple of 128 (pytorch issue 196678)."""


def attention(qkv: Tensor, batch: PackedSequences, dropout: float = 0.0, window: int | None = None) -> Tensor:
    """Return the softmax attention of every token to the tokens of its own sequence, to all or to those nearby.

    On a CPU, one call for each sequence is the fastest way measured, and the result of a sequence is equal to the last bit
    whatever its neighbours are. It uses `split`, because with one slice per sequence the backward pass builds a zero tensor
    of the whole batch for each. Apple's GPUs also get one call for each sequence: in some versions of torch they mix up the
    sequences of permuted tensors and the rows of masks (pytorch issues 181133 and 184180).

    Args:
        qkv: (T, 3, H, D).
        batch: the sequences, on the same device.
        dropout: dropout of attention weights.
        window: number of tokens to each side that a token sees; None for all.

    Returns:
        (T, H, D).
    """
    if window is not None and batch.longest <= window + 1:
        window = None
    if flash_obstacle(qkv.device, qkv.dtype, qkv.shape[-1], dropout) is None:
        query, key, value = qkv.unbind(1)
        starts, longest = batch.cu_seqlens, batch.longest
        reach = -1 if window is None else window  # -1: no limit
        # Only arguments that torch 2.11 and 2.13 have in common. Default: scale 1 / sqrt(D).
        mixed = varlen_attn(query, key, value, starts, starts, longest, longest, window_size=(reach, reach))
        assert isinstance(mixed, Tensor)
        return mixed
    num_places = (len(batch.cu_seqlens) - 1) * batch.longest
    if qkv.is_cuda and num_places <= MOST_PADDING * len(qkv):
        return padded_attention(qkv, batch.padded_places, dropout, window)
    mask = None if window is None else band(WINDOWS_OF_BLOCK * window, window, qkv)
    short = batch.longest if window is None else window + 1  # a token sees all of a sequence of at most this length
    parts = qkv.split(batch.lengths)
    return torch.cat([sequence_attention(part, dropout, None if len(part) <= short else mask) for part in parts])


def sequence_attention(part: Tensor, dropout: float, mask: Tensor | None) -> Tensor:
    """Return (S, H, D) from the (S, 3, H, D) of one sequence.

    Args:
        mask: `band` of a block, (B, B + 2 W); None if a token sees all others.
    """
    if mask is None:
        query, key, value = part.permute(1, 2, 0, 3).unsqueeze(1)  # (1, H, S, D) each
        return F.scaled_dot_product_attention(query, key, value, dropout_p=dropout)[0].transpose(0, 1)
    size = len(mask)
    window = (mask.shape[1] - size) // 2
    queries, keys_values = part.split((1, 2), 1)
    pieces = keys_values.split(window if len(part) > size else len(part))  # `split`, for the reason above
    outputs = []
    with sdpa_kernel(MASKED_KERNELS) if part.is_cuda else nullcontext():
        for index, block in enumerate(queries.permute(1, 2, 0, 3).split(size, 2)):  # (1, H, B, D)
            first = index * WINDOWS_OF_BLOCK - 1
            around = pieces[max(first, 0) : first + WINDOWS_OF_BLOCK + 2]
            near = torch.cat(around) if len(around) > 1 else around[0]  # (B + 2 W, 2, H, D), fewer rows at the ends
            key, value = near.permute(1, 2, 0, 3).unsqueeze(1)
            start = 0 if index else window
            seen = mask[: block.shape[2], start : start + len(near)]
            outputs.append(F.scaled_dot_product_attention(block, key, value, attn_mask=seen, dropout_p=dropout))
    return torch.cat(outputs, 2)[0].transpose(0, 1)


def band(size: int, window: int, like: Tensor) -> Tensor:
    """Return what is added to the scores of a block of queries, (size, size + 2 W): 0 where a query sees a key, else -inf.

    Args:
        like: has the type and the device.
    """
    query, key = (torch.arange(length, device=like.device) for length in (size, size + 2 * window))
    is_hidden = (query[:, None] + window - key).abs() > window
    return torch.zeros(is_hidden.shape, dtype=like.dtype, device=like.device).masked_fill_(is_hidden, -torch.inf)


def padded_attention(qkv: Tensor, padded: PaddedPlaces, dropout: float, window: int | None = None) -> Tensor:
    """Return (T, H, D) as `attention`, with one call over all sequences, padded to the longest.

    With a window, a row of places is divided into blocks of W, and each block sees itself and its two neighbours.
    """
    N, S = padded.is_key.shape[0], padded.is_key.shape[-1]
    _, _, H, D = qkv.shape
    rows = qkv.flatten(1).index_select(0, padded.tokens).view(N, S, 3, H, D)
    if window is None:
        query, key, value = rows.permute(2, 0, 3, 1, 4)
        mask = padded.is_key
    else:
        extra = -S % window  # places that make a row a whole number of blocks
        size = 3 * window
        rows = F.pad(rows, (0,) * 7 + (extra,))
        query = rows[:, :, 0].reshape(-1, window, H, D).transpose(1, 2)
        around = F.pad(rows[:, :, 1:], (0,) * 6 + (window, window)).unfold(1, size, window)  # (N, S / W, 2, H, D, 3 W)
        key, value = around.permute(2, 0, 1, 3, 5, 4).flatten(1, 2)
        is_key = F.pad(padded.is_key, (window, window + extra)).unfold(3, size, window).reshape(-1, 1, 1, size)
        place = torch.arange(size, device=qkv.device)
        distance = (place[window : 2 * window, None] - place).abs()
        mask = (is_key & (distance <= window)) | (distance == 0)  # a place of padding sees itself, not nothing
    with sdpa_kernel(MASKED_KERNELS):
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout)
    return mixed.transpose(1, 2).reshape(N, -1, H, D)[:, :S].flatten(0, 1).index_select(0, padded.places)


def num_seen(lengths: np.ndarray, window: int | None = None) -> int:
    """Return the number of pairs of a query and a key that it sees, in sequences of these lengths.

    >>> num_seen(np.array([3, 5])), num_seen(np.array([3, 5]), window=1)
    (34, 20)
    """
    reach = lengths - 1 if window is None else np.minimum(lengths - 1, window)
    return int((lengths * (2 * reach + 1) - reach * (reach + 1)).sum())


def flash_obstacle(device: torch.device, dtype: torch.dtype, head_size: int, dropout: float) -> str | None:
    """Return why FlashAttention's packed form does not take tensors of this kind; None if it does.

    These are the checks of torch's `mha_varlen_fwd` and `mha_varlen_bwd`.
    """
    if device.type != "cuda":
        return f"the device is {device.type}"
    if dtype not in (torch.bfloat16, torch.float16):
        return "it needs 16 bits"
    if varlen_attn is None:
        return f"torch {torch.__version__} does not have it for packed sequences"
    if dropout > 0:
        return f"it has no dropout of attention weights, which is {dropout:g} here"
    capability = torch.cuda.get_device_capability(device)
    if capability < (8, 0):
        return f"{torch.cuda.get_device_name(device)} is older than Ampere"
    if head_size % 8 or head_size > 256:
        return f"the head size is {head_size}, expected a multiple of 8 up to 256"
    if 192 < head_size <= 224 and capability not in ((8, 0), (9, 0), (10, 0), (10, 3)):
        return f"the head size is {head_size}, for which {torch.cuda.get_device_name(device)} has too little memory"
    return None
