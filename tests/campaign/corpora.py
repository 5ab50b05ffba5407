"""Small corpora of the shipped sample's text, English and Chinese, and their vocabulary."""

import gzip
import json
import os
from functools import cache
from pathlib import Path

from jobs import cli
from tests.jobs.restartable_job import ROOT, WRITTEN

SAMPLE = ROOT / "jobs/sample"
NUM_WORDS = 2000


@cache
def english() -> list[str]:
    return [json.loads(line)["text"] for line in (SAMPLE / "en.jsonl").read_text("utf-8").splitlines()]


@cache
def chinese() -> list[str]:
    return (SAMPLE / "zh.txt").read_text("utf-8").strip().split("\n\n")


def write_jsonl(path: Path, texts: list[str]) -> Path:
    """Write texts as JSON Lines, compressed if the name ends in .gz."""
    data = "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts).encode()
    return write_file(path, gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)


def write_file(path: Path, data: bytes) -> Path:
    """Write a file whose time is always the same: how small files are grouped depends on it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    os.utime(path, (WRITTEN, WRITTEN))
    return path


def almost(texts: list[str]) -> list[str]:
    """Near duplicates of these texts."""
    return [f"{text}\n\nAnd a sentence more, but no other change." for text in texts]


def write_vocabulary(path: Path) -> Path:
    """Make the vocabulary of the whole sample."""
    words = ["--input", str(SAMPLE / "en.jsonl"), str(SAMPLE / "zh.txt"), "--vocab-size", str(NUM_WORDS)]
    assert cli.main(["build-vocab", *words, "--out", str(path)]) == 0
    return path
