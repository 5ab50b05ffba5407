import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, BertConfig

from model.hub.tokenizer import load_tokenizer
from model.hub.weights import from_hugging_face, load_pretrained, name_table, save_pretrained, to_hugging_face
from tests.model.small_model import random_model


def test_every_parameter_has_one_name_there_and_back():
    model = random_model()
    state = model.state_dict()
    table = name_table(model.config, "ForPreTraining")
    assert set(table) == set(state)
    converted = to_hugging_face(state, model.config)
    assert len(converted) == sum(map(len, table.values()))
    back = from_hugging_face(converted, model.config)
    assert all(torch.equal(back[name], state[name]) for name in state)


def test_a_saved_model_is_read_back_bit_for_bit(tmp_path):
    model = random_model()
    save_pretrained(model, tmp_path / "new" / "folder")
    again = load_pretrained(tmp_path / "new" / "folder")
    assert again.config == model.config
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values()))


def test_transformers_reads_the_configuration(tmp_path):
    model = random_model(hidden_dropout_prob=0.25, layer_norm_eps=1e-6)
    save_pretrained(model, tmp_path)
    config = BertConfig.from_pretrained(tmp_path)
    ours = ("encoder", "normalization")
    for name, value in model.config.values().items():
        assert hasattr(config, name) != (name in ours)
        assert name in ours or getattr(config, name) == value, name
    assert config.hidden_act == "gelu"


def test_vocabulary_and_tokenizer_go_along_with_their_casing(tmp_path):
    from tokenizers import BertWordPieceTokenizer

    words = ["[UNK]", "[CLS]", "[SEP]", "[MASK]", "[PAD]", "House", "house", "##s"]
    source = tmp_path / "source"
    source.mkdir()
    (source / "vocab.txt").write_text("\n".join(words) + "\n")
    BertWordPieceTokenizer(str(source / "vocab.txt"), lowercase=False).save(str(source / "tokenizer.json"))
    save_pretrained(random_model(vocab_size=len(words)), tmp_path / "out", load_tokenizer(source, len(words)))

    assert (tmp_path / "out" / "vocab.txt").read_bytes() == (source / "vocab.txt").read_bytes()
    assert json.loads((tmp_path / "out" / "config.json").read_text())["pad_token_id"] == 4
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.tokenize("House houses") == ["House", "house", "##s"]
    assert tokenizer.model_max_length == 64


def test_what_is_no_bert_of_ours_is_refused(tmp_path):
    save_pretrained(random_model(), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"hidden_act": "relu"}))
    with pytest.raises(ValueError, match="hidden_act is 'relu', only 'gelu' can be read"):
        load_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config))
    state = load_file(tmp_path / "model.safetensors")
    save_file({k: v for k, v in state.items() if "seq_relationship" not in k}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="2 tensors are missing, cls.seq_relationship.weight first"):
        load_pretrained(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match="config.json is not JSON"):
        load_pretrained(tmp_path)
