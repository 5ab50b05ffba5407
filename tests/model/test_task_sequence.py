import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.tasks.data import Windowing
from model.tasks.registry import make_task
from model.tasks.regress import correlations
from model.tasks.sequence import TextRow
from model.tasks.task import label_of, sorted_labels, text_of
from model.tasks.values import BadRow, ClassName
from tests.model.small_task import VOCABULARY, small_tokenizer

TOKENIZER = small_tokenizer()


def task(name: str, length: int = 16, labels: tuple[str, ...] = (), **changes):
    windowing = Windowing(**{"max_seq_length": length, "stride": None, "max_windows": None} | changes)
    return make_task(name, windowing, labels)


def sequences(data) -> list[str]:
    return [" ".join(VOCABULARY[i] for i in part) for part in np.split(data.input_ids, data.starts[1:-1])]


def test_labels_of_the_training_rows_are_sorted():
    rows = [task("classify").parse("x", {"id": None, "text": "a", "label": label}) for label in ("b", "a", " b ")]
    learnt = task("classify").learn(rows)
    assert learnt.labels == ("a", "b")
    assert task("classify", labels=("b", "a")).learn(rows).labels == ("b", "a")
    assert sorted_labels({"10": 1, "9": 1, "-1": 1}) == ("-1", "9", "10")


@pytest.mark.parametrize(
    "values, reason",
    [
        ({"text": "", "label": "a"}, "text is empty"),
        ({"text": " \n", "label": "a"}, "text is empty"),
        ({"text": "\u200b\x00", "label": "a"}, "text has no visible character"),
        ({"text": 5, "label": "a"}, "text is 5, expected a string"),
        ({"text": "caf\udce9", "label": "a"}, "text is not valid UTF-8"),
        ({"text": "x", "label": None}, "has no label"),
        ({"text": "x", "label": "  "}, "label is empty"),
        ({"text": "x", "label": "caf\udce9"}, "label is not valid UTF-8"),
        (
            {"text": "x", "label": 1.5},
            "label is 1.5, expected a string or an integer: to predict numbers, use --task regress",
        ),
        ({"text": "x", "label": 1}, "label '1' is not one of the 2 labels: a, b; a file with numbers needs numbers in"),
        ({"text": "x", "label": "c"}, "label 'c' is not one of the 2 labels: a, b"),
    ],
)
def test_unusable_rows_have_a_reason(values, reason):
    with pytest.raises(BadRow, match=re.escape(reason)):
        task("classify", labels=("a", "b")).parse("line 3", {"id": None} | values)


def test_names_of_classes_keep_the_order_of_their_numbers():
    names = [ClassName("pos", 0), ClassName("neg", 1)]
    rows = [task("classify").parse("x", {"id": None, "text": "a", "label": name}) for name in reversed(names)]
    assert task("classify").learn(rows).labels == ("pos", "neg")
    assert task("regress").parse("x", {"id": None, "text": "a", "label": names[1]}).label == 1.0


@pytest.mark.parametrize("labels", [["1.5", "2", "2.5"], ["0.1", "-3"]])
def test_labels_of_a_table_that_are_numbers_suggest_regress(labels):
    rows = [task("classify").parse("x", {"id": None, "text": "a", "label": label}) for label in labels]
    message = (
        f"the {len(labels)} labels are numbers, such as .*: to predict numbers, use --task regress; if they are classes"
    )
    with pytest.raises(ValueError, match=message):
        task("classify").learn(rows)
    assert task("classify", labels=tuple(labels)).learn(rows).labels == tuple(labels)


@pytest.mark.parametrize("labels", [["1.0", "2.0"], ["1", "2"], ["1.5", "good"], ["1.5", "nan"]])
def test_other_labels_are_classes(labels):
    rows = [task("classify").parse("x", {"id": None, "text": "a", "label": label}) for label in labels]
    assert set(task("classify").learn(rows).labels) == {*labels}


def test_labels_do_not_depend_on_how_a_format_writes_them():
    assert [label_of(value) for value in (1, 1.0, "1", " 1 ", True, "true")] == ["1", "1", "1", "1", "true", "true"]
    assert text_of("中", "text") == "中"


@pytest.mark.parametrize("value", ["good", None, float("nan"), True, [1], 10**400])
def test_labels_that_are_not_numbers_are_refused_for_regress(value):
    with pytest.raises(BadRow):
        task("regress").parse("x", {"id": None, "text": "a", "label": value})


def test_regress_reads_one_text_or_two():
    forms = task("regress").forms(True)
    assert forms == [("text_a", "text_b", "label"), ("text", "label")]
    assert task("regress").parse("x", {"id": 3, "text": "a", "label": "1.5"}) == TextRow("x", 3, "a", None, 1.5)


def test_a_long_text_is_read_in_windows_as_one_item():
    rows = [TextRow("x", None, "good bad film of paris is", None, "a"), TextRow("y", None, "bad", None, "b")]
    data = task("classify", 6, ("a", "b")).tokenize(rows, TOKENIZER)
    assert sequences(data) == [
        "[CLS] good bad film of [SEP]",
        "[CLS] film of paris is [SEP]",
        "[CLS] bad [SEP]",
    ]
    assert data.item_starts.tolist() == [0, 2, 3] and data.labels.tolist() == [0, 1] and data.num_cut == 0
    cut = task("classify", 6, ("a", "b"), max_windows=1).tokenize(rows, TOKENIZER)
    assert sequences(cut) == ["[CLS] good bad film of [SEP]", "[CLS] bad [SEP]"] and cut.num_cut == 1


@given(st.integers(1, 30), st.integers(1, 30))
def test_two_texts_are_truncated_as_by_google(first, second):
    """The twin: truncate_seq_pair of google-research/bert's run_classifier.py."""
    row = TextRow("x", None, "good " * first, "bad " * second, "a")
    data = task("pair", 16, ("a", "b")).tokenize([row], TOKENIZER)
    a, b = ["good"] * first, ["bad"] * second
    while len(a) + len(b) > 13:
        (a if len(a) > len(b) else b).pop()
    assert sequences(data) == [" ".join(["[CLS]", *a, "[SEP]", *b, "[SEP]"])]
    assert data.segment_b_start.tolist() == [len(a) + 2]
    assert data.num_cut == (first + second > 13)


def test_classes_are_measured_and_answered():
    rows = [TextRow("x", None, "good", None, label) for label in ("a", "a", "b", "c")]
    trained = task("classify", labels=("a", "b", "c"))
    data = trained.tokenize(rows, TOKENIZER)
    logits = np.log(np.array([[0.7, 0.2, 0.1], [0.2, 0.7, 0.1], [0.1, 0.8, 0.1], [0.3, 0.3, 0.4]]))
    metrics = trained.measure(rows, data, logits)
    assert metrics == pytest.approx({"accuracy": 3 / 4, "macro_f1": (2 / 3 + 2 / 3 + 1) / 3, "matthews": 0.7})
    assert trained.answer(rows[:1], data, logits[:1], 2) == [{"label": "a", "probabilities": {"a": 0.7, "b": 0.2}}]
    assert trained.measure(rows, data, np.zeros((4, 3)) + [1, 0, 0])["matthews"] == 0


def test_numbers_are_measured_by_correlation():
    true = np.array([1.0, 2.0, 3.0, 5.0], dtype=np.float32)
    assert correlations(true, 2 * true + 1) == pytest.approx({"pearson": 1, "spearman": 1})
    assert correlations(true, -(true**3))["spearman"] == pytest.approx(-1)
    assert correlations(true, np.zeros(4)) == {"pearson": 0, "spearman": 0}
