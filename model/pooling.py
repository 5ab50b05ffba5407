"""One vector for each sequence, from the vectors of its tokens.

Dimensions in the comments: T real tokens, N sequences, C hidden_size.
"""

import torch
from torch import Tensor

from model.packing import PackedSequences
from model.shape import Pooling


def pooled(hidden: Tensor, batch: PackedSequences, pooling: Pooling) -> Tensor:
    """Return the vectors (N, C) of sequences from hidden states (T, C).

    Args:
        pooling: cls is the vector of the first token. mean is the mean over all tokens including [CLS] and [SEP], as in
            sentence-transformers, summed in 32 bits.
    """
    if pooling == "cls":
        return hidden[batch.cu_seqlens[:-1]]
    lengths = batch.cu_seqlens.diff()
    rows = torch.arange(len(lengths), device=hidden.device).repeat_interleave(lengths, output_size=len(hidden))
    sums = hidden.new_zeros(len(lengths), hidden.shape[1], dtype=torch.promote_types(hidden.dtype, torch.float32))
    return (sums.index_add(0, rows, hidden.to(sums.dtype)) / lengths[:, None]).to(hidden.dtype)
