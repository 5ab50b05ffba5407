import io
import json
import re
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.cli import main as cli
from jobs.finetune import FinetuneConfig, finetune
from jobs.predict import PredictConfig, main
from model.inference.predict import load
from tests.model.small_task import ROWS, sentiment_rows, write_jsonl


@pytest.fixture(scope="module")
def tuned(encoder, tmp_path_factory) -> dict[str, Path]:
    """A model for each of three tasks, after a step or two."""
    folder = tmp_path_factory.mktemp("tuned")
    for task in ("classify", "tag", "span"):
        rows = write_jsonl(folder / f"{task}.jsonl", ROWS[task](20))
        finetune(
            FinetuneConfig(
                task=task, model=encoder, train=rows, dev=rows, out=folder / task, device="cpu", num_epochs=1.0
            )
        )
    return {task: folder / task for task in ("classify", "tag", "span")}


def predicted(*words: object) -> list[dict]:
    """What the command writes to a file."""
    out = Path(str(words[words.index("--out") + 1]))
    main([*map(str, words), "--device", "cpu"])
    return [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]


def test_every_format_gives_the_same_answers_in_the_order_of_the_rows(tuned, tmp_path):
    rows = [{"id": number, "text": row["text"]} for number, row in enumerate(sentiment_rows(2100))]
    write_jsonl(tmp_path / "x.jsonl", rows)
    table = pa.Table.from_pylist(rows)
    pq.write_table(table, tmp_path / "x.parquet")
    (tmp_path / "x.tsv").write_text("id\treview\n" + "".join(f"{row['id']}\t{row['text']}\n" for row in rows))
    expected = load(tuned["classify"], "cpu").predict(rows)
    out = tmp_path / "out.jsonl"
    assert predicted("--model", tuned["classify"], "--input", tmp_path / "x.jsonl", "--out", out) == expected
    assert [answer["id"] for answer in expected] == list(range(2100))
    words = ["--model", tuned["classify"], "--input", tmp_path / "x.parquet", "--out", out]
    with pytest.raises(ValueError, match="out.jsonl exists: give another file, or --overwrite to replace it"):
        predicted(*words)
    assert predicted(*words, "--overwrite") == expected
    found = predicted(
        "--model", tuned["classify"], "--input", tmp_path / "x.tsv", "--out", tmp_path / "t", "--columns", "text=review"
    )
    assert found == [answer | {"id": str(answer["id"])} for answer in expected]


def test_the_model_directory_and_labelled_rows_work_too(tuned, tmp_path):
    rows = write_jsonl(tmp_path / "x.jsonl", sentiment_rows(5))
    out = tmp_path / "out.jsonl"
    found = predicted("--model", tuned["classify"] / "model", "--input", rows, "--out", out, "--top-k", "1")
    assert [list(answer["probabilities"]) for answer in found] == [[answer["label"]] for answer in found]


def test_rows_stream_from_standard_input_to_standard_output(tuned):
    """The first answers come before the input has ended, so its size does not matter."""
    code = "import sys, jobs.predict as p, jobs.support.texts as t; t.ROWS_AT_ONCE = 4; p.main(sys.argv[1:])"
    command = [sys.executable, "-c", code, "--model", str(tuned["classify"]), "--input", "-", "--device", "cpu"]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdin and process.stdout
    for _ in range(4):
        process.stdin.write('{"text": "a good film"}\n')
    process.stdin.flush()
    first = [json.loads(process.stdout.readline()) for _ in range(4)]
    process.stdin.write('{"text": "a bad film"}\n')
    rest, _ = process.communicate()
    assert process.returncode == 0 and len(rest.splitlines()) == 1 and "label" in first[0]


def test_a_bad_row_stops_the_command_or_gives_an_error_line(tuned, tmp_path, capsys):
    path = write_jsonl(tmp_path / "x.jsonl", [{"text": "good"}, {"text": " "}, {"text": "bad"}])
    out = tmp_path / "out.jsonl"
    with pytest.raises(ValueError, match=re.escape(f"{path}: line 2: text is empty: fix it, or skip such rows")):
        predicted("--model", tuned["classify"], "--input", path, "--out", out)
    assert list(tmp_path.iterdir()) == [path], "nothing is left of a broken output"
    found = predicted("--model", tuned["classify"], "--input", path, "--out", out, "--on-bad-row", "skip")
    assert found[1] == {"error": "line 2: text is empty"} and "label" in found[0] and "label" in found[2]
    assert "1 of 3 rows could not be used: the output gives the reasons" in capsys.readouterr().err


def test_ids_without_a_json_type_are_written_as_strings(tuned, tmp_path):
    when = datetime(2024, 5, 6, 7, 8, 9)
    pq.write_table(pa.table({"id": [when, None], "text": ["good", "bad"]}), tmp_path / "x.parquet")
    found = predicted("--model", tuned["classify"], "--input", tmp_path / "x.parquet", "--out", tmp_path / "out.jsonl")
    assert found[0]["id"] == "2024-05-06 07:08:09" and "id" not in found[1]


def test_tags_and_answers_come_with_their_places(tuned, tmp_path):
    path = write_jsonl(tmp_path / "x.jsonl", [{"text": "anna is in 北京"}])
    answer = predicted("--model", tuned["tag"], "--input", path, "--out", tmp_path / "out.jsonl")[0]
    assert answer["tokens"] == ["anna", "is", "in", "北", "京"] and len(answer["tags"]) == 5 and "entities" in answer

    paragraphs = [{"context": "anna lives in 北京", "qas": [{"id": "q1", "question": "where is anna ?"}]}]
    (tmp_path / "x.json").write_text(json.dumps({"data": [{"paragraphs": paragraphs}]}))
    answer = predicted("--model", tuned["span"], "--input", tmp_path / "x.json", "--out", tmp_path / "b.jsonl")[0]
    assert answer["id"] == "q1" and answer["answer"] == "anna lives in 北京"[answer["start"] : answer["end"]]


def test_words_are_filled_in(encoder, tmp_path):
    out = tmp_path / "out.jsonl"
    found = predicted("--model", encoder, "--fill", "[MASK] is [MASK]", "--top-k", "2", "--out", out)
    assert [(line["mask"], set(line)) for line in found] == [
        (number, {"mask", "word", "probability"}) for number in (1, 1, 2, 2)
    ]


@pytest.mark.parametrize(
    "task, words, message",
    [
        ("classify", ["--fill", "a [MASK]"], "cannot fill in words, it is a BertForSequenceClassification"),
        (None, ["--input", "{rows}"], "was not trained for a task, it is a BertForPreTraining"),
        ("span", ["--input", "{rows}"], "has no column for question: expected question, its columns are text, label"),
        ("classify", ["--input", "{rows}", "--columns", "label=label"], "this task does not read 'label'"),
        ("classify", ["--input", __file__], "unknown format"),
        ("classify", ["--input", "nothing.jsonl"], "--input nothing.jsonl: no such file"),
        ("classify", ["--input", "{rows}", "--fill", "[MASK]"], "give --input with rows to predict, or --fill"),
        ("classify", [], "give --input with rows to predict, or --fill"),
    ],
)
def test_a_model_that_does_not_fit_is_reported_in_one_line(tuned, encoder, tmp_path, capsys, task, words, message):
    rows = write_jsonl(tmp_path / "x.jsonl", sentiment_rows(3))
    words = [word.format(rows=rows) for word in words]
    assert cli(["predict", "--model", str(tuned[task] if task else encoder), *words]) == 2
    assert message in capsys.readouterr().err


def test_an_input_without_rows_is_refused(tuned, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(b"\n"))))
    with pytest.raises(ValueError, match="standard input has no rows"):
        main(["--model", str(tuned["classify"]), "--input", "-", "--device", "cpu"])


def test_top_k_must_be_above_0(tmp_path):
    with pytest.raises(ValueError, match="top_k=0 must be at least 1"):
        PredictConfig(model=tmp_path, fill="[MASK]", top_k=0)
