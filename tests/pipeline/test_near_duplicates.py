"""Near duplicates against a twin that compares every two documents, with any parts, ranges and restarts."""

import random
from pathlib import Path

import apache_beam as beam
import numpy as np
import pytest

from bertloom import storage
from pipeline.examples.configuration import ExamplesConfig
from pipeline.execution import pipeline_options, run
from pipeline.job import JobConfig
from pipeline.places import Places
from pipeline.stages import near_duplicates, similar_documents
from pipeline.stages.near_duplicates import FindNearDuplicates
from pipeline.stages.similar_documents import PAIR, read_near_duplicates
from pipeline.stages.sorted_rows import NUM_RANGES, read_rows, write_rows
from pipeline.text.records import Document
from pipeline.tokenizer import TokenizeConfig, make_document_tokenizer
from tests.pipeline.hand_made_parts import part_of_file
from tests.pipeline.small_text import VOCABULARY

WORDS = "abcdefghijklmnopqrstuvwxyz0123456789"


@pytest.fixture(scope="module")
def tokenizer():
    return make_document_tokenizer(TokenizeConfig(), VOCABULARY)


def make_texts(seed: int, families: int = 12) -> list[str]:
    """Families of documents with few or many words changed, and some that are equal."""
    draw = random.Random(seed)
    texts = []
    for _ in range(families):
        words = draw.choices(WORDS, k=draw.choice([3, 40, 120]))
        for _ in range(draw.randrange(1, 5)):
            mine = list(words)
            for at in draw.sample(range(len(mine)), min(len(mine), draw.choice([0, 0, 1, 2, 5, 9]))):
                mine[at] = draw.choice(WORDS)
            texts.append(" ".join(mine))
    draw.shuffle(texts)
    return texts


def make_parts(texts, folder, tokenizer, num_parts):
    parts = []
    for i in range(num_parts):
        documents = [Document(text.encode(), 1000 * at) for at, text in enumerate(texts) if at % num_parts == i]
        blocks = [tokenizer(documents)] if documents else []
        parts.append(part_of_file(f"{places_of(folder).parts}/p{i}", f"{i}.txt", blocks))
    return parts


def places_of(folder):
    return Places(dataset=str(folder), work=str(folder))


def found_in(texts, folder, tokenizer, num_parts=1, num_workers=1):
    places = places_of(folder)
    Path(places.near_duplicate_search).mkdir(parents=True)
    Path(places.scratch).mkdir()
    parts = make_parts(texts, folder, tokenizer, num_parts)
    random.Random(0).shuffle(parts)
    return search(parts, places, num_workers)


def search(parts, places, num_workers=1, min_similarity=0.8):
    job = JobConfig(TokenizeConfig(), ExamplesConfig(near_duplicates=min_similarity), "")
    run(pipeline_options(num_workers, ()), lambda p: p | beam.Create(parts) | FindNearDuplicates(job, places))
    return read_near_duplicates(places.near_duplicates)


def twin(texts, tokenizer):
    """id -> {smaller id: similarity}, of all documents that are not equal."""
    sets = {}
    for text in texts:
        block = tokenizer([Document(text.encode(), 0)])
        ids = block.ids.tolist()
        sets[int(block.documents["id"][0])] = {tuple(ids[i : i + 5]) for i in range(max(1, len(ids) - 4))}
    return {a: {b: len(sets[a] & sets[b]) / len(sets[a] | sets[b]) for b in sets if b < a} for a in sorted(sets)}


@pytest.mark.parametrize("seed", range(2))
def test_a_near_duplicate_is_similar_to_a_document_with_a_smaller_id(tmp_path, tokenizer, seed):
    texts = make_texts(seed, families=36)
    expected = twin(texts, tokenizer)
    rows = found_in(texts, tmp_path / "a", tokenizer)
    assert rows["id"].tolist() == sorted(set(rows["id"].tolist()))
    for row in rows:
        assert expected[int(row["id"])][int(row["resembles"])] == row["shared"] / row["either"] >= 0.8
        assert texts[row["position"] // 1000] and row["piece"] == 0
    alike = {a for a, others in expected.items() if max(others.values(), default=0) >= 0.8}
    sure = {a for a, others in expected.items() if max(others.values(), default=0) >= 0.93}
    left_out = set(rows["id"].tolist())
    assert sure <= left_out <= alike and len(left_out) >= 0.95 * len(alike)


@pytest.fixture(scope="module")
def texts():
    return make_texts(7, families=30)


@pytest.fixture(scope="module")
def whole(texts, tmp_path_factory, tokenizer):
    """The near duplicates found when all texts are in one part."""
    return found_in(texts, tmp_path_factory.mktemp("near") / "whole", tokenizer)


def test_parts_ranges_workers_and_their_order_do_not_change_the_result(tmp_path, tokenizer, monkeypatch, texts, whole):
    assert len(whole) > 10
    names = ["id", "resembles", "piece", "shared", "either"]
    for name, num_parts, num_workers, rows in (("3", 3, 1, 1 << 20), ("ranges", 4, 1, 100), ("two", 5, 2, 1 << 20)):
        monkeypatch.setattr(similar_documents, "RANGE_ROWS", rows)
        monkeypatch.setattr(similar_documents, "MAX_HELD_TOKENS", 1000)
        some = found_in(texts, tmp_path / name, tokenizer, num_parts, num_workers)
        assert some[names].tolist() == whole[names].tolist()


@pytest.mark.parametrize("num_parts", [5, 32])
def test_each_near_duplicate_names_its_part(tmp_path, tokenizer, num_parts, texts, whole):
    rows = found_in(texts, tmp_path / "a", tokenizer, num_parts)
    names = sorted(f"{i}.txt" for i in range(num_parts))
    for row in rows:
        assert names[row["part"]] == f"{row['position'] // 1000 % num_parts}.txt"
    assert rows["id"].tolist() == whole["id"].tolist()


def test_a_finished_step_is_not_repeated(tmp_path, tokenizer, monkeypatch):
    rows = found_in(make_texts(3), tmp_path / "a", tokenizer, 2)
    places = places_of(tmp_path / "a")
    before = storage.names_in(places.near_duplicate_search)
    assert len(before) == 2 + 1 + 1 + 1  # sketches, list, pairs, verified
    parts = make_parts(make_texts(3), tmp_path / "a", tokenizer, 2)
    monkeypatch.setattr(similar_documents, "band_hashes", None)
    for name in ("find_pairs", "verify_pairs"):
        monkeypatch.setattr(near_duplicates, name, None)
    assert search(parts, places).tolist() == rows.tolist()
    monkeypatch.undo()
    assert set(search(parts, places, min_similarity=0.9)["id"]) < set(rows["id"])
    assert storage.names_in(places.near_duplicate_search) > before


def test_a_text_shared_by_many_documents_makes_few_pairs(tmp_path, tokenizer):
    texts = [f"{' '.join(WORDS * 2)} {a} {b}" for a in WORDS for b in WORDS[:9]]
    rows = found_in(texts, tmp_path / "a", tokenizer)
    assert len(rows) == len(texts) - 1
    assert len(set(rows["resembles"].tolist())) <= 8


def test_the_number_of_documents_held_is_bounded(tmp_path, tokenizer, monkeypatch):
    texts = make_texts(8) + [" ".join(WORDS[:12] + WORDS[i:]) for i in range(10)]  # ten of one band
    whole = found_in(texts, tmp_path / "whole", tokenizer, 2)
    read = similar_documents.read_shingles
    for held in (1, 700, 5000):
        sizes = []

        def spy(*arguments, sizes=sizes):
            documents, hashes = read(*arguments)
            sizes.append(sum(document["num_tokens"] for document in documents.values()))
            return documents, hashes

        monkeypatch.setattr(similar_documents, "read_shingles", spy)
        monkeypatch.setattr(similar_documents, "MAX_HELD_TOKENS", held)
        assert found_in(texts, tmp_path / str(held), tokenizer, 2).tolist() == whole.tolist()
        assert len(sizes) > 1 and max(sizes) <= held + 2 * 120  # and the two of one pair


def test_a_range_of_ids_reads_only_its_own_pairs(tmp_path, monkeypatch):
    pairs = np.zeros(1000, PAIR)
    pairs["id"] = np.sort(np.random.default_rng(0).integers(0, 1 << 64, 1000, np.uint64))
    path = str(tmp_path / "pairs")
    write_rows(path, pairs, "id")
    read_at, read = storage.read_at, []
    monkeypatch.setattr(storage, "read_at", lambda file, at, size: read.append(size) or read_at(file, at, size))
    for number in range(4):
        mine = read_rows(path, PAIR, number * NUM_RANGES // 4, (number + 1) * NUM_RANGES // 4)
        assert mine.tolist() == pairs[pairs["id"] >> np.uint64(62) == number].tolist()
        assert sum(read) == 2 * 8 + mine.nbytes
        read.clear()
