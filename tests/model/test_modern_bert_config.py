"""config.json of a ModernBERT: the files of transformers 4 and 5 are read, and what the encoder does not have is refused."""

import json

import pytest
import torch
from transformers import AutoConfig, ModernBertConfig, ModernBertForMaskedLM

from model.hub.config import read_config, write_config
from model.hub.weights import read_weights
from model.modern_bert_config import ModernBertShape
from model.shape import EncoderConfig

PUBLISHED = {
    "architectures": ["ModernBertForMaskedLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 50281,
    "classifier_activation": "gelu",
    "classifier_bias": False,
    "classifier_dropout": 0.0,
    "classifier_pooling": "mean",
    "cls_token_id": 50281,
    "decoder_bias": True,
    "deterministic_flash_attn": False,
    "embedding_dropout": 0.0,
    "eos_token_id": 50282,
    "global_attn_every_n_layers": 3,
    "global_rope_theta": 160000.0,
    "gradient_checkpointing": False,
    "hidden_activation": "gelu",
    "hidden_size": 768,
    "initializer_cutoff_factor": 2.0,
    "initializer_range": 0.02,
    "intermediate_size": 1152,
    "layer_norm_eps": 1e-05,
    "local_attention": 128,
    "local_rope_theta": 10000.0,
    "max_position_embeddings": 8192,
    "mlp_bias": False,
    "mlp_dropout": 0.0,
    "model_type": "modernbert",
    "norm_bias": False,
    "norm_eps": 1e-05,
    "num_attention_heads": 12,
    "num_hidden_layers": 22,
    "pad_token_id": 50283,
    "position_embedding_type": "absolute",
    "sep_token_id": 50282,
    "tie_word_embeddings": True,
    "torch_dtype": "float32",
    "transformers_version": "4.47.0.dev0",
    "vocab_size": 50368,
}
"""The file of answerdotai/ModernBERT-base, written by transformers 4."""
BASE = EncoderConfig(shape=ModernBertShape(classifier_pooling="mean"), vocab_size=50368)
OTHER = ModernBertShape(
    hidden_size=48,
    num_hidden_layers=5,
    num_attention_heads=4,
    global_attn_every_n_layers=2,
    local_attention=64,
    global_rope_theta=80_000.0,
    local_rope_theta=500.0,
    norm_eps=1e-6,
    embedding_dropout=0.1,
    mlp_dropout=0.2,
    attention_dropout=0.3,
    classifier_dropout=0.4,
    classifier_pooling="mean",
    initializer_cutoff_factor=3.0,
)


def test_the_published_file_is_read_in_the_form_of_transformers_4_and_of_5(tmp_path):
    assert read_config(PUBLISHED, "config.json") == BASE
    (tmp_path / "config.json").write_text(json.dumps(PUBLISHED))
    AutoConfig.from_pretrained(tmp_path).save_pretrained(tmp_path / "again")
    newer = json.loads((tmp_path / "again/config.json").read_text())
    assert "rope_parameters" in newer and "global_rope_theta" not in newer
    assert read_config(newer, "config.json") == BASE


def test_every_field_survives_transformers(tmp_path):
    config = EncoderConfig(shape=OTHER, vocab_size=53)
    written = write_config(config, "ForMaskedLM")
    assert read_config(written, "config.json") == config
    theirs = ModernBertConfig(**written)
    assert theirs.rope_parameters["full_attention"]["rope_theta"] == 80_000.0
    assert theirs.layer_types == ["full_attention", "sliding_attention"] * 2 + ["full_attention"]
    theirs.save_pretrained(tmp_path)
    assert read_config(json.loads((tmp_path / "config.json").read_text()), "config.json") == config


def test_the_distance_of_layers_is_kept_where_the_kinds_do_not_show_it():
    for layers, period in ((2, 3), (1, 1), (3, 7), (4, 1)):
        shape = ModernBertShape(num_hidden_layers=layers, global_attn_every_n_layers=period)
        config = EncoderConfig(shape=shape, vocab_size=53)
        assert read_config(write_config(config, "Model"), "config.json") == config


def test_weights_saved_by_transformers_are_read_bit_for_bit(tmp_path):
    torch.manual_seed(0)
    config = EncoderConfig(shape=OTHER, vocab_size=53)
    theirs = ModernBertForMaskedLM(ModernBertConfig(**write_config(config, "ForMaskedLM")))
    theirs.save_pretrained(tmp_path / "whole")
    theirs.model.save_pretrained(tmp_path / "bare")
    state = theirs.state_dict()
    found = read_weights(tmp_path / "whole", config)
    assert found.keys() == state.keys() - {"decoder.weight"}
    bare = read_weights(tmp_path / "bare", config)
    assert bare.keys() == {name for name in found if name.startswith("model.")}
    for weights in (found, bare):
        assert all(torch.equal(tensor, state[name]) for name, tensor in weights.items())


THETAS = {kind: {"rope_type": "default", "rope_theta": 1e4} for kind in ("full_attention", "sliding_attention")}
KINDS = ["full_attention", "sliding_attention", "sliding_attention"]


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"attention_bias": True}, "attention_bias is True, only False can be read"),
        ({"mlp_bias": True}, "mlp_bias is True, only False can be read"),
        ({"norm_bias": True}, "norm_bias is True, only False can be read"),
        ({"classifier_bias": True}, "classifier_bias is True, only False can be read"),
        ({"decoder_bias": False}, "decoder_bias is False, only True can be read"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings is False, only True can be read"),
        ({"hidden_activation": "silu"}, "hidden_activation is 'silu', only 'gelu' can be read"),
        ({"classifier_activation": "relu"}, "classifier_activation is 'relu', only 'gelu' can be read"),
        ({"classifier_pooling": "max"}, "classifier_pooling='max' must be 'cls' or 'mean'"),
        ({"classifier_pooling": ["cls"]}, r"classifier_pooling is \['cls'\], expected a string"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4}}, "rope_scaling is .*, only None can be read"),
        (
            {"rope_parameters": THETAS | {"full_attention": {"rope_type": "yarn", "rope_theta": 1e4}}},
            "rope_parameters.full_attention.rope_type is 'yarn', only 'default' can be read",
        ),
        ({"rope_parameters": {"rope_theta": 1e4}}, "rope_parameters.rope_theta: expected full_attention and"),
        ({"rope_parameters": [1e4]}, r"rope_parameters is \[10000.0\], expected a table"),
        (
            {"rope_parameters": THETAS | {"full_attention": {"rope_theta": "x"}}},
            "global_rope_theta is 'x', expected a n",
        ),
        (
            {"layer_types": KINDS[::-1] * 2},
            "layer_types is .*: expected full_attention in every n-th layer from the first",
        ),
        (
            {"layer_types": [*KINDS, "sliding_attention", "full_attention", "full_attention"]},
            "layer_types is .*: expected",
        ),
        ({"layer_types": KINDS}, "layer_types has 3 layers, num_hidden_layers is 22"),
        ({"layer_types": "full_attention"}, "layer_types is 'full_attention': expected"),
        ({"layer_types": [["full_attention"], {}]}, "layer_types is .*: expected"),
        ({"local_rope_theta": None}, "local_rope_theta is None, expected a number"),
        ({"global_attn_every_n_layers": 0}, "global_attn_every_n_layers=0 must be at least 1"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers=1000000000 must be at most 1,000"),
    ],
)
def test_what_the_encoder_does_not_have_is_refused_by_name(changes, message):
    with pytest.raises(ValueError, match=f"^some/config.json: {message}"):
        read_config(PUBLISHED | changes, "some/config.json")
