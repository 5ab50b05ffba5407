"""Budgets of sources: which documents are used, compared with a slow twin that sorts all of them."""

import gzip
import json
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertloom.draws import SAMPLE, mix
from pipeline.inputs.named_inputs import NamedInput, default_name
from pipeline.places import Places
from pipeline.stages import selection
from pipeline.stages.selection import over_budget_logs, select_documents
from pipeline.text.cleaning import CleanConfig
from tests.pipeline.test_planning import make_part

IDS = st.integers(0, 20).map(lambda number: number * 0x0D0C0B0A09080706 % 2**64)
DOCUMENTS = st.lists(st.tuples(st.integers(0, 2), IDS), min_size=1, max_size=30)


def tokens_of(document: int) -> int:
    return 1 + document % 7


def draw_of(document: int) -> int:
    return int(mix(document ^ SAMPLE)[0])


def slow_selection(documents, budgets, near):
    """Return {source: ids that are used, or near duplicates}: of the first source that has one, in the order of draws."""
    used = {}
    for source, budget in enumerate(budgets):
        earlier = {document for other, document in documents if other < source}
        own = sorted({document for other, document in documents if other == source} - earlier, key=draw_of)
        left, kept = budget, set()
        for document in own:
            if document in near:
                continue
            if left is not None:
                left -= tokens_of(document)
                if left < 0:
                    break
            kept.add(document)
        used[source] = kept | (set(own) & near)
    return used


@settings(max_examples=60, deadline=None)
@given(
    documents=DOCUMENTS,
    budgets=st.tuples(*[st.none() | st.integers(1, 40)] * 3),
    near=st.sets(IDS, max_size=3),
    num_parts=st.integers(1, 3),
    range_documents=st.sampled_from([3, 1 << 20]),
    bins=st.sampled_from([1, 16]),
)
def test_budgets_take_the_documents_of_the_smallest_draws(documents, budgets, near, num_parts, range_documents, bins):
    expected = slow_selection(documents, budgets, near)
    sources = sorted({source for source, _ in documents})
    with TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(selection, "RANGE_DOCUMENTS", range_documents)
        patch.setattr(selection, "BINS", bins)
        places = Places(f"{name}/out", name)
        Path(places.parts).mkdir()
        Path(places.scratch).mkdir(parents=True)
        parts = []
        for source in sources:
            own = [(document, tokens_of(document)) for other, document in documents if other == source]
            for i in range(num_parts):
                if own[i::num_parts]:
                    parts.append(make_source_part(places.parts, f"{source}-{i}", source, own[i::num_parts]))
        inputs = [NamedInput(name=f"s{i}", clean=CleanConfig(), tokens=tokens) for i, tokens in enumerate(budgets)]
        if any(not expected[source] - near for source in range(3)):
            with pytest.raises(ValueError, match="has no document left|has no file"):
                select_documents(parts, inputs, places, np.array(sorted(near), np.uint64))
            return
        found = select_documents(parts, inputs, places, np.array(sorted(near), np.uint64))
        lines = [json.loads(line) for log in over_budget_logs(places) for line in gzip.decompress(log).splitlines()]
        near_ids = np.array(sorted(near), np.uint64)
        for source in sources:
            ids = np.array([document for other, document in documents if other == source], np.uint64)
            kept = set(ids[found.chosen(ids, source, near_ids)].tolist())
            assert kept == expected[source]
            first = {document for other, document in documents if other < source}
            over = set(ids.tolist()) - first - kept
            assert found.over_budget.get(str(source), 0) == len(over)
            dropped = sum(document not in kept for document in ids.tolist())
            assert found.duplicates.get(str(source), 0) == dropped - len(over)
        assert len(lines) == sum(found.over_budget.values())
        assert {line["reason"] for line in lines} <= {"over-budget"}


def make_source_part(folder, name, source, documents):
    from dataclasses import replace

    rows = [(document, document, tokens) for document, tokens in documents]
    return replace(make_part(Path(folder), name, rows), input=source)


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("corpus/web/*.jsonl.gz", "web"),
        ("books.txt", "books"),
        ("s3://bucket/wiki/", "wiki"),
        ("@list.txt", "list"),
        ("*.txt", "input"),
        ("数据/中文.jsonl", "中文"),
        ("a b.txt", "a-b"),
    ],
)
def test_the_name_of_a_source_is_that_of_its_folder_or_file(pattern, name):
    assert default_name(pattern, ()) == name
    assert default_name(pattern, {name.upper()}) == f"{name}-2"
