"""Where the commands that apply a model write: never over an input, through what is not a file, in any terminal."""

import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pyarrow.parquet as pq
import pytest

from jobs.cli import main as cli
from jobs.support.outputs import check_output
from tests.model.small_task import sentiment_rows, write_jsonl


@pytest.fixture
def texts(tmp_path):
    return write_jsonl(tmp_path / "texts.jsonl", [{"id": i, **row} for i, row in enumerate(sentiment_rows(3))])


COMMANDS = {"predict": "finetuned", "score": "encoder", "embed": "encoder"}


@pytest.fixture(params=COMMANDS)
def command(request):
    """The words of a command and its model."""
    return [request.param, "--device", "cpu", "--model", str(request.getfixturevalue(COMMANDS[request.param]))]


def test_no_command_writes_over_its_input(command, texts, tmp_path, capsys):
    before = texts.read_bytes()
    (tmp_path / "link.jsonl").symlink_to(texts)
    os.link(texts, tmp_path / "other.jsonl")
    for out in (texts, "link.jsonl", "other.jsonl", tmp_path / "." / "texts.jsonl"):
        out = tmp_path / out
        assert cli([*command, "--input", str(texts), "--out", str(out)]) == 2
        assert (
            f"--out {out} is one of the inputs, {texts}, which it would overwrite: give another file"
            in capsys.readouterr().err
        )
    assert texts.read_bytes() == before


def test_no_command_writes_over_a_file_of_its_model(command, texts, tmp_path, capsys):
    model = tmp_path / "model"
    shutil.copytree(command[-1], model)
    (model / "vocab.txt").unlink(missing_ok=True)
    (tmp_path / "stored.txt").write_text("[PAD]\n")
    (model / "vocab.txt").symlink_to(tmp_path / "stored.txt")  # as in the cache of huggingface_hub
    (tmp_path / "link").symlink_to("model")
    config = next(path for path in sorted(model.iterdir()) if path.name.startswith("config."))
    before = config.read_bytes()
    files = [model / "vocab.txt", tmp_path / "link/vocab.txt", model / config.name, tmp_path / "link" / config.name]
    for out in (*files, model / "new.txt"):
        assert cli([*command[:-1], str(model), "--input", str(texts), "--out", str(out)]) == 2
        assert f"--out {out} is in the folder of --model {model}: give a file outside of it" in capsys.readouterr().err
    assert config.read_bytes() == before and (model / "vocab.txt").read_text() == "[PAD]\n"


def test_a_vocabulary_does_not_replace_its_text(tmp_path, capsys):
    text = tmp_path / "words.txt"
    text.write_text("good film\n")
    words = ["build-vocab", "--input", str(tmp_path), "--out", str(text), "--vocab-size", "300", "--overwrite"]
    assert cli(words) == 2
    assert f"--out {text} is one of the inputs, {text}" in capsys.readouterr().err and text.read_text() == "good film\n"


def test_a_picture_does_not_replace_the_metrics(tmp_path, capsys):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "split": "train", "loss": 1.0}\n')
    (tmp_path / "plot.png").symlink_to("metrics.jsonl")
    assert cli(["plot", str(tmp_path), "--out", str(tmp_path / "plot.png")]) == 2
    assert "plot.png is one of the inputs" in capsys.readouterr().err


def test_standard_input_and_output_count_as_the_files_that_they_are(texts):
    code = "import sys; from jobs.support.outputs import check_output; check_output(*sys.argv[1:2], sys.argv[2:])"
    command = [sys.executable, "-c", code]
    with open(texts, "a+") as file:
        done = subprocess.run([*command, "-", texts], stdout=file, stderr=subprocess.PIPE, text=True)
        assert f"standard output is one of the inputs, {texts}, which it would overwrite" in done.stderr
        done = subprocess.run([*command, texts, "-"], stdin=file, stderr=subprocess.PIPE, text=True)
        assert f"--out {texts} is one of the inputs, standard input" in done.stderr


def test_what_cannot_be_lost_may_be_both(tmp_path):
    main, terminal = os.openpty()
    check_output(os.ttyname(terminal), [os.ttyname(terminal)])
    os.close(main)
    os.close(terminal)
    check_output(tmp_path / "new", [tmp_path / "missing", "s3://bucket/file"])
    check_output("-", ["-"])


def test_answers_go_through_a_pipe(command, texts, tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor() as pool:
        content = pool.submit(pipe.read_bytes)
        assert cli([*command, "--input", str(texts), "--out", str(pipe)]) == 0
        found = content.result(timeout=60)
    assert pipe.is_fifo() and (found.startswith(b"PAR1") or len(found.splitlines()) == 3)


def test_an_output_that_cannot_be_written_is_one_line(command, texts, tmp_path, capsys):
    for out, message in (
        (tmp_path, "is a folder"),
        (tmp_path / "missing/x", "missing does not exist: create it first"),
    ):
        assert cli([*command, "--input", str(texts), "--out", str(out)]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == [texts]


@pytest.mark.parametrize("encoding", ["gbk", "latin-1", "ascii", "utf-8"])
def test_standard_output_is_json_in_every_encoding(finetuned, tmp_path, encoding):
    rows = [{"id": "北京", "text": "good"}, {"id": "🙂", "text": "bad"}]
    texts = write_jsonl(tmp_path / "x.jsonl", rows)
    words = ["predict", "--model", str(finetuned), "--input", str(texts), "--device", "cpu"]
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    command = [sys.executable, "-m", "jobs.cli", *words]
    done = subprocess.run(command, env=environment, capture_output=True, check=True)
    assert [json.loads(line)["id"] for line in done.stdout.decode(encoding).splitlines()] == ["北京", "🙂"]
    assert ("北京" in done.stdout.decode(encoding)) == (encoding in ("gbk", "utf-8"))


def test_a_text_file_is_a_text_in_each_line_and_embed_can_keep_it(encoder, tmp_path):
    (tmp_path / "texts.txt").write_text("good film\n\n北京\n")
    out = tmp_path / "out"
    words = ["--model", str(encoder), "--input", str(tmp_path / "texts.txt"), "--out", str(out), "--device", "cpu"]
    assert cli(["score", *words]) == 0
    assert [json.loads(line)["num_tokens"] for line in out.read_text().splitlines()] == [2, 2]
    assert cli(["embed", *words]) == 2, "it exists"
    assert cli(["embed", *words, "--overwrite"]) == 0
    assert pq.read_schema(out).names == ["row", "id", "vector"]
    assert cli(["embed", *words, "--keep-text", "--overwrite"]) == 0
    table = pq.read_table(out)
    assert table.column_names == ["row", "id", "text", "vector"]
    assert table["text"].to_pylist() == ["good film", "北京"] and table["row"].to_pylist() == [0, 1]


def test_vectors_are_not_written_to_standard_output(encoder, texts, capsys):
    assert cli(["embed", "--model", str(encoder), "--input", str(texts), "--out", "-"]) == 2
    assert "a Parquet file cannot be written to standard output: give the name of a file" in capsys.readouterr().err


def test_errors_of_rows_name_the_flag(command, texts, tmp_path, capsys):
    with open(texts, "a") as file:
        file.write('{"text": ' + "[" * 100_000 + "]" * 100_000 + "}\n")
    out = tmp_path / "out"
    assert cli([*command, "--input", str(texts), "--out", str(out)]) == 2
    message = (
        f"--input {texts}: line 4: is not JSON (it is nested in more than 100 levels): fix it, or skip such rows with "
        f"--on-bad-row skip"
    )
    assert capsys.readouterr().err == f"bertloom {command[0]}: error: {message}\n" and not out.exists()
    assert cli([*command, "--input", str(tmp_path / "no.csv"), "--out", str(out)]) == 2
    assert f"error: --input {tmp_path}/no.csv: no such file\n" in capsys.readouterr().err
