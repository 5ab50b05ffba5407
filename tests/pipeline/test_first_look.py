"""What the beginnings of files hold, and the advice about what looks wrong."""

import gzip
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.checks.advice import advice
from pipeline.checks.first_look import Look, look_at
from pipeline.inputs.discovery import find_sources
from pipeline.inputs.documents import TextConfig
from pipeline.inputs.formats import registry
from pipeline.inputs.formats.registry import FORMATS
from pipeline.options import compose
from pipeline.tokenizer import TokenizeConfig
from pipeline.vocabulary import parse_vocabulary

SENTENCES = [f"This is sentence number {i} of a text about the river and the town." for i in range(8)]
TEXT = " ".join(SENTENCES)
ENGLISH = [f"Title {i}\n\n{TEXT}\n\nHere is the end of text {i}." for i in range(30)]


def look(folder: Path, vocabulary=None, **options) -> tuple[list[Look], list[str]]:
    config = compose(TokenizeConfig, **options)
    sources = find_sources([str(folder)], [], config.text.read)
    looks = look_at(sources, config, vocabulary, 2)
    return looks, [found for one in looks for found in advice(one, config)]


def jsonl(path: Path, texts: list[str], name: str = "text") -> None:
    path.write_text("".join(json.dumps({"id": 1, name: text}, ensure_ascii=False) + "\n" for text in texts), "utf-8")


def test_ordinary_texts_look_right(tmp_path):
    jsonl(tmp_path / "a.jsonl", ENGLISH)
    (tmp_path / "b.txt").write_text("\n\n".join("\n".join(SENTENCES) for _ in range(30)))
    looks, wrong = look(tmp_path)
    assert wrong == []
    assert [(one.format, len(one.documents)) for one in looks] == [("JSON Lines", 30), ("plain text", 30)]


def test_numbers_of_a_small_file_are_exact(tmp_path):
    jsonl(tmp_path / "a.jsonl", ENGLISH)
    [one], _ = look(tmp_path)
    assert one.estimated_documents == 30
    assert one.estimated_text_bytes == one.num_text_bytes == sum(len(t.replace("\n\n", "\n")) for t in ENGLISH)
    assert one.num_sentences.tolist() == [10] * 30
    assert one.sentences[0] == ["Title 0", *SENTENCES, "Here is the end of text 0."]
    assert list(one.scripts) == ["Latin", "digits"]


@pytest.mark.parametrize("packed", [False, True])
def test_numbers_of_a_large_file_are_estimated_from_its_beginning(tmp_path, packed):
    draw = np.random.default_rng(1)
    texts = [" ".join(map(str, draw.integers(0, 1 << 40, 60))) for _ in range(8000)]
    jsonl(tmp_path / "a.jsonl", texts)
    if packed:
        (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress((tmp_path / "a.jsonl").read_bytes(), mtime=0))
        (tmp_path / "a.jsonl").unlink()
    [one], _ = look(tmp_path)
    assert len(one.documents) < 2000
    assert one.estimated_documents == pytest.approx(8000, rel=0.1)
    assert one.estimated_text_bytes == pytest.approx(sum(map(len, texts)), rel=0.1)


def test_a_few_files_of_many_are_read(tmp_path):
    for i in range(40):
        jsonl(tmp_path / f"{i:02}.jsonl", ENGLISH[:3])
    [one], _ = look(tmp_path)
    assert (len(one.sources), one.num_files, one.estimated_documents) == (40, 8, 120)


def test_files_that_are_documents_are_counted_as_files(tmp_path):
    for i in range(40):
        (tmp_path / f"{i:02}.txt").write_text("\n".join(SENTENCES * (1 + i)))
    [one], _ = look(tmp_path, text_layout="file")
    assert one.estimated_documents == 40


def test_no_cuts_are_searched_because_that_may_read_all_of_a_file(tmp_path, monkeypatch):
    def find_cuts(source, split_bytes):
        raise AssertionError("the whole file is read")

    monkeypatch.setattr(registry, "FORMATS", [replace(form, find_cuts=find_cuts) for form in FORMATS])
    jsonl(tmp_path / "a.jsonl", ENGLISH)
    (tmp_path / "b.csv").write_text("text\n" + f"{TEXT}\n" * 30)
    looks, wrong = look(tmp_path)
    assert wrong == [] and [len(one.documents) for one in looks] == [30, 30]


def test_unknown_tokens_are_counted_with_a_vocabulary(tmp_path):
    jsonl(tmp_path / "a.jsonl", ENGLISH)
    words = sorted({word.lower() for text in ENGLISH for word in text.replace(".", " .").split()} - {"river"})
    vocabulary = parse_vocabulary("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]).encode(), "v")
    [one], wrong = look(tmp_path, vocabulary)
    assert one.num_unknown == 30 * 8
    assert ["[UNK]: use a vocabulary of this language" in line for line in wrong] == [True]


def lower_cased(folder: Path) -> None:
    jsonl(folder / "a.jsonl", [text.lower() for text in ENGLISH])


def another_column(folder: Path) -> None:
    jsonl(folder / "a.jsonl", ENGLISH, "content")


def missing_column(folder: Path) -> None:
    pq.write_table(pa.table({"id": [1], "body": ["text"]}), folder / "a.parquet")


def sentences(folder: Path) -> None:
    jsonl(folder / "a.jsonl", SENTENCES * 10)


def lines(folder: Path) -> None:
    jsonl(folder / "a.jsonl", [line for _ in range(20) for line in [*SENTENCES[:4], ""]])


def wikitext(folder: Path) -> None:
    rows = [line for i in range(20) for line in ["", f" = Title {i} = \n", "", TEXT]]
    pq.write_table(pa.table({"text": rows}), folder / "a.parquet")


def wikitext_lines(folder: Path) -> None:
    (folder / "wiki.train.raw").write_text("".join(f" \n = Title {i} = \n \n {TEXT} \n" for i in range(20)))


def columns(folder: Path) -> None:
    lines = [f"{i}\t{sentence}\n" for i, sentence in enumerate(SENTENCES * 4)]
    (folder / "eng-sentences.txt").write_text("".join(lines))


def records_of_books(folder: Path) -> None:
    rows = [json.dumps({"text": text, "book": i // 10}) + "\n" for i, text in enumerate(SENTENCES * 10)]
    (folder / "a.jsonl").write_text("".join(rows))


def empty(folder: Path) -> None:
    (folder / "a.txt").write_text("")


def books(folder: Path) -> None:
    for i in range(6):
        (folder / f"{i}.txt").write_text("\n\n".join(f"Chapter {n}\n\n{TEXT}" for n in range(12)))


def paragraphs(folder: Path) -> None:
    for i in range(6):
        (folder / f"{i}.txt").write_text("\n\n".join([TEXT] * 12))


def a_line_each(folder: Path) -> None:
    (folder / "a.txt").write_text("\n".join([TEXT] * 60))


def tags(folder: Path) -> None:
    jsonl(folder / "a.jsonl", [f"<p>{text}</p><br/>" for text in ENGLISH])


def entities(folder: Path) -> None:
    jsonl(folder / "a.jsonl", [text.replace("and", "&amp;") for text in ENGLISH])


def extracted(folder: Path) -> None:
    (folder / "wiki.txt").write_text(f'<doc id="1" url="u" title="T">\nT\n\n{TEXT}\n</doc>\n')


def gutenberg(folder: Path) -> None:
    jsonl(folder / "a.jsonl", [f"*** START OF THE PROJECT GUTENBERG EBOOK A ***\n\n{TEXT}"])


def japanese(folder: Path) -> None:
    jsonl(folder / "a.jsonl", ["これはとてもながいぶんしょうです。かわとまちについてかいています。"] * 30)


def broken_encoding(folder: Path) -> None:
    (folder / "a.txt").write_bytes("Größe für Äpfel. ".encode("cp1252") * 20)


@pytest.mark.parametrize(
    ("write", "options", "flag"),
    [
        (lower_cased, {"do_lower_case": False}, "leave out --no-do-lower-case"),
        (another_column, {}, "fields: id, content: give --text-column content"),
        (missing_column, {}, "has no column 'text'. Its columns are id, body: choose one with --text-column"),
        (sentences, {}, "give --records sentences with --document-column NAME or --records-per-document 64"),
        (lines, {}, "20% of the records are empty"),
        (wikitext, {}, "give --like wikitext"),
        (wikitext_lines, {}, "50% of the documents are titles such as = Title =, as in WikiText: give --like wikitext"),
        (columns, {}, "2 columns separated by tabs: give --format tsv --header no --text-column 1"),
        (
            records_of_books,
            {"records": "sentences", "document_column": "boook"},
            "text, book: there is no field 'boook'",
        ),
        (
            records_of_books,
            {"records": "lines", "document_start": "^Chapter"},
            "each file gives one document, of about 80 sentences: is --document-start '^Chapter' found in any record",
        ),
        (empty, {}, "plain text: no document was found in 1 file"),
        (
            records_of_books,
            {"records": "lines", "skip_lines": "."},
            "no document was found in 1 file (80 skipped-line)",
        ),
        (books, {}, "50% of the documents are headings"),
        (
            paragraphs,
            {},
            "about 12 documents of 8.0 sentences each. If each file is one document, give --text-layout file",
        ),
        (a_line_each, {}, "give --text-layout line"),
        (tags, {}, "100% of the documents hold HTML tags: extract their text first"),
        (entities, {}, "such as &amp;: give --fix-text"),
        (extracted, {}, "give --format wikiextractor"),
        (gutenberg, {}, "give --strip-gutenberg"),
        (japanese, {}, "give --sentences icu:ja"),
        (broken_encoding, {"encoding": "utf-8"}, "name the encoding of the files with --encoding"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_what_looks_wrong_names_the_flag_that_puts_it_right(tmp_path, write, options, flag):
    write(tmp_path)
    _, wrong = look(tmp_path, **options)
    assert len(wrong) == 1 and flag in wrong[0], wrong


@pytest.mark.parametrize(
    ("write", "options"),
    [
        (lower_cased, {}),
        (another_column, {"text_column": "content"}),
        (sentences, {"records": "sentences", "records_per_document": 10}),
        (lines, {"records": "lines"}),
        (records_of_books, {"records": "lines", "document_start": "number 0"}),
        (records_of_books, {"records": "sentences", "document_column": "book"}),
        (books, {"text_layout": "file"}),
        (paragraphs, {"text_layout": "file"}),
        (a_line_each, {"text_layout": "line"}),
        (gutenberg, {"text_layout": "file", "strip_gutenberg": True}),
        (japanese, {"sentences": "icu:ja"}),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_nothing_looks_wrong_with_the_flag(tmp_path, write, options):
    write(tmp_path)
    assert look(tmp_path, **options)[1] == []


def test_no_setting_is_changed(tmp_path):
    sentences(tmp_path)
    config = TextConfig()
    [one], _ = look(tmp_path)
    assert one.read == config.read
