"""Rows as a data set of bertloom, made by `bertloom preprocess`: a document for each row."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from loader_conformance.rows import WORDS, text_of

NUM_FILES = 8
MAX_SEQ_LENGTH = 64


def write_shards(rows: Sequence[np.ndarray], folder: Path) -> None:
    texts = folder.with_name(f"{folder.name}-texts")
    texts.mkdir()
    (texts / "vocab.txt").write_text("".join(f"{word}\n" for word in WORDS))
    inputs = [texts / f"{number}.txt" for number in range(NUM_FILES)]
    for number, path in enumerate(inputs):
        path.write_text("".join(f"{text_of(row)}\n\n" for row in rows[number::NUM_FILES]))
    options = {
        "vocab": str(texts / "vocab.txt"),
        "out": str(folder),
        "pairs": "none",
        "dupe-factor": "1",
        "max-seq-length": str(MAX_SEQ_LENGTH),
        "short-seq-prob": "0",
        "validation-fraction": "0",
        "min-shards": str(NUM_FILES),
        "text-layout": "blank-line",
    }
    command = [sys.executable, "-m", "jobs.cli", "preprocess", "--input", *map(str, inputs)]
    command += [word for name, value in options.items() for word in (f"--{name}", value)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr)
