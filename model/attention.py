"""Attention on packed sequences, by the fastest means of the device.

Dimensions in the comments:
    T  real tokens in the batch     N  sequences in the batch    S  tokens of one sequence
    H  num_attention_heads          D  hidden_size / H
"""

import torch
import torch.nn.functional as F
from torch import Tensor

try:  # in CUDA builds of torch 2.11 and later
    from torch.nn.attention.varlen import varlen_attn
except ImportError:  # pragma: no cover
    varlen_attn = None  # type: ignore[assignment]


def attention(qkv: Tensor, lengths: list[int], cu_seqlens: Tensor, dropout: float = 0.0) -> Tensor:
    """Return the softmax attention of every token to all tokens of its own sequence.

    On CUDA in 16 bits, from Ampere on, this is one call of FlashAttention over all sequences. Elsewhere it is one
    `scaled_dot_product_attention` per sequence. On a CPU that is the fastest way measured, and a sequence's result does
    not depend, bit for bit, on its neighbours. `split` matters: one slice per sequence would make the backward pass
    build a zero tensor of the whole batch for each.

    Args:
        qkv: (T, 3, H, D).
        lengths: tokens of each sequence; their sum is T.
        cu_seqlens: int32 (N + 1,), the start of each sequence, and T. The same as `lengths`, on the device.
        dropout: dropout of attention weights. FlashAttention's packed form has none, so it is not used above 0.

    Returns:
        (T, H, D).
    """
    if dropout == 0 and has_flash_attention(qkv):
        query, key, value = qkv.unbind(1)  # (T, H, D) each
        longest = max(lengths)
        # Only arguments that torch 2.11 and 2.13 have in common. Default: scale 1 / sqrt(D), no window.
        mixed = varlen_attn(query, key, value, cu_seqlens, cu_seqlens, longest, longest)
        assert isinstance(mixed, Tensor)
        return mixed
    outputs = []
    for part in qkv.split(lengths):
        query, key, value = part.permute(1, 2, 0, 3).unsqueeze(1)  # (1, H, S, D) each
        outputs.append(F.scaled_dot_product_attention(query, key, value, dropout_p=dropout)[0].transpose(0, 1))
    return torch.cat(outputs)  # (T, H, D)


def has_flash_attention(qkv: Tensor) -> bool:
    """Return whether torch has FlashAttention for a tensor of this kind: 16 bits, on Ampere and later GPUs."""
    if not qkv.is_cuda or qkv.dtype not in (torch.bfloat16, torch.float16) or varlen_attn is None:
        return False
    return torch.cuda.get_device_capability(qkv.device) >= (8, 0)
