"""The attention weights of a text equal those of transformers."""

import json
import re

import numpy as np
import pytest
import torch
from torch import nn
from transformers import AutoModel, AutoTokenizer

from bertloom.tokenizer_files import parse_tokenizer
from model.heads import PretrainingModel
from model.hub.pretrained import open_pretrained
from model.hub.tokenizer import TextTokenizer
from model.hub.weights import save_pretrained
from model.inference.attention_weights import attention_weights
from model.inference.embed import Embedder
from model.packing import PackedSequences, pack_sequences
from tests.bertloom.tokenizer_kinds import CONTENTS, NAMES
from tests.model.small_model import random_model
from tests.model.test_modern_bert import modern_config, with_random_weights


def random_modern_model(**changes) -> PretrainingModel:
    return with_random_weights(PretrainingModel(modern_config(**changes)))


MODELS = {"bert": random_model, "modernbert": random_modern_model}


def sequence(ids: list[int] | np.ndarray, segment_b_start: int | None = None) -> PackedSequences:
    """One text, or a pair whose segment B begins there."""
    start = len(ids) if segment_b_start is None else segment_b_start
    return pack_sequences(np.asarray(ids), np.array([len(ids)]), np.array([start]))


def random_sequence(length: int, segment_b_start: int | None = None) -> PackedSequences:
    return sequence(np.random.default_rng(length).integers(5, 53, length), segment_b_start)


@pytest.fixture(scope="module", params=MODELS)
def both(request, tmp_path_factory):
    """An encoder of ours, and transformers' model of the same weights."""
    model, directory = MODELS[request.param](), tmp_path_factory.mktemp(request.param)
    save_pretrained(model, directory)
    return model.encoder.eval(), AutoModel.from_pretrained(directory, attn_implementation="eager").eval()


@pytest.mark.parametrize(("length", "segment_b_start"), [(1, None), (5, None), (13, 6), (40, 9), (64, 63)])
def test_weights_of_every_layer_and_head_equal_those_of_transformers(both, length, segment_b_start):
    """ModernBERT's windows have 4 tokens to each side here."""
    ours, theirs = both
    batch = random_sequence(length, segment_b_start)
    inputs = {"input_ids": batch.input_ids[None]}
    if theirs.config.model_type == "bert":
        inputs["token_type_ids"] = batch.token_type_ids[None]
    expected = torch.cat(theirs(**inputs, output_attentions=True).attentions)  # (layers, H, S, S)
    found = attention_weights(ours, batch)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(attention_weights(ours, batch, [1, 0]), expected[[1, 0]], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", CONTENTS)
@pytest.mark.parametrize("kind", MODELS)
def test_weights_of_pairs_equal_those_of_transformers_with_any_tokenizer(kind, name, tmp_path):
    tokenizer = TextTokenizer(parse_tokenizer(json.dumps(CONTENTS[name]).encode(), name, NAMES.get(name)))
    save_pretrained(MODELS[kind](vocab_size=tokenizer.vocab_size), tmp_path, tokenizer)
    inputs = AutoTokenizer.from_pretrained(tmp_path)("the cat sat", "she said 北京", return_tensors="pt")
    theirs = AutoModel.from_pretrained(tmp_path, attn_implementation="eager").eval()
    expected = torch.cat(theirs(**inputs, output_attentions=True).attentions)

    opened = open_pretrained(tmp_path)
    a, b = opened.tokenizer.ids(["the cat sat", "she said 北京"])
    cls, sep = [opened.tokenizer.cls_id], [opened.tokenizer.sep_id]
    batch = sequence(np.concatenate([cls, a, sep, b, sep]), len(a) + 2)
    found = attention_weights(Embedder(opened, device="cpu").encoder, batch)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_no_token_sees_beyond_the_window_of_its_layer():
    encoder = random_modern_model().encoder.eval()
    found = attention_weights(encoder, random_sequence(30))
    distance = (torch.arange(30)[:, None] - torch.arange(30)).abs()
    for number, layer in enumerate(encoder.layers):
        is_seen = distance <= (30 if layer.window is None else layer.window)
        assert torch.equal(found[number] > 0, is_seen.expand_as(found[number]))
    torch.testing.assert_close(found.sum(-1), torch.ones(found.shape[:-1]))


@pytest.mark.parametrize("kind", MODELS)
def test_looking_at_attention_leaves_nothing_in_the_encoder(kind):
    encoder, batch = MODELS[kind]().encoder.eval(), random_sequence(20)
    before = encoder(batch)
    attention_weights(encoder, batch)
    with pytest.raises(IndexError):  # a token that the vocabulary lacks
        attention_weights(encoder, sequence([9999]))
    assert not any(layer._forward_pre_hooks for layer in encoder.layers)
    assert torch.equal(encoder(batch), before)


def test_a_layer_that_does_not_exist_and_too_many_weights_are_refused(monkeypatch):
    encoder = random_model().encoder.eval()
    with pytest.raises(ValueError, match="layer 2: expected a number from 0 to 1"):
        attention_weights(encoder, random_sequence(5), [0, 2])
    monkeypatch.setattr("model.inference.attention_weights.MAX_WEIGHTS", 200)
    assert attention_weights(encoder, random_sequence(5)).numel() == 200
    with pytest.raises(ValueError, match=re.escape("2 layers with 4 heads have 288 weights in a text of 6 tokens, at")):
        attention_weights(encoder, random_sequence(6))


def test_an_encoder_whose_layers_do_not_show_their_attention_is_named():
    encoder = random_model().encoder.eval()
    encoder.layers = nn.ModuleList(nn.Identity() for _ in encoder.layers)
    with pytest.raises(ValueError, match="BertEncoder does not show its attention: its layers have no `before_att"):
        attention_weights(encoder, random_sequence(5))
