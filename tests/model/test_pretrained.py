import hashlib
import json
import pickle
import re
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertForMaskedLM, BertModel

from model.hub.pretrained import open_pretrained
from model.hub.weights import load_pretrained, to_hugging_face
from model.loading.stream import Leg
from model.optimizer import build_optimizer
from model.runs.progress import Progress
from model.runs.state import TrainingState
from model.tasks.data import Windowing
from model.tasks.heads import SequenceModel, SpanModel
from model.tasks.initial_weights import load_encoder
from model.tasks.registry import make_task, task_of
from tests.model.small_model import random_model, save_checkpoint
from tests.model.small_task import VOCABULARY, small_tokenizer, write_model


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("models") / "original")


@pytest.fixture
def directory(original, tmp_path):
    """A copy to change."""
    return shutil.copytree(original, tmp_path / "copy")


def encoder_of(path) -> dict[str, torch.Tensor]:
    """The encoder that fine-tuning would begin with."""
    pretrained = open_pretrained(path)
    model = SpanModel(pretrained.config, 2)
    load_encoder(model, pretrained, seed=1)
    return {name: tensor for name, tensor in model.state_dict().items() if name.startswith("encoder.")}


def assert_same_encoder(path, original) -> None:
    expected = encoder_of(original)
    found = encoder_of(path)
    assert set(found) == set(expected) and all(torch.equal(found[name], expected[name]) for name in expected)


def rewrite(directory, change) -> None:
    """Renames, converts or leaves out tensors of a model directory: change(name, tensor) is a pair or None."""
    state = load_file(directory / "model.safetensors")
    pairs = [change(name, tensor) for name, tensor in state.items()]
    save_file(dict(pair for pair in pairs if pair), directory / "model.safetensors")


def test_checkpoints_of_all_ages_and_classes_are_read(original, directory):
    BertForMaskedLM.from_pretrained(original).save_pretrained(directory)
    assert open_pretrained(directory).architecture == "BertForMaskedLM"
    assert_same_encoder(directory, original)

    (directory / "model.safetensors").unlink()
    torch.save(BertForMaskedLM.from_pretrained(original).state_dict(), directory / "pytorch_model.bin")
    assert_same_encoder(directory, original)

    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
        for name, tensor in BertModel.from_pretrained(original).state_dict().items()
    }
    torch.save(old, directory / "pytorch_model.bin")  # neither `bert.` in front nor the names of today
    assert_same_encoder(directory, original)


def test_weights_in_16_bits_become_32(original, directory):
    rewrite(directory, lambda name, tensor: (name, tensor.half()))
    state = encoder_of(directory)
    assert {tensor.dtype for tensor in state.values()} == {torch.float32}
    for name, tensor in encoder_of(original).items():
        assert torch.equal(state[name], tensor.half().float())


def test_the_pooler_is_copied_if_there_is_one_and_otherwise_drawn_from_the_seed(original, directory):
    def model(path, seed):
        pretrained = open_pretrained(path)
        made = SequenceModel(pretrained.config, 3)
        return made, load_encoder(made, pretrained, seed)

    first, drawn = model(original, 1)
    assert drawn == ["classifier"]
    assert torch.equal(first.head.dense.weight, load_pretrained(original).nsp.pooler.weight)
    assert not torch.equal(first.classifier.weight, model(original, 2)[0].classifier.weight)
    assert torch.equal(first.classifier.weight, model(original, 1)[0].classifier.weight)
    rewrite(directory, lambda name, tensor: None if "pooler" in name else (name, tensor))
    assert model(directory, 1)[1] == ["classifier", "head"]


def test_random_weights_use_only_the_shape(original):
    pretrained = open_pretrained(original)
    model = SequenceModel(pretrained.config, 3)
    assert load_encoder(model, pretrained, 1, random_weights=True) == ["all"]
    assert not torch.equal(model.encoder.layers[0].qkv.weight, encoder_of(original)["encoder.layers.0.qkv.weight"])
    assert (model.encoder.layers[0].output_norm.weight == 1).all()


def leg(max_seq_length: int) -> Leg:
    return Leg(step=0, max_seq_length=max_seq_length, item=0, batch_size=1, seed=1, shards_digest="")


def write_run(run, **changes) -> None:
    """A pretraining run with one checkpoint."""
    model = random_model(vocab_size=len(VOCABULARY))
    words = "".join(word + "\n" for word in VOCABULARY).encode()
    state = {
        "progress": Progress(step=5, legs=(leg(32), leg(16))),
        "seed": 1,
        "order_version": 1,
        "shards_digest": "",
        "vocabulary_sha256": hashlib.sha256(words).hexdigest(),
        "model": model.config.values(),
        "schedule": {},
        "changes": [],
    }
    save_checkpoint(run / "checkpoints", model, build_optimizer(model, 0.0), TrainingState(**state | changes), keep=1)
    (run / "vocab.txt").write_bytes(words)
    small_tokenizer().tokenizer.save(str(run / "tokenizer.json"))


def test_a_pretraining_run_is_its_last_checkpoint_and_knows_its_length(tmp_path):
    write_run(tmp_path / "run")
    for path in (tmp_path / "run", tmp_path / "run/checkpoints/step-00000005"):
        pretrained = open_pretrained(path)
        assert pretrained.max_seq_length == 32 and pretrained.architecture == "BertForPreTraining"
        expected = to_hugging_face(random_model(vocab_size=len(VOCABULARY)).state_dict(), pretrained.config)
        assert all(torch.equal(pretrained.weights[name], tensor) for name, tensor in expected.items())
    assert len(pretrained.digest()) == 64


def test_a_run_with_a_missing_or_other_vocabulary_is_refused(tmp_path):
    write_run(tmp_path)
    words = (tmp_path / "vocab.txt").read_text()
    (tmp_path / "vocab.txt").write_text(words.replace("paris", "rome"))
    with pytest.raises(ValueError, match="vocab.txt is not the vocabulary that the model was trained with"):
        open_pretrained(tmp_path)
    (tmp_path / "vocab.txt").unlink()
    with pytest.raises(
        ValueError, match="tokenizer.json is not the vocabulary .*: copy the tokenizer of its data set to "
    ):
        open_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(ValueError, match="has no tokenizer: copy its data set's there, vocab.txt or "):
        open_pretrained(tmp_path)


def test_a_path_that_is_not_a_model_is_refused(original, directory, tmp_path):
    with pytest.raises(ValueError, match="models are read from disk and not downloaded"):
        open_pretrained("bert-base-uncased")
    with pytest.raises(ValueError, match="expected the folder of a run, or a directory with config.json"):
        open_pretrained(tmp_path)
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "config.toml").write_text('task = "classify"\n')
    with pytest.raises(ValueError, match="its fine-tuning is not finished"):
        open_pretrained(tmp_path / "run")

    rewrite(directory, lambda name, tensor: (name, tensor[:-1] if "position_embeddings" in name else tensor))
    with pytest.raises(
        ValueError, match=re.escape("position_embeddings.weight has the shape (63, 32), config.json says")
    ):
        encoder_of(directory)
    rewrite(directory, lambda name, tensor: None if "layer.1.output.dense" in name else (name, tensor))
    with pytest.raises(ValueError, match="2 tensors are missing, bert.encoder.layer.1.output.dense.weight first"):
        encoder_of(directory)
    (directory / "model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(ValueError, match="model.safetensors cannot be read, it is damaged or holds more than weights"):
        open_pretrained(directory)
    (directory / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="neither model.safetensors nor pytorch_model.bin"):
        open_pretrained(directory)


class Evil:
    def __reduce__(self):
        return print, ("this code must not run",)


def test_a_bin_file_runs_no_code(directory, capsys):
    (directory / "model.safetensors").unlink()
    (directory / "pytorch_model.bin").write_bytes(pickle.dumps({"bert": Evil()}, protocol=2))
    with pytest.raises(ValueError, match="cannot be read, it is damaged or holds more than weights"):
        open_pretrained(directory)
    assert capsys.readouterr().out == ""


def test_a_bin_file_with_anything_but_weights_is_refused(directory):
    state = load_file(directory / "model.safetensors")
    (directory / "model.safetensors").unlink()
    torch.save({"state_dict": state, "epoch": 3}, directory / "pytorch_model.bin")
    with pytest.raises(
        ValueError, match="pytorch_model.bin: 'state_dict' is a dict, expected a dict of names and their"
    ):
        open_pretrained(directory)
    torch.save([state["cls.predictions.bias"]], directory / "pytorch_model.bin")
    with pytest.raises(ValueError, match="pytorch_model.bin holds a list, expected a dict of names and their tensors"):
        open_pretrained(directory)


def test_the_task_of_other_peoples_models_is_in_their_configuration(directory):
    def change(**values):
        config = json.loads((directory / "config.json").read_text())
        (directory / "config.json").write_text(json.dumps(config | values))
        return task_of(open_pretrained(directory))

    with pytest.raises(ValueError, match="was not trained for a task, it is a BertForPreTraining: fine-tune it first"):
        change()
    state = load_file(directory / "model.safetensors")
    save_file(state | {"classifier.weight": torch.zeros(3, 32)}, directory / "model.safetensors")
    task = change(architectures=["BertForSequenceClassification"])
    assert task.labels == ("LABEL_0", "LABEL_1", "LABEL_2") and task.windowing.max_seq_length == 64
    assert task.forms(False) == [("text_a", "text_b"), ("text",)]
    assert change(id2label={"0": "x", "1": "y", "2": "z"}).labels == ("x", "y", "z")
    assert change(architectures=["BertForTokenClassification"]).name == "tag"
    task = change(architectures=["BertForSequenceClassification"], problem_type="multi_label_classification")
    assert task.name == "multilabel" and task.labels == ("x", "y", "z") and task.thresholds == ()
    with pytest.raises(
        ValueError, match="problem_type is 'ranking', expected single_label_classification, multi_label"
    ):
        change(problem_type="ranking")
    with pytest.raises(ValueError, match="id2label names 2 labels, but the classifier has 3"):
        change(problem_type=None, id2label={"0": "x", "1": "y"})
    save_file(state | {"classifier.weight": torch.zeros(1, 32)}, directory / "model.safetensors")
    assert change(id2label={"0": "LABEL_0"}).name == "regress"
    task = change(architectures=["BertForMultipleChoice"])
    assert (task.name, task.labels, task.answer_kind) == ("choice", (), "number")
    assert change(architectures=["BertForQuestionAnswering"]).name == "span"


def test_a_task_comes_back_from_its_configuration(directory):
    windowing = Windowing(max_seq_length=20, stride=5, max_windows=None)
    task = make_task("span", windowing)
    config = json.loads((directory / "config.json").read_text()) | task.configuration()
    (directory / "config.json").write_text(json.dumps(config | {"architectures": ["BertForQuestionAnswering"]}))
    assert task_of(open_pretrained(directory)) == task
