"""The page of one example: its facts, its tokens, and what `explain` finds, also where the sources are gone."""

import json
import re
import shutil

import pytest

from bertloom.members import read_shard
from jobs.browser.data_set_pages import example
from tests.bertloom.tokenizer_kinds import CONTENTS, NAMES
from tests.jobs.browser.page_reader import Reader
from tests.jobs.corpus import documents, run_job, write, write_vocabulary

SCRIPT = "<script>alert(1)</script> We <b>know</b> this, and & that. Ba be bi bo bu. Fo fa fi."
HEBREW = "שלום עולם. זה טקסט מימין לשמאל. Ba be bi."


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The sources, next to a data set of them."""
    folder = tmp_path_factory.mktemp("example")
    write(folder / "texts.jsonl", [[SCRIPT, *documents(1)[0]], [HEBREW, HEBREW + " Bo."], *documents(20, seed=2)])
    vocab = write_vocabulary(folder / "vocab.txt")
    run_job(folder / "texts.jsonl", folder / "out", vocab, max_seq_length=(32,), dupe_factor=2, validation_fraction=0.0)
    return folder


@pytest.fixture(scope="module")
def reader(folder):
    return Reader(folder / "out")


def rows_of(dataset):
    """All examples, in the order of shards.parquet."""
    paths = [dataset / f"train/seq32/copy{copy}/00000.tar" for copy in (0, 1)]
    return [row for path in paths for row in read_shard(str(path)).to_pylist()]


def words(page):
    return " ".join(page.text.split())


def test_a_page_has_the_facts_and_the_tokens_of_its_example(folder, reader):
    rows, vocabulary = rows_of(folder / "out"), (folder / "vocab.txt").read_text().split("\n")
    for index in range(0, len(rows), 17):
        row, page = rows[index], reader.get(f"d0/examples/{index}?token_ids=1")
        size, b = len(row["input_ids"]), row["segment_b_start"]
        assert f"{('next', 'random')[row['next_sentence_label']]} {row['next_sentence_label']}" in words(page)
        assert f"positions 1 to {b - 2}" in page.text and f"positions {b} to {size - 2}" in page.text
        for document in (row["document_a"], row["document_b"]):
            assert {f"/token/d0/documents/{document:016x}", f"/token/d0/examples?document={document:016x}"} <= {
                *page.links
            }
        masked = dict(zip(row["masked_lm_positions"], row["masked_lm_ids"]))
        assert len(page.rows) == 1 + size
        for at, (position, segment, there, number, truth, true, _) in enumerate(page.rows[1:]):
            assert (int(position), int(number)) == (at, row["input_ids"][at])
            assert segment == ("" if at in (0, b - 1, size - 1) else "A" if at < b else "B")
            assert there == vocabulary[row["input_ids"][at]]
            assert (truth, true) == ((vocabulary[masked[at]], str(masked[at])) if at in masked else ("", ""))
        assert words(page).count("(masked; true token:") == row["input_ids"].count(vocabulary.index("[MASK]"))


def test_neighbours_are_linked_and_the_ends_have_one(folder, reader):
    last = len(rows_of(folder / "out")) - 1
    links = {index: reader.get(f"d0/examples/{index}").links for index in (0, 1, last)}
    assert "/token/d0/examples/1" in links[0] and not any("examples/-1" in link for link in links[0])
    assert {"/token/d0/examples/0", "/token/d0/examples/2"} <= {*links[1]}
    assert f"/token/d0/examples/{last + 1}" not in links[last]


@pytest.mark.parametrize("index", ["-1", "100000", "x", "9" * 4000])
def test_an_example_that_is_not_there_is_not_found(reader, index):
    assert "does not exist: expected 0 to" in reader.get(f"d0/examples/{index}", 404).text


def test_a_long_table_of_tokens_has_pages(reader, monkeypatch):
    monkeypatch.setattr(example, "TOKENS", 10)
    page = reader.get("d0/examples/0?token_ids=2")
    assert [row[0] for row in page.rows[1:]] == [str(at) for at in range(10, 20)]
    assert {"/token/d0/examples/0?token_ids=1#token-ids", "/token/d0/examples/0?token_ids=3#token-ids"} <= {*page.links}
    assert "token_ids=99: expected a whole number from 1 to" in reader.get("d0/examples/0?token_ids=99", 400).text


def test_one_click_shows_the_source_and_the_reason_of_the_label(folder, reader):
    for index in range(0, 40, 7):
        page = reader.get(f"d0/examples/{index}/explain")
        assert "all 9 columns equal those in the shard" in page.text
        assert f"{folder}/texts.jsonl, the record at byte" in page.text
        assert "made it a " in page.text and "Segment B" in page.text
        position = int(re.search("the record at byte ([0-9,]+)", page.text)[1].replace(",", ""))
        text = json.loads((folder / "texts.jsonl").read_bytes()[position:].split(b"\n")[0])["text"]
        first, last = re.search("bytes ([0-9,]+) to ([0-9,]+) of its", page.text).groups()
        own = text.replace("\n\n", "\n").encode()[int(first.replace(",", "")) : int(last.replace(",", ""))]
        assert own.decode() in page.text


def test_a_script_gets_the_part_of_the_page_that_it_asks_for(reader):
    (asked,) = reader.get("d0/examples/3").asks
    assert asked == "/token/d0/examples/3/explain"
    answer = reader.client.get(asked, headers={"hx-request": "true"}).text
    assert "<html" not in answer and "all 9 columns" in answer


def test_html_and_text_from_right_to_left_are_text(folder, reader):
    seen = set()
    for index in range(len(rows_of(folder / "out"))):
        page = reader.get(f"d0/examples/{index}/explain")  # `Page` finds no script
        seen |= {name for name in ("<script>alert(1)</script>", "שלום עולם") if name in page.text}
        assert '<p class="around" dir="auto" lang="">' in page.source
    assert len(seen) == 2


def test_without_its_sources_an_example_is_shown_and_the_reason_is_named(folder, tmp_path):
    shutil.copytree(folder / "out", tmp_path / "out")
    moved = (folder / "texts.jsonl").rename(tmp_path / "elsewhere.jsonl")
    try:
        reader = Reader(tmp_path / "out")
        assert reader.get("d0/examples/5").text
        page = reader.get("d0/examples/5/explain")
        assert "It could not be made again. texts.jsonl is no longer at" in words(page)
        assert words(page).count("Its text cannot be shown. texts.jsonl is no longer at") == 2
    finally:
        moved.rename(folder / "texts.jsonl")


def test_a_changed_shard_shows_both_values(folder, tmp_path):
    shutil.copytree(folder / "out", tmp_path / "out")
    path = tmp_path / "out/train/seq32/copy0/00000.tar"
    row = rows_of(folder / "out")[5]
    data = path.read_bytes()
    document = row["document_b"].to_bytes(8, "little")
    assert data.count(document) > 0
    path.write_bytes(data.replace(document, (row["document_b"] ^ 1).to_bytes(8, "little")))
    page = Reader(tmp_path / "out").get("d0/examples/5/explain")
    assert "but these columns differ from the shard" in page.text
    assert f"in the shard {row['document_b'] ^ 1}" in page.text and f"made now {row['document_b']}" in page.text
    assert "documents/ does not hold it" in page.text


def test_a_damaged_table_of_documents_is_one_line(folder, tmp_path):
    shutil.copytree(folder / "out", tmp_path / "out")
    (tmp_path / "out/documents/train/00000.parquet").write_bytes(b"PAR1")
    reader = Reader(tmp_path / "out")
    assert reader.get("d0/examples/0").text
    assert "sha256 differs from the one in manifest.json" in reader.get("d0/examples/0/explain", 400).text


@pytest.mark.parametrize("kind", ["roberta", "gemma"])
def test_examples_of_other_tokenizers_are_shown(folder, tmp_path, kind):
    (tmp_path / "tokenizer.json").write_text(json.dumps(CONTENTS[kind]))
    if kind in NAMES:
        (tmp_path / "special_tokens_map.json").write_text(json.dumps(NAMES[kind]))
    run_job(folder / "texts.jsonl", tmp_path / "out", tmp_path, max_seq_length=(64,), dupe_factor=1, pairs="none")
    reader = Reader(tmp_path / "out")
    page = reader.get("d0/examples/0?token_ids=1")
    assert "Segment B" not in page.text and "<mask>" in page.text
    assert not [mark for mark in "Ġ▁Ã" if mark in page.text]
    assert all(" " not in row[2] for row in page.rows[1:])
    assert "all 9 columns equal those in the shard" in reader.get("d0/examples/0/explain").text


def test_a_page_in_chinese(reader):
    page = reader.get("d0/examples/0", language="zh-CN")
    assert "样本 0" in page.text and "显示来源并重新生成" in page.text


@pytest.mark.parametrize(
    ("path", "title", "back"),
    [
        ("examples/7/explain", "Where example 7 comes from", "examples/7"),
        ("charts/sample", "Charts", "charts"),
        ("duplicates/equal", "Duplicates", "duplicates"),
    ],
)
def test_a_part_of_a_page_has_a_page_of_its_own_for_browsers_without_scripts(reader, path, title, back):
    page = reader.get(f"d0/{path}")
    assert f"<h1>{title}</h1>" in page.source and f'<a href="/token/d0/{back}">Back</a>' in page.source
    assert "<h1>" not in reader.get(f"d0/{path}", part=True).source
