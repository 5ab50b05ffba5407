"""Packs of small parts hold what the parts hold, and a bucket read from packs is the bucket read from parts."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertloom import storage
from pipeline.stages import packs
from pipeline.stages.packs import pack_parts, token_files
from pipeline.stages.plan import Bucket, make_plan, read_plan, write_plan
from pipeline.stages.weave import read_bucket
from pipeline.tokens import read_range
from tests.pipeline import twins
from tests.pipeline.test_weaving import make_part, plan_of

IDS = st.integers(0, 30).map(twins.mix)
PARTS = st.lists(st.lists(st.tuples(IDS, st.integers(0, 3)), max_size=6), min_size=1, max_size=12)
LIMITS = st.fixed_dictionaries(
    {
        "SMALL": st.integers(1, 400),
        "FULL": st.integers(400, 900),
        "FEWEST": st.integers(1, 5),
    }
)


@given(parts=PARTS, limits=LIMITS, low=st.integers(0, 2**63), width=st.integers(1, 2**64))
def test_a_bucket_read_from_packs_equals_the_one_read_from_parts(tmp_path_factory, parts, limits, low, width):
    if not any(parts):
        return
    folder = tmp_path_factory.mktemp("packs")
    plan = plan_of([make_part(folder, i, documents) for i, documents in enumerate(parts)])
    with pytest.MonkeyPatch.context() as patch:
        for name, value in limits.items():
            patch.setattr(packs, name, value)
        packed = replace(plan, packs=pack_parts(plan.parts, str(folder)))
    bucket = Bucket("train", 0, low, min(low + width, 1 << 64))
    if not any(bucket.low <= document < bucket.high for part in parts for document, _ in part):
        return
    (tokens, *others), (by_parts, *wanted) = (read_bucket(bucket, each, str(folder)) for each in (packed, plan))
    assert others == wanted
    for name in ("ids", "sentence_lengths", "inside_words"):
        assert getattr(tokens, name).tolist() == getattr(by_parts, name).tolist()
    names = [name for name in tokens.documents.dtype.names if name != "part"]
    assert tokens.documents[names].tolist() == by_parts.documents[names].tolist()


@given(st.lists(st.integers(0, 120), max_size=40))
def test_packs_have_only_small_parts_and_are_as_large_as_possible(sizes):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packs, "SMALL", 100)
        patch.setattr(packs, "FULL", 250)
        runs = [range(first, first + count) for first, count in packs.small_runs(sizes) if count]
    assert [i for run in runs for i in run] == [i for i, size in enumerate(sizes) if size < 100]
    for run in runs:
        total, after = sum(sizes[i] for i in run), run.stop
        assert total <= 250
        assert after == len(sizes) or sizes[after] >= 100 or total + sizes[after] > 250


def test_few_files_are_read_when_there_are_many_small_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(packs, "SMALL", 2000)
    sizes = [10] * 300 + [3000] + [10] * 300 + [3000] + [10] * 5
    parts = [make_part(tmp_path, i, [(twins.mix(i), 0)], size) for i, size in enumerate(sizes)]
    plan = make_plan(parts, str(tmp_path), 0.0, min_sources=1)
    assert len(plan.packs) == 2 and len(list(plan.files)) == 2 + 2 + 5
    opened = []
    real = storage.open_read
    monkeypatch.setattr(storage, "open_read", lambda path: opened.append(path) or real(path))
    tokens, sources, _, _ = read_bucket(plan.buckets[0], plan, str(tmp_path))
    assert len(opened) == 9 and len(sources) == len(sizes)
    wanted = {twins.mix(i): f"{i:03d}.txt" for i in range(len(sizes))}
    assert [wanted[document] for document in tokens.documents["id"].tolist()] == sources


def test_a_pack_is_found_again_and_another_set_of_parts_makes_another(tmp_path, monkeypatch):
    parts = [make_part(tmp_path, i, [(twins.mix(i), 0)]) for i in range(20)]
    first = pack_parts(parts, str(tmp_path))
    assert [(pack.first, pack.count) for pack in first] == [(0, 20)]
    times = [path.stat().st_mtime_ns for path in tmp_path.glob("*.pack")]
    assert pack_parts(parts, str(tmp_path)) == first
    assert [path.stat().st_mtime_ns for path in tmp_path.glob("*.pack")] == times and len(times) == 1
    assert pack_parts(parts[1:], str(tmp_path))[0].file.name != first[0].file.name


def test_parts_without_documents_may_be_in_a_pack(tmp_path):
    parts = [make_part(tmp_path, i, []) for i in range(16)]
    ((number, file),) = token_files(parts, pack_parts(parts, str(tmp_path)))
    assert number == 0 and file.num_documents == 0
    assert len(read_range(str(tmp_path / file.name), file, 0, 1 << 64).ids) == 0


def test_a_plan_with_packs_survives_a_round_trip(tmp_path):
    parts = [make_part(tmp_path, i, [(twins.mix(i), 0)]) for i in range(40)]
    plan = make_plan(parts, str(tmp_path), 0.0, min_sources=1)
    write_plan(str(tmp_path / "plan.json"), plan)
    assert plan.packs and read_plan(str(tmp_path / "plan.json")) == plan
    assert plan.digest == replace(plan, packs=()).digest  # packing shows in no shard


def test_a_document_in_a_pack_names_its_part(tmp_path):
    parts = [make_part(tmp_path, i, [(twins.mix(i), 0), (7, i)]) for i in range(16)]
    (pack,) = pack_parts(parts, str(tmp_path))
    rows = read_range(str(tmp_path / pack.file.name), pack.file, 0, 1 << 64).documents
    assert sorted(zip(rows["part"].tolist(), rows["id"].tolist())) == sorted(
        (i, document) for i in range(16) for document in (twins.mix(i), 7)
    )
    copies = rows[rows["id"] == np.uint64(7)]
    assert copies["part"].tolist() == copies["position"].tolist() == list(range(16))
