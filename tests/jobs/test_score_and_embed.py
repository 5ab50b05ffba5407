"""`bertloom score` and `bertloom embed`, against transformers."""

import io
import json
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer

import bertloom
from jobs.embed import EmbedConfig, embed
from jobs.embed import main as embed_main
from jobs.score import ScoreConfig, score
from jobs.score import main as score_main
from model.inference import embed as embed_module
from model.inference import score as score_module
from tests.model.small_task import write_jsonl, write_model

TEXTS = ["paris is the capital of france .", "good", "anna lives in 北京 !", "the film is bad , bad ?"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("models") / "encoder")


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    rows = [{"id": number + 1, "text": text} for number, text in enumerate(TEXTS)]
    return write_jsonl(tmp_path_factory.mktemp("rows") / "texts.jsonl", rows)


def likelihood_by_hand(directory, text):
    """Each token masked by itself, one reading after the other, by transformers."""
    tokenizer, model = AutoTokenizer.from_pretrained(directory), AutoModelForMaskedLM.from_pretrained(directory).eval()
    ids = tokenizer(text, return_tensors="pt").input_ids
    chances = []
    for place in range(1, ids.shape[1] - 1):
        masked = ids.clone()
        masked[0, place] = tokenizer.mask_token_id
        with torch.no_grad():
            logits = model(input_ids=masked).logits[0, place]
        chances.append(logits.log_softmax(-1)[ids[0, place]].item())
    return chances


def test_a_score_is_the_sum_of_what_each_masked_token_has(model, file, monkeypatch):
    monkeypatch.setattr(score_module, "MAX_TOKENS", 25)  # so that texts are cut up between batches
    found = list(score(ScoreConfig(model=model, input=file, device="cpu")))
    assert [line["id"] for line in found] == [1, 2, 3, 4]
    for text, line in zip(TEXTS, found):
        expected = likelihood_by_hand(model, text)
        assert line["num_tokens"] == len(expected)
        assert line["log_likelihood"] == pytest.approx(sum(expected), abs=1e-4)
        assert line["perplexity"] == pytest.approx(np.exp(-np.mean(expected)), rel=1e-4)


def test_scores_go_from_standard_input_to_standard_output(model, monkeypatch, capsys):
    lines = b'{"text": "good film"}\n{"text": " "}\n' + json.dumps({"text": "good " * 70}).encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(lines))))
    score_main(["--model", str(model), "--input", "-", "--on-bad-row", "skip"])
    printed = capsys.readouterr()
    found = [json.loads(line) for line in printed.out.splitlines()]
    assert found[0].keys() == {"log_likelihood", "perplexity", "num_tokens"} and found[0]["num_tokens"] == 2
    assert found[1] == {"error": "line 2: text is empty"}
    assert found[2] == {"error": "line 3: has 70 tokens, the model reads 1 to 62"}
    assert "2 rows could not be used" in printed.err


def test_vectors_are_those_of_transformers(model, file, tmp_path, monkeypatch):
    monkeypatch.setattr(embed_module, "MAX_TOKENS", 12)
    tokenizer, theirs = AutoTokenizer.from_pretrained(model), AutoModel.from_pretrained(model).eval()
    for pooling in ("mean", "cls"):
        out = tmp_path / f"{pooling}.parquet"
        embed(EmbedConfig(model=model, input=file, out=out, pooling=pooling, device="cpu"))
        table = pq.read_table(out)
        assert table["row"].to_pylist() == [0, 1, 2, 3] and table["id"].to_pylist() == ["1", "2", "3", "4"]
        for text, vector in zip(TEXTS, table["vector"].to_pylist()):
            with torch.no_grad():
                hidden = theirs(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
            expected = hidden[0] if pooling == "cls" else hidden.mean(0)
            torch.testing.assert_close(torch.tensor(vector), expected, atol=1e-5, rtol=1e-5)


def test_in_python_the_vectors_are_those_of_the_command(model, file, tmp_path):
    embed(EmbedConfig(model=model, input=file, out=tmp_path / "v.parquet", pooling="cls", device="cpu"))
    vectors = bertloom.embed(model, TEXTS, pooling="cls", device="cpu")
    assert vectors.dtype == np.float32
    np.testing.assert_array_equal(vectors, pq.read_table(tmp_path / "v.parquet")["vector"].to_pylist())


def test_no_texts_have_no_vectors(model):
    vectors = bertloom.embed(model, [], device="cpu")
    assert vectors.dtype == np.float32 and vectors.shape == (0, bertloom.embed(model, ["a"], device="cpu").shape[1])


def test_truncated_texts_and_skipped_rows_are_counted(model, tmp_path, capsys):
    rows = [{"text": "good"}, {"text": ""}, {"text": "good " * 9}, {"text": "bad " * 9}]
    file, out = write_jsonl(tmp_path / "texts.jsonl", rows), tmp_path / "v.parquet"
    with pytest.raises(ValueError, match="line 2: text is empty: fix it, or skip such rows"):
        embed(EmbedConfig(model=model, input=file, out=out))
    assert sorted(tmp_path.iterdir()) == [file]
    words = ["--model", str(model), "--input", str(file), "--out", str(out), "--on-bad-row", "skip"]
    embed_main([*words, "--max-seq-length", "6"])
    assert "3 vectors; 1 row skipped, 2 texts truncated" in capsys.readouterr().out
    table = pq.read_table(out)
    assert table["row"].to_pylist() == [0, 2, 3] and table["id"].null_count == 3
    assert len(table["vector"][0]) == 32


def test_wrong_use_is_refused(model, file, tmp_path):
    out = tmp_path / "v.parquet"
    with pytest.raises(ValueError, match="max_seq_length=65 is above the 64 positions"):
        embed(EmbedConfig(model=model, input=file, out=out, max_seq_length=65))
    with pytest.raises(ValueError, match="max_seq_length=2 must be at least 3"):
        EmbedConfig(model=model, input=file, out=out, max_seq_length=2)
    empty = write_jsonl(tmp_path / "empty.jsonl", [])
    with pytest.raises(ValueError, match="empty.jsonl has no rows"):
        embed(EmbedConfig(model=model, input=empty, out=out))
    long = write_jsonl(tmp_path / "long.jsonl", [{"text": "good " * 63}])
    with pytest.raises(ValueError, match="line 1: has 63 tokens, the model reads 1 to 62: shorten it"):
        list(score(ScoreConfig(model=model, input=long)))
