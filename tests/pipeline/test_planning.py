"""The plan stage: buckets, the validation split, and the plan on disk."""

import gzip
import re
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.dataset import HeldOut, is_validation
from pipeline.inputs.sources import ReadConfig
from pipeline.places import Places
from pipeline.stages import plan as planning
from pipeline.stages.plan import SPLITS, Plan, make_plan, read_plan, write_plan
from pipeline.stages.rejected import explain_rejects
from pipeline.text.records import Reject
from pipeline.tokens import DOCUMENT, PartRecord, TokenBlock
from tests.pipeline import twins
from tests.pipeline.hand_made_parts import part_of_file

IDS = st.integers(0, 2**64 - 1)


def make_part(
    folder, name: str, documents: list[tuple[int, int, int]], source="a.txt", start=0, num_sentences=2
) -> PartRecord:
    """A part of documents (id, source key, tokens)."""
    rows = np.zeros(len(documents), DOCUMENT)
    for row, (document, source_key, tokens) in zip(rows, documents):
        row["id"], row["source_key"] = document, source_key
        row["num_tokens"], row["num_sentences"] = tokens, num_sentences
    sizes = [tokens for *_, tokens in documents]
    lengths = [size for tokens in sizes for size in [1] * (num_sentences - 1) + [tokens - num_sentences + 1]]
    block = TokenBlock(np.zeros(sum(sizes), np.uint16), np.array(lengths, np.uint32), rows)
    return part_of_file(folder / name, source, [block], start=start, end=start + 1)


def plan_of(folder, documents, fraction: float = 0.0) -> Plan:
    return make_plan([make_part(folder, "p", documents)], str(folder), fraction)


def spread(count: int, tokens: int = 10) -> list[tuple[int, int, int]]:
    """Documents with ids all over the range, each its own source."""
    return [(twins.mix(i), twins.mix(i), tokens) for i in range(count)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("planning")


# ---- buckets


@given(st.integers(1, 4096), IDS)
def test_every_document_is_in_exactly_one_bucket(count, document):
    bucket = document * count // 2**64
    assert planning.first_id(bucket, count) <= document < planning.first_id(bucket + 1, count)


@given(st.integers(1, 4096))
def test_the_first_bucket_begins_at_0_and_the_last_ends_at_2_to_the_64(count):
    assert planning.first_id(0, count) == 0 and planning.first_id(count, count) == 2**64


@settings(max_examples=60)
@given(
    st.lists(st.tuples(IDS, st.sampled_from([0, 1, 2]), st.integers(1, 9)), min_size=2, max_size=30), st.integers(1, 20)
)
def test_every_bucket_has_two_sources_and_joins_as_few_ranges_as_possible(folder, documents, bucket_tokens):
    """Source key 0 means that the document has a source of its own."""
    documents = [(document, key or document, tokens) for document, key, tokens in documents]
    total = sum(tokens for *_, tokens in documents)
    if len({key for _, key, _ in documents}) == 1:
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planning, "BUCKET_TOKENS", bucket_tokens)
        plan = plan_of(folder, documents)
    count = -(-total // bucket_tokens)

    def keys(low: int, high: int) -> set[int]:
        return {key for document, key, _ in documents if low <= document < high}

    wanted, low = [], 0
    for i in range(count):
        high = -(-(i + 1) * 2**64 // count)
        if len(keys(low, high)) > 1:
            wanted.append([low, high])
            low = high
    wanted[-1][1] = 2**64
    assert [[bucket.low, bucket.high] for bucket in plan.buckets] == wanted
    assert [bucket.number for bucket in plan.buckets] == list(range(len(wanted)))
    assert {bucket.split for bucket in plan.buckets} == {"train"}


def test_a_bucket_holds_about_eight_million_tokens(folder):
    plan = plan_of(folder, spread(1000, 20_000))
    assert len(plan.buckets) == 3  # 20 million
    assert len(plan_of(folder, spread(10, 10)).buckets) == 1


def test_there_are_at_most_4096_buckets(folder, monkeypatch):
    monkeypatch.setattr(planning, "BUCKET_TOKENS", 1)
    assert len(plan_of(folder, spread(20_000, 1)).buckets) <= 4096
    monkeypatch.setattr(planning, "MAX_BUCKETS", 7)
    assert len(plan_of(folder, spread(2000, 1)).buckets) == 7


@pytest.mark.parametrize("min_sources", [1, 2])
@pytest.mark.parametrize("min_shards", [1, 2, 7, 30])
def test_min_shards_makes_at_least_so_many_train_buckets_of_distinct_documents(folder, min_shards, min_sources):
    """Also where chance leaves a range without two texts: 80 training documents in 30 buckets."""
    documents = spread(100)
    parts = [make_part(folder, f"m{i}", documents[i::2], start=i) for i in range(2)]
    plan, again = (make_plan(p, str(folder), 0.2, min_sources, min_shards=min_shards) for p in (parts, parts[::-1]))
    assert plan == again and plan.notes == ()
    train = [bucket for bucket in plan.buckets if bucket.split == "train"]
    assert min_shards <= len(train) <= 2 * min_shards
    assert (train[0].low, train[-1].high) == (0, 2**64) and sum(b.split == "validation" for b in plan.buckets) == 1
    assert all(one.high == two.low for one, two in pairwise(train))


def test_more_shards_than_the_texts_make_are_a_note(folder):
    parts = [make_part(folder, "few", spread(10))]
    plan = make_plan(parts, str(folder), 0.0, min_shards=100)
    assert 1 <= len(plan.buckets) <= 5
    assert plan.notes == (
        f"--min-shards 100: the documents are only enough for {len(plan.buckets)} shards of each copy, because a "
        f"shard needs at least 2 texts",
    )


def test_the_plan_does_not_depend_on_the_order_of_the_parts(folder):
    documents = spread(60)
    parts = [make_part(folder, f"p{i}", documents[i * 20 : i * 20 + 20], f"{i}.txt") for i in range(3)]
    plans = [make_plan(order, str(folder), 0.3) for order in (parts, parts[::-1], [parts[1], parts[2], parts[0]])]
    assert plans[0] == plans[1] == plans[2]
    assert [part.name for part in plans[0].parts] == ["p0", "p1", "p2"]
    assert plans[0].num_documents == 60


def test_where_a_text_is_cut_into_parts_does_not_move_the_buckets(folder, monkeypatch):
    monkeypatch.setattr(planning, "BUCKET_TOKENS", 50)
    documents = spread(60)
    whole = make_plan([make_part(folder, "all", documents)], str(folder), 0.2)
    parts = [make_part(folder, f"c{i}", documents[i::4], start=i) for i in range(4)]
    assert make_plan(parts, str(folder), 0.2).buckets == whole.buckets


def test_a_corpus_without_documents_is_an_error_that_counts_the_rejects(folder):
    with pytest.raises(ValueError, match=r"the input has no text that can be read \(0 records rejected\)"):
        plan_of(folder, [])


def test_a_corpus_of_rejects_is_explained_by_the_first_of_each_reason(folder, monkeypatch):
    rejects = [Reject(7, "no-text-field", "fields: id,\n body", "{}"), Reject(9, "not-json"), Reject(12, "not-json")]
    work = str(folder / "work")
    (folder / "work").mkdir()
    part = part_of_file(f"{work}/r", "a.jsonl", [], rejects, form="jsonl")
    places = Places(str(folder / "out"), str(folder))
    monkeypatch.setattr(Places, "parts", work)
    assert explain_rejects([part], places, ReadConfig(text_column="text")) == (
        "3 of 3 records rejected (2 not-json, the first in a.jsonl at byte 9: expected one JSON object in each line; "
        "read an array of objects with --format json-array; 1 no-text-field, the first in a.jsonl at byte 7: fields: "
        "id, body {}: there is no field 'text'; name the field that holds the text with --text-column); see "
        f"{folder}/out/rejects/rejects.jsonl.gz"
    )
    assert len(gzip.decompress((folder / "out/rejects/rejects.jsonl.gz").read_bytes()).splitlines()) == 3
    of_several_ways = explain_rejects([part], places, None)
    assert "id, body {}: there is no field with the name that its table of --inputs gives; name" in of_several_ways


@given(st.lists(IDS, max_size=20), st.sets(IDS, max_size=20))
def test_given_ids_alone_are_held_out(ids, given_ids):
    is_held_out = HeldOut(0.5, np.array(sorted(given_ids), np.uint64))
    found = is_held_out(np.array([*ids, *sorted(given_ids)], np.uint64))
    assert found.tolist() == [one in given_ids for one in [*ids, *sorted(given_ids)]]


def test_a_single_text_cannot_be_paired(folder):
    with pytest.raises(ValueError, match="the train documents are all pieces of one text, but the random"):
        plan_of(folder, [(document, 5, 10) for document, *_ in spread(20)])


# ---- validation


@given(st.lists(IDS, min_size=1), st.sampled_from([0.0, 0.001, 0.01, 0.1, 0.5]))
def test_which_documents_are_held_out_equals_the_twin(ids, fraction):
    found = is_validation(np.array(ids, np.uint64), fraction).tolist()
    assert found == [twins.is_validation(document, fraction) for document in ids]


def test_about_the_fraction_is_held_out_and_a_larger_fraction_holds_out_the_same_and_more():
    ids = np.arange(100_000, dtype=np.uint64)
    small, large = is_validation(ids, 0.01), is_validation(ids, 0.05)
    assert abs(small.sum() - 1000) < 150 and abs(large.sum() - 5000) < 350
    assert large[small].all()


def held_out(count: int, fraction: float) -> int:
    return sum(twins.is_validation(document, fraction) for document, *_ in spread(count))


def test_validation_documents_have_buckets_of_their_own(folder):
    plan = plan_of(folder, spread(400), 0.1)
    assert held_out(400, 0.1) >= 8
    assert [(b.split, b.number, b.low, b.high) for b in plan.buckets] == [
        (split, 0, 0, 2**64) for split in ("train", "validation")
    ]
    assert plan.validation_fraction == 0.1 and plan.notes == ()


def test_both_splits_are_measured_by_their_own_tokens(folder, monkeypatch):
    monkeypatch.setattr(planning, "BUCKET_TOKENS", 100)
    plan = plan_of(folder, spread(400), 0.1)
    held = held_out(400, 0.1)
    numbers = {split: [bucket.number for bucket in plan.buckets if bucket.split == split] for split in SPLITS}
    assert len(numbers["train"]) <= -(-(400 - held) * 10 // 100)
    assert 1 < len(numbers["validation"]) <= -(-held * 10 // 100)
    for each in numbers.values():
        assert each == list(range(len(each)))


@pytest.mark.parametrize("fraction, count", [(0.01, 100), (0.001, 50), (0.5, 10)])
def test_fewer_than_eight_validation_documents_give_none_and_a_note(folder, fraction, count):
    few = held_out(count, fraction)
    assert few < 8
    plan = plan_of(folder, spread(count), fraction)
    assert plan.validation_fraction == 0.0 and {bucket.split for bucket in plan.buckets} == {"train"}
    texts = "1 text" if few == 1 else f"{few} texts"
    assert plan.notes[0].startswith(
        f"no validation split: --validation-fraction {fraction} selects only {texts}, and pairs need at least 8"
    )


def test_a_few_documents_that_the_fraction_selects_without_exception_are_used_for_training(folder):
    selected = [row for row in spread(2000) if twins.is_validation(row[0], 0.01)]
    plan = plan_of(folder, selected[:3], 0.01)
    assert [bucket.split for bucket in plan.buckets] == ["train"]
    assert plan.notes[0].startswith("no validation split: --validation-fraction 0.01 selects only 3 texts")
    with pytest.raises(ValueError, match=r"because --validation-fraction 0\.01 selects all: give a smaller fraction"):
        plan_of(folder, selected[:8], 0.01)


@pytest.mark.parametrize("count", [10, 20, 60, 300])
def test_the_fraction_that_the_note_proposes_is_enough(folder, count):
    note = plan_of(folder, spread(count), 0.001).notes[0]
    if count == 10:
        assert note.endswith(
            "The input is too small for a validation split; --validation-input can take it from other files"
        )
        return
    proposed = float(re.search(r"--validation-fraction (0\.\d+) is enough for a validation split", note)[1])
    plan = plan_of(folder, spread(count), proposed)
    assert plan.validation_fraction == proposed and held_out(count, proposed) >= 8
    assert held_out(count, round(proposed - 0.01, 2)) < 8


@pytest.mark.parametrize("enough", [False, True])
def test_eight_documents_are_enough_and_seven_are_not(folder, enough):
    documents = spread(400)
    held = [row for row in documents if twins.is_validation(row[0], 0.1)][: 7 + enough]
    rest = [row for row in documents if not twins.is_validation(row[0], 0.1)]
    assert bool(plan_of(folder, held + rest, 0.1).notes) is not enough


def test_many_pieces_of_one_text_are_one_validation_document(folder):
    documents = spread(400)
    held = [(document, 5, 10) for document, *_ in documents if twins.is_validation(document, 0.1)]
    assert len(held) > 8
    rest = [row for row in documents if not twins.is_validation(row[0], 0.1)]
    assert "selects only 1 text, and" in plan_of(folder, held + rest, 0.1).notes[0]


def test_a_note_reports_that_most_documents_have_one_sentence(folder):
    single, double = spread(40)[:20], spread(40)[20:]
    parts = [make_part(folder, "single", single, num_sentences=1), make_part(folder, "double", double)]
    assert make_plan(parts, str(folder), 0.0).notes == ()
    parts[1] = make_part(folder, "double", double[1:])
    assert make_plan(parts, str(folder), 0.0).notes == (
        "20 of 39 documents have a single sentence. A blank line ends a document: check that the input has no blank line "
        "after every sentence",
    )


def test_the_note_about_records_of_one_sentence_names_their_flag(folder):
    part = replace(make_part(folder, "single", spread(20), num_sentences=1), num_text_documents=0)
    [note] = make_plan([part], str(folder), 0.0).notes
    assert note.endswith(
        "20 documents have a single sentence. If a record is a sentence or a line of a longer text, give --records"
    )


def test_no_validation_split_is_made_without_a_fraction(folder):
    plan = plan_of(folder, spread(20), 0.0)
    assert plan.notes == () and {bucket.split for bucket in plan.buckets} == {"train"}


# ---- on disk


def test_a_plan_survives_a_round_trip(folder):
    plan = plan_of(folder, spread(50), 0.1)
    write_plan(str(folder / "plan.json"), plan)
    again = read_plan(str(folder / "plan.json"))
    assert again == plan and again.digest == plan.digest
    assert all(isinstance(bucket.high, int) for bucket in again.buckets)


def test_the_digest_of_a_plan_changes_with_its_buckets_parts_and_split(folder, monkeypatch):
    documents = spread(300)
    digests = {plan_of(folder, documents, fraction).digest for fraction in (0.0, 0.1, 0.2)}
    monkeypatch.setattr(planning, "BUCKET_TOKENS", 500)
    digests.add(plan_of(folder, documents).digest)
    digests.add(make_plan([make_part(folder, "q", documents)], str(folder), 0.0).digest)
    assert len(digests) == 5


def test_a_fraction_is_the_exact_decimal():
    """At 2^64 the float 0.1 and the decimal 0.1 differ."""
    edge = int(Fraction("0.1") * 2**64)
    assert edge == 1844674407370955161 != int(0.1 * 2**64)
