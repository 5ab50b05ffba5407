"""Which documents of the parts of a job an earlier data set has, against a twin that looks up every id."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.extended import Extended
from pipeline.stages.known_documents import PAGE, KnownDocuments, KnownInBucket, match
from pipeline.stages.part_lists import Range
from pipeline.stages.sorted_rows import write_rows
from pipeline.tokens import DOCUMENT, PartRecord, TokenBlock, read_document_rows
from tests.pipeline import twins
from tests.pipeline.hand_made_parts import part_of_file


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("known")


def make_part(folder: Path, number: int, ids: list[int]) -> PartRecord:
    rows = np.zeros(len(ids), DOCUMENT)
    rows["id"], rows["num_tokens"], rows["num_sentences"], rows["length"] = ids, 1, 1, 5
    block = TokenBlock(np.zeros(len(ids), np.uint16), np.ones(len(ids), np.uint32), rows)
    return part_of_file(folder / f"p{number}", f"{number:03d}.txt", [block])


def write_page(path: Path, ids: list[int], length: int = 5) -> str:
    rows = np.zeros(len(ids), PAGE)
    rows["id"], rows["length"] = sorted(ids), length
    write_rows(str(path), rows, "id")
    return str(path)


def data_set(name: str) -> Extended:
    return Extended(name=name, location=name, sha256="", shards_digest="", pages={})


def find(folder: Path, parts: list[PartRecord], pages: list[tuple[int, str]], count: int) -> KnownDocuments:
    data_sets, paths = [data_set("one"), data_set("two")], []
    for number in range(count):
        rows = match(Range(number, count, ""), parts, str(folder), pages, data_sets)
        paths.append(str(folder / f"matched-{number}"))
        write_rows(paths[-1], rows, "key")
    return KnownDocuments(tuple(paths), len(parts), 2)


IDS = st.integers(0, 30).map(twins.mix) | st.sampled_from([0, 1, (1 << 63) - 1, 1 << 63, (1 << 64) - 1])
LIST = st.lists(IDS, max_size=12)


@given(
    parts=st.lists(LIST, min_size=1, max_size=5),
    pages=st.lists(st.tuples(st.integers(0, 1), st.lists(IDS, max_size=12, unique=True)), max_size=4),
    count=st.sampled_from([1, 2, 8]),
    low=IDS,
    high=IDS,
)
def test_a_document_is_known_if_its_id_is_in_a_page(folder, parts, pages, count, low, high):
    pages.sort(key=lambda page: page[0])
    low, high = min(low, high), max(low, high) + 1
    records = [make_part(folder, i, ids) for i, ids in enumerate(parts)]
    known = find(
        folder, records, [(i, write_page(folder / f"page{j}", ids)) for j, (i, ids) in enumerate(pages)], count
    )
    first = {number: i for i, ids in reversed(pages) for number in ids}
    bucket = KnownInBucket(known, low, high, lambda part: lambda ids: ids % 2 == 0)
    counts = [0, 0]
    for i, ids in enumerate(parts):
        expected = [(number, first[number]) for number in sorted(ids) if number in first]
        rows = known.of_part(i)
        assert list(zip(rows["id"].tolist(), rows["data_set"].tolist())) == expected
        within = [(number, of) for number, of in expected if low <= number < high]
        assert known.of_part(i, low, high)["id"].tolist() == [number for number, _ in within]
        chosen = [number for number in ids if low <= number < high]
        wanted = bucket(i)(np.array(chosen, np.uint64))
        assert wanted.tolist() == [number % 2 == 0 and number not in first for number in chosen]
        for number, of in within:
            counts[of] += number % 2 == 0
    assert bucket.totals() == tuple(counts)
    every = [(i, number) for i, ids in enumerate(parts) for number in ids]
    part_of, ids = (np.array(column, np.uint64) for column in zip(*every)) if every else (np.zeros(0, np.uint64),) * 2
    assert known.among(part_of, ids).tolist() == [number in first for _, number in every]


@given(ids=LIST, low=IDS, high=IDS)
def test_the_rows_of_a_range_are_those_whose_ids_are_in_it(folder, ids, low, high):
    low, high = min(low, high), max(low, high) + 1
    part = make_part(folder, 0, ids)
    rows = read_document_rows(str(folder / "p0"), part, low, high)
    assert rows["id"].tolist() == [number for number in sorted(ids) if low <= number < high]


def test_two_texts_with_the_same_id_are_an_error_that_names_both(folder):
    part = make_part(folder, 0, [7, 8])
    page = write_page(folder / "page", [8], length=6)
    with pytest.raises(
        ValueError, match="a new document of 000.txt has the id 0000000000000008 of a different document of two"
    ):
        find(folder, [part], [(1, page)], 1)
    page = write_page(folder / "page", [8], length=0)  # of a list that has no lengths
    assert find(folder, [part], [(1, page)], 1).of_part(0)["id"].tolist() == [8]
