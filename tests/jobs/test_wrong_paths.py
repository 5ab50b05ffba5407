"""A path of the wrong kind gets one line that says what it is and what to give."""

import re

import pytest

from jobs.cli import main
from tests.jobs.corpus import write_vocabulary


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a run and a data set, as far as their names go."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run/checkpoints").mkdir(parents=True)
    (tmp_path / "data").mkdir()
    (tmp_path / "data/manifest.json").write_text("{}")
    (tmp_path / "tokenizer.json").write_text('{\n "model": {"vocab": {"a": 0}}\n}\n')
    (tmp_path / "00000.tar").write_bytes(b"")
    (tmp_path / "a.txt").write_text("a")
    write_vocabulary(tmp_path / "vocab.txt")
    return tmp_path


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("verify 00000.tar", "this is a shard, which `bertloom inspect` shows: give the folder of its data set"),
        ("report 00000.tar", "this is a shard"),
        ("inspect run", "this is a model or a run: give the data set that it was trained on"),
        ("explain run 0", "this is a model or a run"),
        ("pretrain tiny --data run --out new --num-steps 1", "this is a model or a run"),
        ("score --model data --input a.txt", "data is no model: .*; this is a data set"),
        ("export --checkpoint data --out new", "data is no model: .*; this is a data set"),
        (
            "preprocess --input a.txt --out new --vocab tokenizer.json",
            "tokenizer.json: its model WordPiece: unk_token is .*, which is not in its vocab",
        ),
    ],
)
def test_a_path_of_the_wrong_kind_is_named_in_one_line(here, capsys, words, says):
    assert main(words.split()) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and said[0].startswith(f"bertloom {words.split()[0]}: error: ")
    assert re.search(says, said[0]), said
