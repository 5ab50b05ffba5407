"""A model with one token type reads single segments. A segment B is one line before the first step, and no index error."""

from dataclasses import replace

import pytest

from jobs.evaluate import EvaluateConfig, evaluate_model
from jobs.finetune import finetune
from jobs.pretrain import pretrain
from model.hub.pretrained import open_pretrained
from model.inference.predict import TaskPredictor
from tests.jobs.small_finetune import config
from tests.jobs.small_run import TINY, make_data, make_run, run_config
from tests.model.small_task import write_jsonl, write_model

ONE_TYPE = replace(TINY, type_vocab_size=1)
ROWS = [{"text": f"film {number}", "label": number} for number in range(8)]
PAIRS = [{"a": "good", "b": "film", "label": number} for number in range(8)]


def test_pretraining_on_pairs_is_refused_and_on_single_segments_is_not(tmp_path):
    pairs = make_data(tmp_path / "pairs")
    with pytest.raises(ValueError, match=f"model.type_vocab_size=1: {pairs} has pairs, .*: give 2, or preprocess with"):
        pretrain(run_config(pairs, tmp_path / "run", model=ONE_TYPE))
    assert not (tmp_path / "run").exists()
    run = make_run(make_data(tmp_path / "single", pairs=False), tmp_path / "run", model=ONE_TYPE, num_steps=1)
    with pytest.raises(ValueError, match=f"has one token type, but {pairs} has pairs: use another model"):
        evaluate_model(EvaluateConfig(model=run, data=str(pairs), device="cpu"))


def test_rows_of_two_texts_are_refused_where_a_task_takes_both_kinds(task_files, tmp_path):
    model = write_model(tmp_path / "model", type_vocab_size=1)
    pairs = write_jsonl(tmp_path / "pairs.jsonl", PAIRS)
    rows = write_jsonl(tmp_path / "rows.jsonl", ROWS)
    with pytest.raises(ValueError, match="has one token type, but rows of --train have two texts: use another model"):
        finetune(config(model, task_files, tmp_path / "out", "regress", train=pairs, dev=pairs))
    with pytest.raises(ValueError, match="has one token type, but rows of --dev have two texts: use another model"):
        finetune(config(model, task_files, tmp_path / "out", "regress", train=rows, dev=pairs))
    assert not (tmp_path / "out").exists()
    finetune(config(model, task_files, tmp_path / "out", "regress", train=rows, dev=rows, num_epochs=1))
    tuned = TaskPredictor(open_pretrained(tmp_path / "out"), "cpu")
    assert len(tuned.predict(["film", "good"])) == 2
    with pytest.raises(ValueError, match="the model has one token type, but rows of regress have two texts"):
        tuned.predict([("good", "film")])
