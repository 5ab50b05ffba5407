"""`finetune`, `predict` and `export` for several labels per text and for multiple choice, as a user meets them."""

import json
import re
from pathlib import Path

import pytest
from transformers import AutoModelForMultipleChoice, AutoModelForSequenceClassification, pipeline

from jobs.cli import main as cli
from jobs.export import ExportConfig, export
from jobs.finetune import finetune
from jobs.predict import main as predict
from model.inference.predict import load
from tests.jobs.small_finetune import config
from tests.model.small_task import choice_rows, label_rows, write_jsonl

FEW = {"num_epochs": 0.3, "learning_rate": 1e-2}


def answers(model: Path, rows: Path, *words: str) -> list[dict]:
    out = rows.with_name("answers.jsonl")
    predict(["--model", str(model), "--input", str(rows), "--out", str(out), "--overwrite", "--device", "cpu", *words])
    return [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]


def write_forms(folder: Path, rows: list[dict]) -> dict[str, Path]:
    """The same rows with their labels in each form."""
    names = sorted({label for row in rows for label in row["labels"]})
    marks = [[row["text"], *(str(int(name in row["labels"])) for name in names)] for row in rows]
    (folder / "marks.tsv").write_text("\n".join("\t".join(line) for line in [["text", *names], *marks]) + "\n")
    strings = [f'"{row["text"]}",{"; ".join(row["labels"])}' for row in rows]
    (folder / "strings.csv").write_text("\n".join(["text,label", *strings]) + "\n")
    return {
        "lists": write_jsonl(folder / "lists.jsonl", rows),
        "marks": folder / "marks.tsv",
        "strings": folder / "strings.csv",
    }


def test_labels_are_learnt_alike_in_every_form_and_written_in_that_form(encoder, task_files, tmp_path):
    forms = write_forms(tmp_path, label_rows(60))
    new = write_jsonl(tmp_path / "new.jsonl", [{"id": 1, "text": "a good film"}, {"id": 2, "text": "london"}])
    found = {}
    for name, rows in forms.items():
        out = tmp_path / name
        changes = {"label_separator": ";"} if name == "strings" else {}
        finetune(config(encoder, task_files, out, "multilabel", train=rows, dev=rows, **FEW, **changes))
        found[name] = answers(out, new, "--top-k", "3")
        metrics = json.loads((out / "results.json").read_text())["metrics"]
        assert set(metrics) == {"loss", "micro_f1", "macro_f1"}
        assert metrics == json.loads((tmp_path / "lists/results.json").read_text())["metrics"], (
            "the form does not matter"
        )
    names = ["good", "london", "中"]
    for lists, marks, strings in zip(*found.values()):
        assert lists["probabilities"] == marks["probabilities"] == strings["probabilities"]
        assert strings["labels"] == ";".join(lists["labels"])
        assert {name: marks[name] for name in names} == {name: int(name in lists["labels"]) for name in names}
        assert list(marks) == ["id", *names, "probabilities"]


def test_transformers_gives_the_same_probabilities_of_labels(encoder, task_files, tmp_path):
    finetune(config(encoder, task_files, tmp_path / "tuned", "multilabel", **FEW, max_windows=1))
    use = pipeline("text-classification", str(tmp_path / "tuned/model"), top_k=None, truncation=True)
    long = "the film is good . " * 40 + "london 中 " * 400
    texts = [*(row["text"] for row in label_rows(5, seed=3)), long]
    expected = [{each["label"]: each["score"] for each in theirs} for theirs in use(texts)]
    for ours, theirs in zip(load(tmp_path / "tuned", "cpu").predict(texts), expected, strict=True):
        assert ours["probabilities"] == pytest.approx(theirs, abs=1e-5)
    path = tmp_path / "tuned/model/config.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"bertloom": content["bertloom"] | {"max_windows": None}}))
    windows = load(tmp_path / "tuned", "cpu").predict(texts)
    assert windows[0]["probabilities"] == pytest.approx(expected[0], abs=1e-5)
    assert windows[-1]["probabilities"] != pytest.approx(expected[-1], abs=1e-3), (
        "windows read what transformers cuts off"
    )


@pytest.mark.parametrize("kind", ["number", "letter", "text"])
def test_an_answer_is_written_as_the_training_rows_write_it(kind, encoder, task_files, tmp_path):
    def written(row: dict) -> dict:
        number = row["answer"]
        return row | {"answer": {"number": number, "letter": "ABCD"[number], "text": row["endings"][number]}[kind]}

    rows = write_jsonl(tmp_path / "rows.jsonl", [written(row) for row in choice_rows(60)])
    finetune(config(encoder, task_files, tmp_path / "tuned", "choice", train=rows, dev=rows, **FEW))
    new = choice_rows(20, seed=4)
    found = answers(tmp_path / "tuned", write_jsonl(tmp_path / "new.jsonl", [row | {"answer": "?"} for row in new]))
    for row, answer in zip(new, found):
        assert len(answer["probabilities"]) == len(row["endings"])
        best = answer["probabilities"].index(max(answer["probabilities"]))
        assert answer["answer"] == written(row | {"answer": best})["answer"]
    model = load(tmp_path / "tuned", "cpu")
    triple = [(row["context"], row["question"], row["endings"]) for row in new]
    assert [answer["answer"] for answer in model.predict(triple)] == [answer["answer"] for answer in found]
    assert model.predict([("the film", ["good", "bad"])]) == model.predict(
        [{"context": "the film", "endings": ["good", "bad"]}]
    )
    with pytest.raises(ValueError, match=re.escape("row 1: ('the film',) is no row of choice")):
        model.predict([("the film",)])


@pytest.mark.parametrize("task", ["multilabel", "choice"])
def test_they_are_exported_with_a_card_and_loaded_by_transformers(task, encoder, task_files, tmp_path):
    finetune(config(encoder, task_files, tmp_path / "tuned", task, **FEW))
    export(ExportConfig(checkpoint=tmp_path / "tuned", out=tmp_path / "out"))
    kind = AutoModelForMultipleChoice if task == "choice" else AutoModelForSequenceClassification
    loaded, info = kind.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    card = (tmp_path / "out/README.md").read_text()
    assert f"Fine-tuned for the task `{task}`" in card and f"from transformers import {kind.__name__}, AutoTok" in card
    assert ("pipeline(" in card) == (task == "multilabel"), "transformers has no pipeline for multiple choice"
    rows = {"multilabel": ["good"], "choice": [("the film", ["good", "bad"])]}[task]
    assert load(tmp_path / "out", "cpu").predict(rows) == load(tmp_path / "tuned", "cpu").predict(rows)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"task": "classify", "label_separator": ";"}, "label_separator=';': classify does not use it: omit it"),
        ({"label_separator": ""}, "label_separator is empty: give the sign between two labels, such as ';'"),
        (
            {"label_separator": ";"},
            "line 1: labels is ['good', 'london'], expected a string: for lists, omit --label-sep",
        ),
        ({"labels": ("good", "中")}, "label 'london' is not one of the 2 labels: good, 中"),
        ({"labels": ("good", "bad", "中", "london")}, "no training row has the label 'bad': omit it in --labels"),
        ({"class_weights": ("bad=2",)}, "class_weights: 'bad' is not a label: expected one of good, london, 中"),
        ({"task": "choice"}, "has no column for context: expected context or article or sent1"),
        ({"task": "choice", "class_weights": ("a=2",)}, "choice has no classes: omit --labels and --class-weights"),
        ({"task": "choice", "max_windows": 1}, "max_windows=1: context and ending share one sequence"),
        ({"metric": "accuracy"}, "metric='accuracy' is not a metric of multilabel: expected one of micro_f1, macro_f1"),
    ],
)
def test_options_that_do_not_fit_are_refused_before_anything_is_written(
    encoder, task_files, tmp_path, changes, message
):
    rows = [{"text": "good", "labels": ["good", "london"]}, {"text": "中", "labels": ["中", "good"]}]
    rows = write_jsonl(tmp_path / "rows.jsonl", rows)
    with pytest.raises(ValueError, match=re.escape(message)):
        finetune(
            config(
                encoder, task_files, tmp_path / "out", **{"task": "multilabel", "train": rows, "dev": rows} | changes
            )
        )
    assert not (tmp_path / "out").exists()


def test_a_label_or_an_ending_that_the_dev_rows_have_alone_is_named_with_its_place(
    encoder, task_files, tmp_path, capsys
):
    dev = write_jsonl(tmp_path / "dev.jsonl", [{"text": "a", "labels": ["good"]}, {"text": "b", "labels": ["ugly"]}])
    words = ["finetune", "--task", "multilabel", "--model", str(encoder), "--train", str(task_files["multilabel"][0])]
    assert cli([*words, "--dev", str(dev), "--out", str(tmp_path / "out")]) == 2
    message = "2 rows cannot be used: line 2: label 'ugly' is not one of the 3 labels: good, london, 中: fix them"
    assert message in (error := capsys.readouterr().err) and error.count("\n") == 1
    dev = write_jsonl(tmp_path / "dev.jsonl", [{"context": "a", "endings": ["b", "c"], "answer": "c"}])
    words[2:7] = ["choice", "--model", str(encoder), "--train", str(task_files["choice"][0])]
    assert cli([*words, "--dev", str(dev), "--out", str(tmp_path / "out")]) == 2
    message = "line 1: answer is 'c', but there are 2 endings: expected a number from 0 to 1, as in the training rows"
    assert message in capsys.readouterr().err
