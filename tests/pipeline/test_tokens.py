import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertloom import storage
from pipeline.text.records import Document, Reject, document_digest
from pipeline.text.wordpiece import WordPiece
from pipeline.tokenizer import DocumentTokenizer, sentence_borders
from pipeline.tokens import (
    DOCUMENT,
    TokenBlock,
    read_documents_table,
    read_footer,
    read_range,
    read_rejects,
    take_ranges,
)
from pipeline.vocabulary import make_tokenizer
from tests.pipeline import twins
from tests.pipeline.hand_made_parts import part_of_file
from tests.pipeline.small_text import ODD_TEXT, VOCABULARY

BITS = ["The cat sat.", "Why?", "He asked.", "你好。", "走吧！", "unable", "\u200b", "\x01", "Mr. No", "\n", "\n"]
BITS += ["unablé.", "unablé.\x00", "é.", "é.\x00", "no\x00", ".\x00", "\x00", "unabl\x00é?\x00\x00"]
PROSE = st.lists(st.sampled_from(BITS), max_size=12).map(" ".join)
U16 = np.dtype(np.uint16)


def make_document_tokenizer(do_lower_case: bool = True) -> DocumentTokenizer:
    tokenizer = make_tokenizer(VOCABULARY, do_lower_case, None)
    return DocumentTokenizer(WordPiece(tokenizer, do_lower_case, len(VOCABULARY.words)))


@pytest.fixture(scope="module", params=[True, False], ids=["uncased", "cased"])
def kernel(request) -> DocumentTokenizer:
    return make_document_tokenizer(request.param)


def split_block(block: TokenBlock) -> list[tuple[list[int], list[int]]]:
    """(ids, sentence lengths) of each document."""
    result, token, sentence = [], 0, 0
    for row in block.documents:
        tokens, sentences = int(row["num_tokens"]), int(row["num_sentences"])
        lengths = block.sentence_lengths[sentence : sentence + sentences].tolist()
        result.append((block.ids[token : token + tokens].tolist(), lengths))
        token, sentence = token + tokens, sentence + sentences
    assert token == len(block.ids) and sentence == len(block.sentence_lengths)
    return result


# ---- documents to tokens


@settings(max_examples=150)
@given(texts=st.lists(PROSE | ODD_TEXT, min_size=1, max_size=6))
def test_the_tokens_of_a_block_equal_their_twin_document_by_document(kernel, texts):
    texts = [text.replace("\r", " ") for text in texts]
    block = kernel([Document(text.encode(), 0) for text in texts])
    assert split_block(block) == [twins.tokenize(text, kernel.block_tokenizer.tokenizer) for text in texts]


@given(texts=st.lists(PROSE, min_size=1, max_size=5), most=st.integers(0, 8))
def test_emptying_the_table_changes_neither_ids_nor_sentences(kernel, texts, most):
    block = [Document(text.encode(), 0) for text in texts]
    wanted = [split_block(kernel([document])) for document in block]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.text.units.MAX_UNITS", most)
        assert [split_block(kernel([document])) for document in block + block] == wanted + wanted


def test_a_row_records_where_its_document_comes_from():
    text = "Why? 走吧。".encode()
    block = make_document_tokenizer()([Document(text, 7, 2, 99, 3), Document(b"a", 50)])
    digest = document_digest(text)
    first, second = block.documents
    assert (first["position"], first["length"], first["piece"], first["num_replaced"]) == (7, len(text), 2, 3)
    assert (first["num_sentences"], first["num_tokens"]) == (2, 5)
    assert int(first["id"]) == int.from_bytes(digest[:8], "big") and int(first["id_low"]) == int.from_bytes(
        digest[8:16], "big"
    )
    assert first["source_key"] == 99 and second["source_key"] == second["id"]


@pytest.mark.parametrize("word", ["é", "abcdé", "abcdefgé", "abcdefghijklé", "abcdefghijklmnopqrsé"])
def test_a_nul_after_a_word_changes_neither_ids_nor_sentences(word):
    """BERT deletes NULs, and words of up to 16 bytes are stored with zeros after them."""
    texts = [f"He asked {word}. The cat sat.", f"Oh {word}.\x00 The cat sat.", f"Oh {word}.\x00\x00 The cat sat."]
    for order in (texts, texts[::-1]):
        tokenizer = make_document_tokenizer()
        found = {text: split_block(tokenizer([Document(text.encode(), 0)])) for text in order}
        for text in texts:
            assert found[text] == [twins.tokenize(text, tokenizer.block_tokenizer.tokenizer)], text
            assert len(found[text][0][1]) == 2, text


def test_an_empty_document_keeps_its_row():
    block = make_document_tokenizer()([Document(b"a.", 0), Document(b"\x01\x02", 5), Document("\u200b".encode(), 9)])
    assert block.documents["num_tokens"].tolist() == [2, 0, 0]
    assert block.documents["num_sentences"].tolist() == [1, 0, 0]


def test_an_empty_sentence_is_not_counted():
    block = make_document_tokenizer()([Document(b"Why?\n\x01\x02\nHe asked.", 0)])
    assert block.sentence_lengths.tolist() == [2, 3]


# ---- parts

NEAR_EDGES = [0, 1, 2**52 - 1, 2**52, 2**52 + 1, 5 * 2**52, 2**60 - 1, 2**60, 2**62, 2**63, 2**63 + 7, 2**64 - 1]
IDS = st.sampled_from(NEAR_EDGES) | st.integers(0, 2**64 - 1)
DOCUMENTS = st.lists(
    st.tuples(IDS, st.integers(0, 3), st.integers(0, 2), st.lists(st.integers(1, 4), max_size=3)), max_size=12
)


def make_blocks(rows, cuts) -> list[TokenBlock]:
    """TokenBlocks of (id, position, piece, sentence lengths), cut after `cuts` documents; tokens count upwards."""
    blocks, token = [], 0
    for begin, end in zip([0, *cuts], [*cuts, len(rows)]):
        table = np.zeros(end - begin, DOCUMENT)
        lengths = []
        for row, (document, position, piece, sentences) in zip(table, rows[begin:end]):
            row["id"], row["position"], row["piece"] = document, position, piece
            row["num_sentences"], row["num_tokens"] = len(sentences), sum(sentences)
            lengths += sentences
        ids = np.arange(token, token + sum(lengths), dtype=np.uint16)
        token += sum(lengths)
        blocks.append(TokenBlock(ids, np.array(lengths, np.uint32), table))
    return blocks


def slow_range(rows, low: int, high: int):
    """(id, position, piece, ids, sentence lengths) of the documents with low <= id < high, sorted."""
    found, token = [], 0
    for document, position, piece, sentences in rows:
        size = sum(sentences)
        if size and low <= document < high:
            found.append((document, position, piece, list(range(token, token + size)), sentences))
        token += size
    return sorted(found, key=lambda row: row[:3])


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("tokens")


@given(DOCUMENTS, st.integers(0, 12), IDS, IDS | st.just(2**64), st.integers(1, 5), st.integers(0, 5))
def test_a_range_of_ids_read_from_a_part_equals_all_documents_filtered(folder, rows, cut, low, high, every, rest):
    low, high = min(low, high), max(low, high)  # low is below 2^64
    path = str(folder / "p.part")
    part = part_of_file(path, "s.txt", make_blocks(rows, [min(cut, len(rows))]))
    for begin, end in ((low, high), (0, 2**64), (low, low), (low, low + 1)):
        block = read_range(path, part, begin, end)
        names = ("id", "position", "piece")
        found = [
            (*(int(row[name]) for name in names), ids, lengths)
            for row, (ids, lengths) in zip(block.documents, split_block(block))
        ]
        assert found == slow_range(rows, begin, end)

        chosen = read_range(path, part, begin, end, lambda ids: ids % np.uint64(every) == rest % every)
        kept = [row for row in found if row[0] % every == rest % every]
        assert [int(i) for i in chosen.documents["id"]] == [row[0] for row in kept]
        assert split_block(chosen) == [(ids, lengths) for *_, ids, lengths in kept]


def test_a_few_documents_of_a_range_are_read_without_the_others(folder, monkeypatch):
    """Held-out documents are one bucket over all ids. If the others were read too, memory would grow with the corpus."""
    path = str(folder / "sparse.part")
    part = part_of_file(path, "s.txt", make_blocks([(i, 0, 0, [900]) for i in range(200)], [200]))
    num_bytes, read_at = [], storage.read_at
    monkeypatch.setattr(storage, "read_at", lambda file, at, size: num_bytes.append(size) or read_at(file, at, size))
    assert len(read_range(path, part, 0, 2**64, lambda ids: ids % np.uint64(100) == 0).ids) == 1800
    assert sum(num_bytes) < 200 * DOCUMENT.itemsize + 2 * 1800 + 1000


@pytest.mark.parametrize("count", [0, 1, 3, 40, 5000])
def test_a_part_of_few_documents_has_a_small_index_and_gives_a_range_without_the_others(folder, monkeypatch, count):
    """Otherwise thousands of small files take a hundred times the space of their text."""
    path = str(folder / "small.part")
    rows = [(twins.mix(i), 0, 0, [50, 50]) for i in range(count)]
    part = part_of_file(path, "s.txt", make_blocks(rows, [count]))
    assert part.sections["index"][1] <= min(200 * count + 200, 100_000)
    if not count:
        return
    low = rows[0][0]
    num_bytes, read_at = [], storage.read_at
    monkeypatch.setattr(storage, "read_at", lambda file, at, size: num_bytes.append(size) or read_at(file, at, size))
    assert read_range(path, part, low, low + 1).documents["id"].tolist() == [low]
    assert sum(num_bytes) <= 3 * (DOCUMENT.itemsize + 2 * 100 + 4 * 2) + 100


def test_the_footer_describes_the_part(folder):
    path = str(folder / "f.part")
    rows = [(5, 0, 0, [2, 3]), (1, 9, 0, []), (3, 20, 0, [4])]
    rejects = [Reject(4, "not-json", "é"), Reject(8, "not-json", ""), Reject(9, "no-tokens", "", "\x01", "i", 2)]
    part = part_of_file(path, "s.txt", make_blocks(rows, [1]), rejects)
    assert (part.num_documents, part.num_sentences, part.num_tokens) == (2, 3, 9)
    assert part.rejected == {"not-json": 2, "no-tokens": 1}
    assert read_footer(path) == part
    assert read_documents_table(path, part)["id"].tolist() == [3, 5]
    log = [json.loads(line) for line in gzip.decompress(read_rejects(path, part)).decode().splitlines()]
    assert log[0] == {"source": "s.txt", "position": 4, "reason": "not-json", "detail": "é", "text": ""}
    assert log[1] == {"source": "s.txt", "position": 8, "reason": "not-json", "detail": "", "text": ""}
    assert log[2] == {
        "source": "s.txt",
        "position": 9,
        "reason": "no-tokens",
        "detail": "",
        "text": "\x01",
        "id": "i",
        "piece": 2,
    }


def test_an_empty_part_can_be_read(folder):
    path = str(folder / "n.part")
    part = part_of_file(path, "s.txt", [], dtype=np.uint32)
    assert read_footer(path) == part and part.num_documents == 0 and read_rejects(path, part) == b""
    assert len(read_range(path, part, 0, 2**64).documents) == 0


@pytest.mark.parametrize("content", [b"", b"x" * 20, b"x" * 500])
def test_a_file_that_is_not_a_part_is_named(folder, content):
    (folder / "bad.part").write_bytes(content)
    with pytest.raises(ValueError, match="bad.part is not a token part: remove it, and the next start writes it again"):
        read_footer(str(folder / "bad.part"))


@pytest.mark.parametrize("unit", [1, 7, 100])
@given(ranges=st.lists(st.tuples(st.integers(0, 20), st.integers(0, 10)), max_size=8))
def test_taking_ranges_equals_slicing_and_joining(unit, ranges):
    values = np.arange(30 * unit)
    starts = np.array([unit * r[0] for r in ranges], np.int64)
    lengths = np.array([unit * r[1] for r in ranges], np.uint32)
    wanted = [i for start, length in zip(starts, lengths) for i in range(int(start), int(start) + int(length))]
    assert take_ranges(values, starts, lengths).tolist() == wanted
    assert take_ranges(values % 3 == 0, starts, lengths).tolist() == [i % 3 == 0 for i in wanted]


@given(texts=st.lists(st.lists(st.sampled_from([" ", "a", "bc"]), max_size=6), min_size=1, max_size=5), data=st.data())
def test_a_sentence_begins_where_its_text_does_or_at_a_unit(texts, data):
    text_starts, unit_starts, at = [], [], 0
    for parts in texts:
        text_starts.append(at)
        for part in parts:
            if part != " ":
                unit_starts.append(at)
            at += len(part)
        at += 1  # the line feed after a text
    begins = data.draw(st.lists(st.booleans(), min_size=len(unit_starts), max_size=len(unit_starts)))
    wanted = set(text_starts)
    for number, (start, begin) in enumerate(zip(unit_starts, begins)):
        text = max(other for other in text_starts if other <= start)
        is_first = all(not text <= other < start for other in unit_starts[:number])
        wanted |= {start} if begin and not is_first else set()
    found = sentence_borders(np.array(text_starts), np.array(unit_starts, np.int64), np.array(begins, bool))
    assert found.tolist() == sorted(wanted)
