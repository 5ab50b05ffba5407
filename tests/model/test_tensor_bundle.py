"""TensorFlow checkpoints of google-research/bert, written by `tensor_bundle_writer` and read without TensorFlow."""

import json
import logging
import re

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForPreTraining

from jobs.import_model import ImportConfig, import_model, main
from model.hub.crc32c import crc32c
from model.hub.pretrained import open_pretrained
from model.hub.tensor_bundle import read_bundle
from tests.model.small_task import VOCABULARY
from tests.model.tensor_bundle_writer import PROTOS, slow_crc32c, write_bundle, write_table

SHAPE = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
    "vocab_size": len(VOCABULARY),
}
EVERYTHING = re.compile("")


def their_model() -> BertForPreTraining:
    torch.manual_seed(5)
    model = BertForPreTraining(BertConfig(**SHAPE)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def tensorflow_names(model: BertForPreTraining) -> dict[str, np.ndarray]:
    """The weights as google-research/bert names and stores them."""
    tensors = {}
    for name, tensor in model.state_dict().items():
        if "position_ids" in name or "decoder" in name:
            continue
        array = tensor.numpy()
        name = re.sub(r"layer\.(\d+)", r"layer_\1", name)
        if name == "cls.predictions.bias":
            name = "cls.predictions.output_bias"
        elif name.startswith("cls.seq_relationship"):
            name = name.replace("weight", "output_weights").replace("bias", "output_bias")
        elif "LayerNorm" in name:
            name = name.replace("weight", "gamma").replace("bias", "beta")
        elif "_embeddings" in name:
            name = name.removesuffix(".weight")
        elif name.endswith(".weight"):
            name, array = name.removesuffix("weight") + "kernel", array.T.copy()
        tensors[name.replace(".", "/")] = array
    return tensors


def write_directory(directory, num_shards=1, **more):
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "bert_config.json").write_text(json.dumps(SHAPE | {"hidden_act": "gelu", "type_vocab_size": 2}))
    (directory / "vocab.txt").write_text("".join(word + "\n" for word in VOCABULARY))
    write_bundle(directory / "bert_model.ckpt", tensorflow_names(their_model()) | more, num_shards)
    return directory


@pytest.mark.parametrize("num_shards", [1, 3])
def test_the_model_computes_what_transformers_computes_with_the_same_weights(tmp_path, num_shards, caplog):
    slots = {"bert/pooler/dense/kernel/adam_m": np.ones((32, 32), np.float32), "global_step": np.array(7, np.int64)}
    directory = write_directory(tmp_path / "google", num_shards, **slots)
    with caplog.at_level(logging.WARNING, "bertloom"):
        found = import_model(ImportConfig(hf=directory, out=tmp_path / "run"))
    assert (found.architecture, found.missing, found.left_out) == ("BertForPreTraining", [], [])
    assert "left out 2 tensors that are not weights (1 adam_m, 1 global_step)" in caplog.text
    expected = their_model()
    ours = BertForPreTraining.from_pretrained(tmp_path / "run/model").eval()
    ids = torch.randint(len(VOCABULARY), (3, 20), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        for a, b in zip(expected(ids).to_tuple(), ours(ids).to_tuple()):
            assert torch.equal(a, b)
    assert len(open_pretrained(directory).digest()) == 64


def test_the_casing_is_that_of_the_vocabulary(tmp_path, capsys):
    directory = write_directory(tmp_path / "uncased")
    main(["--hf", str(directory), "--out", str(tmp_path / "a")])
    assert "words, uncased" in capsys.readouterr().out
    directory = write_directory(tmp_path / "cased")
    (directory / "vocab.txt").write_text("".join(word + "\n" for word in VOCABULARY).replace("paris", "Paris"))
    main(["--hf", str(directory), "--out", str(tmp_path / "b")])
    assert "words, cased" in capsys.readouterr().out
    assert json.loads((tmp_path / "b/model/tokenizer_config.json").read_text())["do_lower_case"] is False


def test_all_kinds_of_numbers_are_read(tmp_path):
    generator = np.random.default_rng(1)
    tensors = {kind: generator.integers(0, 9, (3, 5)).astype(kind) for kind in ("float16", "float64", "int32", "int64")}
    tensors |= {f"layer_{number}/kernel": generator.random((2, number + 1), np.float32) for number in range(300)}
    write_bundle(tmp_path / "x.ckpt", tensors, num_shards=2)
    found = read_bundle(tmp_path / "x.ckpt.index", EVERYTHING)
    assert found.keys() == tensors.keys()
    assert all(np.array_equal(found[name].numpy(), tensor) for name, tensor in tensors.items())


@pytest.mark.parametrize("size", [0, 1, 3, 4, 5, 63, 64, 511, 512, 513, 65_535, 65_536, 70_001])
def test_the_checksum_equals_its_slow_twin(size):
    data = np.random.default_rng(size).integers(0, 256, size, dtype=np.uint8).tobytes()
    assert crc32c(data) == slow_crc32c(data)
    assert crc32c(b"123456789") == 0xE3069283  # of RFC 3720


def test_every_changed_byte_is_found(tmp_path):
    tensors = {"a/kernel": np.arange(40, dtype=np.float32), "b/bias": np.arange(9, dtype=np.float32)}
    write_bundle(tmp_path / "x.ckpt", tensors)
    for name in ("x.ckpt.index", "x.ckpt.data-00000-of-00001"):
        content = (tmp_path / name).read_bytes()
        not_used = range(len(content) - 46, len(content) - 8) if name.endswith("index") else ()
        for at in set(range(len(content))) - set(not_used):
            (tmp_path / name).write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
            try:
                found = read_bundle(tmp_path / "x.ckpt.index", EVERYTHING)
            except ValueError as error:
                assert str(tmp_path) in str(error)
            else:  # the block of statistics is not read
                assert all(np.array_equal(found[key].numpy(), tensor) for key, tensor in tensors.items())
        (tmp_path / name).write_bytes(content)


@pytest.mark.parametrize(
    "changes",
    [
        {"offset": 1},
        {"offset": 2**63 - 1},
        {"size": 0},
        {"size": 2**40},
        {"shard_id": 1},
        {"shard_id": -1},
        {"shape": {"dim": [{"size": -1}]}},
        {"shape": {"dim": [{"size": 2**40}, {"size": 2**40}]}},
        {"shape": {"dim": [{"size": 2**40}]}, "size": 2**42},
        {"crc32c": 1},
    ],
)
def test_an_entry_that_points_elsewhere_is_refused(tmp_path, changes):
    values = {"dtype": 1, "shape": {"dim": [{"size": 4}]}, "size": 16, "crc32c": 5}
    (tmp_path / "x.ckpt.data-00000-of-00001").write_bytes(b"\0" * 16)
    rows = [(b"", PROTOS["Header"](num_shards=1).SerializeToString())]
    rows.append((b"a/kernel", PROTOS["Entry"](**values | changes).SerializeToString()))
    write_table(tmp_path / "x.ckpt.index", rows)
    with pytest.raises(ValueError, match=r"x\.ckpt\..* is damaged: .*; copy the checkpoint again"):
        read_bundle(tmp_path / "x.ckpt.index", EVERYTHING)


def test_what_is_not_a_checkpoint_of_google_research_is_refused(tmp_path):
    directory = write_directory(tmp_path / "google")
    index, data = directory / "bert_model.ckpt.index", directory / "bert_model.ckpt.data-00000-of-00001"
    content = index.read_bytes()
    index.write_bytes(b"text")
    with pytest.raises(ValueError, match="bert_model.ckpt.index is not the index of a TensorFlow checkpoint"):
        open_pretrained(directory)
    index.write_bytes(content)
    data.rename(directory / "elsewhere")
    with pytest.raises(ValueError, match="data-00000-of-00001 is missing: copy all files of the checkpoint"):
        open_pretrained(directory)
    (directory / "elsewhere").rename(data)
    (directory / "model.ckpt-5.index").write_bytes(content)
    with pytest.raises(ValueError, match="has several checkpoints .bert_model.ckpt.index, model.ckpt-5.index."):
        open_pretrained(directory)
    (directory / "model.ckpt-5.index").unlink()
    write_bundle(directory / "bert_model.ckpt", {"model/layer/.ATTRIBUTES/VARIABLE_VALUE": np.ones(1, np.float32)})
    with pytest.raises(ValueError, match="is a checkpoint of Keras: only those of google-research/bert can be read"):
        open_pretrained(directory)
    write_bundle(directory / "bert_model.ckpt", {"bert/embeddings/word_embeddings": np.ones((2, 2), np.float32)})
    with pytest.raises(ValueError, match="36 tensors are missing, .* this is not a BertModel of 2 layers"):
        open_pretrained(directory)
