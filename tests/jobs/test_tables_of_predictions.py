"""`predict` writes a .csv or .tsv file back with its answers in columns, if --out has the same ending."""

import csv
import io
import os
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.finetune import finetune
from jobs.predict import main
from model.inference.predict import load
from model.tasks.formats.registry import format_of, read_records
from model.tasks.values import BadRow, Parts
from tests.jobs.small_finetune import config
from tests.model.small_task import label_rows, write_jsonl


@pytest.fixture(scope="module")
def tuned(encoder, task_files, tmp_path_factory):
    """A function that returns a model for a task after a step or two."""
    folder = tmp_path_factory.mktemp("tuned")

    def make(task: str, **changes) -> Path:
        out = folder / f"{task}-{len(list(folder.iterdir()))}"
        finetune(config(encoder, task_files, out, task, num_epochs=0.3, **changes))
        return out

    return make


def written(model: Path, rows: Path, *words: str) -> str:
    out = rows.with_name(f"out{rows.suffix}")
    main(["--model", str(model), "--input", str(rows), "--out", str(out), "--overwrite", "--device", "cpu", *words])
    return out.read_bytes().decode()


def test_labels_in_columns_are_filled_in_beside_what_the_file_has(tuned, tmp_path):
    labels = ("good", "中")
    marks = [{"text": row["text"]} | {label: int(label in row["labels"]) for label in labels} for row in label_rows(60)]
    rows = write_jsonl(tmp_path / "rows.jsonl", marks)
    model = tuned("multilabel", train=rows, dev=rows)
    (tmp_path / "new.csv").write_bytes('n,text,good\r\n1,"good, ""film""",?\r\n\r\n2,中\r\n3,"two\r\nlines",?'.encode())
    first, second = load(model, "cpu").predict(['good, "film"', "two\r\nlines"])
    assert written(model, tmp_path / "new.csv", "--on-bad-row", "skip") == (
        f'n,text,good,中\r\n1,"good, ""film""",{first["good"]},{first["中"]}\r\n\r\n2,中\r\n'
        f'3,"two\r\nlines",{second["good"]},{second["中"]}'
    )


@pytest.mark.parametrize(
    "task, changes, header, words, expected",
    [
        ("classify", {}, "text", [], "text\tlabel"),
        ("classify", {}, "text\tscore", [], "text\tscore"),
        ("classify", {}, "text\tlabel", ["--columns", "label=found"], "text\tlabel\tfound"),
        ("regress", {}, "sentence", [], "sentence\tlabel"),
        ("multilabel", {}, "text", [], "text\tlabels"),
        ("tag", {}, "text", [], "text\ttokens\ttags"),
    ],
)
def test_one_column_is_filled_in_by_name(task, changes, header, words, expected, tuned, tmp_path):
    num_columns = header.count("\t") + 1
    (tmp_path / "new.tsv").write_text(f"{header}\n" + "\t".join(["good film", "?"][:num_columns]) + "\n")
    model = tuned(task)
    found = written(model, tmp_path / "new.tsv", *words).splitlines()
    assert found[0] == expected and found[1].startswith("good film\t")
    answer = load(model, "cpu").predict(["good film"])[0]
    cell = {"classify": answer.get("label"), "regress": str(answer.get("value"))}.get(task, found[1].split("\t")[-1])
    assert found[1].split("\t")[-1] == cell
    if task == "multilabel":
        assert cell.startswith("[") and list(read_records(tmp_path / "out.tsv", {"labels"}))
    if task == "tag":
        assert found[1].split("\t")[1:] == ["good film", " ".join(answer["tags"])]


def test_choices_are_filled_in_and_other_endings_of_out_give_json(tuned, tmp_path):
    model = tuned("choice")
    (tmp_path / "new.csv").write_text("sent1;ending0;ending1;label\nthe film;good;bad;\n")
    expected = load(model, "cpu").predict([("the film", ["good", "bad"])])[0]
    assert (
        written(model, tmp_path / "new.csv") == f"sent1;ending0;ending1;label\nthe film;good;bad;{expected['answer']}\n"
    )
    for name in ("out", "out.jsonl", "out.tsv"):
        words = ["--model", str(model), "--input", str(tmp_path / "new.csv"), "--out", str(tmp_path / name)]
        main([*words, "--device", "cpu"])
        assert '"probabilities"' in (tmp_path / name).read_text()


def test_a_file_without_a_usable_row_and_a_pipe_are_refused(tuned, tmp_path):
    model = tuned("classify")
    (tmp_path / "new.csv").write_text("text\n")
    with pytest.raises(ValueError, match="new.csv has no rows"):
        written(model, tmp_path / "new.csv")
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(ValueError, match="pipe.csv is not a regular file"):
        written(model, tmp_path / "pipe.csv")
    assert not (tmp_path / "out.csv").exists()


@settings(deadline=None)
@given(
    st.lists(st.lists(st.text(alphabet='ab,;"\n\r\t中', max_size=6), min_size=2, max_size=2), max_size=6),
    st.sampled_from([",", ";"]),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
)
def test_a_table_that_is_written_back_has_the_same_cells_and_one_more(tmp_path_factory, rows, delimiter, end, codec):
    path = tmp_path_factory.mktemp("tables") / "x.csv"
    file = io.StringIO()
    writer = csv.writer(file, delimiter=delimiter, lineterminator=end, quoting=csv.QUOTE_ALL)
    file.write(f"a{delimiter}b{end}")
    writer.writerows(rows)
    path.write_bytes(file.getvalue().encode(codec))
    write = format_of(path, {"a", "b"}).write
    assert write is not None
    answers = [{"label": f"{number},\n"} for number in range(len(rows))]
    content = b"".join(write(path, {}, answers))
    path.write_bytes(content)
    names = ["a", "b", *(["label"] if rows else [])]
    assert content.decode(codec).startswith(delimiter.join(names) + end)
    expected = [dict(zip(names, [*row, f"{number},\n"])) for number, row in enumerate(rows)]
    assert [values for _, values in read_records(path, {"a", "b", "label"})] == expected


def test_unusable_records_stay_as_they_are_and_a_changed_file_is_an_error(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text('text\n"one" x\ntwo\n"three\nfour\n')
    write = format_of(path, {"text"}).write
    assert write is not None
    answers = [BadRow("wrong quotes"), {"labels": Parts(a=1)}, BadRow("wrong quotes")]
    assert b"".join(write(path, {}, answers)) == b'text,a\n"one" x\ntwo,1\n"three\nfour\n'
    for other in ([*answers, BadRow("more")], answers[:2], [{"label": "a"}] * 3):
        with pytest.raises(ValueError, match=re.escape(f"{path} was changed while it was read: start again")):
            list(write(path, {}, other))
    path = path.rename(tmp_path / "x.tsv")
    path.write_text("text\none\n")
    write = format_of(path, {"text"}).write
    assert write is not None
    with pytest.raises(
        ValueError, match=r"x.tsv: the answer 'a\\tb' does not fit into a file without quotes: give --out"
    ):
        list(write(path, {}, [{"label": "a\tb"}]))
    path.write_bytes(b"text\na\rb\n")
    assert b"".join(write(path, {}, [{"label": "c"}])) == b"text\tlabel\na\rb\tc\n"
