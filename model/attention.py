"""Attention on packed sequences, in the fastest correct way of each device.

    CUDA, 16 bits, no dropout, and nothing that `flash_obstacle` names   one call of FlashAttention over all sequences
    CUDA otherwise                                                       one call over all sequences, padded
    CPU, Apple's GPUs                                                    one call for each sequence

Dimensions in the comments:
    T  real tokens in the batch     N  sequences in the batch    S  tokens of one sequence, or of the longest one
    H  num_attention_heads          D  hidden_size / H
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from model.linear import in_blocks
from model.packing import PackedSequences, PaddedPlaces

try:  # in CUDA builds of torch 2.11 and later
    from torch.nn.attention.varlen import varlen_attn
except ImportError:  # pragma: no cover
    varlen_attn = None  # type: ignore[assignment]

MOST_PADDING = 8
"""Largest number of places per token in the padded form. A batch of many short texts and a long one has more. It is computed
sequence by sequence, so that memory stays in proportion to its tokens."""
PADDED_KERNELS = [SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
"""The kernels for padded sequences. Those of cuDNN, which torch prefers on H100 to B200, give NaN as the gradient of some
queries under a mask, if the longest sequence is 64 above a multiple of 128 (pytorch issue 196678)."""


def attention(qkv: Tensor, batch: PackedSequences, dropout: float = 0.0) -> Tensor:
    """Return the softmax attention of every token to all tokens of its own sequence.

    On a CPU, one call for each sequence is the fastest way measured, and the result of a sequence is equal to the last bit
    whatever its neighbours are. It uses `split`, because with one slice per sequence the backward pass builds a zero tensor
    of the whole batch for each. Apple's GPUs also get one call for each sequence: in some versions of torch they mix up the
    sequences of permuted tensors and the rows of masks (pytorch issues 181133 and 184180).

    Args:
        qkv: (T, 3, H, D).
        batch: the sequences, on the same device.
        dropout: dropout of attention weights.

    Returns:
        (T, H, D).
    """
    if flash_obstacle(qkv.device, qkv.dtype, qkv.shape[-1], dropout) is None:
        T, _, H, D = qkv.shape
        query, key, value = (part.view(T, H, D) for part in in_blocks(qkv.flatten(1)).split(H * D, -1))
        # Only arguments that torch 2.11 and 2.13 have in common. Default: scale 1 / sqrt(D), no window.
        mixed = varlen_attn(query, key, value, batch.cu_seqlens, batch.cu_seqlens, batch.longest, batch.longest)
        assert isinstance(mixed, Tensor)
        return mixed
    num_places = (len(batch.cu_seqlens) - 1) * batch.longest
    if qkv.is_cuda and num_places <= MOST_PADDING * len(qkv):
        return padded_attention(qkv, batch.padded_places, dropout)
    outputs = []
    for part in qkv.split(batch.lengths):
        query, key, value = part.permute(1, 2, 0, 3).unsqueeze(1)  # (1, H, S, D) each
        outputs.append(F.scaled_dot_product_attention(query, key, value, dropout_p=dropout)[0].transpose(0, 1))
    return torch.cat(outputs)  # (T, H, D)


def padded_attention(qkv: Tensor, padded: PaddedPlaces, dropout: float) -> Tensor:
    """Return (T, H, D) as `attention`, with one call over all sequences, padded to the longest."""
    N, S = padded.is_key.shape[0], padded.is_key.shape[-1]
    _, _, H, D = qkv.shape
    query, key, value = qkv.flatten(1).index_select(0, padded.tokens).view(N, S, 3, H, D).permute(2, 0, 3, 1, 4)
    with sdpa_kernel(PADDED_KERNELS):
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=padded.is_key, dropout_p=dropout)
    return mixed.transpose(1, 2).reshape(N * S, H, D).index_select(0, padded.places)


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
