"""A new input format is one record in the registry: nothing else in the pipeline knows the formats' names."""

import ast
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import pytest

from bertloom.extras import EXTRA_OF
from pipeline.inputs.discovery import find_sources
from pipeline.inputs.documents import read_documents, text_versions
from pipeline.inputs.formats import registry
from pipeline.inputs.formats.format import Format
from pipeline.inputs.formats.registry import FORMATS
from pipeline.inputs.formats.streamed import find_borders, read_stream
from pipeline.inputs.sources import ReadConfig, Source, Split
from pipeline.inputs.splitting import split_source
from pipeline.text.cleaning import CleanConfig
from pipeline.text.records import Document, Record, Row, whole_or_pieces
from tests.jobs.corpus import run_job, shard_digests
from tests.pipeline.archive_files import make_zip

ROOT = Path(__file__).parent.parent.parent
BORDER = re.compile(rb"\n---\n")


def read_blocks(chunks: Iterable[bytes], start: int) -> Iterator[Record]:
    position = start
    for block in BORDER.split(b"".join(chunks)):
        yield from whole_or_pieces(block, position)
        position += len(block) + len(b"\n---\n")


def read(file: BinaryIO, split: Split, start: int) -> Iterator[Record]:
    return read_stream(file, split, start, read_blocks)


def read_rows(file: BinaryIO, split: Split, start: int) -> Iterator[Row]:
    for document in read(file, split, start):
        assert isinstance(document, Document)
        yield Row(document.text.decode().replace("\n", "\n\n"), document.position, document.text)


def find_cuts(source: Source, split_bytes: int) -> list[int]:
    return find_borders(BORDER, source, split_bytes)


BLOCKS = Format(
    name="blocks",
    description="blocks between lines of hyphens",
    endings=(".blocks",),
    read=read,
    find_cuts=find_cuts,
    versions=("numpy",),
)
TEXTS = [f"Document {i} has a sentence.\nAnd another one, number {i * i}." for i in range(40)]


@pytest.fixture
def blocks(tmp_path, monkeypatch) -> Path:
    """A folder with a file of an imaginary format, which is registered for the test."""
    monkeypatch.setattr(registry, "FORMATS", [*FORMATS, BLOCKS])
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.blocks").write_text("\n---\n".join(TEXTS), "utf-8")
    return tmp_path


def test_a_registered_format_is_found_cut_and_read(blocks):
    [source] = find_sources([str(blocks / "in")])
    assert (source.format, source.encoding) == ("blocks", None)
    splits = split_source(source, 300)
    documents = [record for split in splits for record in read_documents(split) if isinstance(record, Document)]
    assert len(splits) > 3 and [document.text.decode() for document in documents] == TEXTS
    assert list(text_versions(CleanConfig(), "blocks")) == ["numpy"]
    data = Path(source.path).read_bytes()
    assert all(data[document.position :].startswith(document.text) for document in documents)


def test_a_registered_format_is_read_in_archives_and_its_rows_are_grouped_without_a_change(blocks, monkeypatch):
    rows = replace(BLOCKS, read=read_rows, has_records=True)
    monkeypatch.setattr(registry, "FORMATS", [*FORMATS, rows])
    data = (blocks / "in/a.blocks").read_bytes()
    (blocks / "in/b.zip").write_bytes(make_zip([("a.blocks", data)]))
    config = ReadConfig(records="sentences", records_per_document=8)
    file, archive = find_sources([str(blocks / "in")], config=config)
    found = [[record.text.decode() for record in read_documents(Split(one, 0, None))] for one in (file, archive)]
    assert found[0] == found[1] == ["\n".join(TEXTS[i : i + 8]) for i in range(0, len(TEXTS), 8)]


def test_a_job_makes_the_same_shards_of_a_registered_format_as_of_a_built_in_one(blocks):
    vocab = ROOT / "tests/golden/dataset/vocab.txt"
    run_job(blocks / "in", blocks / "out", vocab, split_mb=0.0003)
    lines = "".join(json.dumps({"text": text.replace("\n", "\n\n")}) + "\n" for text in TEXTS)
    (blocks / "same.jsonl").write_text(lines, "utf-8")
    run_job(blocks / "same.jsonl", blocks / "same", vocab)
    assert shard_digests(blocks / "out") == shard_digests(blocks / "same")
    manifest = json.loads((blocks / "out/manifest.json").read_text("utf-8"))
    assert manifest["inputs"][0]["format"] == "blocks" and manifest["counters"]["documents_used"] == len(TEXTS)


def test_a_format_that_lacks_a_package_is_refused_before_anything_is_read(blocks, monkeypatch):
    needs = replace(BLOCKS, packages=("no_such_package",))
    monkeypatch.setattr(registry, "FORMATS", [*FORMATS, needs])
    monkeypatch.setitem(EXTRA_OF, "no_such_package", "blocks")
    [source] = find_sources([str(blocks / "in")])
    with pytest.raises(ValueError, match='needs the extra "blocks": pip install'):
        split_source(source, 300)


def test_names_and_endings_of_formats_are_unique():
    assert len({form.name for form in FORMATS}) == len(FORMATS)
    endings = [ending for form in FORMATS for ending in form.endings]
    assert len(set(endings)) == len(endings)


def test_no_code_outside_the_formats_names_a_format():
    names = {form.name for form in FORMATS}
    found = []
    for path in [*(ROOT / "pipeline").rglob("*.py"), *(ROOT / "jobs").rglob("*.py")]:
        if (ROOT / "pipeline/inputs/formats") not in path.parents:
            nodes = list(ast.walk(ast.parse(path.read_text("utf-8"))))
            theirs = {
                node.value for node in nodes if isinstance(node, ast.keyword) and node.arg == "input_format"
            }  # an option of SentencePiece
            for node in nodes:
                if isinstance(node, ast.Constant) and node.value in names and node not in theirs:
                    found.append(f"{path.relative_to(ROOT)}:{node.lineno}: {node.value!r}")
    assert found == []
