import re
import sys
import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.tasks.data import Windowing
from model.tasks.registry import make_task
from model.tasks.tag import CHINESE, TagRow, joined_characters, words_in
from model.tasks.values import BadRow
from tests.model.small_task import VOCABULARY, small_tokenizer

TOKENIZER = small_tokenizer()
LABELS = ("B-LOC", "I-LOC", "O")


def task(length: int = 16, labels: tuple[str, ...] = LABELS, **changes):
    windowing = Windowing(**{"max_seq_length": length, "stride": None, "max_windows": None} | changes)
    return make_task("tag", windowing, labels)


def row(tokens: str, tags: str | None = None) -> TagRow:
    return task().parse("x", {"id": None, "tokens": tokens} | ({"tags": tags} if tags is not None else {}))


def one_hot(tags: str) -> np.ndarray:
    return np.eye(3)[[LABELS.index(tag) for tag in tags.split()]] * 9


def test_a_word_is_labelled_at_its_first_token():
    data = task().tokenize([row("anna's film", "O B-LOC")], TOKENIZER)
    tokens = [VOCABULARY[number] for number in data.input_ids]
    assert tokens == ["[CLS]", "anna", "'", "s", "film", "[SEP]"]
    assert [tokens[place] for place in data.positions] == ["anna", "film"] and data.labels.tolist() == [2, 0]


def test_each_word_is_predicted_once_in_the_window_with_most_context():
    words = "good bad film of paris is in the capital"
    labels = "O O O O B-LOC I-LOC O O O"
    data = task(6).tokenize([row(words, labels)], TOKENIZER)
    assert data.num_items == 4  # windows of four words, two words apart, the last one moved back
    read = []
    for item in range(data.num_items):
        batch = data.batch(np.array([item]))
        read += [VOCABULARY[number] for number in batch.input_ids[batch.positions]]
    assert read == words.split()
    assert [LABELS[number] for number in data.labels] == labels.split()


def test_a_word_without_tokens_still_gets_a_tag():
    data = task().tokenize([row("good \u0301 film", "O B-LOC O")], TOKENIZER)
    assert len(data.positions) == 3
    assert VOCABULARY[data.input_ids[data.positions[1]]] == "[UNK]"


@pytest.mark.parametrize(
    "values, reason",
    [
        ({"tokens": ["a", "b"], "tags": ["O"]}, "has 2 tokens and 1 tag"),
        ({"tokens": [], "tags": []}, "has no tokens"),
        (
            {"tokens": {"a": 1}, "tags": []},
            "tokens is {'a': 1}, expected a list of words, or",
        ),
        ({"tokens": ["a", None], "tags": ["O", "O"]}, "a token is None, expected a string"),
        ({"tokens": ["a"], "tags": ["\ud800"]}, "a tag is not valid UTF-8"),
        ({"tokens": ["a"], "tags": ["B-XYZ"]}, "label 'B-XYZ' is not one of the 3 labels: B-LOC, I-LOC, O"),
    ],
)
def test_unusable_rows_have_a_reason(values, reason):
    with pytest.raises(BadRow, match=re.escape(reason)):
        task().parse("x", {"id": None} | values)


def test_entities_are_measured_whole_and_other_tags_word_by_word():
    rows = [row("a b c", "B-LOC I-LOC O"), row("d e", "B-LOC O")]
    data = task().tokenize(rows, TOKENIZER)
    metrics = task().measure(rows, data, one_hot("B-LOC O O B-LOC O"))
    assert metrics == pytest.approx({"f1": 1 / 2, "precision": 1 / 2, "recall": 1 / 2, "accuracy": 4 / 5})
    speech = make_task("tag", task().windowing, ("NOUN", "VERB", "X"))
    assert task().metrics == ("f1", "precision", "recall", "accuracy") and speech.metrics == ("accuracy", "macro_f1")
    assert set(speech.measure(rows, data, one_hot("B-LOC O O B-LOC O"))) == {"accuracy", "macro_f1"}


def test_words_are_returned_with_tags_and_texts_with_the_places_of_entities():
    answer = task().answer([row("in paris")], None, one_hot("O B-LOC"), 1)[0]
    assert answer == {"tokens": ["in", "paris"], "tags": ["O", "B-LOC"], "probabilities": [0.999753, 0.999753]}
    text = task().parse("x", {"id": None, "text": "in 北京, 2008年"})
    assert text.tokens == ["in", "北", "京", ",", "2008", "年"]
    answer = task().answer([text], None, one_hot("O B-LOC I-LOC O O O"), 1)[0]
    assert answer["entities"] == [{"kind": "LOC", "start": 3, "end": 5}]


def test_a_limit_of_windows_is_refused():
    with pytest.raises(ValueError, match="every word gets a tag, so the whole text is read"):
        task(max_windows=1)


@pytest.mark.parametrize(
    "text, words",
    [
        ("राम दिल्ली में रहता है।", ["राम", "दिल्ली", "में", "रहता", "है", "।"]),
        ("שָׁלוֹם, עולם", ["שָׁלוֹם", ",", "עולם"]),
        ("مُحَمَّد", ["مُحَمَّد"]),
        ("தமிழ் மொழி", ["தமிழ்", "மொழி"]),
        ("می\u200cخواهم", ["می\u200cخواهم"]),
        ("co\u00adoperate", ["co\u00adoperate"]),
        ("cafe\u0301s, too", ["cafe\u0301s", ",", "too"]),
        ("か\u3099きく", ["か\u3099きく"]),
        ("葛\U000e0100城市", ["葛\U000e0100", "城", "市"]),
        ("ភាសា\u200bខ្មែរ", ["ភាសា", "ខ្មែរ"]),
        ("\u200eabc \u200e def", ["\u200eabc", "def"]),
        ("北京是2024年, don't 5€ x_y", ["北", "京", "是", "2024", "年", ",", "don", "'", "t", "5", "€", "x_y"]),
        ("カタカナと漢字。", ["カタカナと", "漢", "字", "。"]),
    ],
)
def test_marks_and_joiners_do_not_cut_a_word(text, words):
    row = task().parse("x", {"id": None, "text": text})
    assert row.tokens == words and [text[begin:end] for begin, end in row.places] == words


def test_all_marks_and_format_characters_are_known():
    """The twin looks at every character; the table looks only where there are any."""
    kinds = ("Mn", "Mc", "Me", "Cf")
    expected = {code for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code)) in kinds}
    assert {*joined_characters()} == expected - {0x200B}


@given(st.text(alphabet=st.characters(exclude_categories=["Mn", "Mc", "Me", "C"])))
def test_without_marks_the_words_are_runs_of_letters_chinese_characters_and_signs(text):
    twin = re.compile(rf"[{CHINESE}]|[^\W{CHINESE}]+|[^\w\s]")
    assert words_in(text) == [match.span() for match in twin.finditer(text)]
