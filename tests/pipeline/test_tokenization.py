"""Groups of splits to token parts: restarts, counts by file, and names."""

import gzip
import io
import json
import os
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import tokenizer as tokenizing
from pipeline.examples.configuration import ExamplesConfig
from pipeline.inputs import documents, groups, streams
from pipeline.inputs.discovery import find_sources
from pipeline.inputs.documents import read_documents
from pipeline.inputs.formats import plain_text
from pipeline.inputs.sources import Source, Split, SplitGroup
from pipeline.job import JobConfig
from pipeline.options import compose
from pipeline.part_sources import read_files, read_names
from pipeline.places import Places
from pipeline.stages.tokenization import finished_parts, part_names, tokenize_group
from pipeline.text import records, versions
from pipeline.text.records import Document, PassedOver, Reject
from pipeline.text.wordpiece import WordPiece
from pipeline.tokenizer import DocumentTokenizer, TokenizeConfig
from pipeline.tokens import (
    read_documents_table,
    read_footer,
    read_rejects,
)
from pipeline.vocabulary import make_tokenizer
from tests.pipeline import twins
from tests.pipeline.small_text import VOCABULARY


def make_document_tokenizer(do_lower_case: bool = True) -> DocumentTokenizer:
    tokenizer = make_tokenizer(VOCABULARY, do_lower_case, None)
    return DocumentTokenizer(WordPiece(tokenizer, do_lower_case, len(VOCABULARY.words)))


def long_text() -> bytes:
    """Short documents and one that is cut into many pieces, with invalid bytes."""
    long = b" ".join(b"Line %d of it.\n" % i if i % 5 else b"word \xff %d" % i for i in range(60))
    return b"One.\nTwo.\n\nThree four.\n\n" + long + b"\n\nFive.\n\n\x01\n\nSix."


def json_lines() -> bytes:
    records = ["{", *(json.dumps({"text": f"Text {i}. And more."}) for i in range(20)), "[]", '{"text": ""}']
    return "\n".join(records).encode()


def table() -> pa.Table:
    texts = [text.decode(errors="replace") for text in long_text().split(b"\n\n")]
    return pa.table({"text": [*texts, None, "", *(f"Text {i}. And more." for i in range(30))]})


def parquet() -> bytes:
    sink = io.BytesIO()
    pq.write_table(table(), sink, row_group_size=5)
    return sink.getvalue()


INPUTS = {
    "a.txt": long_text(),
    "b.jsonl": json_lines(),
    "c.txt.gz": gzip.compress(long_text()),
    "d.jsonl.gz": gzip.compress(json_lines() * 6)[:-20],
    "e.txt": b"",
    "f.jsonl": b"{\n" * 30,
    "g.parquet": parquet(),
    "h.txt": long_text().decode(errors="replace").encode("utf-16"),
}
CONFIGS = {
    "as-it-is": TokenizeConfig(),
    "half": compose(TokenizeConfig, sample=0.5),
    "no-control-characters": compose(TokenizeConfig, remove_control_characters=True),
    "short-texts": compose(TokenizeConfig, min_characters=8, max_characters=100, unicode_normalization="NFKC"),
    "lines": compose(TokenizeConfig, records="lines", skip_lines="[24]"),
    "threes": compose(TokenizeConfig, records="sentences", records_per_document=3, sample=0.7),
}
CASES = [((name,), "as-it-is") for name in INPUTS]
CASES += [((name,), config) for name in ("a.txt", "g.parquet") for config in CONFIGS if config != "as-it-is"]
CASES += [(("b.jsonl",), "lines"), (("c.txt.gz",), "threes"), (("d.jsonl.gz",), "threes"), (("e.txt",), "lines")]
CASES += [(tuple(INPUTS), "as-it-is"), (tuple(INPUTS), "threes")]
CASES += [
    pytest.param(tuple(INPUTS), config, marks=pytest.mark.slow)
    for config in CONFIGS
    if config not in ("as-it-is", "threes")
]
EVERY_CASE = pytest.mark.parametrize("names, config", CASES)


@pytest.fixture
def small_pieces(monkeypatch):
    for module in (records, groups, plain_text):
        monkeypatch.setattr(module, "MAX_DOCUMENT_BYTES", 120)
    for module in (plain_text, streams):
        monkeypatch.setattr(module, "CHUNK", 37)


def job_of(config: TokenizeConfig, sha256: str = VOCABULARY.sha256) -> JobConfig:
    return JobConfig(config, ExamplesConfig(), sha256)


def group_of(folder: Path, names: Sequence[str], config: str) -> SplitGroup:
    for name in names:
        (folder / name).write_bytes(INPUTS[name])
        os.utime(folder / name, (1, 1))
    patterns = [str(folder / name) for name in names]
    sources = find_sources(patterns, None, CONFIGS[config].text.read)
    return SplitGroup(tuple(Split(source, 0, None, source.size) for source in sources))


def make_parts(folder: Path, group: SplitGroup, config: str, kernel, part_bytes: int = 200) -> dict[str, bytes]:
    job, places = job_of(CONFIGS[config]), Places(str(folder), str(folder))
    names = part_names(group, job, part_bytes)
    Path(places.parts).mkdir(exist_ok=True, parents=True)
    parts = list(tokenize_group(group, job, places, kernel, part_bytes, None, finished_parts(places.parts, names)))
    assert [part.name for part in parts] == [names(i) for i in range(len(parts))]
    assert [part.last for part in parts] == [False] * (len(parts) - 1) + [True]
    begins = [(group.splits[part.next_file].source.name, part.end) for part in parts[:-1]]
    assert begins == [(part.source, part.start) for part in parts[1:]] and parts == sorted(
        parts, key=lambda p: p.sort_key
    )
    return {part.name: (folder / "parts" / part.name).read_bytes() for part in parts}


@EVERY_CASE
def test_a_restart_after_any_number_of_parts_gives_the_same_bytes(tmp_path, small_pieces, names, config):
    kernel, group = make_document_tokenizer(), group_of(tmp_path, names, config)
    whole = make_parts(tmp_path / "whole", group, config, kernel)
    assert len(whole) > 1 or names == ("e.txt",)
    for done in range(len(whole) + 1):
        folder = tmp_path / f"after{done}"
        (folder / "parts").mkdir(parents=True)
        for part in list(whole)[:done]:
            (folder / "parts" / part).write_bytes(whole[part])
            os.utime(folder / "parts" / part, (1, 1))
        assert make_parts(folder, group, config, kernel) == whole
        is_old = [(folder / "parts" / part).stat().st_mtime == 1 for part in whole]
        assert is_old == [i < done for i in range(len(whole))]


def test_a_start_with_another_size_of_parts_uses_no_part_that_begins_elsewhere(tmp_path, small_pieces):
    kernel, group = make_document_tokenizer(), group_of(tmp_path, tuple(INPUTS), "as-it-is")
    whole = make_parts(tmp_path, group, "as-it-is", kernel)
    (tmp_path / "parts" / list(whole)[1]).write_bytes(b"damaged")
    job, places = job_of(CONFIGS["as-it-is"]), Places(str(tmp_path), str(tmp_path))
    finished = finished_parts(places.parts, part_names(group, job, 700))
    killed = tokenize_group(group, job, places, kernel, 700, None, finished)
    for _ in range(len(finished) + 1):  # it writes one part
        next(killed)
    assert make_parts(tmp_path, group, "as-it-is", kernel) == whole


@EVERY_CASE
def test_the_parts_of_a_group_have_every_document_and_reject_of_each_file_once(tmp_path, small_pieces, names, config):
    group = group_of(tmp_path, names, config)
    parts = make_parts(tmp_path / "parts", group, config, make_document_tokenizer())
    items = [
        (split.source.name, item)
        for split in group.splits
        for item in read_documents(split, None, CONFIGS[config].text.clean)
    ]
    documents = [(name, item) for name, item in items if isinstance(item, Document)]
    wanted = sorted((name, item.position, item.piece, twins.identity(item.text)) for name, item in documents)
    found, counts, of_files, rejects = [], Counter(), Counter(), Counter()
    for part in parts:
        path = str(tmp_path / "parts" / "parts" / part)
        footer = read_footer(path)
        counts.update(rejected=sum(footer.rejected.values()), passed_over=sum(footer.passed_over.values()))
        counts.update(footer.cleaned)
        files = read_files(f"{tmp_path}/parts/parts", footer)
        assert [file.name for file in files] == read_names(f"{tmp_path}/parts/parts", footer).to_pylist()
        assert footer.num_files == len(files) and files[0].name == footer.source
        rows = read_documents_table(path, footer)
        found += [(files[r["file"]].name, r["position"], r["piece"], r["id"]) for r in rows]
        for i, file in enumerate(files):
            own = rows[rows["file"] == i]
            assert (file.num_documents, file.num_tokens) == (len(own), own["num_tokens"].sum())
            of_files.update({(file.name, "bytes"): file.text_bytes, (file.name, "rejected"): file.num_rejected})
        log = read_rejects(path, footer)
        rejects.update(json.loads(line)["source"] for line in (gzip.decompress(log) if log else b"").splitlines())
    silent = [row for row in wanted if row[3] == twins.identity(b"\x01")]
    assert sorted(found + silent) == wanted
    expected = Counter(step for _, item in documents for step in item.cleaned)
    expected.update(
        rejected=len(silent) + sum(isinstance(item, Reject) for _, item in items),
        passed_over=sum(item.number for _, item in items if isinstance(item, PassedOver)),
    )
    assert counts == expected
    for name in names:
        assert of_files[name, "bytes"] == sum(len(item.text) for source, item in documents if source == name)
        num_rejects = sum(isinstance(item, Reject) for source, item in items if source == name)
        assert of_files[name, "rejected"] == rejects[name] == num_rejects + sum(row[0] == name for row in silent)


def test_a_document_without_tokens_is_rejected_with_its_text_id_and_piece(tmp_path):
    name, texts = "a.jsonl", ["One. Two.", "\u0001\u200b", "Three."]
    rows = [json.dumps({"id": f"d{i}", "text": text}) + "\n" for i, text in enumerate(texts)]
    (tmp_path / name).write_text("".join(rows))
    group = SplitGroup((Split(find_sources([str(tmp_path / name)])[0], 0, None),))
    places = Places(str(tmp_path), str(tmp_path))
    Path(places.parts).mkdir()
    [part] = tokenize_group(group, job_of(TokenizeConfig()), places, make_document_tokenizer(), 1000)
    assert part.rejected == {"no-tokens": 1} and part.num_documents == 2
    assert json.loads(gzip.decompress(read_rejects(f"{places.parts}/{part.name}", part))) == {
        "source": name,
        "position": len(rows[0]),
        "reason": "no-tokens",
        "detail": "nothing but control characters",
        "text": "\u0001\u200b",
        "id": "d1",
    }


def test_a_parts_name_changes_with_everything_that_decides_its_content(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"x")
    source = find_sources([str(tmp_path / "a.txt")])[0]
    names = {
        part_names(SplitGroup((Split(replace(source, encoding=encoding), start, end),)), job_of(config, sha256), 200)(0)
        for encoding in (None, "utf-16-le")
        for start, end in ((0, None), (0, 5), (2, None))
        for config in (TokenizeConfig(), TokenizeConfig(do_lower_case=False), compose(TokenizeConfig, sample=0.5))
        for sha256 in ("one", "two")
    }
    assert len(names) == 36


TXT, EVERY = Source("a.txt", "a.txt", "txt", None, None, 1, "fingerprint"), "every file"


@pytest.mark.parametrize(
    "package, form, options",
    [
        ("tokenizers", EVERY, {}),
        ("mwparserfromhell", "mediawiki", {}),
        ("resiliparse", "warc", {}),
        ("warcio", "warc", {}),
        ("ftfy", EVERY, {"fix_text": True}),
        ("py3langid", EVERY, {"languages": ("en",)}),
        ("rjieba", EVERY, {"chinese_words": True}),
        ("icu4py", EVERY, {"sentences": "icu:ja"}),
        ("unicode", EVERY, {"unicode_normalization": "NFC"}),
        ("unicode", EVERY, {"quality_filter": ("gopher",)}),
        ("numpy", "no file", {}),
    ],
)
def test_another_version_of_a_library_changes_only_the_parts_that_it_decides(monkeypatch, package, form, options):
    config = compose(TokenizeConfig, **options)

    def names() -> dict[str, str]:
        return {
            kind: part_names(SplitGroup((Split(replace(TXT, format=kind), 0, None),)), job_of(config), 200)(0)
            for kind in ("txt", "mediawiki", "warc")
        }

    before = names()
    monkeypatch.setattr(unicodedata, "unidata_version", "99" if package == "unicode" else unicodedata.unidata_version)
    for module in (documents, versions, tokenizing):
        monkeypatch.setattr(module, "version_of", lambda name: "99" if name == package else version(name))
    after = names()
    assert [before[kind] != after[kind] for kind in before] == [form in (EVERY, kind) for kind in before]


def test_test_sets_and_the_version_of_unicode_name_the_parts_that_are_searched(monkeypatch):
    def names(excluded: str) -> list[str]:
        job = replace(job_of(TokenizeConfig()), excluded_sha256=excluded)
        sources = (TXT, replace(TXT, held_out=True))
        return [part_names(SplitGroup((Split(source, 0, None),)), job, 200)(0) for source in sources]

    without, one, two = names(""), names("1"), names("2")
    assert len({without[0], one[0], two[0]}) == 3
    assert without[1] == one[1] == two[1]  # documents of --validation-input are not searched
    monkeypatch.setattr(unicodedata, "unidata_version", "99")
    assert names("") == without and names("1")[0] != one[0]
