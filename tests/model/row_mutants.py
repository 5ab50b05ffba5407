"""Files of rows to change and read for every task, see `tests/mutants.py`: rows, bad rows, or a line that names the file.

python -m tests.model.row_mutants csv 1000 7
"""

import csv
import gzip
import io
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pyarrow as pa

from jobs.support.outputs import json_line
from model.tasks.data import Windowing
from model.tasks.formats.registry import format_of, read_records
from model.tasks.registry import TASKS, make_task
from model.tasks.rows import needed_columns, read_rows, read_task
from model.tasks.task import Task
from model.tasks.values import BadRow
from tests.model.small_task import ROWS
from tests.mutants import Seeds, Use, arrow_files, main, parquet_files, target_of_files

NESTED = '{"text": "a", "label": "b", "x": ' + "[" * 99 + "]" * 99 + "}\n"


def jsonl() -> Seeds:
    seeds = {f"{task}.jsonl": text_of(rows(9)) for task, rows in ROWS.items()}
    packed = {f"{name}.gz": gzip.compress(data, mtime=0) for name, data in seeds.items()}
    wide = {"wide.jsonl": text_of(ROWS["classify"](3)).decode().encode("utf-16"), "deep.jsonl": NESTED.encode() * 2}
    return seeds | packed | wide


def text_of(rows: list[dict]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def json_files() -> Seeds:
    questions = ROWS["span"](5, unanswerable=True)
    paragraphs = [{"context": row["context"], "qas": [row]} for row in questions]
    squad = {"version": "2.0", "data": [{"title": "t", "paragraphs": paragraphs}]}
    return {"squad.json": json.dumps(squad).encode(), "list.json": json.dumps(questions).encode()}


def csv_files() -> Seeds:
    seeds = {}
    for task, rows in ROWS.items():
        cells = [
            {name: value if isinstance(value, str) else json.dumps(value) for name, value in row.items()}
            for row in rows(9)
        ]
        for ending, delimiter, end in (("csv", ",", "\n"), ("csv", ";", "\r"), ("tsv", "\t", "\r\n")):
            file = io.StringIO()
            writer = csv.DictWriter(file, list(cells[0]), delimiter=delimiter, lineterminator=end)
            writer.writeheader()
            writer.writerows(cells)
            seeds[f"{task}-{len(seeds)}.{ending}"] = file.getvalue().encode("utf-16" if delimiter == ";" else "utf-8")
    return seeds


def conll_files() -> Seeds:
    text = "# sent_id = a\n" + "".join(
        f"{word}\t_\t{tag}\n" for word, tag in [("anna", "B-PER"), ("北京", "O"), ("#", "O")]
    )
    seeds = {
        "x.conll": f"-DOCSTART- O\n\n{text}\n\n{text}",
        "x.txt": text.replace("\t", " ") * 3,
        "y.txt": "北\n京\n\n人\n",
    }
    word, blank = "\t".join(["1", "anna", "_", "PROPN", "NNP", *"_____"]), "\t_"
    seeds |= {"x.conllu": f"# sent_id = a\n1-2\tannais{8 * blank}\n{word}\n1.1{word[1:]}\n\n" * 3}
    seeds["y.conllup"] = "# global.columns = FORM UPOS ID\nanna\tPROPN\t1\n\nis\tAUX\t1\n"
    wide = {f"wide-{name}": content.encode("utf-16") for name, content in seeds.items()}
    return {name: content.encode() for name, content in seeds.items()} | wide


def tables() -> Iterator[tuple[str, pa.Table]]:
    for task, rows in ROWS.items():
        yield task, pa.Table.from_pylist(rows(12))
    names = {"label": {"names": ["no", "yes"], "_type": "ClassLabel"}}
    tags = {"feature": {"names": ["O", "B-LOC"], "_type": "ClassLabel"}, "_type": "Sequence"}
    metadata = {"huggingface": json.dumps({"info": {"features": {**names, "tags": tags}}})}
    text = pa.array(["good film", "北京", None] * 4)
    ids = [
        pa.array(range(12), pa.timestamp("us", "Asia/Tokyo")),
        pa.array(range(12), pa.date32()),
        text.dictionary_encode(),
        pa.array([[i] for i in range(12)]),
        pa.array([{"a": i} for i in range(12)]),
    ]
    for number, column in enumerate(ids):
        values = {"text": text, "tokens": [["good", "film"]] * 12, "label": [0, 1, -1] * 4, "tags": [[0, 1]] * 12}
        yield f"names-{number}", pa.table(values | {"id": column}).replace_schema_metadata(metadata)
    kinds = [pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())]
    for kind in kinds:
        column = text.dictionary_encode() if pa.types.is_dictionary(kind) else text.cast(kind)
        yield f"kind-{kind.id}", pa.table({"text": column, "label": column, "n": range(12)})


TASKS_OF_ROWS = [  # made here, so that each process need not import them
    make_task(name, Windowing(max_seq_length=16, stride=None, max_windows=None)) for name in TASKS
]


def uses(path: Path) -> list[Use]:
    """Read the rows for every task, with labels as `finetune` does, without them as `predict` does, and write them back."""
    ways = (read_with_labels, read_without_labels, write_labels)
    return [partial(way, path, task) for task in TASKS_OF_ROWS for way in ways]


def read_with_labels(path: Path, task: Task) -> None:
    rows, _ = read_task(path, task.forms(True), task.parse, {}, "skip")
    task.label_counts(rows)


def read_without_labels(path: Path, task: Task) -> None:
    records = read_records(path, needed_columns(task.forms(False), {}))
    for _, row in read_rows(path, records, task.forms(False), task.parse, {}):
        str(row) if isinstance(row, BadRow) else json_line({"id": row.id}, "utf-8").encode()


def write_labels(path: Path, task: Task) -> None:
    """Write a tag for each word, or a value in each record of a table, for forms that are written back."""
    needed = needed_columns(task.forms(False), {})
    form = format_of(path, needed)
    if form.write is None or not task.written or not (form.has_header or task.written == ("tags",)):
        return
    records = [values for _, values in form.read(path, needed)]
    answers = [
        row
        if isinstance(row, BadRow)
        else dict.fromkeys(task.written, "x" if form.has_header else ["x"] * len(row.get("tokens") or ()))
        for row in records
    ]
    list(form.write(path, {}, answers))


SEEDS = {
    "jsonl": jsonl,
    "json": json_files,
    "csv": csv_files,
    "conll": conll_files,
    "arrow": lambda: arrow_files(dict(tables())),
    "parquet": lambda: parquet_files(dict(tables())),
}
TARGETS = {name: target_of_files(seeds, uses, 1000) for name, seeds in SEEDS.items()}

if __name__ == "__main__":
    main(TARGETS)
