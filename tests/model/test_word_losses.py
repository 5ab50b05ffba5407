"""Losses of words of several tokens, against transformers, one reading after the other."""

import numpy as np
import pytest
import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer

from model.hub.pretrained import open_pretrained
from model.inference import word_losses as word_losses_module
from model.inference.predict import WordPredictor
from model.inference.word_losses import MaskedWindow, word_losses
from tests.model.small_task import write_model

TEXTS = ["paris is the capital of france .", "anna lives in zzz 北京 !", "qrs"]
MASKED = [[(0, 1), (4, 6)], [(0, 0), (3, 6), (7, 8)], [(0, 3)]]
"""Tokens of each masked word. One has no token, and the words zzz and qrs have three."""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("models") / "encoder")


def losses_by_hand(directory, text, words):
    """One reading for each token of each word."""
    tokenizer, model = AutoTokenizer.from_pretrained(directory), AutoModelForMaskedLM.from_pretrained(directory).eval()
    ids = tokenizer(text, return_tensors="pt").input_ids
    losses = []
    for begin, end in words:
        losses.append(0.0)
        for place in range(begin + 1, end + 1):
            hidden = ids.clone()
            for other_begin, other_end in words:
                hidden[0, other_begin + 1 : other_end + 1] = tokenizer.mask_token_id
            hidden[0, begin + 1 : place] = ids[0, begin + 1 : place]
            with torch.no_grad():
                chances = model(input_ids=hidden).logits[0, place].log_softmax(-1)
            losses[-1] -= chances[ids[0, place]].item()
    return losses


@pytest.mark.parametrize("max_tokens, max_logits", [(8192, 1 << 25), (12, 150)])
def test_a_word_is_as_likely_as_its_tokens_from_left_to_right(model, monkeypatch, max_tokens, max_logits):
    monkeypatch.setattr(word_losses_module, "MAX_TOKENS", max_tokens)
    monkeypatch.setattr(word_losses_module, "MAX_LOGITS", max_logits)
    predictor = WordPredictor(open_pretrained(model), "cpu")
    windows = [
        MaskedWindow(ids, *np.array(words, np.int64).T) for ids, words in zip(predictor.tokenizer.ids(TEXTS), MASKED)
    ]
    found = word_losses(predictor, windows)
    for text, words, losses in zip(TEXTS, MASKED, found, strict=True):
        np.testing.assert_allclose(losses, losses_by_hand(model, text, words), rtol=1e-4)
    assert found[1][0] == 0 and word_losses(predictor, []) == []


def test_a_window_without_masked_words_is_not_read(model):
    predictor = WordPredictor(open_pretrained(model), "cpu")
    nothing = MaskedWindow(np.array([7, 8]), np.zeros(0, np.int64), np.zeros(0, np.int64))
    some = MaskedWindow(np.array([7, 8]), np.array([1]), np.array([2]))
    found = word_losses(predictor, [nothing, some, nothing])
    assert [len(losses) for losses in found] == [0, 1, 0] and found[1][0] > 0
    assert [len(losses) for losses in word_losses(predictor, [nothing])] == [0]
