"""Near duplicates, beside a twin that compares every two documents; whatever the parts, ranges and restarts."""

import random
from dataclasses import replace

import apache_beam as beam
import numpy as np
import pytest

from bertloom import storage
from pipeline.local.runner import pipeline_options, run
from pipeline.stages import near_duplicates
from pipeline.stages.near_duplicates import (
    EDGES,
    PAIR,
    FindNearDuplicates,
    Search,
    read_near_duplicates,
    read_rows,
    write_rows,
)
from pipeline.stages.packs import FEWEST
from pipeline.stages.tokenization import TokenizeConfig, make_document_tokenizer
from pipeline.text.records import Document
from pipeline.tokens import write_part
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
        record = {
            "name": f"p{i}",
            "source": f"{i}.txt",
            "path": f"/{i}.txt",
            "start": 0,
            "end": 9,
            "end_piece": 0,
            "last": True,
            "read_bytes": 9,
            "text_bytes": 9,
        }
        blocks = [tokenizer(documents)] if documents else []
        parts.append(write_part(str(folder / f"p{i}"), record, blocks, [], np.dtype(np.uint16)))
    return parts


def found_in(texts, folder, tokenizer, num_parts=1, num_workers=1, similarity=0.8):
    (folder / "near").mkdir(parents=True)
    parts = make_parts(texts, folder, tokenizer, num_parts)
    search = Search(similarity, str(folder), str(folder / "near"), str(folder / "found"))
    random.Random(0).shuffle(parts)
    _run(parts, search, num_workers)
    return read_near_duplicates(search.found)


def _run(parts, search, num_workers=1):
    run(pipeline_options(num_workers, ()), lambda p: p | beam.Create(parts) | FindNearDuplicates(search))


def twin(texts, tokenizer):
    """id -> {smaller id: similarity}, of all documents that are not equal."""
    sets = {}
    for text in texts:
        block = tokenizer([Document(text.encode(), 0)])
        ids = block.ids.tolist()
        sets[int(block.documents["id"][0])] = {tuple(ids[i : i + 5]) for i in range(max(1, len(ids) - 4))}
    return {a: {b: len(sets[a] & sets[b]) / len(sets[a] | sets[b]) for b in sets if b < a} for a in sorted(sets)}


@pytest.mark.parametrize("seed", range(6))
def test_what_is_left_out_resembles_a_document_of_smaller_id(tmp_path, tokenizer, seed):
    texts = make_texts(seed)
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


def test_neither_parts_nor_ranges_nor_workers_nor_their_order_show(tmp_path, tokenizer, monkeypatch):
    texts = make_texts(7, families=30)
    whole = found_in(texts, tmp_path / "whole", tokenizer)
    assert len(whole) > 10
    names = ["id", "resembles", "piece", "shared", "either"]
    for name, num_parts, num_workers, rows in (("3", 3, 1, 1 << 20), ("ranges", 4, 1, 100), ("two", 5, 2, 1 << 20)):
        monkeypatch.setattr(near_duplicates, "RANGE_ROWS", rows)
        monkeypatch.setattr(near_duplicates, "HELD_TOKENS", 1000)
        some = found_in(texts, tmp_path / name, tokenizer, num_parts, num_workers)
        assert some[names].tolist() == whole[names].tolist()


@pytest.mark.parametrize("num_parts", [5, 2 * FEWEST])
def test_each_one_left_out_is_said_to_be_of_the_part_that_it_is_in(tmp_path, tokenizer, num_parts):
    texts = make_texts(7, families=30)
    rows = found_in(texts, tmp_path / "a", tokenizer, num_parts)
    assert bool(list((tmp_path / "a").glob("*.pack"))) == (num_parts > FEWEST)
    names = sorted(f"{i}.txt" for i in range(num_parts))
    for row in rows:
        assert names[row["part"]] == f"{row['position'] // 1000 % num_parts}.txt"
    assert rows["id"].tolist() == found_in(texts, tmp_path / "whole", tokenizer)["id"].tolist()


def test_a_finished_step_is_not_done_again(tmp_path, tokenizer, monkeypatch):
    rows = found_in(make_texts(3), tmp_path / "a", tokenizer, 2)
    before = storage.names_in(str(tmp_path / "a" / "near"))
    assert len(before) == 2 + 1 + 1 + 1  # sketches, list, pairs, verified
    for name in ("band_hashes", "find_pairs", "verify_pairs"):
        monkeypatch.setattr(near_duplicates, name, None)
    search = Search(0.8, str(tmp_path / "a"), str(tmp_path / "a" / "near"), str(tmp_path / "again"))
    _run(make_parts(make_texts(3), tmp_path / "a", tokenizer, 2), search)
    assert read_near_duplicates(search.found).tolist() == rows.tolist()
    monkeypatch.undo()
    _run(make_parts(make_texts(3), tmp_path / "a", tokenizer, 2), replace(search, similarity=0.9))
    assert storage.names_in(search.folder) > before
    assert set(read_near_duplicates(search.found)["id"]) < set(rows["id"])


def test_a_text_that_thousands_share_does_not_make_millions_of_pairs(tmp_path, tokenizer):
    texts = [f"{' '.join(WORDS * 2)} {a} {b}" for a in WORDS for b in WORDS[:9]]
    rows = found_in(texts, tmp_path / "a", tokenizer)
    assert len(rows) == len(texts) - 1
    assert len(set(rows["resembles"].tolist())) <= 8


@pytest.mark.parametrize("held", [1, 700, 5000])
def test_however_many_pairs_there_are_the_documents_held_at_a_time_are_few(tmp_path, tokenizer, monkeypatch, held):
    texts = make_texts(8) + [" ".join(WORDS[:12] + WORDS[i:]) for i in range(10)]  # ten of one band
    whole = found_in(texts, tmp_path / "whole", tokenizer, 2)
    read, sizes = near_duplicates._read_shingles, []

    def spy(*arguments):
        documents, hashes = read(*arguments)
        sizes.append(sum(document["num_tokens"] for document in documents.values()))
        return documents, hashes

    monkeypatch.setattr(near_duplicates, "_read_shingles", spy)
    monkeypatch.setattr(near_duplicates, "HELD_TOKENS", held)
    assert found_in(texts, tmp_path / "some", tokenizer, 2).tolist() == whole.tolist()
    assert len(sizes) > 1 and max(sizes) <= held + 2 * 120  # and the two of one pair


def test_a_range_of_ids_reads_its_own_pairs_alone(tmp_path, monkeypatch):
    pairs = np.zeros(1000, PAIR)
    pairs["id"] = np.sort(np.random.default_rng(0).integers(0, 1 << 64, 1000, np.uint64))
    path = str(tmp_path / "pairs")
    write_rows(path, pairs, "id")
    read_at, read = storage.read_at, []
    monkeypatch.setattr(storage, "read_at", lambda file, at, size: read.append(size) or read_at(file, at, size))
    for number in range(4):
        mine = read_rows(path, PAIR, number * EDGES // 4, (number + 1) * EDGES // 4)
        assert mine.tolist() == pairs[pairs["id"] >> np.uint64(62) == number].tolist()
        assert sum(read) == 2 * 8 + mine.nbytes
        read.clear()
