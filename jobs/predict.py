"""Apply a fine-tuned model to the rows of a file or of standard input, or a pretrained one to masked words.

    bertloom predict --model TUNED --input texts.csv --out answers.jsonl
    head -3 questions.jsonl | bertloom predict --model TUNED --input - --out -
    bertloom predict --model RUN --fill "Paris is the [MASK] of France."

Input is in the formats of `bertloom finetune`, without labels, or .txt with a text in each line; standard input is JSONL.
Output is JSONL, one line per row, in the order of the rows, with the row's `id` if it has one. CoNLL and CoNLL-U are written
as they were read, with the predicted tags in their column, unless --out ends in .jsonl. CSV and TSV are written with the
answers in columns if --out ends like the input. Rows are read as a stream, so an input may be larger than memory (except a
.json file, which is read whole).
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tqdm import tqdm

from bertloom.counts import counted
from jobs.support.config import parse
from jobs.support.finetune_config import pairs
from jobs.support.messages import errors_of

if TYPE_CHECKING:
    from model.inference.predict import TaskPredictor
    from model.tasks.values import BadRow


@dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """Predict classes, labels, numbers, tags or answers of rows, with their probabilities; or words for a [MASK]."""

    model: Path
    """Run folder of `bertloom finetune`, or a directory in transformers' form. With --fill: a pretrained model."""
    input: Path | None = None
    """Rows: .jsonl, .csv, .tsv, .parquet, .arrow, .txt (a text in each line), .conll or .conllu (a word in each line), .json
    (a list, or SQuAD's format), or - for JSONL on standard input."""
    fill: str | None = None
    """Text with one or more [MASK], for which words are predicted. Other tokenizers may have another name for it: <mask>."""
    out: Path = Path("-")
    """File to write, or - for standard output. It is JSONL, except that .conll and .conllu are written back with the
    predicted tags unless the name ends in .jsonl, and .csv and .tsv with the answers in columns if it ends likewise."""
    overwrite: bool = False
    """Replace the file of --out if it exists."""
    columns: tuple[str, ...] = ()
    """Names of columns that are not found automatically: text=review. Also those of columns to write: label=found; for
    .conll their numbers from 0: tags=2."""
    top_k: int = 5
    """Number of classes, or words, whose probabilities are written."""
    on_bad_row: Literal["stop", "skip"] = "stop"
    """What to do with a row that cannot be used: stop and report it, or write {"error": …} in its place."""
    device: str = "auto"
    """Device: cpu, cuda, cuda:1, … auto is cuda if available, otherwise cpu."""

    def __post_init__(self) -> None:
        if (self.input is None) == (self.fill is None):
            raise ValueError("give --input with rows to predict, or --fill with a text that has a [MASK]")
        if self.top_k < 1:
            raise ValueError(f"top_k={self.top_k} must be at least 1")
        pairs("columns", self.columns)


def main(argv: Sequence[str]) -> None:
    config = parse(PredictConfig, argv, prog="bertloom predict")
    from jobs.support.outputs import check_output, write_rows

    check_output(config.out, [] if config.input is None else [config.input], config.model, overwrite=config.overwrite)
    if config.fill is None:
        predict(config)
    else:
        write_rows(config.out, fill(config))


def fill(config: PredictConfig) -> Iterator[dict[str, Any]]:
    """Yield a line per likely word: the number of its [MASK], from 1, the word, and its probability."""
    from model.hub.pretrained import open_pretrained
    from model.inference.predict import WordPredictor

    assert config.fill is not None
    model = WordPredictor(open_pretrained(config.model), config.device)
    for number, words in enumerate(model.fill(config.fill, config.top_k), 1):
        for word, probability in words:
            yield {"mask": number, "word": word, "probability": probability}


def predict(config: PredictConfig) -> None:
    """Write the answers to the rows of the input."""
    from jobs.support.outputs import STANDARD, write_parts, write_rows
    from model.hub.pretrained import open_pretrained
    from model.inference.predict import TaskPredictor
    from model.tasks.formats.registry import format_of
    from model.tasks.rows import needed_columns
    from model.tasks.values import BadRow

    assert config.input is not None
    model = TaskPredictor(open_pretrained(config.model), config.device)
    columns = pairs("columns", config.columns)
    write = None
    if model.task.written and str(config.input) != STANDARD:
        with errors_of("--input"):
            form = format_of(config.input, needed_columns(model.task.forms(False), columns))
        if not form.has_header or config.out.suffix.lower() in form.endings:
            write = form.write
    written = model.task.written if write else ()
    is_json = write is None or config.out.suffix.lower() == ".jsonl"
    answers = answer_rows(config, model, columns, written, "gives the reasons" if is_json else "has them as they were")
    if write is None or is_json:
        rows = ({"error": str(answer)} if isinstance(answer, BadRow) else answer for answer in answers)
        write_rows(config.out, rows)
    else:
        cells = (answer if isinstance(answer, BadRow) else model.task.cells(answer) for answer in answers)
        write_parts(config.out, write(config.input, columns, cells))


def answer_rows(
    config: PredictConfig, model: TaskPredictor, columns: dict[str, str], written: Collection[str], remark: str
) -> Iterator[dict[str, Any] | BadRow]:
    """Yield for each row of the input its answer, or why it has none.

    Args:
        written: see `read_input`.
        remark: what the output does about rows without an answer, for the message about them.
    """
    from jobs.support.texts import read_input
    from model.tasks.rows import MAX_NAMED
    from model.tasks.values import BadRow

    assert config.input is not None
    forms, parse_row = model.task.forms(False), model.task.parse
    num_rows = num_bad = 0
    first: list[str] = []
    with tqdm(desc="predict", unit=" rows", file=sys.stderr, disable=None) as bar:
        for chunk in read_input(config.input, forms, parse_row, columns, config.on_bad_row, written):
            answers = iter(model.answer([row for _, row in chunk if not isinstance(row, BadRow)], config.top_k))
            for place, row in chunk:
                if isinstance(row, BadRow):
                    num_bad += 1
                    reason = f"{place}: {row}"
                    first += [reason] * (num_bad <= MAX_NAMED)
                    yield BadRow(reason)
                else:
                    yield next(answers)
            num_rows += len(chunk)
            bar.update(len(chunk))
    if num_bad:
        more = f"; and {num_bad - MAX_NAMED} more" if num_bad > MAX_NAMED else ""
        print(
            f"{num_bad:,} of {counted(num_rows, 'row')} could not be used: the output {remark}: {'; '.join(first)}{more}",
            file=sys.stderr,
        )
