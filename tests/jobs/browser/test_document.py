"""The page of a document: its place, its examples, and its text with the tokens that are in no example."""

import json
import random
import re
from collections import defaultdict
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest

from bertloom.members import read_shard
from jobs.browser.data_set_pages import document
from jobs.browser.data_set_pages.document import TextPart, text_parts
from pipeline.vocabulary import Vocabulary, make_tokenizer
from tests.jobs.browser.page_reader import Reader
from tests.jobs.corpus import documents, run_job, vocabulary_words, write, write_vocabulary

STRANGE = [
    "<script>alert(1)</script> We <b>know</b> this. " * 3,
    "שלום עולם. זה טקסט מימין לשמאל. " * 4,
    "Ba be. " * 40,
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The source and a data set of two lengths and copies, of which few tokens are left out."""
    folder = tmp_path_factory.mktemp("document")
    write(folder / "texts.jsonl", [*([text.strip()] for text in STRANGE), *documents(300)])
    vocab = write_vocabulary(folder / "vocab.txt")
    options = {"max_seq_length": (16, 32), "dupe_factor": 1, "min_shards": 2, "short_seq_prob": 0.5}
    run_job(folder / "texts.jsonl", folder / "out", vocab, **options)
    return folder


@pytest.fixture(scope="module")
def reader(folder):
    return Reader(folder / "out")


@pytest.fixture(scope="module")
def examples(folder):
    """Document -> (number of the example, length, copy, segment, first token, end) of each segment, from plain rows."""
    found = defaultdict(list)
    first = 0
    for shard in pq.read_table(folder / "out/shards.parquet").to_pylist():
        rows = read_shard(str(folder / "out" / shard["path"])).to_pylist()
        for number, row in enumerate(rows, first):
            kind = (number, shard["max_seq_length"], shard["copy"])
            b, size = row["segment_b_start"], len(row["input_ids"])
            found[row["document_a"]].append((*kind, "A", row["token_a"], row["token_a"] + b - 2))
            if size > b:
                found[row["document_b"]].append((*kind, "B", row["token_b"], row["token_b"] + size - b - 1))
        first += len(rows)
    return found


@pytest.fixture(scope="module")
def rows(folder):
    return [row for path in sorted(folder.glob("out/documents/*/*.parquet")) for row in pq.read_table(path).to_pylist()]


class Marked(HTMLParser):
    """The text of a document on a page: each character, and whether it is marked."""

    def __init__(self, html):
        super().__init__()
        self.inside, self.marks, self.characters = False, 0, []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.inside |= ("class", "document-text") in attributes
        self.marks += tag == "mark"

    def handle_endtag(self, tag):
        self.inside &= tag != "p"
        self.marks -= tag == "mark"

    def handle_data(self, data):
        if self.inside:
            self.characters += [(letter, bool(self.marks)) for letter in data]


def whole_use(reader, number):
    """The page of a document, or the part of it that has its examples, once all of them were read."""
    page = reader.get(f"d0/documents/{number:016x}")
    while page.asks and page.asks[0].endswith("/use"):
        page = reader.get(page.asks[0])
    return page


def used_tokens(row, examples):
    used = [False] * row["num_tokens"]
    for *_, first, end in examples[row["id"]]:
        for token in range(first, end):
            used[token] = True
    return used


def test_the_examples_and_the_unused_tokens_are_those_of_plain_rows(reader, rows, examples):
    assert len(rows) > 250
    num_unused = 0
    for row in rows[::7]:
        page, used = whole_use(reader, row["id"]), used_tokens(row, examples)
        unused = used.count(False)
        num_unused += unused
        text = f"{unused:,} of {len(used):,} tokens are in no example" if unused else f"All {len(used):,} tokens"
        assert text in page.text, row
        expected = []
        for length in (16, 32):
            here = [found for found in examples[row["id"]] if found[1] == length]
            numbers = sorted({found[0] for found in here})
            if numbers:
                as_a, as_b = (sum(found[3] == name for found in here) for name in "AB")
                shown = " ".join(f"{number:,}" for number in numbers[:5]) + " …" * (len(numbers) > 5)
                expected.append([str(length), "0", f"{len(numbers):,}", str(as_a), str(as_b), shown])
        assert [[*row[:-1], row[-1].strip()] for row in page.rows[1:]] == expected
    assert num_unused > 10


def test_the_text_marks_the_unused_tokens(folder, reader, rows, examples):
    tokenizer = make_tokenizer(Vocabulary(tuple(vocabulary_words())), True, None)
    texts = [
        json.loads(line)["text"].replace("\n\n", "\n") for line in (folder / "texts.jsonl").read_text().splitlines()
    ]
    seen = set()
    for row in sorted(rows, key=lambda row: all(used_tokens(row, examples)))[:60]:
        shown = Marked(reader.get(f"d0/documents/{row['id']:016x}/text").source).characters
        text = "".join(letter for letter, _ in shown)
        assert text in texts
        marked = [is_marked for _, is_marked in shown]
        for (begin, end), used in zip(
            tokenizer.encode(text, add_special_tokens=False).offsets, used_tokens(row, examples), strict=True
        ):
            assert marked[begin:end] == [not used] * (end - begin)
            seen.add(used)
    assert seen == {True, False}


def test_a_search_goes_on_until_all_members_were_read(folder, rows, monkeypatch):
    whole = whole_use(Reader(folder / "out"), rows[0]["id"])
    monkeypatch.setattr(document, "SLICE_SECONDS", 0.0)
    reader = Reader(folder / "out")
    page = reader.get(f"d0/documents/{rows[0]['id']:016x}")
    assert page.asks[0] == f"/token/d0/documents/{rows[0]['id']:016x}/use"
    assert re.search("1 of [2-9] members of its shards read", page.text)
    again = whole_use(reader, rows[0]["id"])
    assert again.rows == whole.rows


def test_a_data_set_in_a_store_is_searched_only_when_asked(folder, rows, monkeypatch):
    monkeypatch.setattr(document, "storage", SimpleNamespace(is_local=lambda path: False))
    reader, path = Reader(folder / "out"), f"d0/documents/{rows[0]['id']:016x}"
    for _ in range(2):
        page = reader.get(path)
        assert (
            "0 of " in page.text
            and "members of its shards read" in page.text
            and 'hx-trigger="load"' not in page.source
        )
    assert "will be marked when all examples have been read" in reader.get(f"{path}/text").text
    assert f"/token/{path}?search=1" in page.links
    assert "members of its shards read" not in reader.get(f"{path}?search=1").text
    assert "of these are in no example" in reader.get(f"{path}/text").text


def test_the_place_of_a_document_is_shown(folder, reader, rows):
    row = rows[5]
    page = reader.get(f"d0/documents/{row['id']:016x}")
    words = " ".join(page.text.split())
    assert f"{folder}/texts.jsonl, the record at byte {row['position']:,}" in words
    assert f"{row['length']:,} bytes, {row['num_sentences']:,} sentences, {row['num_tokens']:,} tokens" in words


def test_strange_texts_are_shown_as_text(folder, reader, rows):
    shown = "".join(reader.get(f"d0/documents/{row['id']:016x}/text").text for row in rows if row["position"] < 1500)
    assert all(text.strip() in shown for text in STRANGE)


def test_a_document_that_is_not_there_and_an_id_that_is_none(reader, rows):
    assert "documents/ does not list it" in reader.get("d0/documents/0000000000000001", 404).text
    assert "document=xyz: expected the 16 hexadecimal digits" in reader.get("d0/documents/xyz", 400).text
    answer = reader.client.get(f"/token/d0/documents?id={rows[3]['id']:016x}", follow_redirects=False)
    assert answer.headers["location"] == f"/token/d0/documents/{rows[3]['id']:016x}"


def test_the_list_of_files_leads_to_their_examples(folder, reader, monkeypatch):
    page = reader.get("d0/documents")
    assert page.rows[1][:2] == ["texts.jsonl", "303"]
    assert "/token/d0/examples?source=texts.jsonl" in page.links


def test_without_its_source_a_document_has_its_examples_and_the_reason(folder, rows, tmp_path):
    moved = (folder / "texts.jsonl").rename(tmp_path / "elsewhere.jsonl")
    try:
        reader = Reader(folder / "out")
        assert "tokens" in whole_use(reader, rows[0]["id"]).text
        page = reader.get(f"d0/documents/{rows[0]['id']:016x}/text")
        assert "Its text cannot be shown. texts.jsonl is no longer at" in " ".join(page.text.split())
    finally:
        moved.rename(folder / "texts.jsonl")


def test_parts_of_a_text_are_cut_at_unused_tokens_and_within_a_bound(monkeypatch):
    text, offsets = "aa bb cc dd", np.array([[0, 2], [3, 5], [6, 8], [9, 11]])
    used = np.array([True, False, False, True])
    whole = [TextPart("aa ", False), TextPart("bb cc", True), TextPart(" dd", False)]
    assert text_parts(text, offsets, used, 0, 4) == (whole, 0)
    assert text_parts(text, offsets, used, 2, 3) == ([TextPart("cc", True), TextPart(" ", False)], 0)
    monkeypatch.setattr(document, "TEXT_CHARACTERS", 4)
    assert text_parts(text, offsets, used, 0, 4) == ([TextPart("aa ", False), TextPart("b", True)], 7)


def test_parts_of_a_text_are_the_text_wherever_tokens_are(monkeypatch):
    draw = random.Random(1)
    monkeypatch.setattr(document, "TEXT_CHARACTERS", 30)
    for _ in range(500):
        text = "".join(draw.choices("ab ", k=draw.randint(1, 60)))
        begins = sorted(draw.choices(range(len(text)), k=draw.randint(1, 12)))
        offsets = np.array([[begin, draw.randint(begin, len(text))] for begin in begins])
        used = np.array([draw.random() < 0.5 for _ in begins])
        first = draw.randrange(len(begins))
        end = draw.randint(first + 1, len(begins))
        parts, num_left = text_parts(text, offsets, used, first, end)
        begin, after = begins[first] if first else 0, begins[end] if end < len(begins) else len(text)
        assert (
            "".join(part.text for part in parts) == text[begin : after - num_left or None][: after - begin - num_left]
        )
        assert num_left == max(0, after - begin - 30)


def test_a_document_of_4_mb_is_read_in_parts(tmp_path):
    draw = random.Random(2)
    words = [word for word in vocabulary_words()[7:] if word.isalpha() and word.isascii()]
    sentences = [" ".join(draw.choices(words, k=12)) + "." for _ in range(400)]
    long = " ".join(draw.choice(sentences) for _ in range(90_000))
    write(tmp_path / "texts.jsonl", [[long], *documents(30)])
    vocab = write_vocabulary(tmp_path / "vocab.txt")
    run_job(tmp_path / "texts.jsonl", tmp_path / "out", vocab, max_seq_length=(128,), dupe_factor=1)
    (path,) = tmp_path.glob("out/documents/train/*.parquet")
    row = next(row for row in pq.read_table(path).to_pylist() if row["piece"] == 1)
    reader = Reader(tmp_path / "out")
    page = whole_use(reader, row["id"])
    assert len(page.source) < 20_000 and int(page.rows[1][2].replace(",", "")) > 100
    page = reader.get(f"d0/documents/{row['id']:016x}")
    assert "piece 1" in page.text and "the text that begins with document" in page.text
    text = reader.get(f"d0/documents/{row['id']:016x}/text?page=51")
    assert len(text.source) < 100_000
    assert " ".join("".join(letter for letter, _ in Marked(text.source).characters).split()) in long
    number = page.rows[1][-1].split()[0].replace(",", "")
    explained = reader.get(f"d0/examples/{number}/explain")
    assert "all 9 columns equal" in explained.text and "piece 1" in explained.text and len(explained.source) < 20_000
