"""Inputs that hypothesis draws: records, tables and texts of any values. A fault is shrunk to a smallest input.

Each property runs in a process of its own with a limit on its memory and its time.
"""

import csv
import faulthandler
import io
import json
import os
import signal
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from pipeline.inputs.discovery import find_sources
from pipeline.inputs.documents import read_documents
from pipeline.inputs.splitting import split_source
from pipeline.text.records import Document, PassedOver, Reject
from tests.campaign.outcome import Outcome
from tests.mutants import ending, limit_memory
from tests.pipeline.small_text import ODD_TEXT
from tests.pipeline.text_mutants import CASINGS, other_tokenizer, use_tokenizer, wordpiece

SECONDS = 900  # of a property
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | ODD_TEXT | st.text(st.characters())
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=12)
RECORDS = st.lists(st.dictionaries(st.sampled_from(["text", "id", "x"]), VALUES) | VALUES, max_size=8)
TABLES = st.lists(st.lists(st.text(), min_size=1, max_size=4), max_size=8)
KINDS = ("roberta", "modernbert", "llama3", "gemma", "xlm_roberta", "albert", "deberta", "mpnet")


def read(folder: Path, name: str, content: bytes) -> list[Document | Reject | PassedOver] | None:
    """Return the records of a file; None if it is refused in one line that names it."""
    (folder / name).write_bytes(content)
    try:
        return [
            item
            for source in find_sources([str(folder / name)])
            for split in split_source(source, 50)
            for item in read_documents(split)
        ]
    except ValueError as error:
        if name not in str(error) or "\n" in str(error):
            raise
        return None


def json_lines(folder: Path, records: list[Any]) -> None:
    """Each line is a document or a reject, at the byte where it begins. No letter of a document is lost."""
    lines = [json.dumps(record) for record in records]
    found = read(folder, "a.jsonl", "".join(f"{line}\n" for line in lines).encode())
    places = [sum(len(line) + 1 for line in lines[:i]) for i in range(len(lines))]
    if found is None:
        return
    assert [item.position for item in found] == places
    for record, item in zip(records, found, strict=True):
        has_text = isinstance(record, dict) and isinstance(record.get("text"), str) and bool(record["text"].strip())
        letters = plain_letters(record["text"]) if has_text else ""
        assert bool(letters) <= isinstance(item, Document) <= has_text, (record, item)
        assert not letters or plain_letters(item.text.decode()) == letters, (record, item)


def plain_letters(text: str) -> str:
    """Return the characters that no cleaning changes: the letters and digits of ASCII."""
    return "".join(char for char in text if char.isascii() and char.isalnum())


def json_arrays(folder: Path, records: list[Any]) -> None:
    read(folder, "a.json", json.dumps(records, indent=1).encode())


def tables(folder: Path, rows: list[list[str]]) -> None:
    for name, delimiter in (("a.csv", ","), ("b.csv", ";"), ("c.tsv", "\t")):
        file = io.StringIO(newline="")
        csv.writer(file, delimiter=delimiter).writerows([["id", "text"], *rows])
        read(folder, name, file.getvalue().encode(errors="replace"))


def wordpiece_ids(folder: Path, texts: list[str], casing: tuple[bool, bool | None]) -> None:
    use_tokenizer(*wordpiece(*casing), texts, True)


def other_ids(folder: Path, texts: list[str], kind: str) -> None:
    use_tokenizer(*other_tokenizer(kind), texts, False)


TEXTS = st.lists(ODD_TEXT, min_size=1, max_size=6)
PROPERTIES: dict[str, tuple[Callable[..., None], tuple[st.SearchStrategy[Any], ...]]] = {
    "JSON Lines": (json_lines, (RECORDS,)),
    "a JSON array": (json_arrays, (RECORDS,)),
    "CSV and TSV": (tables, (TABLES,)),
    "ids of WordPiece": (wordpiece_ids, (TEXTS, st.sampled_from(CASINGS))),
    "ids of other tokenizers": (other_ids, (TEXTS, st.sampled_from(KINDS))),
}
"""Name -> function of a folder and the drawn values, and what draws them."""


def run(folder: Path, first_seed: int, number: int, only: int | None = None) -> Iterator[Outcome]:
    """Yield an outcome for each property. number: inputs of all of them. only: number of the one property to run."""
    for i, name in enumerate(PROPERTIES):
        if only in (None, i):
            yield draw_inputs(name, folder / str(i), first_seed, max(1, number // len(PROPERTIES)))


def draw_inputs(name: str, folder: Path, first_seed: int, number: int) -> Outcome:
    """Draw the inputs of a property in a process of its own."""
    folder.mkdir(parents=True)
    begun = time.monotonic()
    with tempfile.TemporaryFile("w+", errors="replace") as said:
        if (child := os.fork()) == 0:
            status = 1
            try:
                os.dup2(said.fileno(), 2)
                faulthandler.enable(said)
                faulthandler.register(signal.SIGALRM, said, chain=True)
                signal.alarm(SECONDS)
                limit_memory()
                _draw(*PROPERTIES[name], folder, first_seed, number)
                status = 0
            except BaseException:
                traceback.print_exc(file=said)
            finally:
                said.flush()
                os._exit(status)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        said.seek(0)
        result = f"{ending(status)} {said.read()[-3000:]}" if status else "used, or refused in one line"
    return Outcome(f"structured: {name}", result, time.monotonic() - begun, bool(status), number)


def _draw(
    check: Callable[..., None], strategies: tuple[st.SearchStrategy[Any], ...], folder: Path, start: int, number: int
) -> None:
    options = settings(
        max_examples=number,
        database=None,
        deadline=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )

    def check_one(drawn: tuple[Any, ...]) -> None:
        check(folder, *drawn)

    seed(start)(options(given(st.tuples(*strategies))(check_one)))()
