"""The page of duplicates of a data set that extends another one."""

import pyarrow.parquet as pq
import pytest

from tests.jobs.browser.page_reader import Reader
from tests.jobs.corpus import documents, run_job, write, write_vocabulary

MORE = ["And a sentence more."]


@pytest.fixture(scope="module")
def extending(tmp_path_factory):
    """A data set with 30 texts of its own, which leaves out 5 that another data set has and 25 that resemble one there."""
    folder = tmp_path_factory.mktemp("others")
    old, new, vocab = documents(60), documents(30, seed=2), write_vocabulary(folder / "vocab.txt")
    run_job(write(folder / "a.txt", old), folder / "one", vocab, near_duplicates=0.5)
    again = [[*text, *MORE] for text in old[:25]]
    source = write(folder / "b.txt", [*new, *old[50:55], *again])
    run_job(source, folder / "two", vocab, near_duplicates=0.5, extend=(str(folder / "one"),))
    return folder / "two"


def test_documents_of_other_data_sets_are_counted_and_listed(extending):
    reader = Reader(extending)
    rows = pq.read_table(extending / "near-duplicates-of-others.parquet").to_pylist()
    text = " ".join(reader.get("d0/duplicates").text.split())
    near = len(rows)
    assert f"This data set extends one: 5 documents are equal to one of it and {near} resemble one of it." in text
    pages = text + reader.get("d0/duplicates?others=2").text
    assert near > 20
    for row in rows:
        assert f"document {row['id']:016x} resembles {row['resembles']:016x} of one" in " ".join(pages.split())


def test_equal_documents_by_file_do_not_count_those_that_resemble_another_data_set(extending):
    page = Reader(extending).whole("d0/duplicates/equal")
    assert [row[0] for row in page.rows[1:]] == ["b.txt"] and page.rows[1][-1] == "5"
