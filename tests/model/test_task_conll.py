"""Files with a word in each line: how they are read, and that what is written differs only in the column of the tags."""

import gzip
import itertools
import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.tasks.data import Windowing
from model.tasks.formats import sentences
from model.tasks.formats.registry import format_of, read_records
from model.tasks.registry import TASKS, make_task
from model.tasks.rows import needed_columns, read_task
from model.tasks.values import BadRow

FORMS = make_task("tag", Windowing(max_seq_length=16, stride=None, max_windows=None))
CONLL_2003 = "-DOCSTART- -X- -X- O\n\nEU NNP B-NP B-ORG\nrejects VBZ B-VP O\n\nPeter NNP B-NP B-PER\n"
UD = """# newdoc
# sent_id = fr-1
1-2\tAu\t_\t_\t_\t_\t_\t_\t_\t_
1\tÀ\tà\tADP\tE\t_\t3\tcase\t_\t_
2\tle\tle\tDET\tD\t_\t3\tdet\t_\t_
3\tlac\tlac\tNOUN\tN\t_\t0\troot\t_\t_
3.1\tva\taller\tVERB\tV\t_\t_\t_\t0:root\t_

# text = Oui
1\tOui\toui\tINTJ\tI\t_\t0\troot\t_\t_

"""


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def rows_of(path: Path, **columns: str) -> list[tuple[str, list[str], list[str]]]:
    """Place, words and tags of each row that `finetune` would read."""
    rows, _ = read_task(path, FORMS.forms(True), FORMS.parse, columns, "stop")
    return [(row.place, row.tokens, row.tags) for row in rows]


def written(path: Path, answers: list[list[str] | None], **columns: str) -> bytes:
    """The file with these tags; None for a sentence that cannot be used."""
    form = format_of(path, needed_columns(FORMS.forms(False), columns))
    return b"".join(form.write(path, columns, [{"tags": row} if row else BadRow("no") for row in answers]))


def test_the_first_column_is_the_word_and_the_last_one_the_tag(tmp_path):
    path = write(tmp_path / "x.conll", CONLL_2003)
    assert rows_of(path) == [
        ("lines 3 to 4", ["EU", "rejects"], ["B-ORG", "O"]),
        ("line 6", ["Peter"], ["B-PER"]),
    ]
    assert rows_of(path, tags="1")[0][2] == ["NNP", "VBZ"]
    assert rows_of(path, tokens="1", tags="2")[1] == ("line 6", ["NNP"], ["B-NP"])


def test_a_character_in_each_line_is_a_word(tmp_path):
    path = write(tmp_path / "x.bmes", "北 B-LOC\n京 E-LOC\n\u3000 O\n\n我 S-PER\n")
    assert rows_of(path) == [
        ("lines 1 to 3", ["北", "京", "\u3000"], ["B-LOC", "E-LOC", "O"]),
        ("line 5", ["我"], ["S-PER"]),
    ]


def test_white_space_between_sentences_comments_and_the_ends_of_lines_do_not_matter(tmp_path):
    lines = ["", "# sent_id = 7", "#begin document (x)", "# O", "New York\tB-LOC", "#\tO", "", " \t", "#1\tO", ""]
    expected = [("lines 5 to 6", ["New York", "#"], ["B-LOC", "O"]), ("line 9", ["#1"], ["O"])]
    for number, (end, codec) in enumerate(itertools.product(["\n", "\r\n", "\r"], ["utf-8", "utf-8-sig", "utf-16"])):
        path = write(tmp_path / f"{number}.bio.gz", gzip.compress(end.join(lines).encode(codec)))
        assert rows_of(path) == expected, (end, codec)


def test_a_sign_that_begins_comments_can_be_a_word(tmp_path):
    path = write(tmp_path / "x.conll", "# sent_id = 1\n# O\nten O\n\n# O\n")
    assert rows_of(path) == [("lines 2 to 3", ["#", "ten"], ["O", "O"]), ("line 5", ["#"], ["O"])]


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("x.conll", "EU O\nrejects\n", "line 2: has 1 column, line 1 has 2: expected as many, or a blank line"),
        ("x.conll", "EU O\n\nNew York O\n", "line 3: has 3 columns, line 1 has 2"),
        (
            "x.conll",
            "EU O\nU.S.\tO\n",
            "line 2: has columns separated by tabs, line 1 by spaces: use one of them",
        ),
        ("x.conll", "EU\tO\n\nU.S. O\n", "line 3: has columns separated by spaces, line 1 by tabs"),
        ("x.conll", "EU\tO\nU.S.\t\n", "lines 1 to 2: a tag is empty"),
        ("x.conll", b"EU O\n\ncaf\xe9 O\n", "line 3: a token is not valid UTF-8"),
        ("x.conll", "EU\nrejects\n", "has no column for tags: expected tags or ner_tags, its columns are tokens, 0"),
        ("x.conll", "1\tEU\tO\n2\t.\tO\n", "x.conll: lines 1 to 2: column 0 numbers the words: name the columns"),
        (
            "x.conll",
            "a b c d\n" * 9,
            "line 1: begins a sentence of more than 8 words or 1,048,576 characters: expected",
        ),
        (
            "x.conll",
            "a " * 101 + "\n",
            "line 1 has 101 columns, expected at most 100: is it a file with a word in each",
        ),
        ("x.conll", "\n-DOCSTART-\n# one\n", "x.conll has no rows"),
        ("x.conllu", "1\tEU\n", "line 1: has 2 columns, expected 10 separated by tabs, a comment or a blank line"),
        ("x.conllu", "1 EU _ X _ _ _ _ _ _\n", "line 1: has 10 columns separated by spaces, expected 10 separated by"),
        ("x.conllu", "x" + "\tx" * 9, "line 1: has the ID 'x', expected 1, 1-2 or 1.1"),
        ("x.conllup", "# global.columns = ID FORM\n1\ta\tb\n", "line 2: has 3 columns, expected 2 separated by tabs"),
        ("x.conllup", "# global.columns = ID ID\n", "x.conllup: line 1 names a column twice, or more than 100"),
        ("x.conllup", "# global.columns = ID FORM\n1\ta\n", "has no column for tags: expected tags or ner_tags, its"),
        ("x.conllu", "1" + "\t_" * 9, 'line 1: tags has "_", which means that the part of speech of a word is not'),
    ],
)
def test_an_unusable_line_is_named_with_what_was_expected(tmp_path, monkeypatch, name, content, message):
    monkeypatch.setattr(sentences, "MAX_WORDS", 8)
    with pytest.raises(ValueError, match=re.escape(message)):
        rows_of(write(tmp_path / name, content))


def test_other_sentences_are_used_if_unusable_ones_are_skipped(tmp_path):
    path = write(tmp_path / "x.conll", "EU O\nrejects\nit O\n\nPeter B-PER\n")
    rows, rejected = read_task(path, FORMS.forms(True), FORMS.parse, {}, "skip")
    assert [row.tokens for row in rows] == [["Peter"]] and [bad.place for bad in rejected] == ["line 2"]
    assert written(path, [None, ["O"]]) == b"EU O\nrejects\nit O\n\nPeter O\n"


def test_a_sentence_without_end_is_not_held(tmp_path, monkeypatch):
    monkeypatch.setattr(sentences, "MAX_CHARACTERS", 50)
    path = write(tmp_path / "x.conll", "word O\n" * 1000 + "\nEU O\n")
    (place, bad), (_, values) = read_records(path, ["tokens"])
    assert place == "line 1" and "more than 4,096 words or 50 characters" in str(bad) and values["tokens"] == ["EU"]
    assert written(path, [None, ["X"]]) == b"word O\n" * 1000 + b"\nEU X\n"


def test_a_pipe_is_refused(tmp_path):
    os.mkfifo(tmp_path / "x.conll")
    with pytest.raises(ValueError, match="x.conll is not a regular file"):
        list(read_records(tmp_path / "x.conll", ["tokens"]))


def test_conllu_has_a_form_and_a_part_of_speech_for_each_word(tmp_path):
    path = write(tmp_path / "x.conllu", UD)
    assert rows_of(path) == [
        ("lines 4 to 6", ["À", "le", "lac"], ["ADP", "DET", "NOUN"]),
        ("line 10", ["Oui"], ["INTJ"]),
    ]
    assert rows_of(path, tags="XPOS", tokens="LEMMA")[0][1:] == (["à", "le", "lac"], ["E", "D", "N"])
    assert [values["id"] for _, values in read_records(path, ["tokens"])] == ["fr-1", None]


def test_the_first_line_of_conllu_plus_names_the_columns(tmp_path):
    text = "# global.columns = NE FORM UPOS ID\nB-PER\tAnna\tPROPN\t1\n_\tx\t_\t2-3\nO\tis\tAUX\t2\n"
    path = write(tmp_path / "x.conllup", text)
    assert rows_of(path, tags="NE") == [("lines 2 to 4", ["Anna", "is"], ["B-PER", "O"])]
    assert written(path, [["X", "Y"]]) == text.replace("PROPN", "X").replace("AUX", "Y").encode()
    bare = write(tmp_path / "x.cupt", "# global.columns = FORM UPOS\n.\tPUNCT\n")
    assert rows_of(bare) == [("line 2", ["."], ["PUNCT"])] and written(bare, [["X"]]).endswith(b"\n.\tX\n")


def test_predictions_replace_the_column_of_the_tags_or_are_a_new_column(tmp_path):
    path = write(tmp_path / "x.conll", "# 1 \r\nEU NNP O \r\n")
    assert written(path, [["B-ORG"]]) == b"# 1 \r\nEU NNP B-ORG \r\n"
    assert written(path, [["X"]], tags="1") == b"# 1 \r\nEU X O \r\n"
    assert written(path, [["B-ORG"]], tags="3") == b"# 1 \r\nEU NNP O B-ORG \r\n"
    bare = write(tmp_path / "bare.conll", "北\n京\n\n好")
    assert written(bare, [["B", "I"], ["O"]]) == "北\tB\n京\tI\n\n好\tO".encode()
    empty = write(tmp_path / "empty.conll", "EU\t\nU.S.\tO\n")
    assert written(empty, [["A", "B"]]) == b"EU\tA\nU.S.\tB\n"


def test_predictions_of_conllu_replace_the_parts_of_speech_of_words(tmp_path):
    path = write(tmp_path / "x.conllu", UD)
    expected = UD.replace("\tADP\t", "\tX\t").replace("\tDET\t", "\tY\t").replace("\tNOUN\t", "\tZ\t")
    assert written(path, [["X", "Y", "Z"], ["INTJ"]]) == expected.encode()
    assert written(path, [["E", "D", "A"], ["I"]], tags="XPOS") == UD.replace("\tN\t", "\tA\t").encode()


@pytest.mark.parametrize("name, tags", [("x.conll", "4"), ("x.conll", "0"), ("x.conllu", "POS"), ("x.conllu", "ID")])
def test_a_column_that_cannot_be_written_is_named(tmp_path, name, tags):
    path = write(tmp_path / name, UD if name.endswith("u") else "EU NNP O\n")
    with pytest.raises(ValueError, match=f"--columns tags={tags}: expected"):
        written(path, [["O"]], tags=tags)


def test_a_file_that_changes_between_reading_and_writing_is_refused(tmp_path):
    path = write(tmp_path / "x.conll", "EU O\n. O\n\nPeter O\n")
    for tags in ([["O", "O"]], [["O"], ["O"]], [["O", "O", "O"], ["O"]], [["O", "O"], ["O"], ["O"]]):
        with pytest.raises(ValueError, match="was changed while it was read"):
            written(path, tags)


@pytest.mark.parametrize(
    "content, columns, is_conll",
    [
        ("EU B-ORG\nrejects O\n\nPeter B-PER\n", {}, True),
        ("北\tB\n京\tI\n", {}, True),
        ("It is\nso good\n", {}, False),
        ("EU NNP\nrejects VBZ\n", {}, False),
        ("EU NNP\nrejects VBZ\n", {"tokens": "0"}, True),
        ("北\n京\n", {}, False),
        ("北\n京\n", {"tokens": "0"}, True),
        ("EU O\nIt is B\nO\n", {}, False),
        ("\n", {}, False),
    ],
)
def test_a_txt_file_to_predict_has_words_or_texts(tmp_path, content, columns, is_conll):
    path = write(tmp_path / "x.txt", content)
    needed = needed_columns(FORMS.forms(False), columns)
    assert (format_of(path, needed).write is not None) == is_conll
    assert format_of(path, needed_columns(FORMS.forms(True), {})).write is not None, "texts have no tags to learn"
    for task in set(TASKS) - {"tag"}:
        other = make_task(task, FORMS.windowing)
        for labelled in (False, True):
            assert format_of(path, needed_columns(other.forms(labelled), {})).write is None, "other tasks read texts"


CHARACTERS = st.characters(exclude_categories=["Cc", "Cs"], exclude_characters="\ufeff ")
WORDS = st.text(CHARACTERS, min_size=1, max_size=4).filter(lambda word: word not in ("#", "=", "-DOCSTART-"))
OTHERS = st.sampled_from(["", " ", "-DOCSTART- -X- O", "-DOCSTART-"])
COMMENTS = st.sampled_from(
    ["# sent_id = 9", "# text = a\u2028b", "#begin document", "# one two three four five six seven"]
)


@st.composite
def conll_files(draw):
    """The bytes of a file, its rows, the index of the column of tags, and the number of columns."""
    separator = draw(st.sampled_from(["\t", " ", "   "]))
    width = draw(st.integers(2, 5))
    column = draw(st.integers(1, width - 1))
    end = draw(st.sampled_from(["\n", "\r\n", "\r"]))
    lines, rows = [], []
    for words in draw(st.lists(st.lists(st.lists(WORDS, min_size=width, max_size=width), min_size=1, max_size=4))):
        lines += draw(st.lists(OTHERS, min_size=1, max_size=2)) + draw(st.lists(COMMENTS, max_size=2))
        lines += [separator.join(columns) + (" " if separator != "\t" else "") for columns in words]
        rows.append([(columns[0], columns[column]) for columns in words])
    codec = draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]))
    return (end.join(lines) + draw(st.sampled_from(["", end]))).encode(codec), rows, column, width


@given(conll_files())
def test_gold_tags_give_the_same_bytes_and_other_tags_change_nothing_else(tmp_path_factory, file):
    content, rows, column, width = file
    path = write(tmp_path_factory.getbasetemp() / "generated.conll", content)
    columns = {"tokens": "0", "tags": str(column)}
    names = needed_columns(FORMS.forms(True), columns)
    found = [values for _, values in read_records(path, names)]
    assert [list(zip(row["0"], row[str(column)])) for row in found] == rows
    assert written(path, [row[str(column)] for row in found], **columns) == content
    if column == width - 1:
        assert [row["tags"] for row in found] == [row[str(column)] for row in found]
        assert written(path, [row["tags"] for row in found]) == content
    changed = [[f"X{number}" for number in range(len(row))] for row in rows]
    other = write(tmp_path_factory.getbasetemp() / "changed.conll", written(path, changed, **columns))
    assert [row[str(column)] for _, row in read_records(other, names)] == changed
    assert written(other, [row[str(column)] for row in found], **columns) == content


@st.composite
def conllu_files(draw):
    """The bytes of a file, and its rows of forms and parts of speech."""
    lines, rows = [], []
    field = st.text(CHARACTERS | st.just(" "), min_size=1, max_size=3)
    for words in draw(st.lists(st.lists(st.lists(field, min_size=9, max_size=9), min_size=1, max_size=4))):
        lines += draw(st.lists(COMMENTS, max_size=2))
        for number, columns in enumerate(words, 1):
            lines += draw(st.sampled_from([[], [f"{number}-{number + 1}" + "\t_" * 9]]))
            lines.append("\t".join([str(number), *columns]))
            lines += draw(st.sampled_from([[], [f"{number}.1" + "\tx" * 9]]))
        lines.append("")
        rows.append([(columns[0], columns[2]) for columns in words])
    return "\n".join(lines).encode(), rows


@given(conllu_files())
def test_gold_parts_of_speech_give_the_same_bytes(tmp_path_factory, file):
    content, rows = file
    path = write(tmp_path_factory.getbasetemp() / "generated.conllu", content)
    found = [values for _, values in read_records(path, ["FORM", "XPOS", "tokens"])]
    assert [row["FORM"] for row in found] == [row["tokens"] for row in found]
    assert [row["FORM"] for row in found] == [[form for form, _ in row] for row in rows]
    assert written(path, [[tag for _, tag in row] for row in rows]) == content
