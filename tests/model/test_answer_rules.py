import pytest

from model.tasks.answer_rules import rules_for, scores

# predicted, true answers, (exact match, F1), as SQuAD 2.0's evaluate-v2.0.py gives them
SQUAD = [
    ("the Eiffel Tower!", ["Eiffel tower"], (1, 1)),
    ("in  Paris", ["Paris"], (0, 2 / 3)),
    ("Paris, France", ["London", "Paris"], (0, 2 / 3)),
    ("a b b", ["b b b"], (0, 4 / 5)),  # the article a goes
    ("rome", ["Paris"], (0, 0)),
    ("", [], (1, 1)),
    ("something", [], (0, 0)),
    ("", ["Paris"], (0, 0)),
    ("U.S.", ["US"], (1, 1)),
    ("the", ["an"], (1, 1)),
]
# as cmrc2018_evaluate.py gives them
CMRC = [
    ("北京", ["北京"], (1, 1)),
    ("“北京”。", ["北京"], (1, 1)),
    ("北京市", ["北京"], (0, 4 / 5)),
    ("上海和北京", ["北京和上海"], (0, 2 * 2 / 10)),  # the longest common run is 北京 or 上海
    ("广州", ["北京", "广州市"], (0, 4 / 5)),
    ("第1,000届 NBA", ["第1,000届NBA"], (0, 1)),  # exact match keeps spaces
    ("iPhone 4手机", ["IPHONE 4"], (0, 2 * 2 / 6)),
    ("纽约", ["北京"], (0, 0)),
    ("", ["北京"], (0, 0)),
]


@pytest.mark.parametrize("predicted, true, expected", SQUAD)
def test_words_are_measured_as_by_squads_script(predicted, true, expected):
    assert scores(predicted, true, "words") == pytest.approx(expected)


@pytest.mark.parametrize("predicted, true, expected", CMRC)
def test_chinese_is_measured_as_by_cmrcs_script(predicted, true, expected):
    assert scores(predicted, true, "characters") == pytest.approx(expected)


def test_the_rules_follow_what_answers_are_written_in():
    assert rules_for(["北京", "1949年10月", "NBA"]) == "characters"
    assert rules_for(["Beijing (北京)", "in 1949"]) == "words"
