import json
import os
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.tasks.baselines import closest_ending
from model.tasks.choice import ChoiceRow, ChoiceTask, cut_row, endings_of, second_text
from model.tasks.data import Windowing
from model.tasks.registry import make_task
from model.tasks.rows import read_task
from model.tasks.sequence import cut_pair
from model.tasks.values import BadRow, ClassName, Parts
from tests.model.small_task import VOCABULARY, small_tokenizer, write_jsonl

TOKENIZER = small_tokenizer()


def task(length: int = 16, **changes) -> ChoiceTask:
    made = make_task("choice", Windowing(max_seq_length=length, stride=None, max_windows=None), **changes)
    assert isinstance(made, ChoiceTask)
    return made


def row(endings: list[str], answer: int | str | None = None, question: str | None = None) -> ChoiceRow:
    return ChoiceRow("line 2", None, "the film", question, endings, answer)


def parse(answer: object, endings: object = ("good", "bad"), made: ChoiceTask | None = None) -> ChoiceRow:
    listed = list(endings) if isinstance(endings, tuple) else endings
    return (made or task()).parse("x", {"id": None, "context": "c", "endings": listed, "answer": answer})


def read(path: Path, **columns: str) -> list[ChoiceRow]:
    rows, _ = read_task(path, task().forms(True), task().parse, columns, "stop")
    return rows


def sequences(data) -> list[str]:
    return [" ".join(VOCABULARY[i] for i in part) for part in np.split(data.input_ids, data.starts[1:-1])]


def test_the_columns_of_swag_race_and_c3_are_recognised(tmp_path):
    expected = row(["is good", "is bad", "lives", "in paris"], None, "anna")
    swag = {"video-id": "v", "fold-ind": "1", "startphrase": "the film anna", "sent1": "the film", "sent2": "anna"}
    swag |= {
        "gold-source": "gold",
        **{f"ending{number}": ending for number, ending in enumerate(expected.endings)},
        "label": 2,
    }
    write_jsonl(tmp_path / "swag.jsonl", [swag])
    pq.write_table(pa.Table.from_pylist([swag]), tmp_path / "swag.parquet")
    (tmp_path / "swag.csv").write_text(",".join(swag) + "\n" + ",".join(map(str, swag.values())) + "\n")
    race = {
        "example_id": "high1.txt",
        "article": "the film",
        "answer": "C",
        "question": "anna",
        "options": expected.endings,
    }
    write_jsonl(tmp_path / "race.jsonl", [race])
    pq.write_table(pa.Table.from_pylist([race]), tmp_path / "race.parquet")
    c3 = {"id": 7, "context": ["the", "film"], "question": "anna", "choice": expected.endings, "answer": "lives"}
    write_jsonl(tmp_path / "c3.jsonl", [c3])
    (tmp_path / "c3.json").write_text(json.dumps([c3]))
    for name, answer, kind in (
        ("swag.jsonl", 2, "number"),
        ("swag.parquet", 2, "number"),
        ("swag.csv", "2", "number"),
        ("race.jsonl", "C", "letter"),
        ("race.parquet", "C", "letter"),
        ("c3.jsonl", "lives", "text"),
        ("c3.json", "lives", "text"),
    ):
        found = read(tmp_path / name)
        is_c3 = name.startswith("c3")
        context = "the\nfilm" if is_c3 else "the film"
        place = {"swag.csv": "line 2", "c3.json": "item 1"}.get(name, "row 1" if name.endswith("parquet") else "line 1")
        assert found == [expected._replace(place=place, id=7 if is_c3 else None, context=context, answer=answer)], name
        learnt = task().learn(found)
        assert learnt.answer_kind == kind and learnt.tokenize(found, TOKENIZER).labels.tolist() == [2]


def test_other_columns_are_named_and_a_cell_may_hold_json(tmp_path):
    (tmp_path / "x.csv").write_text("goal,sol1,sol2,label\nthe film,good,bad,1\n")
    found = read(tmp_path / "x.csv", context="goal", endings="sol1,sol2")
    assert found == [row(["good", "bad"], "1")]
    (tmp_path / "x.tsv").write_text('context\toptions\tanswer\nthe film\t["good", "bad"]\tA\n')
    assert read(tmp_path / "x.tsv") == [row(["good", "bad"], "A")]


def test_rows_may_have_different_numbers_of_endings(tmp_path):
    (tmp_path / "x.csv").write_text("context,ending0,ending1,ending2,label\na,b,c,d,2\na,b,c,,1\n")
    assert [len(row.endings) for row in read(tmp_path / "x.csv")] == [3, 2]
    lines = [{"context": "a", "ending0": "b", "ending1": "c", "label": 0}, {"context": "a", "label": 2}]
    lines[1] |= {f"ending{number}": "x" for number in range(4)}
    write_jsonl(tmp_path / "x.jsonl", lines)
    assert [len(row.endings) for row in read(tmp_path / "x.jsonl")] == [2, 4]
    assert endings_of(Parts(ending0="a", ending1="", ending2="b")) == ["a", "", "b"], "one in the middle is an error"


@pytest.mark.parametrize(
    "values, reason",
    [
        (
            {"answer": 2},
            "answer is 2, but there are 2 endings: expected a number from 0 to 1 or a letter from A to B or the",
        ),
        ({"answer": 2}, "or the text of one; if the answers count from 1, subtract 1"),
        ({"answer": "2"}, "or the text of one; if the answers count from 1, subtract 1"),
        ({"answer": -1}, "answer is -1, but there are 2 endings"),
        ({"answer": "C"}, "answer is 'C', but there are 2 endings"),
        ({"answer": "fine"}, "answer is 'fine', but there are 2 endings"),
        ({"answer": None}, "answer is None, expected the number of the right ending, its letter or its text"),
        ({"answer": True}, "answer is True, expected the number"),
        ({"answer": 1.5}, "answer is 1.5, expected the number"),
        ({"answer": float("nan")}, "answer is nan, expected the number"),
        ({"answer": float("inf")}, "answer is inf, expected the number"),
        ({"answer": " "}, "answer is ' ', expected the number"),
        ({"endings": ["good"]}, "has 1 ending, expected at least two"),
        ({"endings": []}, "has 0 endings, expected at least two"),
        ({"endings": ["good", ""]}, "an ending is empty"),
        ({"endings": ["good", 5]}, "an ending is 5, expected a string"),
        ({"endings": "good"}, "endings is 'good', expected a list, or a column for each: --columns endings=A,B,…"),
        ({"endings": Parts(ending0="a", ending1="")}, "has 1 ending, expected at least two"),
        ({"context": ""}, "context is empty"),
        ({"context": ["a", ""]}, "a turn of context is empty"),
        ({"context": None}, "context is None, expected a string"),
        ({"question": 5}, "question is 5, expected a string"),
    ],
)
def test_unusable_rows_have_a_reason(values, reason):
    row = {"id": None, "context": "c", "endings": ["good", "bad"], "answer": 0}
    with pytest.raises(BadRow, match=re.escape(reason)):
        task().parse("x", row | values)


def test_answers_are_of_the_kind_that_all_training_rows_have():
    numbers = ("0", "1", "2")
    assert task().learn([parse("2", numbers), parse("1", numbers)]).answer_kind == "text"
    assert task().learn([parse("1", numbers), parse("1")]).answer_kind == "number", "1 is no text of the second"
    assert task().learn([parse(2, numbers)]).answer_kind == "number"
    assert task().learn([parse(ClassName("second", 1))]).answer_kind == "number"
    assert task().learn([parse("B"), parse("A")]).answer_kind == "letter"
    with pytest.raises(
        ValueError, match="x of the training rows has the answer 1, but the rows before it have a letter, s"
    ):
        task().learn([parse("B"), parse(1)])
    with pytest.raises(
        BadRow, match="answer is 1, but there are 2 endings: expected a letter from A to B, as in the train"
    ):
        parse(1, made=task(answer_kind="letter"))
    data = task(answer_kind="text").tokenize([parse("2", ("2", "1", "0"))], TOKENIZER)
    assert data.labels.tolist() == [0]


def test_each_ending_is_a_sequence_after_the_context():
    rows = [row(["good", "bad film"], 1, "anna is"), row(["in", "of", "is"], 0)]
    data = task(answer_kind="number").tokenize(rows, TOKENIZER)
    assert sequences(data) == [
        "[CLS] the film [SEP] anna is good [SEP]",
        "[CLS] the film [SEP] anna is bad film [SEP]",
        "[CLS] the film [SEP] in [SEP]",
        "[CLS] the film [SEP] of [SEP]",
        "[CLS] the film [SEP] is [SEP]",
    ]
    assert data.segment_b_start.tolist() == [4] * 5 and data.item_starts.tolist() == [0, 2, 5]
    assert data.labels.tolist() == [1, 0] and data.num_cut == 0
    cut = task(8, answer_kind="number").tokenize([row(["good", "bad film " * 9], 0)], TOKENIZER)
    assert sequences(cut) == ["[CLS] the film [SEP] good [SEP]", "[CLS] the film [SEP] bad film bad [SEP]"]
    assert cut.num_cut == 1


def test_of_an_ending_after_a_long_question_the_beginning_of_the_question_is_lost():
    question = "where is anna lives in"
    data = task(9, answer_kind="number").tokenize([row(["good", "bad"], 0, question)], TOKENIZER)
    assert sequences(data) == [
        "[CLS] the film [SEP] anna lives in good [SEP]",
        "[CLS] the film [SEP] anna lives in bad [SEP]",
    ]
    assert data.num_cut == 1
    filled = task(9, answer_kind="number").tokenize([row(["good", "bad"], 0, "_ is in the film of france")], TOKENIZER)
    assert sequences(filled)[1] == "[CLS] the film [SEP] bad is in the [SEP]"
    long = task(9, answer_kind="number").tokenize([row(["is good film in france", "is bad"], 0, "where")], TOKENIZER)
    assert sequences(long) == [
        "[CLS] the film [SEP] good film in france [SEP]",
        "[CLS] the film [SEP] where is bad [SEP]",
    ]


@given(
    st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=8), min_size=2, max_size=4, unique_by=tuple),
    st.lists(st.integers(0, 2), max_size=12),
    st.integers(0, 12),
    st.integers(2, 16),
)
def test_tokens_that_all_endings_begin_with_are_lost_before_any_other(endings, question, num_context, room):
    seconds = [np.array([*question, *ending]) for ending in endings]
    shared = os.path.commonprefix([second.tolist() for second in seconds])
    for second, (context, kept) in zip(seconds, cut_row(np.zeros(num_context, dtype=int), seconds, room)):
        expected_context, expected = cut_pair(np.zeros(num_context, dtype=int), second, room)
        assert len(context) == len(expected_context) and len(kept) == len(expected)
        begin = min(len(second) - len(kept), len(shared))
        assert kept.tolist() == second.tolist()[begin : begin + len(kept)]


@pytest.mark.parametrize(
    "question, expected",
    [
        ("She went to _ .", "She went to bed ."),
        ("_ is soft", "bed is soft"),
        ("他睡在__上", "他睡在bed上"),
        ("Why?", "Why? bed"),
        ("What is max_len?", "What is max_len? bed"),
        ("_ and _", "_ and _ bed"),
        (None, "bed"),
    ],
)
def test_an_ending_follows_the_question_or_fills_its_blank(question, expected):
    assert second_text(row([], None, question), "bed") == expected


def test_the_best_score_of_each_row_is_the_answer_in_the_form_of_the_training_rows():
    rows = [row(["good", "bad", "in"], 1), row(["of", "is"], 1)]
    data = task(answer_kind="number").tokenize(rows, TOKENIZER)
    logits = np.log(np.array([0.1, 0.7, 0.2, 0.75, 0.25], dtype=np.float32))
    assert task().measure(rows, data, logits) == {"accuracy": 0.5}
    for kind, answers in {"number": [1, 0], "letter": ["B", "A"], "text": ["bad", "of"]}.items():
        found = task(answer_kind=kind).answer(rows, data, logits, 1)
        assert [answer["answer"] for answer in found] == answers
        assert found[0]["probabilities"] == pytest.approx([0.1, 0.7, 0.2])
        assert found[1]["probabilities"] == pytest.approx([0.75, 0.25])
    assert task().logits_of(np.array([1, 2]), data).tolist() == [0, 1, 0, 0, 1], "the second row has no third ending"


def test_windows_are_refused_and_so_is_an_unknown_kind_of_answer():
    with pytest.raises(
        ValueError, match="stride=4: context and ending share one sequence, and choice reads no windows"
    ):
        make_task("choice", Windowing(max_seq_length=16, stride=4, max_windows=None))
    with pytest.raises(ValueError, match="answer_kind is 'roman', expected one of text, letter, number"):
        task(answer_kind="roman")


def test_the_closest_ending_has_the_largest_share_of_known_words():
    rows = [
        row(["the cat", "the film", "a film"], None, "where"),
        row(["x", "where ?"], None, "where"),
        row(["x", "y"]),
    ]
    assert closest_ending([], np.zeros(0), rows, 3).tolist() == [1, 1, 0]
