"""Rows, options and folders that `finetune` refuses, and the text of each error."""

import json
import re
import shutil

import pytest

from jobs.cli import main as cli
from jobs.finetune import FinetuneConfig, finetune
from jobs.support.config import parse
from jobs.support.finetune_config import pairs
from tests.jobs.small_finetune import config
from tests.model.small_task import sentiment_rows, write_jsonl, write_model


def test_bad_rows_are_an_error_or_are_skipped_counted_and_listed(encoder, task_files, tmp_path, capsys):
    rows = sentiment_rows(40) + [{"text": "", "label": "good"}]
    train = write_jsonl(tmp_path / "train.jsonl", rows)
    dev = write_jsonl(tmp_path / "dev.jsonl", [*sentiment_rows(10), {"text": "film", "label": "ugly"}])
    message = "train.jsonl: 1 of 41 rows cannot be used: line 41: text is empty"
    with pytest.raises(ValueError, match=message):
        finetune(config(encoder, task_files, tmp_path / "out", train=train, dev=dev))
    message = "dev.jsonl: 1 of 11 rows cannot be used: line 11: label 'ugly' is not one of the 2 labels: bad, good"
    with pytest.raises(ValueError, match=message):
        finetune(config(encoder, task_files, tmp_path / "out", dev=dev))
    finetune(config(encoder, task_files, tmp_path / "out", train=train, dev=dev, on_bad_row="skip"))
    assert "train: 40 rows, 40 sequences" in (text := capsys.readouterr().out)
    assert "dev: 10 rows" in text and text.count("1 bad rows skipped, see") == 2
    rejected = [json.loads(line) for line in (tmp_path / "out/bad_rows.jsonl").read_text().splitlines()]
    assert [(row["place"], row["reason"]) for row in rejected] == [
        ("line 41", "text is empty"),
        ("line 11", "label 'ugly' is not one of the 2 labels: bad, good"),
    ]


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"max_seq_length": 65}, "max_seq_length=65 is more than"),
        ({"frozen_layers": 3}, "frozen_layers=3, but"),
        ({"stride": 63}, "stride=63 is above the 62 tokens of text in a window"),
        ({"stride": 15, "max_seq_length": 16}, "stride=15 is above the 14 tokens of text in a window"),
        ({"columns": ("text=review",)}, "has no column 'review' for text: its columns are text, label"),
        ({"task": "pair"}, "has no column for text_a"),
        ({"labels": ("good", "fine")}, "label 'bad' is not one of the 2 labels: good, fine"),
    ],
)
def test_options_that_do_not_fit_the_data_are_refused_before_anything_is_written(
    encoder, task_files, tmp_path, changes, message
):
    rows = [{"text": "good " * 100, "label": "good"}, {"text": "bad", "label": "bad"}]
    train = write_jsonl(tmp_path / "train.jsonl", rows)
    with pytest.raises(ValueError, match=re.escape(message)):
        finetune(config(encoder, task_files, tmp_path / "out", **{"train": train} | changes))
    assert not (tmp_path / "out").exists()


def test_regress_with_two_texts_refuses_flags_for_windows(encoder, task_files, tmp_path):
    rows = [{"a": "good", "b": "film", "label": number} for number in range(4)]
    train = write_jsonl(tmp_path / "train.jsonl", rows)
    with pytest.raises(
        ValueError, match="stride=4: two texts share one sequence, and regress reads no windows of them"
    ):
        finetune(config(encoder, task_files, tmp_path / "out", "regress", train=train, dev=train, stride=4))
    assert not (tmp_path / "out").exists()


def test_a_model_with_one_token_type_refuses_pairs(task_files, tmp_path):
    model = write_model(tmp_path / "model", type_vocab_size=1)
    with pytest.raises(ValueError, match="has one token type, but pair reads two segments"):
        finetune(config(model, task_files, tmp_path / "out", "pair"))


def test_rows_that_all_have_one_label_are_refused(encoder, task_files, tmp_path):
    train = write_jsonl(tmp_path / "train.jsonl", [{"text": "a", "label": "x"}] * 5)
    with pytest.raises(ValueError, match="all 5 rows have the label 'x': expected at least two labels"):
        finetune(config(encoder, task_files, tmp_path / "out", train=train))


def test_a_resumed_run_refuses_other_options_and_folders_of_other_commands(finetuned, encoder, task_files, tmp_path):
    out = shutil.copytree(finetuned, tmp_path / "out")
    for changes, message in (
        (
            {"learning_rate": 1e-3},
            "learning_rate is 0.001, but this run began with 0.003: resume with 0.003, or give a new --out",
        ),
        ({"train": task_files["classify"][1]}, "train is [0-9a-f]{64}, but .* began with"),
        ({"seeds": (2,)}, "seed is 2, but"),
    ):
        with pytest.raises(ValueError, match=message):
            finetune(config(encoder, task_files, out, **changes))
    assert (out / "config.toml").read_bytes() == (finetuned / "config.toml").read_bytes()
    with pytest.raises(ValueError, match="is the model itself: give a new folder as --out"):
        finetune(config(encoder, task_files, encoder))
    (tmp_path / "pretraining").mkdir()
    (tmp_path / "pretraining/config.toml").write_text("data = 'x'\n")
    with pytest.raises(ValueError, match="is a run of another command: give a new folder as --out"):
        finetune(config(encoder, task_files, tmp_path / "pretraining"))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"batch_size": 0}, "batch_size=0 must be at least 1"),
        ({"num_epochs": 0.0}, "num_epochs=0 must be above 0"),
        ({"learning_rate": 0.0}, "learning_rate=0 must be above 0 and at most 1"),
        ({"learning_rate": 5.0}, "learning_rate=5 must be above 0 and at most 1: was 5e-05 meant?"),
        ({"learning_rate": 3e5}, "learning_rate=300000 must be above 0 and at most 1: was 3e-05 meant?"),
        ({"dropout": 1.0}, "dropout=1 must be at least 0 and below 1"),
        ({"max_seq_length": 4}, "max_seq_length=4 must be at least 8"),
        ({"frozen_layers": -1}, "frozen_layers=-1 must be at least 0"),
        ({"seeds": (1, 1)}, "seeds=(1, 1) must be distinct numbers"),
        ({"labels": ("a",)}, "labels=a must be at least two distinct classes"),
        (
            {"task": "span", "class_weights": ("balanced",)},
            "span has no classes: omit --labels and --class-weights",
        ),
        ({"columns": ("text",)}, "columns: 'text' is not of the form NAME=VALUE"),
        ({"class_weights": ("good=-1",)}, "class_weights: good=-1: expected a number above 0"),
        ({"task": "pair", "stride": 4}, "stride=4: two texts share one sequence, and pair reads no windows of them"),
        ({"task": "pair", "max_windows": 1}, "max_windows=1: two texts share one sequence"),
        ({"task": "tag", "max_windows": 2}, "max_windows: every word gets a tag"),
    ],
)
def test_impossible_choices_are_refused(encoder, task_files, tmp_path, changes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        finetune(config(encoder, task_files, tmp_path / "out", **changes))


def test_labels_and_columns_may_contain_an_equals_sign():
    assert pairs("class_weights", ("a=b=2", "c=1")) == {"a=b": "2", "c": "1"}


def test_a_loss_that_is_not_a_number_stops_the_run_with_advice(encoder, task_files, tmp_path):
    with pytest.raises(ValueError, match="at step [0-9]+ the loss is .*: use a learning_rate below"):
        finetune(config(encoder, task_files, tmp_path / "out", learning_rate=1.0, weight_decay=1e38, warmup_ratio=0.0))


def test_the_command_shows_its_flags_and_reports_an_error_in_one_line(encoder, tmp_path, capsys):
    with pytest.raises(SystemExit):
        parse(FinetuneConfig, ["--help"], prog="bertloom finetune")
    assert "--class-weights" in capsys.readouterr().out
    words = [
        "finetune",
        "--task",
        "classify",
        "--model",
        str(encoder),
        "--train",
        "nothing.csv",
        "--dev",
        "nothing.csv",
    ]
    assert cli([*words, "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err == "bertloom finetune: error: --train nothing.csv: no such file\n"
