"""Vectors for the new words of a vocabulary."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from model.encoders import names_of
from model.hub.pretrained import Pretrained
from model.hub.tokenizer import TextTokenizer

MULTIPLES = (128, 64, 32, 16, 8)
"""For speed, the number of a model's vectors may be padded to a multiple of one of these."""


def grow_model(pretrained: Pretrained, tokenizer: TextTokenizer, pieces: Mapping[int, Sequence[int]]) -> Pretrained:
    """Return a model with a larger vocabulary. All other weights, and the vectors of all other words, are the same.

    If the model has more vectors than words, their number stays a multiple of the same power of two.

    Args:
        tokenizer: the one with the new words.
        pieces: for each new word's id, the ids of its old pieces. The mean of their vectors is the word's vector, and the
            mean of their biases in the decoder its bias.
    """
    old = pretrained.config.vocab_size
    is_padded = old > pretrained.tokenizer.vocab_size
    multiple = next((m for m in MULTIPLES if is_padded and old % m == 0), 1)
    size = -(-max(old, max(pieces) + 1) // multiple) * multiple
    config = replace(pretrained.config, vocab_size=size)
    names = names_of(config)
    of_words = (
        names.word_embeddings,
        names.decoder,
        names.decoder.removesuffix("weight") + "bias",
        names.heads["ForMaskedLM"]["mlm.bias"],
    )
    grown = {name: grow_rows(pretrained.weights[name], size, pieces) for name in of_words if name in pretrained.weights}
    configuration = pretrained.configuration | {"vocab_size": size}
    return replace(
        pretrained, config=config, weights=pretrained.weights | grown, tokenizer=tokenizer, configuration=configuration
    )


def grow_rows(rows: Tensor, size: int, pieces: Mapping[int, Sequence[int]]) -> Tensor:
    """Return a tensor with `size` rows. Those in `pieces` are means of old rows; padding is the last old row.

    >>> grow_rows(torch.tensor([[0.0], [1.0], [3.0]]), 4, {3: [1, 2]}).tolist()
    [[0.0], [1.0], [3.0], [2.0]]
    """
    grown = torch.cat([rows, rows[-1:].expand(size - len(rows), *rows.shape[1:])])
    for number, olds in pieces.items():
        grown[number] = rows[list(olds)].double().mean(0).to(rows.dtype)
    return grown
