import hashlib
import json
import shutil
import stat
import sys

import onnxruntime
import pytest
import torch
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForPreTraining,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForPreTraining,
    pipeline,
)

from jobs.export import ExportConfig, export, main
from jobs.finetune import FinetuneConfig, finetune
from jobs.import_model import ImportConfig, import_model
from model.hub import onnx_export as padded
from model.hub.pretrained import open_pretrained
from model.hub.weights import load_pretrained
from model.loading.data import DataSet
from model.runs.checkpoint import load_model
from tests.jobs.small_run import TINY, make_data, make_run
from tests.model.small_task import sentiment_rows, write_jsonl, write_model

NASTY = [
    "",
    " ",
    "The  house,\tthe\u00a0house!",
    "caf\u00e9 cafe\u0301 na\u00efve \u0130stanbul \ufb01 \uff21\uff22",
    "北京house北 京",
    "zero\u200bwidth \ufeffbom \u00adsoft",
    "a\x00b\x07c\x7fd\x85e",
    "\u202eright to left\u202c",
    "👩‍👩‍👧 🏳️‍🌈",
    "w" * 101,
    "w" * 100,
    "жж Ж \u0301 alone",
    "\ud7ff \ue000 \U0010ffff",
    "the.house?the!house",
    "line\r\nline\u2028line",
]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("data") / "set")


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    return make_run(data, tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    out = tmp_path_factory.mktemp("exported") / "small-bert"
    export(ExportConfig(checkpoint=run, out=out))
    return out


def loading_info(kind, directory):
    _, info = kind.from_pretrained(directory, output_loading_info=True)
    assert not info["missing_keys"] and not info["mismatched_keys"], kind
    return set(info["unexpected_keys"])


def test_the_directory_is_complete(exported, run):
    assert sorted(path.name for path in exported.iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "vocab.txt",
    ]
    assert (exported / "vocab.txt").read_bytes() == (run / "vocab.txt").read_bytes()
    mode = (exported / "model.safetensors").stat().st_mode
    assert stat.S_IMODE(mode) == stat.S_IMODE((exported / "config.json").stat().st_mode)
    assert list(exported.parent.iterdir()) == [exported]


def test_transformers_finds_every_weight_and_no_unexpected_one(exported):
    pooler = {f"bert.pooler.dense.{kind}" for kind in ("weight", "bias")}
    pairs = {f"cls.seq_relationship.{kind}" for kind in ("weight", "bias")}
    assert loading_info(AutoModelForPreTraining, exported) == set()
    assert loading_info(AutoModelForMaskedLM, exported) == pooler | pairs
    assert all(name.startswith("cls.") for name in loading_info(AutoModel, exported))


def test_weights_are_exported_and_read_again_bit_for_bit(exported, run):
    before, after = load_model(run / "checkpoints/step-00000006").state_dict(), load_pretrained(exported).state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    theirs = BertForPreTraining.from_pretrained(exported).state_dict()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in open_pretrained(run).weights.items())


def test_weights_saved_by_transformers_are_read_bit_for_bit(tmp_path):
    torch.manual_seed(0)
    theirs = BertForPreTraining(BertConfig(vocab_size=53, **vars(TINY)))
    theirs.save_pretrained(tmp_path)
    ours = load_pretrained(tmp_path).state_dict()
    assert torch.equal(ours["mlm.bias"], theirs.cls.predictions.bias)
    assert torch.equal(
        ours["encoder.layers.1.qkv.weight"][32:64], theirs.bert.encoder.layer[1].attention.self.key.weight
    )


def test_logits_equal_those_of_transformers(exported, run, data):
    batch = next(DataSet(data).examples("validation", 64).in_order(1))
    model = load_model(run / "checkpoints/step-00000006").eval()
    with torch.no_grad():
        words, pairs = model.logits(batch)
        theirs = AutoModelForPreTraining.from_pretrained(exported).eval()(
            input_ids=batch.input_ids[None], token_type_ids=batch.token_type_ids[None]
        )
    torch.testing.assert_close(words, theirs.prediction_logits[0, batch.masked_positions], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(pairs, theirs.seq_relationship_logits, atol=1e-5, rtol=1e-5)


def test_the_tokenizer_of_transformers_gives_our_ids_on_nasty_texts(exported, run):
    ours, theirs = open_pretrained(run).tokenizer, AutoTokenizer.from_pretrained(exported)
    for text, ids in zip(NASTY, ours.ids(NASTY)):
        assert theirs(text, add_special_tokens=False).input_ids == ids.tolist(), text
    pair = theirs("the house", "北京", return_tensors="np")
    words = theirs.convert_ids_to_tokens(pair.input_ids[0])
    assert words == ["[CLS]", "the", "house", "[SEP]", "北", "京", "[SEP]"]
    assert pair.token_type_ids[0].tolist() == [0, 0, 0, 0, 1, 1, 1]
    assert theirs.model_max_length == 32  # the length of training, of 64 positions


def test_the_length_of_training_is_kept_by_export_and_import(exported, run, tmp_path):
    assert open_pretrained(run).max_seq_length == open_pretrained(exported).max_seq_length == 32
    import_model(ImportConfig(hf=exported, out=tmp_path / "imported"))
    assert open_pretrained(tmp_path / "imported").max_seq_length == 32
    assert json.loads((tmp_path / "imported/model/tokenizer_config.json").read_text())["model_max_length"] == 32


@pytest.mark.parametrize("length, expected", [(10**30, 64), (128, 64), (16, 16), (2, 64), ("x", 64), (None, 64)])
def test_the_length_in_a_tokenizer_configuration_counts_if_it_is_one(exported, tmp_path, length, expected):
    directory = shutil.copytree(exported, tmp_path / "model")
    path = directory / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model_max_length": length}))
    assert open_pretrained(directory).max_seq_length == expected


def test_a_masked_word_is_filled(exported):
    found = pipeline("fill-mask", str(exported))("the [MASK] house")
    assert len(found) == 5 and 0 < found[0]["score"] < 1 and "[MASK]" not in found[0]["sequence"]


def test_the_model_card_agrees_with_the_run(exported, run, data):
    card = (exported / "README.md").read_text()
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["split"] == "validation" and last["step"] == 6
    for fact in (
        "pipeline_tag: fill-mask",
        "# small-bert",
        "Pretrained for 6 steps",
        "| batch size | 16 |",
        DataSet(data).shards_digest,
        DataSet(data).vocabulary_sha256,
        f"| {last['mlm_loss']:.4f} |",
        "| held out, step 6, 40 examples |",
        "| 1 to 6 | 32 | 16 |",
        'AutoModelForPreTraining.from_pretrained("small-bert")',
    ):
        assert fact in card, fact


def test_the_card_of_a_run_whose_phases_have_learning_rates_leaves_out_the_decay_that_has_no_effect(data, tmp_path):
    (tmp_path / "table.toml").write_text("[[phase]]\nshare = 0.5\ndecay = 'constant'\n[[phase]]\nshare = 0.5\n")
    make_run(data, tmp_path / "run", num_steps=4, phases=(str(tmp_path / "table.toml"),))
    export(ExportConfig(checkpoint=tmp_path / "run", out=tmp_path / "exported"))
    card = (tmp_path / "exported/README.md").read_text()
    assert "| phases | share=0.5 decay=constant, share=0.5 |" in card
    assert "| decay |" not in card and "| decay ratio |" not in card and "| weight decay |" in card


def test_the_card_of_a_run_without_pairs_states_that_the_head_is_not_trained(tmp_path):
    data = make_data(tmp_path / "data", pairs=False, max_seq_lengths=(32,))
    export(ExportConfig(checkpoint=make_run(data, tmp_path / "run", num_steps=1), out=tmp_path / "out"))
    card = (tmp_path / "out/README.md").read_text()
    assert "not trained: the data has no pairs" in card and "next sentence, cross-entropy" not in card
    assert "Pretrained for 1 step with" in card and "| 1 | 32 | 16 |" in card


def test_a_step_can_be_chosen(run, tmp_path, capsys):
    main(["--checkpoint", str(run), "--out", str(tmp_path / "four"), "--step", "4"])
    assert "step-00000004, with its tokenizer and a model card" in capsys.readouterr().out
    expected = load_model(run / "checkpoints/step-00000004").state_dict()
    assert torch.equal(
        load_pretrained(tmp_path / "four").state_dict()["mlm.dense.weight"], expected["mlm.dense.weight"]
    )
    assert "Pretrained for 4 steps" in (tmp_path / "four/README.md").read_text()
    export(ExportConfig(checkpoint=run / "checkpoints/step-00000004", out=tmp_path / "same"))
    assert (tmp_path / "same/model.safetensors").read_bytes() == (tmp_path / "four/model.safetensors").read_bytes()
    with pytest.raises(ValueError, match="has no checkpoint of step 5: its steps are 4, 6"):
        export(ExportConfig(checkpoint=run, out=tmp_path / "five", step=5))


def test_an_unfinished_run_is_refused_unless_the_step_is_named(data, run, tmp_path):
    unfinished = tmp_path / "unfinished"
    shutil.copytree(run, unfinished)
    shutil.rmtree(unfinished / "checkpoints/step-00000006")
    with pytest.raises(ValueError, match="is not finished .step 4.: .* with --step 4"):
        export(ExportConfig(checkpoint=unfinished, out=tmp_path / "out"))
    assert not (tmp_path / "out").exists()
    export(ExportConfig(checkpoint=unfinished, out=tmp_path / "out", step=4))
    shutil.rmtree(unfinished / "checkpoints/step-00000004")
    with pytest.raises(ValueError, match="has no checkpoint yet"):
        export(ExportConfig(checkpoint=unfinished, out=tmp_path / "more"))


@pytest.mark.parametrize("lengths", [{"num_tokens": 500}, {"budget": "1s", "save_every": 1}])
def test_runs_counted_in_tokens_or_seconds_are_finished_too(data, tmp_path, lengths):
    out = make_run(data, tmp_path / "run", **{"num_steps": None} | lengths)
    export(ExportConfig(checkpoint=out, out=tmp_path / "out"))
    assert (tmp_path / "out/model.safetensors").exists()


def test_a_refused_export_leaves_nothing(data, run, exported, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(ValueError, match="is already in transformers' form"):
        export(ExportConfig(checkpoint=exported, out=out))
    with pytest.raises(ValueError, match="nothing is no model"):
        export(ExportConfig(checkpoint=tmp_path / "nothing", out=out))
    bare = shutil.copytree(run, tmp_path / "bare")
    (bare / "vocab.txt").unlink()
    with pytest.raises(
        ValueError, match="the model was trained with .*: copy the tokenizer of its data set to .*vocab.txt"
    ):
        export(ExportConfig(checkpoint=bare, out=out))
    shape = {**vars(TINY), "normalization": "batch"}
    batch = make_run(data, tmp_path / "batch", num_steps=1, model=type(TINY)(**shape), micro_batch_size=16)
    with pytest.raises(ValueError, match="batch normalisation"):
        export(ExportConfig(checkpoint=batch, out=out))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bare", "batch"]


def test_a_folder_that_is_not_empty_is_not_changed(run, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds notes.txt already: give a new or empty folder"):
        export(ExportConfig(checkpoint=run, out=tmp_path))
    with pytest.raises(ValueError, match="notes.txt is a file"):
        export(ExportConfig(checkpoint=run, out=tmp_path / "notes.txt"))
    (tmp_path / "empty").mkdir()
    export(ExportConfig(checkpoint=run, out=tmp_path / "empty"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "notes.txt"]


def test_the_onnx_model_equals_transformers(run, exported, data, tmp_path):
    export(ExportConfig(checkpoint=run, out=tmp_path / "out", onnx=True))
    session = onnxruntime.InferenceSession(tmp_path / "out/model.onnx", providers=["CPUExecutionProvider"])
    tokenizer, model = AutoTokenizer.from_pretrained(exported), AutoModelForPreTraining.from_pretrained(exported).eval()
    for texts in (["the house"], ["the house", "北京", "a house, the house!"]):
        batch = tokenizer(texts, ["w1 w2"] * len(texts), padding=True, return_tensors="pt")
        found = dict(
            zip(
                (output.name for output in session.get_outputs()),
                session.run(None, {name: tensor.numpy() for name, tensor in batch.items()}),
            )
        )
        with torch.no_grad():
            expected = model(**batch)
        real = batch["attention_mask"].bool()
        words = torch.from_numpy(found["prediction_logits"])
        torch.testing.assert_close(words[real], expected.prediction_logits[real], atol=1e-4, rtol=1e-4)
        pairs = torch.from_numpy(found["seq_relationship_logits"])
        torch.testing.assert_close(pairs, expected.seq_relationship_logits, atol=1e-4, rtol=1e-4)


def test_an_onnx_model_with_other_numbers_or_without_onnxruntime_is_refused(run, tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(ValueError, match="last_hidden_state of onnxruntime is off by"):
        patch.setattr(padded, "CLOSE", -1.0)
        export(ExportConfig(checkpoint=run, out=tmp_path / "out", onnx=True))
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ValueError, match="pip install -e '..onnx.'"):
        export(ExportConfig(checkpoint=run, out=tmp_path / "out", onnx=True))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("seeds", [(1,), (1, 2)])
def test_a_fine_tuned_model_is_exported_with_its_labels_and_metrics(seeds, tmp_path):
    model = write_model(tmp_path / "encoder")
    train, dev = (write_jsonl(tmp_path / f"{n}.jsonl", sentiment_rows(n)) for n in (40, 20))
    tuned = finetune(
        FinetuneConfig(
            task="classify",
            model=model,
            train=train,
            dev=dev,
            out=tmp_path / "tuned",
            num_epochs=1,
            device="cpu",
            seeds=seeds,
        )
    )
    export(ExportConfig(checkpoint=tmp_path / "tuned", out=tmp_path / "out"))
    loaded, info = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert loaded.config.id2label == {0: "bad", 1: "good"}
    weights = [tmp_path / name / "model.safetensors" for name in ("tuned/model", "out")]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    card = (tmp_path / "out/README.md").read_text()
    best = max(result.metrics["accuracy"] for result in tuned.seeds)
    assert "Fine-tuned for the task `classify`" in card and f"| accuracy | {best:.4f} |" in card
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in (model / "model.safetensors", train, dev)]
    best_seed = next(result.seed for result in tuned.seeds if result.metrics["accuracy"] == best)
    for fact in (
        f"| initial weights, sha256 | `{digests[0]}` |",
        f"| training rows, sha256 | `{digests[1]}` |",
        f"| dev rows, sha256 | `{digests[2]}` |",
        "| learning rate | 0.001 |",
        "| num epochs | 1 |",
        "| batch size | 32 |",
        "| max seq length | 64 |",
        f"| seed | {best_seed} |",
        "| steps | 2, of which this model had 2 |",
    ):
        assert fact in card, fact
    if len(seeds) > 1:
        mean, deviation = tuned.mean["accuracy"], tuned.deviation["accuracy"]
        assert "| metric | this model | mean of the seeds 1, 2 | deviation |" in card
        assert f"| accuracy | {best:.4f} | {mean:.4f} | {deviation:.4f} |" in card
    with pytest.raises(ValueError, match="has no mlm: --onnx is for pretrained models"):
        export(ExportConfig(checkpoint=tmp_path / "tuned", out=tmp_path / "more", onnx=True))
