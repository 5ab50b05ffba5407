"""How well a pretrained model predicts whole words, each of which may be several tokens.

Dimensions in the comments: T real tokens, V vocab_size, K predicted tokens.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from bertloom.arrays import I64
from model.inference.predict import WordPredictor
from model.packing import MAX_TOKENS, grouped, pack_texts

MAX_LOGITS = 1 << 25
"""Maximum number of logits in memory together."""


class MaskedWindow(NamedTuple):
    """A window over a text in which some words are masked."""

    ids: np.ndarray
    """(tokens,), without special tokens."""
    begins: I64
    """(words,), the first token of each masked word, ascending."""
    ends: I64
    """(words,), the token after its last one. A word may have no tokens."""


class Reading(NamedTuple):
    """A sequence, and the tokens of it that a model predicts."""

    ids: np.ndarray
    """(tokens,), with special tokens."""
    places: I64
    """(K,), the predicted tokens."""
    words: I64
    """(K,), the masked word of each, counted over all windows."""
    true: np.ndarray
    """(K,), their ids."""


@torch.inference_mode()
def word_losses(model: WordPredictor, windows: Sequence[MaskedWindow]) -> list[NDArray[np.float64]]:
    """Return for each window the negative log-probabilities of its masked words, in nats: float64 (words,).

    The probability of a word is the product of the probabilities of its tokens. For each, the earlier tokens of the word are
    visible, and the later ones and all other masked words are not (the left-to-right rule of Kauf and Ivanova 2023).

    A window is read once, and once more for each token of a masked word after its first.
    """
    counts = np.array([len(window.begins) for window in windows], np.int64)
    starts = np.cumsum(counts) - counts
    losses = np.zeros(counts.sum())
    readings = (one for window, start in zip(windows, starts) for one in readings_of(model, window, int(start)))
    for group in grouped(readings, lambda reading: len(reading.ids), MAX_TOKENS):
        batch = pack_texts([reading.ids for reading in group]).to(model.device)
        hidden = model.encoder(batch)  # (T, C)
        first = np.cumsum([0, *(len(reading.ids) for reading in group[:-1])])
        places = np.concatenate([reading.places + begin for reading, begin in zip(group, first)])
        true = torch.from_numpy(np.concatenate([reading.true for reading in group]).astype(np.int64))
        words = np.concatenate([reading.words for reading in group])
        vocab_size = model.tokenizer.vocab_size
        for some in np.array_split(np.arange(len(places)), -(-len(places) * vocab_size // MAX_LOGITS)):
            vectors = hidden[torch.from_numpy(places[some]).to(model.device)]
            logits = model.mlm(vectors, model.encoder.word_embeddings)[:, :vocab_size].float()  # (K, V)
            found = torch.nn.functional.cross_entropy(logits, true[some].to(model.device), reduction="none")
            np.add.at(losses, words[some], found.double().cpu().numpy())
    return np.split(losses, starts[1:]) if len(windows) else []


def readings_of(model: WordPredictor, window: MaskedWindow, first_word: int) -> Iterator[Reading]:
    """Yield the readings of a window: all masked words hidden, then with the first tokens of one word after the other."""
    tokenizer = model.tokenizer
    ids = np.concatenate([[tokenizer.cls_id], window.ids, [tokenizer.sep_id]]).astype(np.int64)
    hidden = ids.copy()
    for begin, end in zip(window.begins, window.ends):
        hidden[begin + 1 : end + 1] = tokenizer.mask_id
    words = np.flatnonzero(window.ends > window.begins)
    if len(words):
        places = window.begins[words] + 1
        yield Reading(hidden, places, words + first_word, ids[places])
    for word in words:
        begin, end = int(window.begins[word]) + 1, int(window.ends[word]) + 1
        for place in range(begin + 1, end):
            shown = hidden.copy()
            shown[begin:place] = ids[begin:place]
            yield Reading(shown, np.array([place]), np.array([word + first_word]), ids[place : place + 1])
