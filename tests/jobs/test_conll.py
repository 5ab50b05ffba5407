"""Files with a word in each line, through the commands: the same model as from JSON Lines, and predictions in place."""

import json
from pathlib import Path

import pytest

from jobs.finetune import finetune
from jobs.predict import main
from model.inference.predict import load
from tests.jobs.small_finetune import config, lines, weights
from tests.model.small_task import tag_rows, write_jsonl


def write_conll(path: Path, rows: list[dict]) -> Path:
    blocks = ("".join(f"{word} _ {tag}\n" for word, tag in zip(row["tokens"], row["tags"])) for row in rows)
    path.write_text("-DOCSTART- -X- O\n\n" + "\n".join(blocks), encoding="utf-8")
    return path


def write_conllu(path: Path, rows: list[dict]) -> Path:
    text, blank = "", "\t_"
    for number, row in enumerate(rows):
        text += f"# sent_id = {number}\n1-2\tx{8 * blank}\n"
        for place, (word, tag) in enumerate(zip(row["tokens"], row["tags"]), 1):
            text += f"{place}\t{word}\t_\t{tag}{6 * blank}\n"
        text += "\n"
    path.write_text(text, encoding="utf-8")
    return path


WRITERS = {"x.conll": write_conll, "x.txt": write_conll, "x.conllu": write_conllu}
ROWS, DEV = tag_rows(60), tag_rows(20, seed=9)


@pytest.fixture(scope="module")
def tuned(encoder, tmp_path_factory) -> Path:
    """A model from JSON Lines."""
    folder = tmp_path_factory.mktemp("tuned")
    files = write_jsonl(folder / "train.jsonl", ROWS), write_jsonl(folder / "dev.jsonl", DEV)
    finetune(config(encoder, {"tag": files}, folder / "out", "tag"))
    return folder / "out"


@pytest.mark.parametrize("name", WRITERS)
def test_the_same_rows_give_the_same_model_and_its_predictions_in_place(tuned, encoder, tmp_path, name):
    write = WRITERS[name]
    train, dev = write(tmp_path / f"train-{name}", ROWS), write(tmp_path / f"dev-{name}", DEV)
    out = tmp_path / "tuned"
    finetune(config(encoder, {"tag": (train, dev)}, out, "tag"))
    assert lines(out) == lines(tuned) and weights(out) == weights(tuned)
    main(["--model", str(out), "--input", str(dev), "--out", str(tmp_path / "out"), "--device", "cpu"])
    answers = load(out, "cpu").predict([row["tokens"] for row in DEV])
    expected = write(tmp_path / "expected", answers)
    assert (tmp_path / "out").read_bytes() == expected.read_bytes()
    assert [answer["tags"] for answer in answers] != [row["tags"] for row in DEV]


def test_predictions_of_words_can_be_json_lines(tuned, tmp_path):
    path = write_conllu(tmp_path / "x.conllu", DEV)
    main(["--model", str(tuned), "--input", str(path), "--out", str(tmp_path / "out.jsonl"), "--device", "cpu"])
    found = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    expected = load(tuned, "cpu").predict([row["tokens"] for row in DEV])
    assert found == [{"id": str(number)} | answer for number, answer in enumerate(expected)]


def test_an_unusable_sentence_stays_as_it_is_and_is_named(tuned, tmp_path, capfdbinary):
    path = tmp_path / "x.bio"
    path.write_text("anna O\nis\n\n北京 O\n", encoding="utf-8")
    words = ["--model", str(tuned), "--input", str(path), "--device", "cpu"]
    with pytest.raises(ValueError, match="x.bio: line 2: has 1 column, line 1 has 2"):
        main(words)
    capfdbinary.readouterr()
    main([*words, "--on-bad-row", "skip", "--columns", "tags=2"])
    found = capfdbinary.readouterr()
    tag = load(tuned, "cpu").predict([["北京"]])[0]["tags"][0]
    assert found.out == f"anna O\nis\n\n北京 O {tag}\n".encode()
    reason = b"1 of 2 rows could not be used: the output has them as they were: line 2: has 1 column"
    assert reason in found.err


def test_a_column_that_a_file_to_predict_lacks_is_named_before_anything_is_written(tuned, tmp_path):
    path = write_conll(tmp_path / "x.conll", DEV)
    words = ["--model", str(tuned), "--input", str(path), "--out", str(tmp_path / "out"), "--device", "cpu"]
    with pytest.raises(ValueError, match="--columns tags=7: expected the number of a column of .*x.conll"):
        main([*words, "--columns", "tags=7"])
    with pytest.raises(ValueError, match="x.conll has no column '7' for tokens: its columns are tokens, tags, 0, 1, 2"):
        main([*words, "--columns", "tokens=7"])
    assert not (tmp_path / "out").exists()
