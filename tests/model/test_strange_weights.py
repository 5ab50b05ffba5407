"""Weights from other people: wrapped names, several files, and files that claim what they do not hold."""

import json
import logging
import os
import shutil
import zipfile

import pytest
import torch
from safetensors.torch import load_file, save_file

from model.encoders import names_of
from model.hub.pretrained import open_pretrained
from model.hub.weights import WRAPPERS, name_table
from tests.model.small_model import small_config
from tests.model.small_task import write_model


@pytest.fixture
def directory(tmp_path):
    return write_model(tmp_path / "model")


def bin_of(directory, change=lambda state: state):
    """Put pytorch_model.bin, with changed content, in the place of model.safetensors."""
    state = load_file(directory / "model.safetensors")
    (directory / "model.safetensors").unlink()
    torch.save(change(state), directory / "pytorch_model.bin")
    return directory / "pytorch_model.bin"


def assert_same(directory, expected) -> None:
    found = open_pretrained(directory).weights
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "model._orig_mod.module."])
@pytest.mark.parametrize("is_bare", [False, True])
def test_what_wrappers_put_before_the_names_is_removed_with_a_note(directory, prefix, is_bare, caplog):
    expected = load_file(directory / "model.safetensors")
    bare = {name: tensor for name, tensor in expected.items() if name.startswith("bert.")}
    state = {name.removeprefix("bert."): tensor for name, tensor in bare.items()} if is_bare else expected
    save_file({prefix + name: tensor for name, tensor in state.items()}, directory / "model.safetensors")
    with caplog.at_level(logging.WARNING, "bertloom"):
        assert_same(directory, bare if is_bare else expected)
    assert f"model.safetensors: {prefix!r} was removed from the beginning of the tensors' names" in caplog.text


def test_an_unknown_beginning_of_the_names_is_named(directory):
    bin_of(directory, lambda state: {f"student.{name}": tensor for name, tensor in state.items()})
    with pytest.raises(ValueError, match=r"pytorch_model.bin: the names of the tensors begin with 'student.', as in"):
        open_pretrained(directory)


def divide(directory, ending: str, save) -> list[str]:
    """Divide the weights among two files and an index, as transformers does for large models."""
    state = load_file(directory / "model.safetensors")
    (directory / "model.safetensors").unlink()
    stem, names = ("model" if ending == "safetensors" else "pytorch_model"), sorted(state)
    files = [f"{stem}-0000{number}-of-00002.{ending}" for number in (1, 2)]
    parts = dict(zip(files, (names[::2], names[1::2])))
    for file, part in parts.items():
        save({name: state[name] for name in part}, directory / file)
    places = {name: file for file, part in parts.items() for name in part}
    index = directory / f"{stem}.{ending}.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": places}))
    return files


@pytest.mark.parametrize("ending, save", [("safetensors", save_file), ("bin", torch.save)])
def test_weights_in_several_files_are_read(directory, ending, save):
    expected = load_file(directory / "model.safetensors")
    files = divide(directory, ending, save)
    assert_same(directory, expected)
    digest = open_pretrained(directory).digest()
    assert len(digest) == 64
    (directory / files[1]).unlink()
    with pytest.raises(ValueError, match=f"{files[1]} is missing: .*.index.json lists it; copy all files of the model"):
        open_pretrained(directory)


@pytest.mark.parametrize(
    "name", ["../other.safetensors", "/dev/zero", "a/b.safetensors", "..", "", 5, None, "x.safetensors\n"]
)
def test_an_index_names_only_files_beside_it(directory, name):
    divide(directory, "safetensors", save_file)
    index = directory / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"bert.pooler.dense.weight": name}}))
    with pytest.raises(
        ValueError, match=r"index.json names the file .*: expected one like model-00001-of-00002.safetens"
    ):
        open_pretrained(directory)
    index.write_text(json.dumps({"weight_map": []}))
    with pytest.raises(ValueError, match=r"index.json has no weight_map"):
        open_pretrained(directory)


@pytest.mark.parametrize(
    "content, message",
    [
        (b"this is text\n", "cannot be read, it is damaged or holds more than weights"),
        (b"", "cannot be read, it is damaged or holds more than weights"),
        (b"\x80\x02" + b"(" * 5000 + b".", "cannot be read, it is damaged or holds more than weights"),
        (b"e" * 300, "cannot be read, it is damaged or holds more than weights"),
        (b"version https://git-lfs.github.com/spec/v1\n", "cannot be read, it is damaged or holds more than weights"),
    ],
)
def test_a_bin_file_that_is_none_is_refused_in_one_line(directory, content, message):
    bin_of(directory).write_bytes(content)
    with pytest.raises(ValueError, match=f"pytorch_model.bin.*{message}") as refused:
        open_pretrained(directory)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda state: state | {5: torch.zeros(2)}, "one of the names is 5, expected a dict of names"),
        (lambda state: state | {"a": torch.zeros(2).to_sparse()}, "'a' is a tensor without numbers of its own"),
        (lambda state: state | {"a": torch.zeros(2, device="meta")}, "'a' is a tensor without numbers of its own"),
        (lambda state: state | {"a": torch.zeros(1).expand(10**12)}, "'a' is a tensor without numbers of its own"),
        (lambda state: state | {"cls.predictions.bias": torch.zeros(3)}, r"has the shape \(3,\), config.json says"),
        (
            lambda state: state | {"cls.predictions.bias": state["cls.predictions.bias"].long()},
            "cls.predictions.bias holds torch.int64, expected floating-point numbers",
        ),
    ],
)
def test_tensors_that_are_not_weights_are_refused(directory, change, message):
    bin_of(directory, change)
    with pytest.raises(ValueError, match=f"pytorch_model.bin: .*{message}"):
        open_pretrained(directory)


def test_a_compressed_bin_file_is_refused(directory, tmp_path):
    path = bin_of(directory)
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(tmp_path / "z", "w", zipfile.ZIP_DEFLATED) as other:
        for entry in archive.infolist():
            other.writestr(entry.filename, archive.read(entry))
    shutil.copy(tmp_path / "z", path)
    with pytest.raises(ValueError, match="pytorch_model.bin is compressed, which torch.save does not do"):
        open_pretrained(directory)


@pytest.mark.parametrize(
    "name", ["model.safetensors", "config.json", "vocab.txt", "tokenizer.json", "tokenizer_config.json"]
)
def test_a_pipe_or_a_device_in_a_model_directory_is_not_read(directory, name):
    (directory / name).unlink()
    os.mkfifo(directory / name)
    with pytest.raises(ValueError, match=f"{name} is not a regular file"):
        open_pretrained(directory)


def test_an_archive_with_a_damaged_end_is_refused(directory):
    path = bin_of(directory)
    content = path.read_bytes()
    at = content.rindex(b"PK\x06\x07")  # where the end of a large archive is: on disk 5 of several
    path.write_bytes(content[: at + 4] + b"\x05\0\0\0" + content[at + 8 :])
    with pytest.raises(
        ValueError, match="pytorch_model.bin cannot be read, it is damaged: zipfiles that span multiple"
    ):
        open_pretrained(directory)


def test_no_name_of_a_tensor_begins_like_that_of_a_wrapper():
    config = small_config()
    names = [name for form in names_of(config).heads for theirs in name_table(config, form).values() for name in theirs]
    bare = [name.removeprefix(f"{names_of(config).base}.") for name in names]
    assert len(names) > 100 and not any(WRAPPERS.match(name) for name in names + bare)


@pytest.mark.parametrize("architectures", ["Bert", 5, [5], {"a": 1}])
def test_architectures_are_a_list_of_names(directory, architectures):
    content = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(content | {"architectures": architectures}))
    with pytest.raises(ValueError, match="config.json: architectures.* is .*, expected"):
        open_pretrained(directory)


@pytest.mark.parametrize(
    "name, value, message",
    [
        (
            "pre_tokenizer",
            {"type": "Split", "pattern": {"Regex": "(a+)+$"}},
            r"the regular expression '\(a\+\)\+\$' is not one of the published tokenizers",
        ),
        ("normalizer", {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}, "content is 'aa', exp"),
        (
            "normalizer",
            {"type": "Sequence", "normalizers": [{"type": "NFD"}, {"type": "Precompiled"}]},
            "precompiled_charsmap is None, expected base64",
        ),
        ("normalizer", [], r"its normalizer is \[\]"),
        ("model", {"type": "BPE", "vocab": {}, "merges": []}, "one of them is not the model's"),
        ("model", None, "it has no model with a vocab"),
        (
            "model",
            {"type": "WordPiece", "vocab": {"[UNK]": 1}, "max_input_chars_per_word": 10**9},
            "max_input_chars_per_word is 1000000000: exp",
        ),
    ],
)
def test_a_tokenizer_that_is_not_safe_or_not_the_models_is_refused(directory, name, value, message):
    path = directory / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: value}))
    with pytest.raises(ValueError, match=f"tokenizer.json.*: {message}"):
        open_pretrained(directory)


def test_a_tokenizer_in_parts_is_read(directory):
    path = directory / "tokenizer.json"
    parts = [{"type": "NFD"}, {"type": "Lowercase"}, {"type": "StripAccents"}]
    content = json.loads(path.read_text()) | {"normalizer": {"type": "Sequence", "normalizers": parts}}
    path.write_text(json.dumps(content | {"pre_tokenizer": {"type": "Whitespace"}}))
    assert open_pretrained(directory).tokenizer.vocab_size > 0
