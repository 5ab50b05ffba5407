"""Sketches of documents: equal to a slow twin, exact for short documents, and close to the truth for long ones."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.stages.document_sketches import LeastHashes, parse_sketches, sketches_page, write_for_search
from pipeline.text import sketches
from pipeline.text.minhash import Banding, band_hashes, shingles, similarity
from pipeline.text.sketches import NUM_LEAST, short_hashes, similarity_to_sketch, sketch
from pipeline.tokens import DOCUMENT, TokenBlock

BANDING = Banding.of(0.8)
TEXTS = st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=30), max_size=8)


def block_of(texts, ids=None):
    rows = np.zeros(len(texts), DOCUMENT)
    rows["id"] = range(len(texts)) if ids is None else ids
    rows["num_tokens"] = [len(text) for text in texts]
    tokens = np.array([token for text in texts for token in text], np.uint16)
    return TokenBlock(tokens, rows["num_tokens"].astype(np.uint32), rows)


def shingles_of(text):
    return shingles(np.array(text, np.uint16), np.array([len(text)]))[0]


@given(texts=TEXTS, block_tokens=st.integers(1, 100), most=st.integers(1, 10))
def test_a_sketch_has_the_bands_and_the_least_hashes_of_its_document(texts, block_tokens, most):
    block = block_of(texts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sketches, "BLOCK_TOKENS", block_tokens)
        patch.setattr(sketches, "NUM_LEAST", most)
        made = sketch(block.ids, block.documents["num_tokens"], BANDING)
    ends = np.cumsum(made.num_least)
    for i, text in enumerate(texts):
        expected = sorted({int(hashed) >> 32 for hashed in shingles_of(text)})
        assert made.num_shingles[i] == len(expected)
        assert made.least[ends[i] - made.num_least[i] : ends[i]].tolist() == expected[:most]
        alone = band_hashes(np.array(text, np.uint16), np.array([len(text)]), BANDING)
        assert made.bands[i].tolist() == alone[:, 0].tolist()


@given(a=st.lists(st.integers(0, 3), min_size=1, max_size=200), b=st.lists(st.integers(0, 3), min_size=1, max_size=200))
def test_the_similarity_to_a_short_document_is_exact(a, b):
    hashes = short_hashes(shingles_of(b))
    assert len(hashes) <= NUM_LEAST
    expected = similarity(shingles_of(a), shingles_of(b))
    assert similarity_to_sketch(short_hashes(shingles_of(a)), hashes, len(hashes)) == (*expected, True)


def test_the_similarity_to_a_long_document_is_estimated_within_a_few_hundredths():
    draw, errors = random.Random(1), []
    for _ in range(200):
        text = [draw.randrange(5000) for _ in range(3000)]
        other = [draw.randrange(5000) if draw.random() < 0.02 else token for token in text]
        shared, either = similarity(shingles_of(text), shingles_of(other))
        hashes = short_hashes(shingles_of(text))
        found, of, is_exact = similarity_to_sketch(short_hashes(shingles_of(other)), hashes[:NUM_LEAST], len(hashes))
        assert not is_exact and of >= NUM_LEAST
        errors.append(found / of - shared / either)
    assert abs(np.mean(errors)) < 0.005 and np.std(errors) < 0.03 and np.abs(errors).max() < 0.12


@given(texts=TEXTS)
def test_a_page_is_read_as_it_was_written_and_its_hashes_are_found_by_id(tmp_path_factory, texts):
    folder = tmp_path_factory.mktemp("page")
    ids = [7 * i + (1 << 63) * (i > 3) for i in range(len(texts))]
    block = block_of(texts, ids)
    found, made = parse_sketches(sketches_page(block, 0.8), "page", 0.8)
    expected = sketch(block.ids, block.documents["num_tokens"], BANDING)
    assert found.tolist() == ids
    for name in ("bands", "num_shingles", "least", "num_least"):
        assert getattr(made, name).tolist() == getattr(expected, name).tolist()
    write_for_search(found, made, str(folder / "bands"), str(folder / "least"))
    kept = LeastHashes(str(folder / "least")).of(ids[::2])
    assert sorted(kept) == sorted(ids[::2])
    for number, text in list(zip(ids, texts))[::2]:
        hashes = short_hashes(shingles_of(text))
        assert kept[number][0].tolist() == hashes[:NUM_LEAST].tolist() and kept[number][1] == len(hashes)


def test_a_page_that_is_not_possible_is_refused():
    page = sketches_page(block_of([[1, 2, 3, 4, 5, 6, 7]]), 0.8)
    with pytest.raises(ValueError, match="bands, which --near-duplicates 0.5 has"):
        parse_sketches(page, "page", 0.5)
