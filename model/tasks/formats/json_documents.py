"""A file with one JSON value: a list of objects, or questions in SQuAD's format."""

from collections.abc import Container
from pathlib import Path
from typing import Any

from bertloom.json_files import loads
from model.tasks.formats.row_format import Records, RowFormat
from model.tasks.formats.text_files import opened
from model.tasks.values import BadRow

MAX_BYTES = 1 << 30
"""Largest size of a .json file, which is read whole: SQuAD has 42 MB."""


def _read(path: Path, needed: Container[str]) -> Records:
    with opened(path) as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ValueError(
            f"{path} has more than {MAX_BYTES:,} bytes in one JSON value: write a line for each row, as .jsonl"
        )
    try:
        values = loads(content.removeprefix(b"\xef\xbb\xbf"))
    except ValueError as error:
        raise ValueError(f"{path} is not a single JSON value ({error}): if each line is one, name it .jsonl") from None
    yield from _questions(path, values) if isinstance(values, dict) else _items(path, values)


def _items(path: Path, values: Any) -> Records:
    if not isinstance(values, list):
        raise ValueError(f"{path} is {values!r:.40}, expected a list of objects, or SQuAD's format")
    for number, item in enumerate(values, 1):
        yield f"item {number}", item if isinstance(item, dict) else BadRow(f"is {item!r:.40}, expected an object")


def _questions(path: Path, content: dict[str, Any]) -> Records:
    try:
        questions = [
            {"context": paragraph["context"], "answers": None} | question
            for article in content["data"]
            for paragraph in article["paragraphs"]
            for question in paragraph["qas"]
        ]
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"{path}: expected a list of objects, or SQuAD's format, data > paragraphs > context and qas ({error!r})"
        ) from None
    numbers: dict[str, int] = {}
    for number, question in enumerate(questions, 1):
        name = repr(question.get("id", f"number {number}"))
        same = numbers.setdefault(name, number)  # answers are identified by it
        yield f"question {number} (id {name})", BadRow(f"has the id of question {same}") if same < number else question


JSON = RowFormat(endings=(".json",), read=_read)
