"""Padded batches with the names and values that `transformers.BertForPreTraining` takes.

Dimensions in the comments: N examples, L tokens of the longest one, T tokens and M masked positions of all.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

IGNORED = -100
"""Label of a position without a loss, as in torch's cross entropy."""
LISTS = {"input_ids": "input_ids", "masked_lm_positions": "positions", "masked_lm_ids": "masked_ids"}


def collate(
    examples: Sequence[Mapping[str, Any]], pad_to: int | None = None, pad_token_id: int = 0
) -> dict[str, Tensor]:
    """Return a batch of examples as `ShardDataset` or `example_pipeline` yields them: int64 tensors.

    The batch has `input_ids`, `token_type_ids`, `attention_mask` and `labels`, (N, L) each, with -100 in `labels` where
    nothing is masked. Examples with a pair have a `next_sentence_label`, (N,), too: -100 for those without one.

    Args:
        examples: dicts with the columns of the shards; others are ignored.
        pad_to: tokens to pad to; by default those of the longest example.
        pad_token_id: id of [PAD]. BERT's is 0.

    Raises:
        ValueError: an example has more than `pad_to` tokens.

    Examples:
        >>> batch = bertloom.collate(examples)
        >>> loss = BertForPreTraining(config)(**batch).loss
    """
    columns = {
        name: np.concatenate([np.asarray(example[column], np.int64) for example in examples])
        for column, name in LISTS.items()
    }
    columns |= {
        "lengths": np.array([len(example["input_ids"]) for example in examples]),
        "num_masks": np.array([len(example["masked_lm_positions"]) for example in examples]),
        "segment_b_start": np.array([int(example["segment_b_start"]) for example in examples]),
        "labels": np.array([int(example["next_sentence_label"]) for example in examples]),
    }
    return pad_columns(columns, pad_to, pad_token_id)


def pad_columns(columns: Mapping[str, np.ndarray], pad_to: int | None, pad_token_id: int) -> dict[str, Tensor]:
    """Return the batch of columns as `Examples.read` returns them. See `collate`."""
    lengths = columns["lengths"]
    longest = int(lengths.max()) if pad_to is None else pad_to
    if lengths.max() > longest:
        raise ValueError(f"pad_to={pad_to}, but an example has {lengths.max()} tokens: give max_seq_length or None")
    place = np.arange(longest)
    is_token = place < lengths[:, None]  # (N, L)
    ids = np.full(is_token.shape, pad_token_id, np.int64)
    ids[is_token] = columns["input_ids"]
    in_b = is_token & (place >= columns["segment_b_start"].astype(np.int64)[:, None])
    labels = np.full(is_token.shape, IGNORED, np.int64)
    rows = np.repeat(np.arange(len(lengths)), columns["num_masks"])
    labels[rows, columns["positions"].astype(np.int64)] = columns["masked_ids"]
    arrays = {
        "input_ids": ids,
        "token_type_ids": in_b.astype(np.int64),
        "attention_mask": is_token.astype(np.int64),
        "labels": labels,
    }
    pairs = columns["labels"].astype(np.int64)
    if (pairs >= 0).any():
        arrays["next_sentence_label"] = np.where(pairs >= 0, pairs, IGNORED)
    return {name: torch.from_numpy(values) for name, values in arrays.items()}


def split_examples(columns: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    """Return one dict per example, with the names of the shard format, from columns as `Examples.read` returns them."""
    tokens, masks = np.cumsum(columns["lengths"])[:-1], np.cumsum(columns["num_masks"])[:-1]
    lists = {
        column: np.split(columns[name], tokens if name == "input_ids" else masks) for column, name in LISTS.items()
    }
    return [
        {
            "input_ids": lists["input_ids"][i],
            "segment_b_start": int(columns["segment_b_start"][i]),
            "masked_lm_positions": lists["masked_lm_positions"][i],
            "masked_lm_ids": lists["masked_lm_ids"][i],
            "next_sentence_label": int(columns["labels"][i]),
        }
        for i in range(len(columns["lengths"]))
    ]
