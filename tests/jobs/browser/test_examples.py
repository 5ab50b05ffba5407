"""The list of examples: filters and pages against a slow, obvious search of all rows, and what a page shows."""

import json
import random
import re
import shutil
import time
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bertloom.tokenizer_files import parse_tokenizer
from jobs.browser.data_set import BrowsedDataSet
from jobs.browser.filters import Filters, Range
from jobs.browser.search import Search
from jobs.browser.words import Words
from pipeline.examples.decoding import true_ids
from pipeline.text.scripts import script_of
from pipeline.tokenizer_vocabulary import TokenizerVocabulary
from pipeline.vocabulary import Casing, Vocabulary
from tests.bertloom.tokenizer_kinds import CONTENTS, NAMES
from tests.jobs.browser.page_reader import Reader
from tests.jobs.browser.test_data_set import SHARD, all_rows, break_second_member, opened
from tests.model.object_store import object_store

Row = dict[str, Any]


@pytest.fixture(scope="module")
def data_set(left_out) -> BrowsedDataSet:
    return opened(left_out)


@pytest.fixture(scope="module")
def rows(left_out, data_set) -> list[Row]:
    """All examples, with their place, their true tokens as words, and the sources of A and B."""
    words = data_set.vocabulary.words
    found = all_rows(left_out)
    shards = [shard for shard in data_set.rows for _ in range(shard["examples"])]
    for row, shard in zip(found, shards, strict=True):
        row |= {name: shard[name] for name in ("split", "max_seq_length", "copy")}
        row["true"] = true_ids(row)
        row["words"] = [words[token] for token in row["true"]]
        row["sources"] = {data_set.document(row[name])["source"] for name in ("document_a", "document_b")}
    return found


def main_script(row: Row) -> str | None:
    """The script of most words; of several, the one whose first word has the lowest id in the vocabulary."""
    scripts = [script_of(word) for word in row["words"] if word[:2] != "##" and word not in ("[CLS]", "[SEP]")]
    counts = {one: scripts.count(one) for one in scripts if one not in ("digits", "punctuation", "[UNK]")}
    order = ["Latin", "Chinese characters"]
    return min(counts, key=lambda one: (-counts[one], order.index(one))) if counts else None


def has_words(row: Row, words: list[str]) -> bool:
    there, n = row["words"], len(words)
    return any(there[i : i + n] == words and there[i + n : i + n + 1][0][:2] != "##" for i in range(len(there) - n))


def twin_of(filters: Filters, vocabulary: Vocabulary) -> Callable[[Row], bool]:
    """What filters mean for one row."""
    f = filters
    words = f.word and [vocabulary.words[i] for i in vocabulary.encoder(Casing(None, None))(f.word)[0]]

    def holds(row: Row) -> bool:
        return (
            (f.split is None or row["split"] == f.split)
            and (f.length is None or row["max_seq_length"] == f.length)
            and (f.copy is None or row["copy"] == f.copy)
            and (f.label is None or row["next_sentence_label"] == f.label)
            and (f.source is None or f.source in row["sources"])
            and (f.document is None or f.document in (row["document_a"], row["document_b"]))
            and (f.tokens is None or f.tokens.first <= len(row["input_ids"]) <= f.tokens.last)
            and (f.token is None or f.token in row["true"])
            and (f.masked is None or f.masked in row["masked_lm_ids"])
            and (
                f.masked_at is None
                or any(f.masked_at.first <= at <= f.masked_at.last for at in row["masked_lm_positions"])
            )
            and (f.unknown is None or "[UNK]" in row["words"])
            and (f.script is None or main_script(row) == f.script)
            and (not words or has_words(row, words))
        )

    return holds


def random_filters(draw: random.Random, rows: list[Row]) -> Filters:
    """One to three filters, most of them with a value that an example has."""
    row = draw.choice(rows)
    at, size = draw.randrange(1, len(row["true"]) - 1), len(row["input_ids"])
    word = row["words"][at].removeprefix("##")
    choices = {
        "split": row["split"],
        "length": row["max_seq_length"],
        "copy": row["copy"],
        "label": draw.choice([0, 1, -1]),
        "source": draw.choice(["a.txt", "b.jsonl", "c.jsonl.gz"]),
        "document": draw.choice([row["document_a"], row["document_b"], 5]),
        "tokens": Range(size - draw.randrange(3), size + draw.randrange(2)),
        "token": draw.choice([row["true"][at], 1, 6]),
        "masked": draw.choice([*row["masked_lm_ids"], 6]),
        "masked_at": Range(first := draw.randrange(64), first + draw.randrange(3)),
        "unknown": True,
        "script": draw.choice(["Latin", "Chinese characters"]),
        "word": word if word not in ("[UNK]", "[CLS]", "[SEP]") else "the",
    }
    names = draw.sample([*choices], draw.choice([1, 1, 2, 3]))
    return Filters(**{name: choices[name] for name in names})


def parts(search: Search, at: int, size: int, find: str) -> Iterator[list[int]]:
    """What a search gives in parts of at most `size`, each after no time."""
    place: int | None = at
    while place is not None:
        found, place = getattr(search, find)(place, size, time.monotonic())
        assert len(found) <= size
        yield found


@pytest.mark.parametrize("seed", range(3))
def test_a_search_finds_what_a_loop_over_all_examples_finds(data_set, rows, seed):
    draw = random.Random(seed)
    for _ in range(20):
        filters = random_filters(draw, rows)
        holds = twin_of(filters, data_set.vocabulary)
        expected = [number for number, row in enumerate(rows) if holds(row)]
        start, size = draw.choice([0, draw.randrange(len(rows) + 1)]), draw.choice([20, 300, 5000])
        search = Search(data_set, filters)
        ahead = list(parts(search, start, size, "after"))
        assert [*chain(*ahead)] == [number for number in expected if number >= start], filters
        back = [*parts(search, start, size, "before")][::-1]
        assert [*chain(*back)] == [number for number in expected if number < start], filters
        while not search.is_complete:
            search.count(time.monotonic())
        assert search.num_found == len(expected), filters
        assert search.num_searched == search.num_examples and not search.damaged
        again = [*parts(search, start, size, "after")]  # where members without matches are passed over
        assert [*chain(*again)] == [*chain(*ahead)]


def test_counts_of_shards_are_known_at_once(data_set, rows):
    for filters in (Filters(), Filters(split="train", copy=1), Filters(length=64)):
        search = Search(data_set, filters)
        assert search.is_complete
        assert search.num_found == sum(map(twin_of(filters, data_set.vocabulary), rows))


def test_filters_are_written_as_they_are_read():
    given = Filters.of(
        {"split": "train", "tokens": "5", "document": "00000000000000ff", "word": "a&b=龘", "unknown": "1", "page": "3"}
    )
    assert given == Filters(split="train", document=255, word="a&b=龘", tokens=Range(5, 5), unknown=True)
    assert (
        given.query(split=None, after=7)
        == "document=00000000000000ff&word=a%26b%3D%E9%BE%98&tokens=5&unknown=1&after=7"
    )
    assert Filters.of({"copy": " ", "label": "-1", "masked_at": "3-9"}).texts() == {"label": "-1", "masked_at": "3-9"}


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("split=test", "split=test: expected train or validation"),
        ("length=long", "length=long: expected a whole number from 1 to"),
        ("label=2", "label=2: expected a whole number from -1 to 1"),
        ("tokens=1-2-3", "tokens=1-2-3: expected a number, or the first and the last of a range: tokens=100-128"),
        ("document=12", "document=12: expected the 16 hexadecimal digits of a document's id"),
        ("source=d.txt", "source=d.txt: the data set has no input of this name; it has a.txt, b.jsonl, c.jsonl.gz"),
        ("token=99999", "token=99999: the vocabulary has the ids 0 to"),
        ("script=Klingon", "script=Klingon: the words of the vocabulary are in Chinese characters, Latin"),
        ("word=" + "a" * 201, "201 characters, expected at most 200"),
        ("word=%00", "the tokenizer makes no tokens of it"),
        ("after=12438", "after=12438: expected a whole number from -1 to 12,437"),
    ],
)
def test_a_wrong_filter_is_named(left_out, query, message):
    assert message in Reader(left_out).get(f"d0/examples?{query}", 400).text


def shown(page: Any) -> list[int]:
    """The numbers of the examples that a page shows."""
    found = [re.fullmatch(r"/token/d0/examples/(\d+)", link) for link in page.links]
    return [int(match[1]) for match in found if match]


def linked(page: Any, rel: str) -> str | None:
    found = re.search(rf'rel="{rel}" href="([^"]*)"', page.source)
    return found and found[1].replace("&amp;", "&")


@pytest.mark.parametrize(
    "filters", [Filters(), Filters(label=1, split="validation"), Filters(tokens=Range(55, 64)), Filters(word="天")]
)
def test_the_pages_have_every_match_once(left_out, data_set, rows, filters):
    reader, holds = Reader(left_out), twin_of(filters, data_set.vocabulary)
    rows = rows[-400:]
    first = data_set.num_examples - len(rows)
    expected = [number for number, row in enumerate(rows, first) if holds(row)]
    assert len(expected) > 25
    page, found, pages = reader.get(f"d0/examples?{filters.query(after=first - 1)}"), [], []
    while True:
        pages.append(shown(page))
        found += pages[-1]
        if not (address := linked(page, "next")):
            break
        page = reader.get(address)
    assert found == expected and {len(numbers) for numbers in pages[:-1]} == {20}
    page, found = reader.get(f"d0/examples?{filters.query(before=data_set.num_examples)}"), []
    while shown(page)[0] > first and len(found) < len(expected):
        found = shown(page) + found
        page = reader.get(linked(page, "prev"))
    assert [number for number in shown(page) + found if number >= first] == expected


@pytest.mark.parametrize("start", ["after=-1", "before=12438"])
def test_a_search_fills_its_page_in_parts_and_counts_the_rest(left_out, data_set, rows, monkeypatch, start):
    monkeypatch.setattr("jobs.browser.data_set_pages.examples.SLICE_SECONDS", 0)
    filters = Filters(document=rows[3000]["document_a"])
    holds = twin_of(filters, data_set.vocabulary)
    expected = [number for number, row in enumerate(rows) if holds(row)]
    reader = Reader(left_out)
    page = reader.get(f"d0/examples?{filters.query()}&{start}")
    numbers, asked = shown(page), 0
    while page.asks:
        assert re.search(r"[\d,]+ of [\d,]+ examples searched", page.text)
        page, asked = reader.get(page.asks[0]), asked + 1
        numbers = shown(page) + numbers if start.startswith("before") else numbers + shown(page)
    assert asked > 3
    assert numbers == (expected[-20:] if start.startswith("before") else expected[:20])
    assert f"{len(expected)} of 12,438 examples" in page.text


def test_a_form_leads_to_the_address_of_its_page(left_out):
    client = Reader(left_out).client
    for form, address in (
        ("split=train&length=&word=&tokens=", "split=train"),
        ("number=500&copy=1", "copy=1&after=499"),
        ("number=0", ""),
        ("word=+the+&source=", "word=the"),
    ):
        answer = client.get(f"/token/d0/examples?{form}", follow_redirects=False)
        assert (answer.status_code, answer.headers["location"]) == (307, f"/token/d0/examples?{address}")
    assert shown(Reader(left_out).get("d0/examples?number=12430")) == [*range(12_430, 12_438)]


def test_a_page_shows_what_it_filters_by(left_out, data_set):
    page = Reader(left_out).get("d0/examples?word=And+a&split=validation&length=64&masked_at=3-9")
    assert '<option value="validation" selected>' in page.source and '<option value="64" selected>' in page.source
    assert 'value="And a"' in page.source and '<input type="hidden" name="masked_at" value="3-9">' in page.source
    assert "Masked position 3-9" in page.text
    unknown = Reader(left_out).get("d0/examples?word=龘")
    assert "A part of this is not in the vocabulary" in unknown.text


def test_the_places_of_words_are_shown_with_the_text_around_them(left_out):
    page = Reader(left_out).get("d0/examples?word=a+sentence+more&length=64&copy=0")
    found = re.findall(r'<p class="found" dir="auto" lang="">… (.*?)<b>(.*?)</b>(.*?) …</p>', page.source)
    assert len(found) >= 5
    for before, words, after in found:
        assert before.endswith("and ") and words == "a sentence more" and after.startswith(" ,")


def test_words_are_whole_in_texts_with_spaces():
    vocabulary = Vocabulary(("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "play", "##ing", "##s", "chess", "下", "棋"))
    words, encode = Words("play", vocabulary, Casing(None, None)), vocabulary.encoder(Casing(None, None))

    def places(words: Words, text: str) -> list[int]:
        ids = np.array([vocabulary.cls, *encode(text)[0], vocabulary.sep])
        return sorted(int(at) for first, _ in words.places(ids) for at in first)

    assert places(words, "playing play plays play") == [3, 6]
    assert places(Words("Playing chess", vocabulary, Casing(None, None)), "play chess playing chess") == [3]
    assert places(Words("棋", vocabulary, Casing(None, None)), "下棋下棋") == [2, 4]
    assert places(Words("下棋", vocabulary, Casing(None, None)), "下下棋") == [2]


@pytest.mark.parametrize("kind", CONTENTS)
def test_words_are_found_with_any_tokenizer(kind):
    vocabulary = TokenizerVocabulary.of(
        parse_tokenizer(json.dumps(CONTENTS[kind]).encode(), f"{kind}.json", NAMES.get(kind))
    )
    casing = Casing(None, None)
    encode = vocabulary.encoder(casing)
    for text, word in (
        ("the cat sat on the mat", "cat"),
        ("the cat sat", "the cat"),
        ("我们 在 北京 大学 学习", "北京"),
    ):
        ids = np.array([vocabulary.cls, *encode(text)[0], vocabulary.sep])
        found = [int(at) for first, _ in Words(word, vocabulary, casing).places(ids) for at in first]
        assert found, (text, word, [vocabulary.words[i] for i in ids])


def test_damaged_members_are_counted_and_the_others_searched(left_out, tmp_path, rows):
    copy = Path(shutil.copytree(left_out, tmp_path / "copy"))
    break_second_member(copy / SHARD)
    data_set, reader = opened(copy), Reader(copy)
    shard = data_set.shards["path"].to_pylist().index(SHARD)
    first = int(data_set.firsts[shard]) + 1024
    past = int(data_set.firsts[shard + 1])
    page = reader.get(f"d0/examples?after={first - 11}")
    assert shown(page) == [*range(first - 10, first)]
    assert f"Examples {first:,} to {first + 9:,} cannot be shown. {SHARD}: its sha256 differs" in page.text
    after = reader.get(linked(page, "next"))
    assert shown(after) == [] and linked(after, "next")
    reader.get(f"d0/examples/{first}", 400)
    page = reader.get("d0/examples?label=1")
    while page.asks:
        page = reader.get(page.asks[0])
    expected = sum(row["next_sentence_label"] for number, row in enumerate(rows) if not first <= number < past)
    assert f"{expected:,} of 12,438 examples" in page.text
    assert f"{past - first} examples could not be searched." in page.text and f"{SHARD}: member 1 at byte" in page.text


def test_the_matches_of_a_data_set_in_a_store_are_counted_on_request(left_out, tmp_path, data_set, rows):
    expected = [number for number, row in enumerate(rows) if row["next_sentence_label"] == 1]
    with object_store() as store:
        store.upload(left_out, "bucket")
        reader = Reader("s3://bucket/set", cache_dir=tmp_path / "cache")
        page = reader.get("d0/examples?label=1")
        assert shown(page) == expected[:20] and len(store.fetched()) == 1
        assert '<button type="button" hx-get' in page.source and 'hx-trigger="load"' not in page.source
        while page.asks:
            page = reader.get(page.asks[0])
        assert f"{len(expected):,} of 12,438 examples" in page.text
        assert len(store.fetched()) == len(data_set.rows)
