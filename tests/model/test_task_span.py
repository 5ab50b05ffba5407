import csv
import json
import re

import numpy as np
import pytest

from model.tasks.data import Windowing
from model.tasks.registry import make_task
from model.tasks.rows import read_task
from model.tasks.span import parse_bool
from model.tasks.values import BadRow
from tests.model.small_task import VOCABULARY, small_tokenizer

TOKENIZER = small_tokenizer()


def task(length: int = 32, **changes):
    return make_task("span", Windowing(**{"max_seq_length": length, "stride": None, "max_windows": None} | changes))


def row(context: str, answer: str | None = None, question: str = "where is anna"):
    values = {"id": 1, "is_impossible": answer is None, "question": question, "context": context}
    answers = [] if answer is None else [{"text": answer, "answer_start": context.index(answer)}]
    return task().parse("question 1", values | {"answers": answers})


def tokens(data, sequence: int) -> list[str]:
    return [VOCABULARY[i] for i in data.input_ids[data.starts[sequence] : data.starts[sequence + 1]]]


def pointing(data, places: dict[int, tuple[int, int]]) -> np.ndarray:
    """Logits that point at a first and a last token of some sequences, and weakly at [CLS] elsewhere."""
    logits = np.zeros((len(data.input_ids), 2), dtype=np.float32)
    for sequence, (first, last) in places.items():
        logits[data.starts[sequence] + first, 0] = 9
        logits[data.starts[sequence] + last, 1] = 9
    return logits


def test_the_answer_is_labelled_in_windows_with_the_whole_answer():
    data = task(12).tokenize([row("film film film film bad anna lives in paris", "lives in paris")], TOKENIZER)
    question = ["[CLS]", "where", "is", "anna", "[SEP]"]
    assert [tokens(data, sequence) for sequence in range(data.num_items)] == [
        [*question, *"film film film film bad anna".split(), "[SEP]"],
        [*question, *"film bad anna lives in paris".split(), "[SEP]"],
    ]
    assert data.labels.tolist() == [[0, 0], [8, 10]]


@pytest.mark.parametrize(
    "context, answer, pieces",
    [
        ("Anna líves in Páris.", "Páris", ["paris"]),
        ("😀😀 anna: \u200bPa\u0301ris!", "Pa\u0301ris", ["paris"]),
        ("她在北京大学", "北京", ["北", "京"]),
        ("in paris,london", "paris", ["paris"]),
        ("goodness is bad", "goodness", ["good", "##n", "##e", "##s", "##s"]),
    ],
)
def test_answers_are_found_and_returned_by_characters(context, answer, pieces):
    rows = [row(context, answer)]
    data = task().tokenize(rows, TOKENIZER)
    first, last = data.labels[0]
    assert tokens(data, 0)[first : last + 1] == pieces
    found = task().answer(rows, data, pointing(data, {0: (first, last)}), 1)[0]
    start = context.index(answer)
    assert (found["answer"], found["start"], found["end"]) == (answer, start, start + len(answer))
    assert task().measure(rows, data, pointing(data, {0: (first, last)})) == {"f1": 1, "exact_match": 1}


def test_the_best_answer_of_all_windows_is_taken_and_none_ends_before_it_begins():
    rows = [row("paris is the capital of france . london is the capital . anna lives in london", "london")]
    small = task(14)
    data = small.tokenize(rows, TOKENIZER)
    assert data.num_items > 2
    last = data.num_items - 1
    end = len(tokens(data, last)) - 2
    logits = pointing(data, {0: (9, 6), last: (end, end)})
    assert tokens(data, last)[end] == "london"
    found = small.answer(rows, data, logits, 1)[0]
    assert found["answer"] == "london" and found["end"] == len(rows[0].context)


def test_a_question_may_have_no_answer_only_if_a_training_row_had_none():
    rows = [row("anna lives in paris", "paris"), row("anna lives", None)]
    learnt = task().learn(rows)
    assert learnt.may_be_unanswerable and learnt.max_answer_length == 5 and learnt.answer_rules == "words"
    assert not task().learn(rows[:1]).may_be_unanswerable
    data = learnt.tokenize(rows, TOKENIZER)
    logits = pointing(data, {0: (0, 0), 1: (0, 0)})
    assert [answer["answer"] for answer in learnt.answer(rows, data, logits, 1)] == ["", ""]
    assert learnt.measure(rows, data, logits) == {"f1": 0.5, "exact_match": 0.5}
    always = task().learn(rows[:1])
    assert all(answer["answer"] for answer in always.answer(rows, data, logits, 1))


def test_an_answer_is_at_most_as_long_as_the_longest_training_answer():
    rows = [row("paris london paris london", "paris")]
    learnt = task().learn(rows)
    data = learnt.tokenize(rows, TOKENIZER)
    first = data.segment_b_start[0]
    assert len(learnt.answer(rows, data, pointing(data, {0: (first, first + 3)}), 1)[0]["answer"]) <= 5


def test_a_question_takes_at_most_half_of_the_room_and_is_counted():
    data = task(23).tokenize([row("anna lives in paris", "paris", question="where " * 30)], TOKENIZER)
    assert tokens(data, 0).count("where") == 10 and data.num_cut == 1


def test_a_long_question_before_a_short_context_leaves_less_room_than_a_stride_and_is_read():
    rows = [row("anna lives in paris", "paris", question="where " * 30), row("anna lives in paris", "paris")]
    data = task(23, stride=15).tokenize(rows, TOKENIZER)
    assert data.num_items == 2 and tokens(data, 0)[-5:] == ["anna", "lives", "in", "paris", "[SEP]"]


CONTEXT = "Der Fluß 中文 ends here."


@pytest.mark.parametrize(
    "answers, reason",
    [
        ([{"text": "中文", "answer_start": 0}], "answer '中文' does not begin at 0 of the context: it begins at 9"),
        (
            [{"text": "absent", "answer_start": 3}],
            "answer 'absent' does not begin at 3 of the context: it is not in",
        ),
        ([{"text": "ends", "answer_start": 999}], "does not begin at 999"),
        ([{"text": "here.", "answer_start": -5}], "does not begin at -5"),
        ([{"text": "ends"}], "answer_start is None, expected an integer"),
        ([{"text": "", "answer_start": 0}], "an answer is empty"),
        ([], "has no answers and is not marked is_impossible"),
        ("ends", "answers is 'ends', expected a list of text and answer_start"),
        ({"text": ["ends"], "answer_start": []}, "expected lists text and answer_start of the same length"),
        (None, "answers is None, expected a list"),
    ],
)
def test_answers_that_are_not_in_the_context_are_refused(answers, reason):
    values = {"id": 1, "is_impossible": None, "question": "?", "context": CONTEXT, "answers": answers}
    with pytest.raises(BadRow, match=re.escape(reason)):
        task().parse("x", values)


def test_answers_may_be_columns_and_two_empty_lists_mean_no_answer():
    values = {"id": 1, "is_impossible": None, "question": "?", "context": CONTEXT}
    answers = {"text": ["中文", "here"], "answer_start": [9, 17]}
    assert task().parse("x", values | {"answers": answers}).answers == [("中文", 9), ("here", 17)]
    assert task().parse("x", values | {"answers": {"text": [], "answer_start": []}}).answers == []


def test_answers_from_a_table_are_json_in_a_cell(tmp_path):
    rows = [
        ["id", "question", "context", "answers", "is_impossible"],
        ["1", "?", CONTEXT, json.dumps([{"text": "中文", "answer_start": 9}]), "False"],
        ["2", "?", CONTEXT, json.dumps({"text": ["here"], "answer_start": [17]}), ""],
        ["3", "?", CONTEXT, "", "True"],
        ["4", "?", CONTEXT, "[]", "0"],
        ["5", "?", CONTEXT, "", "maybe"],
    ]
    with open(tmp_path / "x.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    found, bad = read_task(tmp_path / "x.csv", task().forms(True), task().parse, {}, "skip")
    assert [row.answers for row in found] == [[("中文", 9)], [("here", 17)], []]
    assert [reason for _, _, reason in bad] == [
        "has no answers and is not marked is_impossible",
        "is_impossible is 'maybe', expected true or false",
    ]


def test_a_question_is_marked_impossible_by_a_truth_value():
    assert [parse_bool(value, "x") for value in (None, False, 0, "", "FALSE", "0")] == [False] * 6
    assert [parse_bool(value, "x") for value in (True, 1, "True", "1")] == [True] * 4


def test_an_answer_without_tokens_is_reported_with_its_row():
    with pytest.raises(ValueError, match="question 1: the answer .* has no tokens"):
        task().tokenize([row("anna \u0301 paris", "\u0301")], TOKENIZER)
