"""The commands whose faults are provoked: preprocessing with all options that write files, training, and other writers.

`make_commands` makes their inputs. A command writes into its own place alone, which is emptied before each case.
"""

import json
import os
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tests.jobs.corpus import documents, write, write_vocabulary
from tests.jobs.restartable_job import WRITTEN

SMALL = ["--max-seq-length", "32", "--dupe-factor", "1", "--gates.no-fail", "--split-mb", "0.03"]
SOURCES = """
[[input]]
path = "DIR/a/"
sample = 60

[[input]]
path = "DIR/b/"
tokens = 2000
"""
MODEL = ["--model.hidden-size", "16", "--model.num-hidden-layers", "1", "--model.num-attention-heads", "1"]
MODEL += ["--model.intermediate-size", "32", "--model.max-position-embeddings", "64"]
CPU = ["--device", "cpu", "--num-threads", "1"]
Run = Callable[[list[str]], object]
"""Runs a command that makes something for other commands."""


@dataclass(frozen=True)
class Command:
    """A command, and where it writes."""

    name: str
    argv: list[str]
    place: Path
    """The folder that holds all that it writes."""
    inputs: Path | None = None
    """The folder of its texts or data, if a case may change it."""

    def prepare(self) -> None:
        """Make the place an empty folder."""
        if self.place.exists():
            shutil.rmtree(self.place)
        self.place.mkdir(parents=True)


def make_commands(folder: Path, run: Run) -> dict[str, Command]:
    """Make the inputs of all commands and return them by name. run: runs what makes finished data sets and models."""
    preprocessing = make_preprocessing(folder, run)
    return preprocessing | make_training(folder, run) | make_others(folder, run)


def make_preprocessing(folder: Path, run: Run) -> dict[str, Command]:
    """Return the commands of preprocessing."""
    write_texts(folder)
    vocab = ["--vocab", str(write_vocabulary(folder / "vocab.txt"))]
    near = ["--near-duplicates", "0.5"]
    run(["preprocess", "--input", f"{folder}/in", *vocab, "--out", f"{folder}/old", *SMALL, *near])
    flags = {
        "preprocess": [
            *("--input", f"{folder}/in", *vocab, *SMALL, "--max-seq-length", "32", "64", "--dupe-factor", "2"),
            *("--validation-fraction", "0.1"),
        ],
        "preprocess --inputs": [
            *("--inputs", f"{folder}/sources.toml", "--per-source", *vocab, *SMALL, *near, "--work-dir", "PLACE/work"),
            *("--exclude", f"{folder}/test.jsonl", "--max-line-repeats", "9", "--validation-fraction", "0"),
        ],
        "preprocess --extend": ["--extend", f"{folder}/old", "--input", f"{folder}/new", "--split-mb", "0.02"],
        "preprocess --validation-input": [
            *("--input", f"{folder}/mixed", "--validation-input", f"{folder}/held", *vocab, *SMALL),
            *("--sample", "50", "--detect-languages"),
        ],
    }
    inputs = {"preprocess": "in", "preprocess --inputs": "b", "preprocess --extend": "new"}
    return {
        name: _command(folder, name, ["preprocess", *words, "--out", "PLACE/out"], inputs=inputs.get(name, "mixed"))
        for name, words in flags.items()
    }


def write_texts(folder: Path) -> None:
    """Write the texts of all commands: files of text, tables and archives, with near duplicates and a line that is cut."""
    texts = documents(150)
    again = [[*text, "And a sentence more, but no other change."] for text in texts[:20]]
    write(folder / "in/a.txt", texts[:60])
    with write(folder / "in/b.jsonl", texts[60:]).open("ab") as file:
        file.write(b'{"text": "cut o\n')
    write(folder / "a/one.jsonl", [["Bada | Bebe | Bibi", *text] for text in texts[:70]])
    write(folder / "b/two.txt", [*texts[50:110], *again])
    write(folder / "new/c.jsonl", [*documents(40, seed=2), *texts[30:50], *again])
    write(folder / "held/v.txt", texts[:12])
    rows = ["\n\n".join(text) for text in texts[20:60]]
    (folder / "mixed").mkdir()
    pq.write_table(pa.table({"text": [*rows, None]}), folder / "mixed/a.parquet", row_group_size=10)
    with zipfile.ZipFile(folder / "mixed/b.zip", "w") as archive:
        for i, text in enumerate(texts[:30]):
            archive.writestr(zipfile.ZipInfo(f"{i}.txt"), "\n".join(text))
    (folder / "sources.toml").write_text(SOURCES.replace("DIR", str(folder)))
    test_set = [{"text": " ".join(text)} for text in texts[::15]]
    (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in test_set))
    set_times(folder)


def make_training(folder: Path, run: Run) -> dict[str, Command]:
    """Return the commands that train, after those of preprocessing."""
    from tests.model.small_task import ROWS, write_jsonl, write_model

    encoder = write_model(folder / "encoder")
    (folder / "rows").mkdir()
    for name, number, seed in (("train", 48, 0), ("dev", 16, 9)):
        write_jsonl(folder / f"rows/{name}.jsonl", ROWS["classify"](number, seed=seed))
    steps = [
        "--num-steps",
        "6",
        "--batch-size",
        "8",
        "--save-every",
        "2",
        "--keep-checkpoints",
        "2",
        "--keep-every",
        "4",
    ]
    steps += ["--eval-every", "3", "--num-eval-examples", "16", "--learning-rate", "3e-3"]
    rows = ["--train", f"{folder}/rows/train.jsonl", "--dev", f"{folder}/rows/dev.jsonl", "--model", str(encoder)]
    rows += ["--num-epochs", "2", "--batch-size", "16", "--learning-rate", "3e-3", "--save-every", "2"]
    flags = {
        "pretrain": ["pretrain", "--data", f"{folder}/old", *steps, *MODEL, *CPU],
        "finetune": ["finetune", "--task", "classify", *rows, *CPU],
    }
    inputs = {"pretrain": "old", "finetune": "rows"}
    return {
        name: _command(folder, name, [*words, "--out", "PLACE/run"], inputs=inputs[name])
        for name, words in flags.items()
    }


def make_others(folder: Path, run: Run) -> dict[str, Command]:
    """Return the other commands that write files, after those of training."""
    model = ["--model", f"{folder}/encoder"]
    texts = ["--input", f"{folder}/rows/dev.jsonl"]
    run(["import", "--hf", f"{folder}/encoder", "--out", f"{folder}/imported"])
    flags = {
        "build-vocab": ["--input", f"{folder}/in", "--vocab-size", "300", "--out", "PLACE/vocab.txt"],
        "export-data": [f"{folder}/old", "--out", "PLACE/rows.parquet"],
        "export": ["--checkpoint", f"{folder}/imported", "--out", "PLACE/model"],
        "import": ["--hf", f"{folder}/encoder", "--out", "PLACE/run"],
        "adapt-vocab": [f"{folder}/encoder", "--input", f"{folder}/in", "--num-words", "20", "--out", "PLACE/model"],
        "embed": [*model, *texts, "--out", "PLACE/vectors.parquet", "--device", "cpu"],
        "score": [*model, *texts, "--out", "PLACE/scores.jsonl", "--device", "cpu"],
    }
    return {name: _command(folder, name, [name, *words]) for name, words in flags.items()}


def set_times(folder: Path) -> None:
    """Give all files the same time: how small files are grouped depends on it."""
    for path in folder.rglob("*"):
        if path.is_file():
            os.utime(path, (WRITTEN, WRITTEN))


def _command(folder: Path, name: str, argv: list[str], inputs: str = "") -> Command:
    place = folder / "places" / name.replace(" ", "").replace("--", "-")
    return Command(
        name, [word.replace("PLACE", str(place)) for word in argv], place, folder / inputs if inputs else None
    )
