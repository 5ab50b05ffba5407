"""`bertloom plan --data` against real trainings, and what it refuses."""

import json
import subprocess
import sys

import pytest

from jobs import cli
from tests.jobs.corpus import documents, run_job, write, write_vocabulary

TINY = ["--model.hidden-size", "16", "--model.num-hidden-layers", "1", "--model.num-attention-heads", "2"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    vocab = write_vocabulary(folder / "vocab.txt")
    for name, number, seed in (("web", 150, 1), ("books", 60, 2)):
        run_job(write(folder / f"{name}.txt", documents(number, seed)), folder / name, vocab)
    return folder


def plan(capsys, *words):
    assert cli.main(["plan", *map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out)["training"]


def train(data, out, *words):
    """Train a small model and return the lines of its steps."""
    shape = (*TINY, "--model.intermediate-size", "32", "--eval-every", "1000", "--num-eval-examples", "8")
    assert cli.main(["pretrain", *map(str, words), "--out", str(out), *shape, "--num-threads", "1"]) == 0
    lines = map(json.loads, (out / "metrics.jsonl").read_text().splitlines())
    return [line for line in lines if line.get("kind", "train") == "train" and "tokens" in line]


@pytest.mark.parametrize(
    "length",
    [
        ["--num-steps", "40", "--batch-size", "16"],
        ["--num-epochs", "0.5", "--batch-size", "16"],
        ["--num-tokens", "20000", "--batch-size", "16"],
        ["--num-steps", "40", "--batch-size", "16", "--phases", "32:0.75", "64:0.25:8"],
    ],
    ids=lambda words: words[0] + words[-1],
)
def test_steps_and_tokens_are_those_of_the_training(data, tmp_path, capsys, length):
    found = plan(capsys, "--data", data / "web", *length)
    lines = train(data, tmp_path / "run", "--data", data / "web", *length)
    exact = "--num-tokens" not in length
    assert found["steps"] == pytest.approx(lines[-1]["step"], rel=0 if exact else 0.05)
    assert found["tokens"] == pytest.approx(lines[-1]["tokens"], rel=0.05)


def test_the_tokens_of_each_data_set_and_its_end_are_those_of_the_training(data, tmp_path, capsys):
    words = ["--data", f"{data}/web:0.5", f"{data}/books:0.5:epochs=1", "--num-steps", "100", "--batch-size", "32"]
    found = plan(capsys, *words)
    lines = train(data, tmp_path / "run", *words)
    read = lines[-1]["tokens_by_source"]
    (phase,) = found["phases"]
    for name, tokens in read.items():
        assert phase["sources"][name]["tokens"] == pytest.approx(tokens, rel=0.05)
    assert phase["sources"]["books"]["epochs"] == 1.0
    assert any(note.startswith("books is used up at about step") for note in found["notes"])


def test_the_disk_space_is_that_of_the_checkpoints(data, tmp_path, capsys):
    found = plan(capsys, "--data", data / "web", "--preset", "tiny", "--num-steps", "4", "--batch-size", "8")
    words = ("tiny", "--data", data / "web", "--num-steps", "4", "--batch-size", "8", "--num-threads", "1")
    assert cli.main(["pretrain", *map(str, words), "--out", str(tmp_path / "run")]) == 0
    files = [path for path in (tmp_path / "run/checkpoints").rglob("*") if path.is_file()]
    assert found["checkpoints"] == 1
    assert found["checkpoint_bytes"] == pytest.approx(sum(path.stat().st_size for path in files), rel=0.05)


def test_the_hours_are_the_tokens_over_the_speed(data, capsys):
    found = plan(capsys, "--data", data / "web", "--num-steps", "40", "--tokens-per-second", "1000")
    assert found["hours"] == pytest.approx(found["tokens"] / 1000 / 3600)


def test_a_training_on_texts_that_are_not_preprocessed_is_planned_from_their_estimate(data, capsys):
    texts = ["--input", data / "web.txt", "--vocab", data / "vocab.txt", "--max-seq-length", "32", "--dupe-factor", "2"]
    length = ["--num-steps", "40", "--batch-size", "16"]
    of_both = plan(capsys, *texts, "--validation-fraction", "0.1", *length)
    of_data = plan(capsys, "--data", data / "web", *length)
    assert of_both["steps"] == of_data["steps"] == 40
    assert of_both["tokens"] == pytest.approx(of_data["tokens"], rel=0.02)
    (own,) = of_both["phases"][0]["sources"].values()
    assert own["epochs"] == pytest.approx(of_data["phases"][0]["sources"]["web"]["epochs"], rel=0.02)


def test_a_training_is_planned_where_beam_is_not_installed(data):
    words = ["plan", "--data", str(data / "web"), "--num-steps", "10"]
    code = f"import sys; sys.modules['apache_beam'] = None; from jobs import cli; sys.exit(cli.main({words}))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.returncode == 0 and ran.stdout.startswith("pretrain\n"), ran.stderr


def test_the_table_shows_a_line_for_each_data_set(data, capsys):
    words = ["plan", "--data", f"{data}/web:0.5", f"{data}/books:0.5:epochs=1", "--num-steps", "100"]
    assert cli.main([*words, "--batch-size", "16", "--tokens-per-second", "1000"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("pretrain\n  steps ") and "    books " in out and "books is used up at about step" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data", "WEB"], "the length of training is missing: give --num-steps"),
        (
            ["--data", "WEB", "--input", "x.txt"],
            "--data and --input: give --data for the training on finished data sets",
        ),
        (["--data", "WEB", "--num-steps", "10", "--hours", "0"], "--hours 0: expected more than 0"),
        (["--data", "WEB", "--num-steps", "10", "--hours", "2"], "--hours 2: needs --tokens-per-second"),
        (["--data", "WEB", "--preset", "tinny"], "'tinny' is not a preset: expected one of"),
        (["--data", "WEB", "--num-steps", "10", "--phases", "77:1"], "77"),
        (["--data", "WEB", "NONE", "--num-steps", "10"], "several data sets without shares"),
        (["--data", "NONE", "--num-steps", "10"], "NONE"),
    ],
)
def test_what_is_wrong_is_named(data, capsys, words, message):
    known = {"WEB": str(data / "web"), "NONE": str(data / "NONE")}
    assert cli.main(["plan", *(known.get(word, word) for word in words)]) == 2
    assert message in capsys.readouterr().err
