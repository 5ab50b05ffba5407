import gzip
import json
import os
import re
from io import BufferedReader, BytesIO
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from model.tasks.columns import Column
from model.tasks.formats.json_lines import json_lines
from model.tasks.formats.registry import read_records
from model.tasks.rows import find_columns, needed_columns, read_rows, read_task
from model.tasks.values import BadRow, Parts

FORM = [["text", "label"]]

COLUMNS = ("text", "label")


def parse(place, values):
    if values["text"] == "bad":
        raise BadRow("text is bad")
    return place, values["text"], values["label"]


def records(*lines: bytes):
    return json_lines(Path("x"), BufferedReader(BytesIO(b"\n".join(lines))))


def good_and_bad(path: Path) -> tuple[list, list]:
    records = list(read_records(path, COLUMNS))
    bad = [(place, str(values)) for place, values in records if isinstance(values, BadRow)]
    return [(place, values) for place, values in records if not isinstance(values, BadRow)], bad


def test_the_same_rows_come_from_every_format(tmp_path):
    rows = [{"text": "eins, „zwei“", "label": "a"}, {"text": '"quoted" 中文', "label": "b"}]
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(row) + "\n\n" for row in rows))
    (tmp_path / "x.json").write_text(json.dumps(rows))
    (tmp_path / "x.csv").write_text('text,label\n"eins, „zwei“",a\n"""quoted"" 中文",b\n')
    (tmp_path / "x.tsv").write_text('\ufefftext\tlabel\r\neins, „zwei“\ta\r\n"quoted" 中文\tb\r\n')
    (tmp_path / "x.tsv.gz").write_bytes(gzip.compress((tmp_path / "x.tsv").read_bytes()))
    table = pa.Table.from_pylist(rows)
    pq.write_table(table, tmp_path / "x.parquet")
    with pa.OSFile(str(tmp_path / "x.arrow"), "wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
        stream.write(table)
    with pa.OSFile(str(tmp_path / "X.ARROW"), "wb") as file, pa.ipc.new_file(file, table.schema) as whole:
        whole.write(table)
    places = {
        "x.arrow": ["row 1", "row 2"],
        "X.ARROW": ["row 1", "row 2"],
        "x.jsonl": ["line 1", "line 3"],
        "x.json": ["item 1", "item 2"],
        "x.csv": ["line 2", "line 3"],
        "x.tsv": ["line 2", "line 3"],
        "x.tsv.gz": ["line 2", "line 3"],
        "x.parquet": ["row 1", "row 2"],
    }
    for name, expected in places.items():
        assert list(read_records(tmp_path / name, COLUMNS)) == list(zip(expected, rows)), name


def test_a_byte_order_mark_may_precede_a_quoted_header(tmp_path):
    (tmp_path / "x.csv").write_text('\ufeff"text","label"\r\n"a, b","c"\r\n')
    assert list(read_records(tmp_path / "x.csv", COLUMNS)) == [("line 2", {"text": "a, b", "label": "c"})]


def test_a_quote_in_a_tsv_file_has_no_meaning(tmp_path):
    (tmp_path / "x.tsv").write_text('text\tlabel\n"never closed\ta\nnext\tb\n')
    good, bad = good_and_bad(tmp_path / "x.tsv")
    assert [values["text"] for _, values in good] == ['"never closed', "next"] and not bad


def test_wrong_quotes_in_a_csv_file_are_reported_with_the_lines_they_affect(tmp_path):
    (tmp_path / "x.csv").write_text(
        'text,label\none,a\n"open,b\nthree,c\n"four" x,d\nfive,e\n"never closed,f\ngone,g\n'
    )
    good, bad = good_and_bad(tmp_path / "x.csv")
    assert [values["text"] for _, values in good] == ["one", "five"]
    assert [place for place, _ in bad] == ["line 3", "line 7"]
    assert "up to line 5" in bad[0][1] and "up to line 8" in bad[1][1]


def test_a_record_of_a_csv_file_may_have_several_lines_and_is_named_by_its_first(tmp_path):
    (tmp_path / "x.csv").write_text('text,label\n"one\ntwo",a\nthree,b\n')
    good, _ = good_and_bad(tmp_path / "x.csv")
    assert good == [("line 2", {"text": "one\ntwo", "label": "a"}), ("line 4", {"text": "three", "label": "b"})]


def test_lines_that_are_not_rows_are_reported(tmp_path):
    (tmp_path / "x.jsonl").write_bytes(b'{"text": "a"}\n{"text": \n[1]\n{"text": "\xff"}\n')
    good, bad = good_and_bad(tmp_path / "x.jsonl")
    assert len(good) == 1 and [place for place, _ in bad] == ["line 2", "line 3", "line 4"]
    assert "is not JSON" in bad[0][1] and "expected a JSON object" in bad[1][1]
    assert "is not valid UTF-8: save the file in UTF-8" in bad[2][1]
    (tmp_path / "x.tsv").write_text("text\tlabel\na\na\tb\tc\n")
    assert [reason for _, reason in good_and_bad(tmp_path / "x.tsv")[1]] == [
        "has 1 column, the header has 2",
        "has 3 columns, the header has 2",
    ]


def test_bytes_that_are_not_utf8_in_a_table_are_kept_for_the_parser_to_refuse(tmp_path):
    (tmp_path / "x.tsv").write_bytes(b"text\tlabel\ncaf\xe9\ta\n")
    assert list(read_records(tmp_path / "x.tsv", COLUMNS))[0][1]["text"] == "caf\udce9"


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("x.doc", b"", "unknown format: expected a name that ends in .jsonl .conll .bio .bmes .bioes .iob .iob2 .txt"),
        ("x.doc", b"", ".txt .conllu .conllup .cupt .csv .tsv .json .parquet .arrow"),
        ("x.parquet", b"PAR", "is not a Parquet file, or is damaged"),
        ("x.json", b'{"text": "a"}\n{"text": "b"}', "is not a single JSON value"),
        ("x.json", b'{"rows": []}', "expected a list of objects, or SQuAD's format"),
        ("x.jsonl.gz", b"no gzip", "is not a gzip file, or is damaged or truncated"),
        ("x.csv", b"text,text\na,b\n", "the header has a column twice: text, text"),
    ],
)
def test_files_that_cannot_be_read_are_refused(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(message)):
        list(read_records(tmp_path / name, COLUMNS))


def test_a_damaged_gz_file_is_reported(tmp_path):
    content = bytearray(gzip.compress(b'{"text": "a"}\n' * 50, mtime=0))
    content[12] ^= 0xFF  # in the compressed data
    (tmp_path / "x.jsonl.gz").write_bytes(content)
    with pytest.raises(ValueError, match="x.jsonl.gz is not a gzip file, or is damaged or truncated"):
        list(read_records(tmp_path / "x.jsonl.gz", COLUMNS))


def test_each_question_in_squads_format_is_a_row(tmp_path):
    paragraphs = [
        {"context": "one", "qas": [{"id": "1", "question": "a", "answers": []}, {"id": "2", "question": "b"}]},
        {"context": "two", "qas": [{"id": "1", "question": "c", "answers": [], "is_impossible": True}]},
        {"context": "", "qas": []},
    ]
    (tmp_path / "x.json").write_text(json.dumps({"version": "1.1", "data": [{"title": "t", "paragraphs": paragraphs}]}))
    records = list(read_records(tmp_path / "x.json", COLUMNS))
    assert [place for place, _ in records] == ["question 1 (id '1')", "question 2 (id '2')", "question 3 (id '1')"]
    assert records[1][1] == {"context": "one", "id": "2", "question": "b", "answers": None}
    assert str(records[2][1]) == "has the id of question 1"


def test_columns_are_recognised_or_given_by_name(tmp_path):
    path = Path("f.csv")
    assert find_columns(path, ["sentence1", "sentence2", "score"], [["text_a", "text_b", "label"]], {}) == {
        "text_a": "sentence1",
        "text_b": "sentence2",
        "label": "score",
    }
    assert find_columns(path, ["question", "sentence", "label"], [["text_a", "text_b"]], {}) == {
        "text_a": "question",
        "text_b": "sentence",
    }
    assert find_columns(path, ["review", "text", "label"], FORM, {"text": "review"})["text"] == "review"
    forms = [["text_a", "text_b", "label"], ["text", "label"]]
    assert find_columns(path, ["text", "label"], forms, {}) == {"text": "text", "label": "label"}
    for found, columns, message in (
        (
            ["id", "a", "b", "label"],
            {},
            "f.csv has no column for text: expected text or sentence, its columns are id, a, b",
        ),
        (["text"], {}, "has no column for label: expected label or score"),
        (["text", "label"], {"text": "review"}, "f.csv has no column 'review' for text: its columns are text, label"),
        (["text", "label"], {"txt": "text"}, "this task does not read 'txt': expected one of text, label"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            find_columns(path, found, FORM, columns)


ENDINGS = Column("endings", "endings", "options", parts=r"ending\d")


@pytest.mark.parametrize(
    "found, columns, place, values",
    [
        (["text", "options", "ending0"], {}, "options", 1),
        (["id", "text", "ending1", "other", "ending0"], {}, re.compile(r"ending\d"), Parts(ending1=2, ending0=4)),
        (["text", "ending0", "ending1", "a", "b"], {"endings": "b,a"}, ("b", "a"), Parts(b=4, a=3)),
        (["text", "a,b", "ending0"], {"endings": "a,b"}, "a,b", 1),
    ],
)
def test_several_columns_may_serve_one_purpose(found, columns, place, values):
    forms = [["text", ENDINGS]]
    assert find_columns(Path("x"), found, forms, columns)["endings"] == place
    record = {name: number for number, name in enumerate(found)}
    rows = list(read_rows(Path("x"), [("row 1", record)], forms, lambda place, values: values, columns))
    assert rows == [
        ("row 1", {"id": record.get("id"), "is_impossible": None, "text": record["text"], "endings": values})
    ]
    used = {"text", *(values if isinstance(values, Parts) else [place])}
    assert used <= {name for name in found if name in needed_columns(forms, columns)}


def test_columns_found_by_a_pattern_are_those_of_each_record():
    lines = [b'{"text": "a", "ending0": 1}', b'{"text": "b", "ending1": 2, "ending0": 3}', b'{"text": "c"}']
    rows = list(read_rows(Path("x"), records(*lines), [["text", ENDINGS]], lambda place, values: values["endings"], {}))
    assert rows == [("line 1", {"ending0": 1}), ("line 2", {"ending1": 2, "ending0": 3}), ("line 3", {})]
    needed = needed_columns([["text", ENDINGS]], {})
    assert [name in needed for name in ("sentence", "ending7", "ending", "id")] == [True, True, False, True]
    given = {"endings": "ending0,ending1"}
    rows = list(read_rows(Path("x"), records(*lines[1:]), [["text", ENDINGS]], lambda place, values: 0, given))
    assert rows[0] == ("line 1", 0) and str(rows[1][1]) == "has no 'ending0'"


def test_a_row_that_lacks_a_column_is_bad_and_extra_columns_are_not(tmp_path):
    lines = [b'{"text": "a", "label": 1, "id": 7}', b'{"text": "b"}', b'{"text": "c", "label": 2, "more": 3}']
    rows = list(read_rows(Path("x"), records(*lines), FORM, lambda place, values: values, {}))
    assert rows[0] == ("line 1", {"id": 7, "is_impossible": None, "text": "a", "label": 1})
    assert rows[1][0] == "line 2" and str(rows[1][1]) == "has no 'label'"
    assert rows[2][1]["text"] == "c"


def test_an_id_that_is_not_utf8_is_a_bad_row():
    lines = [b'{"text": "a", "label": 1, "id": "\\ud800"}', b'{"text": "b", "label": 1, "id": "\xe4\xb8\xad"}']
    rows = list(read_rows(Path("x"), records(*lines), FORM, lambda place, values: values, {}))
    assert str(rows[0][1]) == "id is not valid UTF-8" and rows[1][1]["id"] == "中"


def test_rows_before_the_first_that_has_the_columns_are_bad_rows():
    lines = [b"[]", b'{"id": 0}', b"{", b'{"text": "a", "label": 1}', b'{"id": 1}']
    rows = list(read_rows(Path("x"), records(*lines), FORM, parse, {}))
    assert [place for place, _ in rows] == [f"line {number}" for number in range(1, 6)]
    assert [isinstance(row, BadRow) for _, row in rows] == [True, True, True, False, True]
    assert str(rows[1][1]) == str(rows[4][1]) == "has no 'text'"


@pytest.mark.parametrize("number", [1, 3, 2000])
def test_if_no_row_has_the_columns_the_error_lists_those_of_the_first(number):
    seen = 0

    def counted():
        nonlocal seen
        for record in records(*(b'{"id": %d, "n%d": 0}' % (i, i) for i in range(number))):
            seen += 1
            yield record

    with pytest.raises(
        ValueError, match="x has no column for text: expected text or sentence, its columns are id, n0;"
    ):
        list(read_rows(Path("x"), counted(), FORM, parse, {}))
    assert seen <= 1000, "it does not read a whole file for that"


def test_bad_rows_raise_an_error_with_their_places_or_are_skipped_and_returned(tmp_path):
    path = tmp_path / "x.tsv"
    path.write_text("text\tlabel\na\t1\nbad\t1\n" + "short\n" * 6)
    with pytest.raises(ValueError) as error:
        read_task(path, FORM, parse, {}, "stop")
    assert str(error.value) == (
        f"{path}: 7 of 8 rows cannot be used: line 3: text is bad; line 4: has 1 column, the header has 2; line 5: has 1 "
        "column, the header has 2; line 6: has 1 column, the header has 2; line 7: has 1 column, the header has 2; and "
        "2 more: fix them, or skip them with --on-bad-row skip"
    )
    rows, rejected = read_task(path, FORM, parse, {}, "skip")
    assert rows == [("line 2", "a", "1")]
    assert len(rejected) == 7 and rejected[0] == (str(path), "line 3", "text is bad")


def test_a_file_without_usable_rows_is_refused_in_both_cases(tmp_path):
    path = tmp_path / "x.tsv"
    for content, message in (("text\tlabel\n", "has no rows"), ("text\tlabel\nbad\t1\n", "is it the right file?")):
        path.write_text(content)
        with pytest.raises(ValueError, match=re.escape(message)):
            read_task(path, FORM, parse, {}, "skip")


def test_a_field_longer_than_the_csv_modules_limit_is_read(tmp_path):
    (tmp_path / "x.csv").write_text("text,label\n" + "x" * 300_000 + ",a\n")
    assert len(list(read_records(tmp_path / "x.csv", COLUMNS))[0][1]["text"]) == 300_000


def test_a_pipe_is_refused_where_rows_are_read_again(tmp_path):
    os.mkfifo(tmp_path / "x.jsonl")
    with pytest.raises(ValueError, match="x.jsonl is not a regular file: devices, pipes and folders are not read"):
        read_task(tmp_path / "x.jsonl", FORM, parse, {}, "stop")
