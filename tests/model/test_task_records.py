"""Row files of other programs and people, and files that were made to break a reader."""

import gzip
import json
import re

import pytest

from model.tasks.formats import json_documents, text_files
from model.tasks.formats.registry import read_records
from model.tasks.rows import read_rows, read_task
from model.tasks.values import BadRow

ROWS = [{"text": "ein größerer Film", "label": "neg"}, {"text": "北京", "label": "pos"}]

COLUMNS = ("text", "label")


def rows_of(path) -> list[dict]:
    return [values for _, values in read_records(path, COLUMNS)]


@pytest.mark.parametrize("depth", [101, 100_000])
def test_a_line_that_is_nested_too_deeply_is_a_bad_row(tmp_path, depth):
    path = tmp_path / "x.jsonl"
    path.write_text('{"text": "a"}\n{"text": "b", "x": ' + "[" * depth + "]" * depth + '}\n{"text": "c"}\n')
    good, bad, last = rows_of(path)
    assert isinstance(bad, BadRow) and str(bad) == "is not JSON (it is nested in more than 100 levels)"
    assert (good, last) == ({"text": "a"}, {"text": "c"})


@pytest.mark.parametrize("content", ["[" * 100_000, "[" * 200 + "]" * 200])
def test_a_json_file_that_is_nested_too_deeply_is_refused(tmp_path, content):
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(ValueError, match="x.json is not a single JSON value .it is nested in more than 100 levels"):
        rows_of(tmp_path / "x.json")


@pytest.mark.parametrize(
    "name, content",
    [
        ("space.csv", 'text, label\n"ein größerer Film", "neg"\n"北京", "pos"\n'),
        ("space.csv", "text, label\nein größerer Film, neg\n北京, pos\n"),
        ("cr.csv", "text,label\rein größerer Film,neg\r北京,pos\r"),
        ("cr.tsv", "text\tlabel\rein größerer Film\tneg\r北京\tpos"),
        ("cr.jsonl", "\r".join(json.dumps(row) for row in ROWS)),
        ("unnamed.csv", ",text,label,,\n0,ein größerer Film,neg,,\n1,北京,pos,,\n"),
        ("semicolon.csv", 'text;label\n"ein größerer Film";neg\n北京;pos\n'),
        ("tabs.csv", "text\tlabel\nein größerer Film\tneg\n北京\tpos\n"),
        ("CAPITALS.CSV", "text,label\nein größerer Film,neg\n北京,pos\n"),
        ("CAPITALS.JSONL", "\n".join(json.dumps(row) for row in ROWS)),
    ],
)
@pytest.mark.parametrize("codec", ["utf-8", "utf-8-sig", "utf-16"])
def test_the_same_rows_come_from_files_of_other_programs(tmp_path, name, content, codec):
    (tmp_path / name).write_bytes(content.encode(codec))
    found = [{column: text.strip() for column, text in row.items()} for row in rows_of(tmp_path / name)]
    assert found == ROWS


def test_a_quote_inside_a_field_does_not_make_spaces_before_fields_vanish(tmp_path):
    (tmp_path / "x.csv").write_text('text,label\n"one, two","a"\n three,b\n')
    assert rows_of(tmp_path / "x.csv") == [{"text": "one, two", "label": "a"}, {"text": " three", "label": "b"}]


def test_a_line_of_a_txt_file_is_a_text(tmp_path):
    (tmp_path / "x.txt.gz").write_bytes(gzip.compress("one, two\r\n\n 北京\n".encode()))
    assert list(read_records(tmp_path / "x.txt.gz", COLUMNS)) == [
        ("line 1", {"text": "one, two"}),
        ("line 3", {"text": " 北京"}),
    ]


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("x.csv", "text,label\na,b\n".encode("utf-16-le"), "x.csv is not text in UTF-8, or is UTF-16 without a byte"),
        ("x.csv", "text,label\na,b\n".encode("utf-16")[:-1], "x.csv is damaged or truncated: 'utf-16.*' codec can't"),
        ("x.jsonl", b'{"text": "' + b"a" * 120 + b'"}\n', "x.jsonl: line 1 has more than 100 characters"),
        ("x.txt", b"a\n" + b"b" * 101, "x.txt: line 2 has more than 100 characters"),
        ("x.json", b"[1" + b" " * 2000 + b"]", "x.json has more than 1,000 bytes in one JSON value: write a line"),
        (
            "x.json.gz",
            gzip.compress(b"[1" + b" " * 2000 + b"]", mtime=0),
            "x.json.gz has more than 1,000 bytes in one JSON",
        ),
        ("x.json", b"7", "x.json is 7, expected a list of objects, or SQuAD's format"),
    ],
)
def test_a_file_without_usable_lines_is_refused_by_name(tmp_path, monkeypatch, name, content, message):
    monkeypatch.setattr(text_files, "MAX_CHARACTERS", 100)
    monkeypatch.setattr(json_documents, "MAX_BYTES", 1000)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        rows_of(tmp_path / name)


def test_a_quote_that_is_never_closed_takes_no_more_than_the_longest_field(tmp_path, monkeypatch):
    monkeypatch.setattr(text_files, "MAX_CHARACTERS", 100)
    (tmp_path / "x.csv").write_text('text,label\n"never closed,a\n' + "b,b\n" * 60)
    (place, bad), *rest = read_records(tmp_path / "x.csv", COLUMNS)
    assert place == "line 2" and "field larger than field limit (100)" in str(bad) and len(rest) > 10


def test_a_missing_file_and_a_folder_are_refused_at_once(tmp_path):
    with pytest.raises(ValueError, match=re.escape(f"{tmp_path}/x.parquet: no such file")):
        read_records(tmp_path / "x.parquet", COLUMNS)
    (tmp_path / "x.jsonl").mkdir()
    with pytest.raises(ValueError, match="x.jsonl is a folder: give a file of rows"):
        read_records(tmp_path / "x.jsonl", COLUMNS)


def test_a_table_without_a_header_is_refused_with_advice(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("a film " * 20 + ",neg\nanother,pos\n")
    with pytest.raises(ValueError) as error:
        read_task(path, [["text", "label"]], lambda place, values: values, {}, "stop")
    assert str(error.value).endswith(
        f"its columns are {'a film ' * 5}a fil, neg; is it a file for this task? If so, name the column: --columns "
        f"text=NAME. If the first line is a row, add one above it with the names of the columns"
    )


def test_an_id_that_holds_what_is_not_utf8_is_a_bad_row(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"text": "a", "id": ["\\ud800"]}\n{"text": "a", "id": [7]}\n')
    found = list(
        read_rows(
            tmp_path, read_records(tmp_path / "x.jsonl", COLUMNS), [["text"]], lambda place, values: values["id"], {}
        )
    )
    assert [str(row) for _, row in found] == ["id is not valid UTF-8", "[7]"]
