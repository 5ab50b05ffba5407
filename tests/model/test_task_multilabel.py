import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score, precision_recall_curve

from model.hub.pretrained import open_pretrained
from model.hub.weights import save_pretrained
from model.inference.predict import load
from model.tasks.data import Windowing
from model.tasks.initial_weights import load_encoder
from model.tasks.multilabel import MultilabelTask, best_threshold, labels_of
from model.tasks.registry import make_task
from model.tasks.rows import read_task
from model.tasks.sequence import TextRow
from model.tasks.values import BadRow, ClassName, Parts
from tests.model.small_task import label_rows, small_tokenizer, write_jsonl, write_model

TOKENIZER = small_tokenizer()
WINDOWING = Windowing(max_seq_length=16, stride=None, max_windows=None)


def task(labels: tuple[str, ...] = (), **changes) -> MultilabelTask:
    made = make_task("multilabel", WINDOWING, labels, **changes)
    assert isinstance(made, MultilabelTask)
    return made


def row(*labels: str, text: str = "good film") -> TextRow:
    return TextRow("x", None, text, None, labels)


def read(path: Path, made: MultilabelTask | None = None, **columns: str) -> list[tuple[str, ...]]:
    """The labels of the rows of a file, in the order of the task that has learnt them."""
    made = made or task()
    rows, _ = read_task(path, made.forms(True), made.parse, columns, "stop")
    learnt = made.learn(rows)
    return [tuple(label for label in learnt.labels if label in labels_of(row)) for row in rows]


def test_labels_are_a_list_a_string_or_a_column_each_and_every_form_gives_the_same_rows(tmp_path):
    expected = [("a", "b c"), (), ("b c",), ("a",)]
    lists = [{"text": "x", "labels": list(labels)} for labels in expected]
    write_jsonl(tmp_path / "list.jsonl", lists)
    pq.write_table(pa.Table.from_pylist(lists), tmp_path / "list.parquet")
    cells = "".join(f"x\t{json.dumps(list(labels))}\n" for labels in expected)
    (tmp_path / "list.tsv").write_text("text\tlabels\n" + cells)
    for name in ("list.jsonl", "list.parquet", "list.tsv"):
        assert read(tmp_path / name) == expected, name

    (tmp_path / "string.csv").write_text('sentence,label\nx,"a; b c"\nx,\nx,b c\nx,a;\n')
    assert read(tmp_path / "string.csv", task(label_separator=";")) == expected

    marks = [{"text": "x", "a": int("a" in labels), "b c": int("b c" in labels)} for labels in expected]
    write_jsonl(tmp_path / "marks.jsonl", marks)
    pq.write_table(pa.Table.from_pylist(marks), tmp_path / "marks.parquet")
    (tmp_path / "marks.csv").write_text("id,text,a,b c\n0,x,1,1\n1,x,0,0\n2,x,false,true\n3,x,1.0,0.0\n")
    for name in ("marks.jsonl", "marks.parquet", "marks.csv"):
        assert read(tmp_path / name) == expected, name

    (tmp_path / "more.csv").write_text("author,text,a,year,b c\nme,x,1,1990,1\nme,x,0,1990,0\nme,x,0,1,1\nme,x,1,1,0\n")
    assert read(tmp_path / "more.csv", labels="a,b c") == expected
    with pytest.raises(
        ValueError, match="line 2: author is 'me', expected 0 or 1 in the column of a label: name the col"
    ):
        read(tmp_path / "more.csv")
    with pytest.raises(
        ValueError, match="more.csv has no column 'c' for labels: its columns are author, text, a, year"
    ):
        read(tmp_path / "more.csv", labels="a,c")


def test_columns_that_a_data_set_declares_as_classes_are_read(tmp_path):
    names = {"feature": {"names": ["joy", "anger"], "_type": "ClassLabel"}, "_type": "Sequence"}
    metadata = {"huggingface": json.dumps({"info": {"features": {"labels": names}}})}
    table = pa.table({"text": ["x", "y"], "labels": [[0, 1], [1]]}).replace_schema_metadata(metadata)
    pq.write_table(table, tmp_path / "x.parquet")
    rows, _ = read_task(tmp_path / "x.parquet", task().forms(True), task().parse, {}, "stop")
    assert task().learn(rows).labels == ("joy", "anger"), "in the order of their numbers"
    marks = Parts(a=ClassName("no", 0), b=ClassName("yes", 1))
    assert labels_of(task().parse("x", {"id": None, "text": "x", "labels": marks})) == ("b",)


@pytest.mark.parametrize(
    "labels, values, reason",
    [
        (
            (),
            "a;b",
            "labels is 'a;b', expected a list: for a string of labels, give --label-separator; for a single label, --task",
        ),
        ((), "5", "labels is 5, expected a list"),
        ((), 5, "labels is 5, expected a list"),
        ((), None, "labels is None, expected a list"),
        ((), {"a": 1}, "labels is {'a': 1}, expected a list"),
        ((), ClassName("a", 0), "labels is 'a', expected a list"),
        ((), ["a", None], "label is None, expected a string or an integer"),
        ((), ["a", " a "], "has the label 'a' twice"),
        (("a", "b"), ["a", "c"], "label 'c' is not one of the 2 labels: a, b"),
        (("a", "b"), Parts(a="1", c="1"), "label 'c' is not one of the 2 labels: a, b"),
        ((), Parts(a="2"), "a is '2', expected 0 or 1 in the column of a label"),
        ((), Parts(a=None), "a is None, expected 0 or 1 in the column of a label"),
        ((), Parts(), "has no column of a label"),
    ],
)
def test_unusable_labels_have_a_reason(labels, values, reason):
    with pytest.raises(BadRow, match=re.escape(reason)):
        task(labels).parse("line 3", {"id": None, "text": "x", "labels": values})


def test_lists_among_strings_and_columns_that_dev_rows_lack_are_bad_rows():
    with pytest.raises(BadRow, match="labels is .'a'., expected a string: for lists, omit --label-separator"):
        task(label_separator=";").parse("x", {"id": None, "text": "x", "labels": ["a"]})
    with pytest.raises(BadRow, match="has no column 'b', which the training rows have"):
        task(("a", "b"), in_columns=True).parse("x", {"id": None, "text": "x", "labels": Parts(a=1)})


@pytest.mark.parametrize(
    "made, rows, message",
    [
        (
            task(label_separator="|"),
            [row("a"), row("c;d")],
            "label_separator='|' separates no labels: none of the 2 training rows has two, as in 'c;d': give another",
        ),
        (
            task(),
            [row("a")._replace(label_columns=("a", "b"))],
            "no training row has the label 'b': remove its column, or na",
        ),
        (task(("a", "b")), [row("a")], "no training row has the label 'b': omit it in --labels"),
        (
            task(),
            [row("a"), row()],
            "the training rows have 1 label, expected at least two: for one, use --task classify",
        ),
        (task(), [row()], "the training rows have 0 labels, expected at least two"),
        (
            task(),
            [row("a", "\udce9")._replace(label_columns=("a", "\udce9"))],
            "the name of a column is not valid UTF-8",
        ),
        (
            task(),
            [row("a", "error")._replace(label_columns=("a", "error"))],
            "the column 'error' of a label has the name of another entry of answers: rename it",
        ),
    ],
)
def test_labels_that_cannot_be_learnt_are_refused(made, rows, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        made.learn(rows)


def test_a_file_that_would_need_too_many_targets_is_refused(monkeypatch):
    monkeypatch.setattr("model.tasks.multilabel.MAX_TARGETS", 5)
    with pytest.raises(ValueError, match="3 rows and 2 labels are too many together: expected at most 5 targets"):
        task().learn([row("a", "b")] * 3)


def test_targets_are_a_matrix_and_classes_weigh_the_texts_that_have_them():
    rows = [row("b"), row("a", "b"), row("b"), row()]
    learnt = task().learn(rows)
    data = learnt.tokenize(rows, TOKENIZER)
    assert data.labels.tolist() == [[0, 1], [1, 1], [0, 1], [0, 0]] and learnt.count_targets(data).tolist() == [1, 3]
    assert data.weights.tolist() == [[1, 1]] * 4
    assert learnt.weigh_targets(data, {"a": 5.0}).tolist() == [[1, 1], [5, 1], [1, 1], [1, 1]]
    balanced = learnt.weigh_targets(data, {})
    for label in range(2):
        has = data.labels[:, label] == 1
        assert balanced[has, label].sum() == pytest.approx(balanced[~has, label].sum())


@given(st.lists(st.tuples(st.integers(0, 8), st.booleans()), min_size=1, max_size=30))
def test_a_threshold_has_the_highest_f1_of_all(pairs):
    """The twin: precision and recall of scikit-learn at every threshold."""
    chances, true = np.array([chance / 8 for chance, _ in pairs]), np.array([label for _, label in pairs])
    threshold = best_threshold(chances, true)
    assert 0 <= threshold <= 1
    if not true.any():
        assert threshold == 0.5
        return
    precision, recall, _ = precision_recall_curve(true, chances)
    best = np.max(2 * precision * recall / np.maximum(precision + recall, 1e-12))
    assert f1_score(true, chances >= threshold) == pytest.approx(best)


@pytest.mark.parametrize("lower", [0.3, float(np.nextafter(0.3, 1)), 0.5, float(np.nextafter(1.0, 0))])
def test_a_threshold_separates_probabilities_with_no_number_between_them(lower):
    chances = np.array([lower, np.nextafter(lower, 2)])
    assert (chances >= best_threshold(chances, np.array([False, True]))).tolist() == [False, True]


def test_metrics_are_those_of_scikit_learn_at_the_thresholds_of_the_dev_rows():
    draw = np.random.default_rng(0)
    rows = [row(*(label for label in "abc" if draw.random() < 0.4)) for _ in range(50)]
    learnt = task(("a", "b", "c"))
    data = learnt.tokenize(rows, TOKENIZER)
    logits = draw.normal(size=(50, 3)) + 2 * data.labels - np.array([3, 0, 1])
    plain = learnt.measure(rows, data, logits)
    assert plain["micro_f1"] == f1_score(data.labels, logits >= 0, average="micro")
    assert plain["macro_f1"] == f1_score(data.labels, logits >= 0, average="macro")
    fitted = learnt.calibrate(data, logits)
    at = np.log(np.array(fitted.thresholds) / (1 - np.array(fitted.thresholds)))
    assert fitted.measure(rows, data, logits)["macro_f1"] == f1_score(data.labels, logits >= at, average="macro")
    assert fitted.measure(rows, data, logits)["macro_f1"] > plain["macro_f1"] + 0.05


def test_a_label_that_no_dev_row_has_counts_as_zero_in_macro_f1():
    rows = [row("a"), row()]
    learnt = task(("a", "b"))
    data = learnt.tokenize(rows, TOKENIZER)
    logits = np.array([[3.0, -3.0], [-3.0, -3.0]])
    assert learnt.measure(rows, data, logits) == {"micro_f1": 1.0, "macro_f1": 0.5}
    assert learnt.calibrate(data, logits).thresholds[1] == 0.5
    assert learnt.measure(rows[1:], learnt.tokenize(rows[1:], TOKENIZER), logits[1:]) == {
        "micro_f1": 0.0,
        "macro_f1": 0.0,
    }


@pytest.mark.parametrize(
    "changes, expected",
    [
        ({}, {"labels": ["a", "b"]}),
        ({"label_separator": "; "}, {"labels": "a; b"}),
        ({"in_columns": True}, {"a": 1, "b": 1, "c": 0}),
    ],
)
def test_an_answer_has_the_form_of_the_training_rows(changes, expected):
    made = task(("a", "b", "c"), thresholds=(0.9, 0.2, 0.5), **changes)
    logits = np.log(np.array([[9.0, 0.25, 0.9]]))  # chances .9, .2, .474
    found = made.answer([row()], made.tokenize([row()], TOKENIZER), logits + 1e-9, top_k=2)
    assert found == [expected | {"probabilities": {"a": 0.9, "c": 0.473684}}]
    none = made.answer([row()], made.tokenize([row()], TOKENIZER), logits - 9, top_k=1)[0]
    assert none["probabilities"].keys() == {"a"} and none.get("labels", []) in ([], "")


def test_a_model_keeps_its_thresholds_and_reads_them_checked(tmp_path):
    encoder = open_pretrained(write_model(tmp_path / "encoder"))
    made = task(("x", "y"), thresholds=(0.25, 1.0), label_separator="|")
    model = made.model_class(encoder.config, made.num_outputs)
    load_encoder(model, encoder, seed=1)
    save_pretrained(model, tmp_path / "tuned", encoder.tokenizer, **made.configuration())
    loaded = load(tmp_path / "tuned", "cpu")
    assert loaded.task.label_separator == "|" and list(loaded.task.thresholds) == [0.25, 1.0]
    assert loaded.predict(["good"], top_k=1)[0]["labels"] in ("", "x")
    config = json.loads((tmp_path / "tuned/config.json").read_text())
    for key, value, message in (
        ("thresholds", [0.5], "expected a number for each of 2 labels"),
        ("thresholds", "ab", "expected a number for each of 2 labels"),
        ("thresholds", [0.5, "x"], "'x' is not a probability"),
        ("thresholds", [0.5, float("nan")], "nan is not a probability"),
        ("label_separator", 5, "label_separator is 5, expected a string"),
    ):
        changed = config | {"bertloom": config["bertloom"] | {key: value}}
        (tmp_path / "tuned/config.json").write_text(json.dumps(changed))
        with pytest.raises(ValueError, match=message):
            load(tmp_path / "tuned", "cpu")


def test_two_texts_may_have_labels_and_texts_without_any_are_learnt_from():
    forms = task().forms(True)
    assert forms == [("text_a", "text_b", "labels"), ("text", "labels")]
    values = {"id": 1, "text_a": "a", "text_b": "b", "labels": []}
    assert task().parse("x", values) == TextRow("x", 1, "a", "b", ())
    assert any(not row["labels"] for row in label_rows(20))
