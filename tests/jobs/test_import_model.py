import json
import shutil

import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoModelForPreTraining,
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    BertForPreTraining,
    BertForSequenceClassification,
    BertModel,
    BertTokenizer,
)

from jobs.export import ExportConfig, export
from jobs.import_model import ImportConfig, import_model, main
from jobs.pretrain import PretrainConfig, pretrain
from jobs.support.config import parse
from model.hub.pretrained import open_pretrained
from model.loading.data import DataSet
from model.runs.metrics import read_metrics
from pipeline.tokenizer import TokenizeConfig, settled
from pipeline.vocabulary_files import read_vocabulary
from tests.jobs.small_run import TINY, VOCABULARY, make_data, run_config

SHAPE = {
    name: getattr(TINY, name)
    for name in (
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "intermediate_size",
        "max_position_embeddings",
    )
}
NUM_WORDS = len(VOCABULARY.splitlines())


def theirs(directory, kind=BertForPreTraining, **changes):
    """A directory that transformers writes, with random weights that nothing is hidden behind."""
    torch.manual_seed(1)
    model = kind(BertConfig(**SHAPE | {"vocab_size": NUM_WORDS} | changes))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    model.save_pretrained(directory)
    (directory / "vocab.txt").write_bytes(VOCABULARY)
    BertTokenizer(str(directory / "vocab.txt")).save_pretrained(directory)
    return directory


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("data") / "set", max_seq_lengths=(32,))


@pytest.fixture(scope="module")
def hf(tmp_path_factory):
    return theirs(tmp_path_factory.mktemp("hf") / "bert-tiny")


@pytest.fixture(scope="module")
def run(hf, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "imported"
    import_model(ImportConfig(hf=hf, out=out))
    return out


def begin(run, data, out, **changes):
    """What `bertloom pretrain RUN/config.toml` takes from the preset, with a short training."""
    preset = parse(PretrainConfig, [str(run / "config.toml"), "--data", "-", "--out", "-", "--num-steps", "1"], "test")
    return run_config(data, out, **{"init_from": preset.init_from, "model": preset.model} | changes)


def first_batch(data, size=16):
    """The first global batch of a training, as transformers takes it."""
    examples = DataSet(data).examples("train", 32)
    batch = examples.gather(*examples.order(1, "global").items(0, size))
    ids, types, labels = (torch.zeros(size, 32, dtype=torch.long) for _ in range(3))
    mask = torch.zeros(size, 32, dtype=torch.long)
    labels -= 100
    flat = torch.full_like(batch.input_ids, -100)
    flat[batch.masked_positions] = batch.masked_ids
    for row, length in enumerate(batch.lengths):
        here = slice(int(batch.cu_seqlens[row]), int(batch.cu_seqlens[row + 1]))
        ids[row, :length], types[row, :length] = batch.input_ids[here], batch.token_type_ids[here]
        labels[row, :length], mask[row, :length] = flat[here], 1
    return {
        "input_ids": ids,
        "token_type_ids": types,
        "attention_mask": mask,
        "labels": labels,
        "next_sentence_label": batch.next_sentence_label,
    }


def test_every_weight_is_imported_and_exported_bit_for_bit(hf, run, tmp_path):
    export(ExportConfig(checkpoint=run, out=tmp_path / "out"))
    before, after = load_file(hf / "model.safetensors"), load_file(tmp_path / "out/model.safetensors")
    assert all(name.startswith("cls.predictions.decoder.") for name in before.keys() - after.keys())
    assert all(torch.equal(before[name], tensor) for name, tensor in after.items())
    one, two = (AutoModelForPreTraining.from_pretrained(path).state_dict() for path in (hf, tmp_path / "out"))
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
    assert "Imported from a directory" in (tmp_path / "out/README.md").read_text()
    assert (tmp_path / "out/vocab.txt").read_bytes() == VOCABULARY


def test_an_old_checkpoint_with_a_pickle_and_old_names_gives_the_same_model(hf, run, tmp_path, capsys):
    old = tmp_path / "old"
    old.mkdir()
    state = load_file(hf / "model.safetensors")
    state["cls.predictions.decoder.weight"] = state["bert.embeddings.word_embeddings.weight"]
    state["bert.embeddings.position_ids"] = torch.arange(64)[None]
    for new, before in {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}.items():
        state = {name.replace(new, before): tensor for name, tensor in state.items()}
    torch.save(state, old / "pytorch_model.bin")
    config = json.loads((hf / "config.json").read_text())
    old_names = {"vocab_size", "hidden_act", "architectures", "initializer_range", "type_vocab_size", *SHAPE}
    (old / "config.json").write_text(json.dumps({name: config[name] for name in old_names}))
    (old / "vocab.txt").write_bytes(VOCABULARY)
    main(["--hf", str(old), "--out", str(tmp_path / "run")])
    said = capsys.readouterr().out
    assert "is a BertForPreTraining: 2 layers of 32, 145 words, uncased" in said and "not imported" not in said
    assert (tmp_path / "run/model/model.safetensors").read_bytes() == (run / "model/model.safetensors").read_bytes()


def test_pretraining_continues_with_the_loss_of_transformers(hf, run, data, tmp_path, capsys):
    config = begin(run, data, tmp_path / "more")
    assert config.model == type(TINY)(**SHAPE)
    pretrain(config)
    assert f"begins with the weights of {run / 'model'}\n" in capsys.readouterr().out
    lines = read_metrics(tmp_path / "more/metrics.jsonl")
    model = AutoModelForPreTraining.from_pretrained(hf).eval()
    expected = model(**first_batch(data)).loss.item()
    first = next(line for line in lines if line["split"] == "train")
    assert first["loss"] == pytest.approx(expected, abs=1e-5)
    assert lines[-1]["mlm_loss"] < lines[0]["mlm_loss"]
    export(ExportConfig(checkpoint=tmp_path / "more", out=tmp_path / "out"))
    assert "| initial weights | those of imported |" in (tmp_path / "out/README.md").read_text()


def test_a_run_resumes_without_its_initial_model(hf, run, data, tmp_path):
    pretrain(begin(run, data, tmp_path / "whole"))
    moved = shutil.copytree(run, tmp_path / "moved")
    config = begin(run, data, tmp_path / "out", init_from=moved)
    pretrain(config)
    shutil.rmtree(tmp_path / "out/checkpoints/step-00000006")
    shutil.rmtree(moved)
    pretrain(config)
    weights = [
        (tmp_path / name / "checkpoints/step-00000006/model.safetensors").read_bytes() for name in ("whole", "out")
    ]
    assert weights[0] == weights[1]
    shutil.rmtree(tmp_path / "out/checkpoints/step-00000006")
    with pytest.raises(ValueError, match="init_from is None, but this run began with"):
        pretrain(begin(run, data, tmp_path / "out", init_from=None))


def test_pretraining_also_starts_from_a_run_or_a_directory_of_transformers(hf, run, data, tmp_path):
    first = begin(run, data, tmp_path / "one", num_steps=1)
    pretrain(first)
    pretrain(begin(run, data, tmp_path / "two", num_steps=1, init_from=hf))
    lines = [read_metrics(tmp_path / name / "metrics.jsonl")[1]["loss"] for name in ("one", "two")]
    assert lines[0] == lines[1]
    pretrain(begin(run, data, tmp_path / "three", num_steps=1, init_from=tmp_path / "one"))
    before, after = (read_metrics(tmp_path / name / "metrics.jsonl") for name in ("one", "three"))
    assert before[-1]["mlm_loss"] == after[0]["mlm_loss"]


@pytest.mark.parametrize(
    "kind, architecture, missing, left_out",
    [
        (BertForMaskedLM, "BertForMaskedLM", ["nsp.pooler", "nsp.classifier"], []),
        (BertModel, "BertModel", ["mlm", "nsp.classifier"], []),
        (
            BertForSequenceClassification,
            "BertModel",
            ["mlm", "nsp.classifier"],
            ["classifier.bias", "classifier.weight"],
        ),
    ],
)
def test_missing_heads_are_reported_and_initialised(kind, architecture, missing, left_out, data, tmp_path, capsys):
    theirs(tmp_path / "hf", kind)
    main(["--hf", str(tmp_path / "hf"), "--out", str(tmp_path / "run")])
    said = capsys.readouterr().out
    assert architecture in said and ", ".join(missing) in said and ", ".join(left_out) in said
    pretrained = open_pretrained(tmp_path / "run")
    assert pretrained.architecture == architecture
    assert ("bert.pooler.dense.weight" in pretrained.weights) == (kind is not BertForMaskedLM)
    pretrain(begin(tmp_path / "run", data, tmp_path / "more", num_steps=1))
    assert f"new ones for {', '.join(missing)}" in capsys.readouterr().out


def test_the_preset_of_an_import_is_for_more_training_on_any_machine(run):
    text = (run / "config.toml").read_text()
    preset = parse(PretrainConfig, [str(run / "config.toml"), "--data", "-", "--out", "-", "--num-steps", "1"], "test")
    assert (preset.batch_size, preset.learning_rate, preset.num_eval_examples) == (32, 5e-5, 256)
    assert text.startswith("# Continues the pretraining of this model.")


def test_the_import_prints_how_to_preprocess_for_a_cased_model(hf, tmp_path, capsys):
    cased = shutil.copytree(hf, tmp_path / "cased")
    BertTokenizer(str(hf / "vocab.txt"), do_lower_case=False).save_pretrained(cased)
    main(["--hf", str(cased), "--out", str(tmp_path / "run")])
    said = capsys.readouterr().out
    assert "145 words, cased" in said and f"--vocab {tmp_path / 'run/model'}\n" in said
    vocabulary = read_vocabulary(str(tmp_path / "run/model"))
    assert settled(TokenizeConfig(), vocabulary, "run/model").do_lower_case is False
    assert f"bertloom pretrain {tmp_path / 'run/config.toml'}" in said


def test_the_casing_of_the_configuration_takes_precedence_over_the_tokenizers(hf, tmp_path, capsys):
    mixed = shutil.copytree(hf, tmp_path / "mixed")
    assert json.loads((mixed / "tokenizer.json").read_text())["normalizer"]["lowercase"] is True
    (mixed / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": False, "model_max_length": 64}))
    main(["--hf", str(mixed), "--out", str(tmp_path / "run")])
    said = capsys.readouterr().out
    assert "145 words, cased" in said
    for directory in (mixed, tmp_path / "run/model"):
        ids = AutoTokenizer.from_pretrained(directory)("The house", add_special_tokens=False).input_ids
        assert open_pretrained(tmp_path / "run").tokenizer.ids(["The house"])[0].tolist() == ids


def refused(message, change, hf, tmp_path):
    bad = shutil.copytree(hf, tmp_path / "bad")
    change(bad)
    with pytest.raises(ValueError, match=message):
        import_model(ImportConfig(hf=bad, out=tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "name, value, message",
    [
        ("hidden_act", "gelu_new", "hidden_act is 'gelu_new', only 'gelu' can be read"),
        ("position_embedding_type", "relative_key", "position_embedding_type is 'relative_key', only 'absolute'"),
        ("is_decoder", True, "is_decoder is True, only False can be read"),
        ("model_type", "roberta", "model_type is 'roberta', only 'bert' and 'modernbert' can be read"),
        ("vocab_size", None, "vocab_size is None, expected a number"),
        ("hidden_size", "32", "hidden_size is '32', expected a number"),
        ("hidden_size", 48, "has the shape .* config.json says"),
        ("num_hidden_layers", 3, "16 tensors are missing, bert.encoder.layer.2.attention.output.dense.weight first"),
        ("vocab_size", 100, "the vocabulary has 145 words, the model has vectors for 100: it belongs to another model"),
    ],
)
def test_an_unsupported_configuration_is_refused(name, value, message, hf, tmp_path):
    def change(directory):
        content = json.loads((directory / "config.json").read_text())
        (directory / "config.json").write_text(json.dumps(content | {name: value}))

    refused(message, change, hf, tmp_path)


def test_an_incomplete_directory_is_refused(hf, run, tmp_path):
    with pytest.raises(
        ValueError, match="is not a model directory .*: the folder does not exist. Models are not downloaded"
    ):
        import_model(ImportConfig(hf=tmp_path / "bert-base-uncased", out=tmp_path / "out"))
    with pytest.raises(ValueError, match="imported is not a model directory of transformers: it has no config.json"):
        import_model(ImportConfig(hf=run, out=tmp_path / "out"))
    for name, message in {
        "model.safetensors": "has neither model.safetensors nor pytorch_model.bin",
        "tokenizer.json": "has neither tokenizer.json nor vocab.txt",
    }.items():
        bad = shutil.copytree(hf, tmp_path / name)
        (bad / name).unlink()
        (bad / "vocab.txt").unlink()
        with pytest.raises(ValueError, match=message):
            import_model(ImportConfig(hf=bad, out=tmp_path / "out"))


def test_pretraining_refuses_a_model_that_does_not_fit(hf, run, data, tmp_path):
    def attempt(message, **changes):
        with pytest.raises(ValueError, match=message):
            pretrain(begin(run, **{"data": data, "out": tmp_path / "out"} | changes))

    attempt("model.hidden_size is 768, but .* has 32: give the config.toml that its run", model=type(TINY)())
    other = make_data(tmp_path / "other", vocabulary=VOCABULARY.replace(b"house", b"home"), max_seq_lengths=(32,))
    attempt("word 94 is 'home' and 'house'; preprocess with the model's vocab.txt", data=other)
    longer = make_data(tmp_path / "longer", vocabulary=VOCABULARY + b"more\n", max_seq_lengths=(32,))
    attempt("word 145 is 'more' and none", data=longer)
    cased = shutil.copytree(hf, tmp_path / "cased")
    BertTokenizer(str(hf / "vocab.txt"), do_lower_case=False).save_pretrained(cased)
    attempt("was made with do_lower_case=True, the tokenizer of .*cased has False", init_from=cased)
    padded = theirs(tmp_path / "padded", vocab_size=NUM_WORDS + 1)
    attempt("has vectors for 146 words, .* model.resize_token_embeddings.145.", init_from=padded)
    attempt("nothing is no model", init_from=tmp_path / "nothing")
    attempt("imported holds an imported or fine-tuned model: give a new --out", out=run)
