"""A sample of a number of documents: the texts of smallest draw, whatever the files, splits and workers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertloom.draws import SAMPLE, mix, threshold
from pipeline.stages import sampling
from pipeline.stages.sampling import Smallest, share_of, smallest_draws
from pipeline.text.cleaning import CleanConfig

# draws of real texts are never so close that no number in floating point lies between two of them
DRAWS = st.lists(st.integers(0, 2**52 - 1), unique=True, min_size=1, max_size=40).map(
    lambda draws: sorted(draw << 12 for draw in draws)
)


@given(DRAWS, st.integers(1, 40))
def test_a_share_takes_the_number_of_texts(draws, number):
    share = share_of(np.array(draws[: number + 1], np.uint64), number)
    taken = [draw for draw in draws if share == 1 or draw < threshold(share, 64)]
    assert taken == draws[:number]


def test_a_share_takes_fewer_texts_where_no_number_lies_between_two_draws():
    draws = np.array([1 << 40, (1 << 63) + 5, (1 << 63) + 6], np.uint64)
    share = share_of(draws, 2)
    assert [draw < threshold(share, 64) for draw in draws.tolist()] == [True, False, False]
    with pytest.raises(ValueError, match="--sample 1: no share takes so few documents: give a larger number"):
        share_of(draws[1:], 1)


@given(st.lists(st.integers(0, 50)), st.integers(1, 20), st.integers(1, 5))
def test_the_smallest_draws_are_found_in_any_bundles(ids, number, bundles):
    expected = sorted({int(draw) for draw in mix(np.array(ids, np.uint64) ^ np.uint64(SAMPLE))})[:number]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sampling, "MAX_HELD", 3)
        found = [smallest_draws(ids[i::bundles], number) for i in range(bundles)]
    combine = Smallest(number)
    kept = combine.create_accumulator()
    for draws in found[1:]:
        kept = combine.add_input(kept, draws)
    assert combine.merge_accumulators([kept, found[0]]).tolist() == expected


@pytest.mark.parametrize("sample", [0, -1, 1.5, 10_000_001, float("nan"), float("inf")])
def test_a_sample_is_a_share_or_a_number(sample):
    with pytest.raises(
        ValueError, match=f"--sample {sample}: expected a share above 0 and at most 1, or a number of documents"
    ):
        CleanConfig(sample=sample)
