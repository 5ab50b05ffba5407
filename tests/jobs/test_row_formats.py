"""A new form of files with rows is one file and one line in the registry: this one is registered for a while.

A line of it is words, a bar and tags: `anna is|B-PER O`.
"""

import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import pytest

from jobs.finetune import finetune
from jobs.predict import main
from model.inference.predict import load
from model.tasks.formats import registry
from model.tasks.formats.row_format import Answers, Records, RowFormat
from model.tasks.values import BadRow
from tests.jobs.small_finetune import config


def read(path: Path, needed: Collection[str]) -> Records:
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        words, bar, tags = line.partition("|")
        yield f"line {number}", {"tokens": words, "tags": tags} if bar else BadRow("has no bar")


def write(path: Path, columns: Mapping[str, str], answers: Answers) -> Iterator[bytes]:
    for line, answer in zip(path.read_text(encoding="utf-8").splitlines(), answers, strict=True):
        words, _, _ = line.partition("|")
        yield f"{line if isinstance(answer, BadRow) else words + '|' + ' '.join(answer['tags'])}\n".encode()


@pytest.fixture
def bars(monkeypatch) -> None:
    monkeypatch.setattr(registry, "FORMATS", (*registry.FORMATS, RowFormat(endings=(".bar",), read=read, write=write)))


def test_a_form_that_is_only_registered_is_trained_on_and_written_back(bars, encoder, tmp_path):
    rows = tmp_path / "rows.bar"
    rows.write_text("anna is|B-PER O\nparis|B-LOC\nwithout\n", encoding="utf-8")
    finetune(config(encoder, {"tag": (rows, rows)}, tmp_path / "tuned", "tag", on_bad_row="skip"))
    words = ["--model", tmp_path / "tuned", "--input", rows, "--on-bad-row", "skip", "--device", "cpu", "--out"]
    expected = load(tmp_path / "tuned", "cpu").predict([["anna", "is"], ["paris"]])
    main([*map(str, words), str(tmp_path / "out")])
    first, second = (" ".join(answer["tags"]) for answer in expected)
    assert (tmp_path / "out").read_text(encoding="utf-8") == f"anna is|{first}\nparis|{second}\nwithout\n"
    main([*map(str, words), str(tmp_path / "out.jsonl")])
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert lines == [*expected, {"error": "line 3: has no bar"}]
