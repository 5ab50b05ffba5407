"""ModernBERT from pretraining to predictions, and in the files of transformers."""

import json
import shutil

import numpy as np
import onnxruntime
import pyarrow.parquet as pq
import pytest
import torch
from transformers import (
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    ModernBertModel,
    pipeline,
)

from jobs.cli import main
from jobs.export import ExportConfig, export
from jobs.finetune import finetune
from jobs.import_model import ImportConfig, import_model
from jobs.pretrain import pretrain
from jobs.support.finetune_config import FinetuneConfig
from model.hub.pretrained import open_pretrained
from model.inference.predict import TaskPredictor, load
from model.modern_bert_config import ModernBertShape
from model.runs.checkpoint import load_model
from tests.jobs.small_run import learnt, make_data, run_config, train_lines
from tests.model.small_task import sentiment_rows, write_jsonl, write_model

SHAPE = ModernBertShape(
    hidden_size=32,
    num_hidden_layers=4,
    num_attention_heads=2,
    intermediate_size=48,
    local_attention=16,
    max_position_embeddings=64,
)
MIXED = "the house house 北京 w1 [MASK] w2 w3 w4 the house w5 w6 w7 w8 w9 w10 w11 w12 w13 w14 w15"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("data") / "set")


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    """A run of six steps on pairs, whose head for pairs transformers has no place for."""
    out = tmp_path_factory.mktemp("runs") / "run"
    pretrain(run_config(data, out, model=SHAPE))
    return out


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    out = tmp_path_factory.mktemp("exported") / "small"
    export(ExportConfig(checkpoint=run, out=out, onnx=True))
    return out


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    return write_jsonl(tmp_path_factory.mktemp("rows") / "rows.jsonl", sentiment_rows(64))


def tuned(model, rows, out, **changes) -> FinetuneConfig:
    values = {"task": "classify", "num_epochs": 2.0, "learning_rate": 1e-3, "device": "cpu", "num_threads": 1}
    return FinetuneConfig(model=model, train=rows, dev=rows, out=out, **values | changes)


def test_a_stopped_run_goes_on_to_the_same_bits(data, run, tmp_path):
    out = shutil.copytree(run, tmp_path / "resumed")
    shutil.rmtree(out / "checkpoints/step-00000006")
    pretrain(run_config(data, out, model=SHAPE))
    assert learnt(out) == learnt(run) and train_lines(out)[-1] == train_lines(run)[-1]


def test_recomputed_activations_change_no_bit(data, run, tmp_path):
    pretrain(run_config(data, tmp_path / "out", model=SHAPE, recompute_activations=True))
    assert learnt(tmp_path / "out") == learnt(run)


def test_the_export_has_no_missing_and_no_unexpected_weight_and_names_what_is_left_out(run, exported, tmp_path, caplog):
    model, info = AutoModelForMaskedLM.from_pretrained(exported, output_loading_info=True)
    assert not any(info.values()), info
    assert type(model).__name__ == "ModernBertForMaskedLM"
    assert not ModernBertModel.from_pretrained(exported, output_loading_info=True)[1]["missing_keys"]
    assert main(["export", "--checkpoint", str(run), "--out", str(tmp_path / "out")]) == 0
    assert "left out nsp.classifier.bias, nsp.classifier.weight, nsp.pooler.bias, nsp.pooler.weight: " in caplog.text
    assert "ModernBertForMaskedLM has no place for them" in caplog.text
    assert (tmp_path / "out/model.safetensors").read_bytes() == (exported / "model.safetensors").read_bytes()
    content, vocabulary = (
        json.loads((exported / "config.json").read_text()),
        (exported / "vocab.txt").read_text().split(),
    )
    assert vocabulary[content["cls_token_id"]] == vocabulary[content["bos_token_id"]] == "[CLS]"
    assert vocabulary[content["sep_token_id"]] == "[SEP]" and vocabulary[content["pad_token_id"]] == "[PAD]"
    card = (exported / "README.md").read_text()
    assert "ModernBertForMaskedLM" in card and "AutoModelForMaskedLM" in card


def test_our_words_and_those_of_the_fill_mask_pipeline_are_the_same(exported):
    ours = load(exported, "cpu").fill(MIXED)[0]
    theirs = pipeline("fill-mask", model=str(exported), device="cpu")(MIXED)
    for (word, chance), other in zip(ours, theirs):
        assert word == other["token_str"] and chance == pytest.approx(other["score"], abs=1e-5)


def test_the_onnx_model_takes_no_token_types_and_equals_transformers(exported):
    session = onnxruntime.InferenceSession(exported / "model.onnx", providers=["CPUExecutionProvider"])
    assert [entry.name for entry in session.get_inputs()] == ["input_ids", "attention_mask"]
    assert [entry.name for entry in session.get_outputs()] == ["last_hidden_state", "prediction_logits"]
    model = AutoModelForMaskedLM.from_pretrained(exported).eval()
    tokenizer = AutoTokenizer.from_pretrained(exported)
    for texts in (["the house"], [MIXED, "北京", "a house, the house!"]):
        batch = {k: v for k, v in tokenizer(texts, padding=True, return_tensors="pt").items() if k != "token_type_ids"}
        with torch.no_grad():
            expected = model(**batch).logits
        found = torch.from_numpy(session.run(None, {name: tensor.numpy() for name, tensor in batch.items()})[1])
        real = batch["attention_mask"].bool()
        torch.testing.assert_close(found[real], expected[real], atol=1e-4, rtol=1e-4)


def test_an_import_of_the_export_is_bitwise_and_can_be_trained_on(data, run, exported, tmp_path, capsys):
    again = import_model(ImportConfig(hf=exported, out=tmp_path / "imported"))
    assert (again.architecture, again.missing, again.left_out) == (
        "ModernBertForMaskedLM",
        ["nsp.pooler", "nsp.classifier"],
        [],
    )
    imported = tmp_path / "imported/model"
    assert (imported / "model.safetensors").read_bytes() == (exported / "model.safetensors").read_bytes()
    first, second = (json.loads((folder / "config.json").read_text()) for folder in (exported, imported))
    assert first == second
    before = load_model(run / "checkpoints/step-00000006").state_dict()
    words = [
        "pretrain",
        str(tmp_path / "imported/config.toml"),
        "--data",
        str(data),
        "--num-steps",
        "1",
        "--device",
        "cpu",
    ]
    assert main([*words, "--learning-rate", "1e-9", "--num-threads", "1", "--out", str(tmp_path / "more")]) == 0
    assert "new ones for nsp.pooler, nsp.classifier" in capsys.readouterr().out
    after = load_model(tmp_path / "more/checkpoints/step-00000001").state_dict()
    for name, tensor in before.items():
        assert name.startswith("nsp.") or torch.allclose(tensor, after[name], atol=1e-7), name


def test_both_poolings_are_trained_exported_and_predicted_like_transformers(run, rows, tmp_path):
    texts = [row["text"] for row in sentiment_rows(60, seed=5) if len(row["text"]) < 40]  # each is one window
    logits = {}
    for pooling in ("cls", "mean", None):
        out = tmp_path / str(pooling)
        result = finetune(tuned(run, rows, out, pooling=pooling, layer_decay=0.9))
        assert result.exit_status == 0
        content = json.loads((out / "model/config.json").read_text())
        assert content["classifier_pooling"] == (pooling or "cls")
        assert content["architectures"] == ["ModernBertForSequenceClassification"]
        theirs, info = AutoModelForSequenceClassification.from_pretrained(out / "model", output_loading_info=True)
        assert not any(info.values()), info
        tokenizer = AutoTokenizer.from_pretrained(out / "model")
        batch = {k: v for k, v in tokenizer(texts, padding=True, return_tensors="pt").items() if k != "token_type_ids"}
        with torch.no_grad():
            expected = theirs.eval()(**batch).logits.softmax(-1).numpy()
        model = load(out, "cpu")
        assert isinstance(model, TaskPredictor) and model.model.config.shape.pooling == (pooling or "cls")
        answers = model.predict(texts)
        names = [content["id2label"]["0"], content["id2label"]["1"]]
        found = np.array([[answer["probabilities"][name] for name in names] for answer in answers])
        np.testing.assert_allclose(found, expected, atol=2e-6)
        logits[pooling] = found
    assert np.array_equal(logits["cls"], logits[None]) and not np.allclose(logits["cls"], logits["mean"], atol=1e-4)


def test_the_pooling_of_a_tuned_model_is_that_of_the_next_one_unless_another_is_asked_for(run, rows, tmp_path):
    finetune(tuned(run, rows, tmp_path / "mean", pooling="mean", num_epochs=0.5))
    finetune(tuned(tmp_path / "mean", rows, tmp_path / "next", num_epochs=0.5))
    assert json.loads((tmp_path / "next/model/config.json").read_text())["classifier_pooling"] == "mean"


def test_the_head_of_masked_words_is_where_a_task_begins_as_in_transformers(run, rows, tmp_path, capsys):
    finetune(tuned(run, rows, tmp_path / "out", num_epochs=0.1, learning_rate=1e-9, weight_decay=0.0))
    assert "new weights for classifier\n" in capsys.readouterr().out
    before, after = open_pretrained(run).weights, open_pretrained(tmp_path / "out").weights
    assert torch.allclose(before["head.dense.weight"], after["head.dense.weight"], atol=1e-7)


@pytest.mark.parametrize("task", ["tag", "span"])
def test_pooling_is_refused_where_nothing_is_pooled(task, run, rows, tmp_path):
    with pytest.raises(ValueError, match=f"pooling='mean': {task} does not use it: omit it"):
        tuned(run, rows, tmp_path / "out", task=task, pooling="mean")


def test_a_bert_has_no_choice_of_pooling(rows, tmp_path):
    model = write_model(tmp_path / "bert")
    with pytest.raises(
        ValueError, match=r"pooling=mean: transformers' classes for this encoder \(bert\) have only cls"
    ):
        finetune(tuned(model, rows, tmp_path / "out", pooling="mean"))
    assert not (tmp_path / "out").exists()
    finetune(tuned(model, rows, tmp_path / "out", pooling="cls", num_epochs=0.1))
    assert "classifier_pooling" not in json.loads((tmp_path / "out/model/config.json").read_text())


def test_the_other_commands_read_the_run(run, data, rows, tmp_path, capsys):
    (tmp_path / "texts.txt").write_text("the house\n北京 house\n")
    assert main(["evaluate", "--model", str(run), "--data", str(data), "--device", "cpu"]) == 0
    assert main(["score", "--model", str(run), "--input", str(tmp_path / "texts.txt"), "--device", "cpu"]) == 0
    words = ["--model", str(run), "--input", str(tmp_path / "texts.txt"), "--device", "cpu"]
    assert main(["embed", *words, "--out", str(tmp_path / "vectors.parquet")]) == 0
    assert pq.read_table(tmp_path / "vectors.parquet").num_rows == 2
    (tmp_path / "tasks.toml").write_text(
        f'num_epochs = 0.5\npooling = "mean"\n[one]\ntask = "classify"\ntrain = "{rows}"\ndev = "{rows}"\n'
    )
    words = ["bench-tasks", str(tmp_path / "tasks.toml"), "--model", f"ours={run}", "--out", str(tmp_path / "bench")]
    assert main(words) == 0
    content = json.loads((tmp_path / "bench/ours/one/model/config.json").read_text())
    assert content["classifier_pooling"] == "mean"
