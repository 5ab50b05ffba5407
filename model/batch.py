"""A batch of packed examples with what the pretraining heads predict, and the size that it is padded to.

Dimensions in the comments: T real tokens, N examples, M masked positions.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from model.packing import PackedSequences


@dataclass(frozen=True, kw_only=True)
class PackedBatch(PackedSequences):
    """Examples end to end, without padding, and what is to be predicted: what the models of bertloom train on.

    T is the number of tokens of all examples, N the number of examples, M the number of masked positions.
    `DataSet.examples(...).gather(copies, rows)` makes one.
    """

    masked_positions: Tensor
    """int64 (M,), indices into the T tokens"""
    masked_ids: Tensor
    """int64 (M,), the true ids there"""
    next_sentence_label: Tensor
    """int64 (N,), 0: B follows A, 1: B is random, -1: no pair"""
    rows: NDArray[np.int64]
    """int64 (N, 2), copy and row of each example"""
    sources: Tensor | None = None
    """int64 (N,), number of the data set of each example, from 0; None in training on one data set"""


@dataclass(frozen=True, kw_only=True)
class StaticShape:
    """Size of all padded batches of one length, so that torch.compile makes every graph once."""

    num_tokens: int
    num_masked: int
    """Number of masked positions."""
    num_sequences: int
    """Number of sequences: the examples and the sequences of padding."""
    max_seq_length: int
    """Length of the longest sequence of padding, in tokens."""
