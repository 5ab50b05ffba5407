"""Rows of several data sets, and legs that go on in each of them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.loading.data import DataSet
from model.loading.data_sets import MixedExamples, merge_columns
from model.loading.stream import LegSource, continue_legs, mixture_of
from tests.model.synthetic import write_data_set


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sets")
    sets = [
        write_data_set(folder / name, rows=rows, num_validation=0, seed=seed)
        for seed, (name, rows) in enumerate({"a": (90, 80), "b": (60,), "c": (30, 35)}.items())
    ]
    return [DataSet(path).examples("train", 32) for path in sets]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 29)), min_size=1, max_size=40), st.booleans())
def test_rows_of_several_data_sets_are_those_of_each_in_their_places(examples, places, with_tokens):
    mixed = MixedExamples(examples)
    copies, rows = np.array(places).T
    columns = mixed.read(copies, rows, with_tokens)
    of = [(0, 0), (0, 1), (1, 0), (2, 0), (2, 1)]
    lists = {"input_ids": "lengths", "positions": "num_masks", "masked_ids": "num_masks"}
    ends = {name: np.cumsum(columns[size]) for name, size in lists.items()}
    for place, (copy, row) in enumerate(places):
        source, own = of[copy]
        alone = examples[source].read(np.array([own]), np.array([row]), with_tokens)
        assert columns.keys() == alone.keys()
        for name, values in alone.items():
            if name in lists:
                found = columns[name][ends[name][place] - len(values) : ends[name][place]]
            else:
                found = columns[name][..., place]
            assert np.array_equal(found, values if name in lists else values[..., 0])
    assert mixed.sources_of(copies).tolist() == [of[copy][0] for copy, _ in places]
    assert mixed.own_copies(copies).tolist() == [of[copy][1] for copy, _ in places]
    if with_tokens:
        batch = mixed.pack(columns, copies, rows)
        assert batch.sources.tolist() == [of[copy][0] for copy, _ in places]


def test_ids_of_different_widths_are_merged():
    parts = [
        {"lengths": np.array([2]), "num_masks": np.array([0]), "input_ids": np.array([7, 8], np.uint16)},
        {"lengths": np.array([1]), "num_masks": np.array([0]), "input_ids": np.array([70_000], np.uint32)},
    ]
    merged = merge_columns(parts, [np.array([1]), np.array([0])])
    assert merged["input_ids"].tolist() == [70_000, 7, 8] and merged["lengths"].tolist() == [1, 2]


SETTINGS = st.tuples(
    st.integers(0, 60),  # steps
    st.sampled_from([7, 40]),  # batch size
    st.lists(
        st.tuples(st.sampled_from("abcd"), st.sampled_from([0.1, 1.0, 3.0])), max_size=4, unique_by=lambda x: x[0]
    ),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(SETTINGS, min_size=1, max_size=5))
def test_however_the_data_sets_change_each_is_read_without_gap_or_repeat(parts):
    """The slow twin lists every item that is read, leg after leg."""
    legs, step, read = [], 0, {}
    for num_steps, batch_size, chosen in parts:
        sources = [
            LegSource(name=name, shards_digest=f"of {name}", share=share, mean_tokens=10.0 + ord(name) % 7)
            for name, share in chosen
        ]
        # Without several data sets: the run reads a alone.
        digest = "of a" if not sources else "of all"
        common = {"max_seq_length": 32, "batch_size": batch_size, "seed": 1, "shuffle": "global"}
        legs = continue_legs(legs, step, **common, shards_digest=digest, sources=sources)
        leg, first = legs[-1], legs[-1].item_at(step)
        last = leg.item_at(step + num_steps)
        if leg.sources:
            for source, number in zip(*(part.tolist() for part in mixture_of(leg).items(first, last))):
                of = leg.sources[source]
                read.setdefault(of.shards_digest, []).append(of.first + number)
        else:
            read.setdefault("of a", []).extend(range(first, last))
        step += num_steps
    for items in read.values():
        assert items == list(range(len(items)))
