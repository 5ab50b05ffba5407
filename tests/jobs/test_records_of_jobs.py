"""Jobs over records that are sentences or lines: the same shards as from one record per document, and exact explanations."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.build_vocab import main as build_vocab
from jobs.explain import Explainer
from jobs.support.explanation import explanation_lines
from tests.jobs.corpus import documents, run_job, shard_digests, write

TEXTS = documents(60)
ONE = {"max_seq_length": (32,), "dupe_factor": 1, "seed": 3}
TITLES = {"records": "lines", "document_start": "^ = [^=].* = $", "skip_lines": "^ =.*= $"}
THREES = {"records": "sentences", "records_per_document": 3}
BOOKS = {"records": "sentences", "document_column": "book"}


def rows(texts: list[list[str]], after: list[str]) -> list[str]:
    """A record for each paragraph, and these after each document."""
    return [record for paragraphs in texts for record in [*paragraphs, *after]]


def titled(texts: list[list[str]]) -> list[str]:
    return [
        row for i, paragraphs in enumerate(texts) for row in ["", f" = No. {i} = \n", "", " = = A = = \n", *paragraphs]
    ]


def threes(texts: list[list[str]]) -> list[list[str]]:
    flat = rows(texts, [])
    return [flat[i : i + 3] for i in range(0, len(flat), 3)]


def write_table(path: Path, texts: list[str], **columns) -> None:
    pq.write_table(pa.table({"text": texts, **columns}), path, row_group_size=7)


def write_lines(path: Path, texts: list[str]) -> None:
    path.write_text("".join(text.removesuffix("\n") + "\n" for text in texts), "utf-8")


def write_objects(path: Path, texts: list[str], books: list[int] | None = None) -> None:
    objects = [{"text": text, "book": book} for text, book in zip(texts, books or [0] * len(texts), strict=True)]
    path.write_text("".join(json.dumps(row) + "\n" for row in objects), "utf-8")


def lines_of_a_table(folder):
    write_table(folder / "a.parquet", rows(TEXTS, [" \n"]))
    return {"records": "lines"}


def lines_of_text(folder):
    write_lines(folder / "a.txt", rows(TEXTS, ["\u3000", ""]))
    return {"records": "lines"}


def titles_of_a_table(folder):
    write_table(folder / "a.parquet", titled(TEXTS))
    return TITLES


def titles_of_text(folder):
    write_lines(folder / "wiki.train.raw", titled(TEXTS))
    return TITLES


def books_of_a_table(folder):
    numbers = [i for i, paragraphs in enumerate(TEXTS) for _ in paragraphs]
    write_table(folder / "a.parquet", rows(TEXTS, []), book=numbers)
    return BOOKS


def books_of_objects(folder):
    write_objects(folder / "a.jsonl", rows(TEXTS, []), [i for i, paragraphs in enumerate(TEXTS) for _ in paragraphs])
    return BOOKS


def threes_of_a_table(folder):
    write_table(folder / "a.parquet", rows(TEXTS, []))
    return THREES


def threes_of_objects(folder):
    write_objects(folder / "a.jsonl", rows(TEXTS, []))
    return THREES


SHAPES = [
    lines_of_a_table,
    lines_of_text,
    titles_of_a_table,
    titles_of_text,
    books_of_a_table,
    books_of_objects,
    threes_of_a_table,
    threes_of_objects,
]


@pytest.fixture(scope="module")
def expected(tmp_path_factory, vocab):
    """Whether documents have three paragraphs each -> the digests of shards from one record per document."""
    found = {}
    for is_threes in (False, True):
        folder = tmp_path_factory.mktemp("expected")
        write(folder / "a.jsonl", threes(TEXTS) if is_threes else TEXTS)
        run_job(folder / "a.jsonl", folder / "out", vocab, **ONE)
        found[is_threes] = shard_digests(folder / "out")
    return found


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.__name__)
def test_records_give_the_shards_of_their_documents(tmp_path, vocab, expected, shape):
    (tmp_path / "in").mkdir()
    options = shape(tmp_path / "in")
    run_job(tmp_path / "in", tmp_path / "out", vocab, **ONE, **options, split_mb=0.001, num_workers=2)
    assert shard_digests(tmp_path / "out") == expected[options == THREES]


@pytest.mark.parametrize("shape", [titles_of_text, books_of_a_table, threes_of_objects], ids=lambda s: s.__name__)
def test_every_example_of_records_is_reproduced_and_its_records_are_named(tmp_path, vocab, shape):
    (tmp_path / "in").mkdir()
    options = shape(tmp_path / "in")
    run_job(tmp_path / "in", tmp_path / "out", vocab, **ONE, **options)
    explainer = Explainer(str(tmp_path / "out"))
    num_named = 0
    for index in range(0, explainer.num_examples, 5):
        found = explainer.explain(index)
        assert found["agrees"], (index, found)
        segment = found["a"]
        text = " ".join(_records(Path(segment["path"]), segment["position"], segment["last_record"]))
        assert " ".join(segment["text"].split()) in " ".join(text.split())
        if segment["last_record"] > segment["position"]:
            unit = "rows" if shape is books_of_a_table else "bytes"
            named = f", the records at {unit} {segment['position']:,} to {segment['last_record']:,}"
            assert named in "\n".join(explanation_lines(found))
            num_named += 1
    assert num_named > 10


def _records(path: Path, first: int, last: int) -> list[str]:
    """Read the records from the first to the last in the plainest way."""
    if path.suffix == ".parquet":
        return pq.read_table(path)["text"].to_pylist()[first : last + 1]
    data = path.read_bytes()
    lines = data[first : data.index(b"\n", last)].decode().split("\n")
    return [json.loads(line)["text"] for line in lines] if path.suffix == ".jsonl" else lines


def test_the_steps_that_read_all_input_before_see_the_same_documents(tmp_path, vocab):
    menu = ["Bada | Bebe.", "Bobo bubu."]
    texts = [*([menu[0], *paragraphs, menu[1]] for paragraphs in TEXTS), [*TEXTS[0], "One more word."], TEXTS[1]]
    write_lines(tmp_path / "rows.txt", rows(texts, [""]))
    write(tmp_path / "documents.jsonl", texts)
    options = {"sample": 40, "max_line_repeats": 5, "near_duplicates": 0.7, "min_characters": 40}
    many = {"records": "lines", "split_mb": 0.001, "num_workers": 2}
    made = run_job(tmp_path / "rows.txt", tmp_path / "out", vocab, **ONE, **options, **many)
    expected = run_job(tmp_path / "documents.jsonl", tmp_path / "expected", vocab, **ONE, **options)
    assert shard_digests(tmp_path / "out") == shard_digests(tmp_path / "expected")
    assert made["counters"]["passed_over"].pop("empty-record") == len(texts)
    for name in ("documents_in", "documents_duplicate", "rejected", "passed_over", "cleaned"):
        assert made["counters"][name] == expected["counters"][name]


def test_a_vocabulary_of_records_is_that_of_their_documents(tmp_path):
    write_lines(tmp_path / "rows.txt", rows(TEXTS, [""]))
    write(tmp_path / "documents.jsonl", TEXTS)
    for name, flags in (
        ("rows.txt", ["--records", "lines", "--sample", "40"]),
        ("documents.jsonl", ["--sample", "40"]),
    ):
        build_vocab(
            ["--input", f"{tmp_path}/{name}", "--vocab-size", "300", "--out", f"{tmp_path}/{name}.vocab", *flags]
        )
    assert (tmp_path / "rows.txt.vocab").read_bytes() == (tmp_path / "documents.jsonl.vocab").read_bytes()


def test_a_column_that_no_record_has_is_named(tmp_path, vocab):
    write_objects(tmp_path / "a.jsonl", rows(TEXTS, []))
    with pytest.raises(ValueError, match="no-document-field.*fields: text, book"):
        run_job(tmp_path / "a.jsonl", tmp_path / "out", vocab, **ONE, records="sentences", document_column="volume")
