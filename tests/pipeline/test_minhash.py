"""Shingles, signatures and bands, beside slow twins that keep sets of tuples."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.text.minhash import Banding, band_hashes, is_alike, shingles, similarity

DOCUMENTS = st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=12), min_size=1, max_size=8)


def flat(documents):
    return np.array([i for d in documents for i in d], np.uint16), np.array([len(d) for d in documents], np.int32)


def slow_shingles(document):
    return [tuple(document[i : i + 5]) for i in range(max(1, len(document) - 4))]


@given(DOCUMENTS)
def test_shingles_are_runs_of_five_tokens_within_a_document(documents):
    hashes, counts = shingles(*flat(documents))
    expected = [slow_shingles(document) for document in documents]
    assert counts.tolist() == [len(mine) for mine in expected]
    names = {}
    for shingle, value in zip([s for mine in expected for s in mine], hashes.tolist(), strict=True):
        assert names.setdefault(shingle, value) == value
    assert len(set(names.values())) == len(names)


@given(DOCUMENTS, DOCUMENTS)
def test_similarity_equals_that_of_sets_of_tuples(a, b):
    a, b = a[0], b[0]
    one, two = set(slow_shingles(a)), set(slow_shingles(b))
    assert similarity(shingles(*flat([a]))[0], shingles(*flat([b]))[0]) == (len(one & two), len(one | two))


@settings(max_examples=30)
@given(documents=DOCUMENTS, block=st.integers(1, 40))
def test_the_bands_of_a_document_do_not_depend_on_its_neighbours(documents, block):
    banding = Banding.of(0.8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.text.minhash.BLOCK_SHINGLES", block)
        together = band_hashes(*flat(documents), banding)
    alone = np.concatenate([band_hashes(*flat([document]), banding) for document in documents], axis=1)
    assert together.tolist() == alone.tolist() and together.shape == (16, len(documents))


@pytest.mark.parametrize("alike", [0.5, 0.7, 0.8, 0.9, 0.95, 0.99])
def test_documents_of_the_requested_similarity_share_a_band_as_often_as_promised(alike):
    """Sets of 400 shingles: documents without common runs, so that the similarity is exact."""
    banding, draw = Banding.of(alike), np.random.default_rng(1)
    assert banding.num_bands * banding.num_rows <= 96 and banding.chance(alike) >= 0.99
    shared = round(800 * alike / (1 + alike))  # of 400: J = shared / (800 - shared)
    hits = 0
    for _ in range(60):
        runs = draw.integers(0, 60000, (2, 404))
        runs[1, : shared + 4] = runs[0, : shared + 4]
        bands = band_hashes(*flat(runs.tolist()), banding)
        hits += bool((bands[:, 0] == bands[:, 1]).any())
    assert hits >= 57  # 0.95


def test_different_documents_share_no_band():
    runs = np.random.default_rng(2).integers(0, 60000, (200, 100))
    bands = band_hashes(*flat(runs.tolist()), Banding.of(0.8))
    assert all(len(np.unique(band)) == 200 for band in bands)


def test_the_threshold_is_the_exact_decimal():
    assert is_alike(4, 5, 0.8) and not is_alike(79_999, 100_000, 0.8)
    assert is_alike(7, 10, 0.7) and is_alike(3, 5, 0.6)  # 0.6 as a binary fraction is more than 3/5
