"""Mutated files of rows, each read for every task in a process of its own with limits on memory and time.

    python -m tests.model.row_mutants csv 1000 7    1000 mutants of the CSV files, from seed 7

A mutant may give rows, bad rows, or one line of error that names it. Anything else is printed and its file is kept.
"""

import csv
import gzip
import io
import json
import random
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.support.outputs import json_line
from model.tasks.data import Windowing
from model.tasks.records import read_records
from model.tasks.registry import TASKS, make_task
from model.tasks.rows import KNOWN_NAMES, read_rows, read_task
from model.tasks.values import BadRow
from tests.model.small_task import ROWS
from tests.pipeline.mutants import Seeds, fault, mutate

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


def arrow() -> Seeds:
    seeds = {}
    for name, table in tables():
        for compression in (None, "lz4", "zstd"):
            for kind, new in (("file", pa.ipc.new_file), ("stream", pa.ipc.new_stream)):
                sink = io.BytesIO()
                with new(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as writer:
                    # An Arrow file has one dictionary for all of its batches.
                    writer.write_table(table.combine_chunks(), max_chunksize=12)
                seeds[f"{name}-{kind}-{compression}.arrow"] = sink.getvalue()
    return seeds


def parquet() -> Seeds:
    seeds = {}
    for name, table in tables():
        if pa.string_view() in table.schema.types:
            continue
        for version, page, codec in (("1.0", "1.0", "none"), ("2.6", "2.0", "zstd"), ("2.6", "1.0", "snappy")):
            sink = io.BytesIO()
            options = {"version": version, "data_page_version": page, "compression": codec}
            pq.write_table(
                table, sink, row_group_size=5, use_dictionary=page == "1.0", write_page_index=True, **options
            )
            seeds[f"{name}-{codec}.parquet"] = sink.getvalue()
    return seeds


TASKS_BY_NAME = {  # made here, so that each process need not import them
    name: make_task(name, Windowing(max_seq_length=16, stride=None, max_windows=None)) for name in TASKS
}
NEEDED = {name for names in KNOWN_NAMES.values() for name in names} | {"id", "n"}
SEEDS = {"jsonl": jsonl, "json": json_files, "csv": csv_files, "arrow": arrow, "parquet": parquet}


def read_for_every_task(path: Path) -> None:
    """Read the rows for every task, with labels as `finetune` does and without them as `predict` does."""
    errors = []
    for task in TASKS_BY_NAME.values():
        try:
            with suppress(BadRow):
                rows, _ = read_task(path, task.forms(True), task.parse, {}, "skip")
                task.label_counts(rows)
            for _, row in read_rows(path, read_records(path, NEEDED), task.forms(False), task.parse, {}):
                str(row) if isinstance(row, BadRow) else json_line({"id": row.id}, "utf-8").encode()
        except ValueError as error:
            if path.name not in str(error) or "\n" in str(error):
                raise
            errors.append(error)
    if errors:
        raise errors[-1]


def faults(kind: str, number: int, seed: int, folder: Path) -> Iterator[str]:
    """Yield what is wrong with each mutant that is not handled well; its file stays in the folder."""
    seeds = SEEDS[kind]()
    draw = random.Random(seed)
    for i in range(number):
        name = draw.choice(sorted(seeds))
        path = folder / f"{i:06d}-{name}"
        path.write_bytes(mutate(seeds[name], list(seeds.values()), draw))
        if found := fault(path, read_for_every_task):
            yield f"{path}: {found}"
        else:
            path.unlink()


def main() -> None:
    kind, number, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    folder = Path(tempfile.mkdtemp())
    found = 0
    for line in faults(kind, number, seed, folder):
        found += 1
        print(line, flush=True)
    print(f"{kind}: {number} mutants, {found} faults")
    sys.exit(found > 0)


if __name__ == "__main__":
    main()
