"""The page of duplicates: numbers that a slow twin counts from the texts, and the true differences of a pair."""

import gzip
import json
import re
import shutil
from collections import Counter

import pyarrow.parquet as pq
import pytest

from bertloom.manifest import manifest_sha256, manifest_text
from jobs.browser.data_set import BrowsedDataSet
from jobs.browser.near_duplicates import DuplicateTexts, NearDuplicates
from pipeline.text.records import document_id
from tests.jobs.browser.page_reader import Reader
from tests.jobs.corpus import documents, run_job, write, write_vocabulary


@pytest.fixture(scope="module")
def reader(left_out):
    return Reader(left_out)


@pytest.fixture(scope="module")
def near(left_out):
    return pq.read_table(left_out / "near-duplicates.parquet").to_pylist()


def texts_of(folder):
    """File name -> the texts in it, as the job read them."""
    plain = (folder / "a.txt").read_text().strip().split("\n\n")
    found = {"a.txt": plain}
    for name, opened in (("b.jsonl", open), ("c.jsonl.gz", gzip.open)):
        with opened(folder / name, "rt", encoding="utf-8") as lines:
            rows = [json.loads(line) for line in lines if not line.startswith("{broken")]
        found[name] = [row["text"].replace("\n\n", "\n") for row in rows if row.get("text", "").strip()]
    return found


def test_equal_documents_are_counted_by_file_as_a_slow_twin_counts_them(left_out, reader, near):
    texts = texts_of(left_out.parent / "in")
    kept = {document_id(text.encode()): name for name in sorted(texts, reverse=True) for text in texts[name]}
    expected = {name: len(of_file) - Counter(kept.values())[name] for name, of_file in texts.items()}
    page = reader.whole("d0/duplicates/equal")
    in_near = Counter(row["source"] for row in near)
    shown = {row[0]: [int(cell.replace(",", "")) for cell in row[1:]] for row in page.rows[1:]}
    assert shown == {
        name: [len(texts[name]), len(texts[name]) - in_near[name] - number, in_near[name], number]
        for name, number in expected.items()
        if number
    }
    assert "30 documents are equal to another one and 30 resemble" in reader.get("d0/duplicates").text


def test_all_near_duplicates_are_listed_once(reader, near):
    seen = []
    path = "d0/duplicates"
    while path:
        page = reader.get(path)
        seen += re.findall(r"document ([0-9a-f]{16}) resembles ([0-9a-f]{16})", page.text)
        path = next((link for link in page.links if link.endswith(f"page={len(seen) // 20 + 1}")), None)
        if len(seen) % 20:
            break
    assert seen == [(f"{row['id']:016x}", f"{row['resembles']:016x}") for row in near]


def test_the_texts_of_near_duplicates_begin_as_in_their_files(left_out, reader, near):
    texts = {
        document_id(text.encode()): text for of_file in texts_of(left_out.parent / "in").values() for text in of_file
    }
    page = reader.get("d0/duplicates?texts=1")
    for row in near[:20]:
        assert texts[row["id"]][:200] in page.text


def test_a_pair_shows_both_places_and_the_difference(reader, near):
    row = near[0]
    link = f"/token/d0/duplicates/{row['id']:016x}"
    assert link in reader.get("d0/duplicates").links
    page = reader.get(link)
    assert f"byte {row['position']:,}" in page.text and page.asks == [f"{link}/texts"]
    texts = reader.whole(f"{link}/texts")
    sentence = "And a sentence more, 龘龘."
    marks = re.findall("<(del|ins)>([^<]*)</", texts.source)
    assert [text.strip() for _, text in marks] == [sentence]
    assert marks[0][1] in reader.get(f"{link}?part=1").source


def test_every_pair_is_that_of_its_texts(left_out, near):
    texts = {
        document_id(text.encode()): text for of_file in texts_of(left_out.parent / "in").values() for text in of_file
    }
    found = DuplicateTexts(BrowsedDataSet(str(left_out), None, 1.0))
    for row in near:
        comparison = found.comparison(row)
        assert (comparison.a, comparison.b) == (texts[row["id"]], texts[row["resembles"]])


def test_a_document_may_resemble_one_that_was_left_out_too(left_out, near):
    found = DuplicateTexts(BrowsedDataSet(str(left_out), None, 1.0))
    first, last = near[0], near[-1]
    assert found.other(last | {"resembles": first["id"]}) == (first, True)
    other, is_left_out = found.other(last)
    assert (other["id"], is_left_out) == (last["resembles"], False)
    with pytest.raises(ValueError, match=f"resembles document {5:016x}, which neither documents/ nor near-dup"):
        found.other(last | {"resembles": 5})


@pytest.mark.parametrize("batch", [1, 7, 1000])
def test_rows_are_found_by_number_and_id_in_any_batches(left_out, near, batch, monkeypatch):
    monkeypatch.setattr("jobs.browser.near_duplicates.BATCH", batch)
    table = NearDuplicates(BrowsedDataSet(str(left_out), None, 1.0))
    for first, number in ((0, 5), (3, 20), (25, 20), (29, 1), (40, 3)):
        assert table.rows(first, number) == near[first : first + number]
    assert [table.row(row["id"]) for row in near] == near
    assert table.row(near[3]["id"] + 1) is None and table.row(0) is None and table.row((1 << 64) - 1) is None


def test_a_document_that_was_not_left_out_is_not_found(reader):
    assert "was not left out as a near duplicate" in reader.get("d0/duplicates/00000000000000aa", 404).text
    assert "document=<b>: expected the 16 hexadecimal digits" in reader.get("d0/duplicates/<b>", 400).text


def copied(left_out, tmp_path):
    """A copy of the data set whose input files are where the copy says, so that a test may remove them."""
    copy = shutil.copytree(left_out.parent, tmp_path / "copy")
    text = (copy / "out/manifest.json").read_text(encoding="utf-8").replace(str(left_out.parent), str(copy))
    manifest = {name: value for name, value in json.loads(text).items() if name != "sha256"}
    (copy / "out/manifest.json").write_bytes(manifest_text(manifest | {"sha256": manifest_sha256(manifest)}))
    return copy


def test_a_source_that_is_gone_is_named(left_out, near, tmp_path):
    copy = copied(left_out, tmp_path)
    (copy / "in/a.txt").unlink()
    reader = Reader(copy / "out")
    row = next(row for row in near if row["source"] == "a.txt")
    error = f"a.txt is no longer at {copy}/in/a.txt"
    assert error in reader.get(f"d0/duplicates/{row['id']:016x}/texts").text
    assert error in reader.get("d0/duplicates?texts=1").text


def test_a_damaged_table_shows_what_verify_prints(left_out, tmp_path):
    copy = copied(left_out, tmp_path) / "out"
    content = bytearray((copy / "near-duplicates.parquet").read_bytes())
    content[60] ^= 1
    (copy / "near-duplicates.parquet").write_bytes(content)
    reader = Reader(copy)
    for path in ("d0/duplicates", "d0/duplicates/equal", f"d0/duplicates/{1:016x}"):
        for _ in range(2):
            text = reader.get(path, 400).text
            assert "near-duplicates.parquet: its sha256 differs from the one in manifest.json; `bertloom" in text


def test_the_page_says_what_a_data_set_without_the_search_does_not_know(tmp_path):
    write(tmp_path / "in.txt", [*documents(60), *documents(3)])
    run_job(tmp_path / "in.txt", tmp_path / "out", write_vocabulary(tmp_path / "vocab.txt"))
    reader = Reader(tmp_path / "out")
    assert "was made without --near-duplicates" in reader.get("d0/duplicates").text
    assert reader.whole("d0/duplicates/equal").rows[1] == ["in.txt", "63", "60", "0", "3"]


def test_the_page_is_in_chinese_for_a_chinese_browser(reader, near):
    page = reader.get("d0/duplicates", language="zh-CN")
    assert "有 30 篇文档与别的文档完全相同，30 篇与别的文档相近" in page.text
    assert "处差异" in reader.get(f"d0/duplicates/{near[0]['id']:016x}/texts", language="zh").text


def test_a_script_in_a_text_is_shown_as_text(tmp_path):
    texts = documents(80)
    bad = [*texts[7], *texts[8], *texts[9], "<script>alert(1)</script>"]
    write(tmp_path / "in.txt", [*texts, bad, [*bad, "<img src=x onerror=alert(1)> more."]])
    run_job(tmp_path / "in.txt", tmp_path / "out", write_vocabulary(tmp_path / "vocab.txt"), near_duplicates=0.7)
    (row,) = pq.read_table(tmp_path / "out/near-duplicates.parquet").to_pylist()
    reader = Reader(tmp_path / "out")
    assert "&lt;img src=x" in reader.get(f"d0/duplicates/{row['id']:016x}/texts").source
