"""Data sets that several tests of pages read."""

import gzip
import json
import random
from pathlib import Path

import pytest

from tests.jobs.corpus import documents, run_job, write, write_vocabulary


@pytest.fixture(scope="session")
def left_out(tmp_path_factory) -> Path:
    """A data set of three files, with rejects of several reasons, exact and near duplicates, and unknown words.

    Its texts are in `in/` next to it.
    """
    folder = tmp_path_factory.mktemp("left-out")
    sentences = documents(1000)
    texts = [sum(sentences[i : i + 5], []) for i in range(0, 1000, 5)]
    more = [[*text, "And a sentence more, 龘龘."] for text in texts[:30]]
    mixed = [*texts[:150], *more, *texts[40:55]]
    random.Random(1).shuffle(mixed)
    write(folder / "in/a.txt", mixed)
    write(folder / "in/b.jsonl", texts[150:])
    with (folder / "in/b.jsonl").open("ab") as file:
        for i in range(120):
            file.write(f"{{broken <b>line {i}\n".encode())
            if i % 10 == 0:
                file.write(json.dumps({"id": f"#{i}", "text": " "}).encode() + b"\n")
                file.write(json.dumps({"id": f"#{i}", "body": f"不是 {i}"}, ensure_ascii=False).encode() + b"\n")
    again = [{"text": "\n\n".join(text)} for text in [*texts[10:20], *more[3:8]]]
    (folder / "in/c.jsonl.gz").write_bytes(gzip.compress("".join(map(_line, again)).encode()))
    vocab = write_vocabulary(folder / "vocab.txt")
    run_job(folder / "in", folder / "out", vocab, near_duplicates=0.8, split_mb=0.01, min_shards=2)
    return folder / "out"


def _line(row: dict[str, str]) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"
