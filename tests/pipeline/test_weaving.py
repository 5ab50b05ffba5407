"""What a bucket holds: each text once, however often the input has it."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.stages import bucket_content
from pipeline.stages.bucket_content import read_bucket
from pipeline.stages.plan import Bucket, Plan
from pipeline.tokens import DOCUMENT, PartRecord, TokenBlock
from tests.pipeline import twins
from tests.pipeline.hand_made_parts import part_of_file

WHOLE = Bucket("train", 0, 0, 1 << 64)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("weaving")


def make_part(folder: Path, number: int, documents: list[tuple[int, int]], size: int = 2, low: int = 0) -> PartRecord:
    """A part of documents (id, position); their tokens and sentences depend on the id."""
    rows = np.zeros(len(documents), DOCUMENT)
    for row, (document, position) in zip(rows, documents):
        row["id"], row["id_low"], row["position"] = document, low, position
        row["num_tokens"], row["num_sentences"] = size + document % 3, 2
    ids = [np.full(size + document % 3, document % 1000, np.uint16) for document, _ in documents]
    lengths = [n for document, _ in documents for n in (1, size + document % 3 - 1)]
    inside = np.concatenate([np.zeros(0, bool), *(tokens % 2 == 1 for tokens in ids)])
    tokens = np.concatenate([np.zeros(0, np.uint16), *ids])
    block = TokenBlock(tokens, np.array(lengths, np.uint32), rows, inside)
    return part_of_file(folder / f"p{number}", f"{number:03d}.txt", [block])


def plan_of(parts: list[PartRecord]) -> Plan:
    return Plan(tuple(parts), (WHOLE,), 0.0, sum(part.num_documents for part in parts), ())


IDS = st.integers(0, 9).map(twins.mix)
PARTS = st.lists(st.lists(st.tuples(IDS, st.integers(0, 3)), max_size=8), min_size=1, max_size=7)


@given(parts=PARTS, most=st.integers(0, 2000), near=st.none() | st.lists(IDS, max_size=3, unique=True))
def test_a_bucket_has_each_document_once_from_the_source_that_sorts_first(folder, parts, most, near):
    if not any(parts):
        return
    plan = plan_of([make_part(folder, i, documents) for i, documents in enumerate(parts)])
    first: dict[int, tuple[int, int]] = {}  # id -> part, position
    for i, documents in enumerate(parts):
        for document, position in sorted(documents):
            first.setdefault(document, (i, position))
    dropped = [document for document in first if document in (near or [])]
    kept = sorted(set(first) - set(dropped))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bucket_content, "MAX_HELD_BYTES", most)
        ids = None if near is None else np.array(sorted(near), np.uint64)
        content = read_bucket(WHOLE, plan, str(folder), ids)
        tokens, sources, num_duplicates, num_near = (
            content.tokens,
            content.sources,
            content.num_duplicates,
            content.num_near.sum(),
        )
    assert tokens.documents["id"].tolist() == kept
    assert sources == [f"{first[document][0]:03d}.txt" for document in kept]
    assert tokens.documents["position"].tolist() == [first[document][1] for document in kept]
    assert tokens.ids.tolist() == [document % 1000 for document in kept for _ in range(2 + document % 3)]
    assert tokens.inside_words.tolist() == [bool(token % 2) for token in tokens.ids]
    assert tokens.sentence_lengths.tolist() == [n for document in kept for n in (1, 1 + document % 3)]
    assert (num_duplicates, num_near) == (sum(map(len, parts)) - len(kept), len(dropped))


def test_many_copies_of_a_document_take_no_more_memory_than_few(folder, monkeypatch):
    """All copies of a text have the same id, so they are in one bucket."""
    monkeypatch.setattr(bucket_content, "MAX_HELD_BYTES", 100_000)
    peaks = []
    for number, copies in ((20, 1), (200, 1), (20, 20)):
        plan = plan_of([make_part(folder, i, [(7, j) for j in range(copies)], 5_000) for i in range(number)])
        tracemalloc.start()
        content = read_bucket(WHOLE, plan, str(folder))
        tokens, num_duplicates = content.tokens, content.num_duplicates
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert len(tokens.documents) == 1 and num_duplicates == number * copies - 1
    assert peaks[1] < 1.2 * peaks[0] and peaks[2] < 1_000_000  # 200 copies are 2 MB, 400 are 4 MB


def test_two_documents_with_the_same_id_are_an_error_that_names_their_sources(folder, monkeypatch):
    for most in (0, 1 << 20):
        monkeypatch.setattr(bucket_content, "MAX_HELD_BYTES", most)
        plan = plan_of([make_part(folder, i, [(7, 0)], low=i == 2) for i in range(3)])
        with pytest.raises(ValueError, match=r"have the same id 0000000000000007: .*\(00[01].txt and 002.txt\)"):
            read_bucket(WHOLE, plan, str(folder))
