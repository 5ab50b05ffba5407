"""Commands on models whose tokenizer is not BERT's: pretraining, export, import, fine-tuning and use."""

import json

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer, pipeline

import bertloom
from jobs.export import ExportConfig, export
from jobs.finetune import finetune
from jobs.import_model import ImportConfig, import_model
from jobs.import_model import main as import_main
from jobs.pretrain import pretrain
from jobs.score import ScoreConfig, score
from model.heads import PretrainingModel
from model.hub.pretrained import open_pretrained
from model.hub.weights import save_pretrained
from model.modern_bert_config import ModernBertShape
from model.shape import EncoderConfig
from tests.bertloom.tokenizer_kinds import CONTENTS
from tests.jobs.corpus import documents, run_job, write
from tests.jobs.small_finetune import config
from tests.jobs.small_run import make_data, make_run, run_config
from tests.model.small_model import random_model
from tests.model.small_task import small_tokenizer, write_jsonl
from tests.model.test_other_tokenizers import FILES, TOKENIZERS

MODERN = ModernBertShape(
    hidden_size=32, num_hidden_layers=3, num_attention_heads=2, intermediate_size=48, max_position_embeddings=64
)


@pytest.fixture(scope="module", params=["bert", "modernbert"])
def run(request, tmp_path_factory):
    """A pretraining run with a byte-level BPE tokenizer, of each encoder."""
    folder = tmp_path_factory.mktemp(request.param)
    data = make_data(folder / "data", tokenizer=FILES["roberta"], pairs=request.param == "bert")
    changes = {} if request.param == "bert" else {"model": MODERN}
    return make_run(data, folder / "run", **changes)


def test_a_run_holds_the_tokenizer_of_its_data_set_and_its_export_fills_in_words(run, tmp_path):
    data = run.parent / "data"
    for name in ("tokenizer.json", "special_tokens_map.json"):
        assert (run / name).read_bytes() == (data / name).read_bytes()
    assert not (run / "vocab.txt").exists()
    export(ExportConfig(checkpoint=run, out=tmp_path / "hf"))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "hf")
    model, loading = AutoModelForMaskedLM.from_pretrained(tmp_path / "hf", output_loading_info=True)
    assert not loading["missing_keys"]
    text = "the cat sat on the <mask> today"
    use = pipeline("fill-mask", model=model.eval(), tokenizer=tokenizer)
    ours = bertloom.load(run).fill(text, top_k=5)[0]
    assert [word for word, _ in ours] == [row["token_str"] for row in use(text)]
    assert [chance for _, chance in ours] == pytest.approx([row["score"] for row in use(text)], abs=2e-6)
    card = (tmp_path / "hf/README.md").read_text()
    assert "| vocabulary | 381 tokens, BPE |" in card


def test_scores_and_vectors_are_those_of_transformers(run, tmp_path):
    export(ExportConfig(checkpoint=run, out=tmp_path / "hf"))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "hf")
    texts = ["the cat sat on the mat", "naïve 北京 people"]
    model = AutoModel.from_pretrained(tmp_path / "hf").eval()
    vectors, _ = bertloom.Embedder(open_pretrained(run)).embed(texts)
    with torch.no_grad():
        for vector, text in zip(vectors, texts):
            theirs = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(0)
            assert np.allclose(vector, theirs.numpy(), atol=1e-5)
    lines = write_jsonl(tmp_path / "texts.jsonl", [{"text": text} for text in texts])
    found = list(score(ScoreConfig(model=run, input=lines, out=tmp_path / "scores.jsonl")))
    assert [line["num_tokens"] for line in found] == [len(ids) for ids in TOKENIZERS["roberta"].ids(texts)]


def test_shards_of_a_bpe_tokenizer_make_a_model_that_transformers_fills_in_words_with(tmp_path):
    (tmp_path / "roberta").mkdir()
    (tmp_path / "roberta/tokenizer.json").write_text(json.dumps(CONTENTS["roberta"]))
    source = write(tmp_path / "texts.jsonl", documents(40))
    run_job(source, tmp_path / "data", tmp_path / "roberta", max_seq_length=(32,), validation_fraction=0.1)
    pretrain(run_config(tmp_path / "data", tmp_path / "run", num_steps=2, remask=True))
    export(ExportConfig(checkpoint=tmp_path / "run", out=tmp_path / "hf"))
    use = pipeline("fill-mask", str(tmp_path / "hf"))
    assert [row["token_str"] for row in use("a <mask>")] == [
        word for word, _ in bertloom.load(tmp_path / "run").fill("a <mask>")[0]
    ]
    assert open_pretrained(tmp_path / "hf").tokenizer.file.files() == FILES["roberta"].files()


def test_an_exported_model_is_imported_and_trained_further(run, tmp_path, capsys):
    export(ExportConfig(checkpoint=run, out=tmp_path / "hf"))
    import_main(["--hf", str(tmp_path / "hf"), "--out", str(tmp_path / "imported")])
    printed = capsys.readouterr().out
    assert "381 words, BPE" in printed
    assert f"--vocab {tmp_path}/imported/model\n" in printed
    model = open_pretrained(run).config.shape
    more = run_config(run.parent / "data", tmp_path / "more", model=model, init_from=tmp_path / "imported", num_steps=2)
    pretrain(more)
    assert open_pretrained(tmp_path / "more").tokenizer.file.files() == FILES["roberta"].files()
    data = make_data(tmp_path / "data", tokenizer=FILES["modernbert"], pairs=False)
    with pytest.raises(ValueError, match="preprocess with the model's tokenizer.json"):
        pretrain(run_config(data, tmp_path / "no", model=model, init_from=tmp_path / "imported", num_steps=2))


def test_a_modernbert_with_berts_vocabulary_is_used_by_the_pipelines_of_transformers(tmp_path):
    tokenizer = small_tokenizer()
    model = PretrainingModel(EncoderConfig(shape=MODERN, vocab_size=tokenizer.vocab_size))
    save_pretrained(model, tmp_path, tokenizer)
    assert sorted(AutoTokenizer.from_pretrained(tmp_path)("good film", "bad")) == ["attention_mask", "input_ids"]
    text = "anna lives in [MASK]"
    found = [row["token_str"] for row in pipeline("fill-mask", str(tmp_path))(text)]
    assert [word for word, _ in bertloom.load(tmp_path).fill(text)[0]] == found


def test_a_directory_with_a_tokenizer_but_no_vocabulary_is_imported(tmp_path):
    size = TOKENIZERS["xlm_roberta"].vocab_size
    save_pretrained(random_model(vocab_size=size), tmp_path / "hf", TOKENIZERS["xlm_roberta"])
    import_model(ImportConfig(hf=tmp_path / "hf", out=tmp_path / "run"))
    assert open_pretrained(tmp_path / "run").tokenizer.file.files() == FILES["xlm_roberta"].files()


@pytest.mark.parametrize(
    ("kind", "task"),
    [("roberta", "span"), ("gemma", "span"), ("modernbert", "tag"), ("xlm_roberta", "tag"), ("albert", "pair")],
)
def test_a_task_is_learnt_with_any_tokenizer(kind, task, task_files, tmp_path):
    save_pretrained(random_model(vocab_size=TOKENIZERS[kind].vocab_size), tmp_path / "encoder", TOKENIZERS[kind])
    settings = {"num_epochs": 6.0, "dropout": 0.0, "learning_rate": 1e-2}
    result = finetune(config(tmp_path / "encoder", task_files, tmp_path / "out", task, **settings))
    first = next(name for name in result.mean if name != "loss")
    assert result.mean[first] > 0.5, result.mean
    rows = [json.loads(line) for line in task_files[task][1].read_text().splitlines()]
    answers = bertloom.load(tmp_path / "out").predict(rows)
    if task == "span":
        right = [answer["answer"] in [known["text"] for known in row["answers"]] for row, answer in zip(rows, answers)]
        assert np.mean(right) > 0.6
        for row, answer in zip(rows, answers):
            assert answer["answer"] == answer["answer"].strip() and answer["answer"] in row["context"]
    if task == "tag":
        assert [len(answer["tags"]) for answer in answers] == [len(row["tokens"]) for row in rows]
