import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer

from model.hub.pretrained import open_pretrained
from model.hub.weights import save_pretrained
from model.inference.predict import TaskPredictor, WordPredictor, load
from model.tasks.data import Windowing
from model.tasks.initial_weights import load_encoder
from model.tasks.registry import make_task
from tests.model.small_task import ROWS, write_model


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> Path:
    return write_model(tmp_path_factory.mktemp("use") / "encoder", initializer_range=0.2)


def tuned(name: str, encoder: Path, out: Path) -> TaskPredictor:
    """A model for a task with a random classifier."""
    pretrained = open_pretrained(encoder)
    task = make_task(name, Windowing(max_seq_length=48, stride=None, max_windows=None))
    names = {"a": "text_a", "b": "text_b"}
    values = [{names.get(k, k): v for k, v in row.items()} for row in ROWS[name](20)]
    task = task.learn([task.parse("x", {"id": None, "is_impossible": None} | row) for row in values])
    model = task.model_class(pretrained.config, task.num_outputs)
    load_encoder(model, pretrained, seed=1)
    save_pretrained(model, out, pretrained.tokenizer, **task.configuration())
    predictor = load(out)
    assert isinstance(predictor, TaskPredictor)
    return predictor


def test_a_row_is_a_string_a_pair_a_list_or_a_dictionary(encoder, tmp_path):
    model = tuned("classify", encoder, tmp_path / "classify")
    answers = model.predict(["a good film", {"text": "a good film", "id": 7}], top_k=1)
    assert answers[1] == {"id": 7} | answers[0] and list(answers[0]["probabilities"]) == [answers[0]["label"]]
    assert model.predict([]) == []

    model = tuned("pair", encoder, tmp_path / "pair")
    assert model.predict([("paris", "anna")]) == model.predict([{"a": "paris", "b": "anna"}])
    assert model.predict([("paris", "anna")]) != model.predict([("anna", "paris")])

    model = tuned("regress", encoder, tmp_path / "regress")
    assert set(model.predict(["good"])[0]) == {"value"} and set(model.predict([("good", "bad")])[0]) == {"value"}

    model = tuned("tag", encoder, tmp_path / "tag")
    assert model.predict([["anna", "is"]])[0]["tokens"] == ["anna", "is"]
    assert model.predict(["anna is"])[0]["tokens"] == ["anna", "is"]

    model = tuned("span", encoder, tmp_path / "span")
    answer = model.predict([("where is anna", "anna lives in paris")])[0]
    assert answer["answer"] == "anna lives in paris"[answer["start"] : answer["end"]]


def test_rows_that_cannot_be_read_are_named(encoder, tmp_path):
    model = tuned("pair", encoder, tmp_path)
    with pytest.raises(ValueError, match=re.escape("row 2: text_b is empty")):
        model.predict([("a", "b"), ("a", "")])
    with pytest.raises(ValueError, match=re.escape("row 1: 5 is no row of pair")):
        model.predict([5])
    with pytest.raises(ValueError, match=re.escape("row 1: ('a', 'b', 'c') is no row of pair")):
        model.predict([("a", "b", "c")])
    with pytest.raises(ValueError, match="has no column for text_a"):
        model.predict(["one text"])


@pytest.mark.parametrize("rows", ["good", {"text": "good"}])
def test_a_single_row_that_is_not_in_a_list_is_refused(encoder, tmp_path, rows):
    model = tuned("classify", encoder, tmp_path)
    with pytest.raises(ValueError, match=re.escape(f"rows is {rows!r}, expected a list of rows: give [{rows!r}]")):
        model.predict(rows)


def test_a_model_for_questions_of_others_may_give_no_answer(encoder, tmp_path):
    assert not tuned("span", encoder, tmp_path).task.may_be_unanswerable
    config = json.loads((tmp_path / "config.json").read_text())
    del config["bertloom"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    model = load(tmp_path)
    rows = [model.task.parse("x", {"id": None, "question": "where is anna", "context": "anna lives in paris"})]
    data = model.task.tokenize(rows, model.tokenizer)
    logits = np.zeros((len(data.input_ids), 2))
    logits[0] = 9  # at [CLS]
    assert model.task.answer(rows, data, logits, 1) == [{"answer": "", "probability": 1.0}]
    assert set(model.predict([("where is anna", "anna lives in paris")])[0]) >= {"answer", "probability"}


def test_answers_do_not_depend_on_the_other_rows(encoder, tmp_path):
    model = tuned("classify", encoder, tmp_path)
    texts = [row["text"] for row in ROWS["classify"](70)]
    together = model.predict(texts)
    for text, answer in zip(texts[::10], together[::10]):
        alone = model.predict([text])[0]
        assert alone["label"] == answer["label"]
        assert alone["probabilities"] == pytest.approx(answer["probabilities"], abs=2e-6)


def test_words_are_filled_in_as_by_transformers(encoder):
    model = load(encoder)
    assert isinstance(model, WordPredictor)
    text = "[MASK] is the capital, anna lives in [MASK]"
    tokenizer = AutoTokenizer.from_pretrained(encoder)
    inputs = tokenizer(text, return_tensors="pt")
    theirs = AutoModelForMaskedLM.from_pretrained(encoder).eval()
    with torch.no_grad():
        chances = theirs(**inputs).logits[inputs["input_ids"] == 4].softmax(-1)
    found = model.fill(text, top_k=3)
    assert len(found) == 2
    for words, row in zip(found, chances):
        best = row.topk(3)
        assert [word for word, _ in words] == [tokenizer.decode([number]) for number in best.indices]
        assert [chance for _, chance in words] == pytest.approx(best.values.tolist(), abs=2e-6)


def test_a_model_without_the_masked_language_model_or_a_text_without_a_mask_is_refused(encoder, tmp_path):
    tuned("classify", encoder, tmp_path)
    with pytest.raises(ValueError, match="cannot fill in words, it is a BertForSequenceClassification"):
        WordPredictor(open_pretrained(tmp_path))
    model = WordPredictor(open_pretrained(encoder))
    with pytest.raises(ValueError, match="there is no .MASK. in 'anna lives'"):
        model.fill("anna lives")
    with pytest.raises(ValueError, match="the text has 83 tokens, the model reads 64"):
        model.fill("good " * 80 + "[MASK]")
