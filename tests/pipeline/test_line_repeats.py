"""Lines that repeat across documents are counted exactly, however the input is cut, and left out."""

import hashlib
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.inputs.discovery import find_sources
from pipeline.inputs.documents import read_documents
from pipeline.inputs.sources import ReadConfig, Source, Split, SplitGroup
from pipeline.inputs.splitting import group_splits, split_source
from pipeline.options import compose
from pipeline.stages import line_repeats
from pipeline.stages.line_repeats import count_range, list_lines, plan_ranges
from pipeline.stages.sorted_rows import NUM_RANGES
from pipeline.text.cleaning import CleanConfig, clean, line_hashes, without_lines
from pipeline.text.records import Document, Reject
from tests.pipeline import twins
from tests.pipeline.reading import with_options

LINES = ["Home | About", " Home | About ", "All rights reserved.", "版权所有", "One.", "Two.", "Three.", "é"]
DOCUMENTS = st.lists(st.lists(st.sampled_from(LINES), min_size=1, max_size=6), max_size=14)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("lines")


def counted_by_hand(documents: list[list[str]]) -> dict[int, int]:
    """hash -> documents with that line, of different documents."""
    texts = {"\n".join(lines).strip() for lines in documents}
    counts = Counter(line.strip() for text in texts for line in {part.strip() for part in text.split("\n")})
    return {int.from_bytes(hashlib.sha256(line.encode()).digest()[:8], "little"): n for line, n in counts.items()}


def whole(source: Source) -> SplitGroup:
    return SplitGroup((Split(source, 0, None),))


def count(folder: Path, documents: list[list[str]], split_bytes: int, most: int, **config) -> dict[int, int]:
    (folder / "in.txt").write_text("\n\n".join("\n".join(lines) for lines in documents), encoding="utf-8")
    [source] = find_sources([str(folder / "in.txt")])
    lists = []
    for group in group_splits(split_source(source, split_bytes), 1):
        lists += list_lines(group, compose(CleanConfig, **config), str(folder))
    found = {}
    ranges = plan_ranges(lists)
    assert ranges[0][0] == 0 and ranges[-1][1] == NUM_RANGES
    assert [end for _, end in ranges[:-1]] == [first for first, _ in ranges[1:]]
    for first, end in ranges:
        lines, number = count_range(str(folder), [one.name for one in lists], first, end, most)
        assert all(first <= int(line) >> 52 < end for line in lines) and (np.diff(lines.astype(object)) > 0).all()
        found |= dict(zip(lines.tolist(), number.tolist()))
    return found


@settings(max_examples=60)
@given(DOCUMENTS, st.integers(1, 80), st.integers(0, 3), st.sampled_from([1, 3, 1 << 22]))
def test_counts_equal_a_plain_count_however_the_input_is_cut(folder, documents, split_bytes, most, entries):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(line_repeats, "MAX_ENTRIES", entries)
        found = count(folder, documents, split_bytes, most)
    assert found == {line: n for line, n in counted_by_hand(documents).items() if n > most}


def test_finished_lists_are_not_written_again(folder):
    (folder / "again.txt").write_text("One.\n\nTwo.\n")
    [source] = find_sources([str(folder / "again.txt")])
    [one] = list_lines(whole(source), CleanConfig(), str(folder))
    before = (folder / one.name).stat().st_mtime_ns
    assert list_lines(whole(source), CleanConfig(min_characters=3), str(folder)) == [one]
    assert (folder / one.name).stat().st_mtime_ns == before
    assert list_lines(whole(source), CleanConfig(unicode_normalization="NFC"), str(folder)) != [one]


def test_lines_are_counted_after_cleaning_and_sampling(folder):
    documents = [["One.", f"e\u0301{i}"] for i in range(200)]
    found = count(folder, documents, 1000, 0, unicode_normalization="NFC", sample=0.25)
    one = int(line_hashes("One.")[0])
    assert 25 < found[one] < 80 and found[one] == len(found) - 1
    assert {int(line_hashes(f"\u00e9{i}")[0]) for i in range(200)} > found.keys() - {one}


@given(st.lists(st.sampled_from(LINES), max_size=8), st.sets(st.sampled_from(LINES)))
def test_a_text_loses_only_the_repeated_lines(lines, out):
    repeated = np.unique(np.concatenate([np.zeros(0, "<u8"), *(line_hashes(line) for line in out)]))
    kept = [line for line in lines if line.strip() not in {other.strip() for other in out}]
    assert without_lines(repeated, "\n".join(lines)) == "\n".join(kept)


def test_lines_are_left_out_after_the_sample_and_before_the_length_limits():
    repeated = np.sort(line_hashes("Menu"))
    documents = [Document(b"Menu\nA text.", 0), Document(b"Menu", 1), Document(b"Menu\nB", 2), Document(b"Other", 3)]
    items = list(clean(documents, CleanConfig(min_characters=2), repeated))
    assert [item.text for item in items] == [b"A text.", "Menu", "B", b"Other"]
    assert [item.reason for item in items if isinstance(item, Reject)] == ["empty-text", "too-short"]
    assert items[0].cleaned == ("max-line-repeats",) and items[3].cleaned == ()
    assert items[1].detail == "nothing is left after max-line-repeats"
    sampled = [item.position for item in clean(documents, CleanConfig(sample=0.5)) if isinstance(item, Document)]
    with_lines = list(clean(documents, CleanConfig(sample=0.5), repeated))
    assert [item.position for item in with_lines if isinstance(item, (Document, Reject))] == sampled


def test_the_pieces_of_a_text_share_the_id_of_the_rest_of_the_first():
    pieces = [Document(b"Menu\none", 0, 0, 7), Document(b"two\nMenu", 0, 1, 7)]
    items = list(clean(pieces, CleanConfig(), np.sort(line_hashes("Menu"))))
    assert [item.text for item in items] == [b"one", b"two"]
    assert {item.source_key for item in items} == {twins.identity(b"one")}


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet", "a.txt"])
def test_lines_are_those_of_the_source_also_when_line_breaks_become_spaces(folder, name):
    """Lines are counted and left out as they are in the file; the rest is joined."""
    rows = [f"Home | About\nText {i} is wrapped\nhere.\nPrivacy\n\nHome\n\nEnd {i}." for i in range(3)]
    if name == "a.jsonl":
        (folder / name).write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))
    elif name == "a.parquet":
        pq.write_table(pa.table({"text": rows}), folder / name)
    else:
        (folder / name).write_text(rows[0])
    [source] = find_sources([str(folder / name)])
    [split] = split_source(with_options(source, text_layout="file", line_breaks="space"), 1 << 20)
    [one] = list_lines(SplitGroup((split,)), CleanConfig(), str(folder))
    lines, _ = count_range(str(folder), [one.name], 0, NUM_RANGES, 0 if name == "a.txt" else 2)
    out = np.sort(np.concatenate([line_hashes(line) for line in ("Home | About", "Privacy", "Home")]))
    assert set(out.tolist()) <= set(lines.tolist())
    texts = [item.text for item in read_documents(split, None, None, out)]
    assert texts == [b"Text %d is wrapped here.\nEnd %d." % (i, i) for i in range(len(texts))]
    whole = [item.text for item in read_documents(split)]
    assert whole[0] == b"Home | About Text 0 is wrapped here. Privacy\nHome\nEnd 0."


def test_texts_that_differ_only_in_their_line_wrapping_are_one_document(folder):
    (folder / "wrapped.jsonl").write_text('{"text": "One\\ntwo.\\nthree."}\n{"text": "One\\ntwo. three."}\n')
    [source] = find_sources([str(folder / "wrapped.jsonl")], config=ReadConfig(line_breaks="space"))
    [one] = list_lines(whole(source), CleanConfig(), str(folder))
    lines, documents = count_range(str(folder), [one.name], 0, NUM_RANGES, 0)
    assert {int(line_hashes(line)[0]) for line in ("One", "two.", "three.", "two. three.")} == set(lines.tolist())
    assert documents.tolist() == [1, 1, 1, 1]


def test_documents_are_read_without_the_repeated_lines(folder):
    (folder / "read.txt").write_text("Menu\nOne.\n\nTwo.\nMenu\n")
    [source] = find_sources([str(folder / "read.txt")])
    items = list(read_documents(Split(source, 0, None), repeated_lines=np.sort(line_hashes("Menu"))))
    assert [(item.text, item.position) for item in items] == [(b"One.", 0), (b"Two.", 11)]
