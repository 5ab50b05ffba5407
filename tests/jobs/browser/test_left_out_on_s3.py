"""What was left out of a data set on S3, and its charts, are the same as of one in a folder."""

import pyarrow.parquet as pq
import pytest

from tests.jobs.browser.page_reader import Reader
from tests.model.object_store import object_store


@pytest.fixture(scope="module")
def readers(left_out, tmp_path_factory):
    """Readers of the data set in its folder and on S3."""
    with object_store() as store:
        url = store.upload(left_out, "left-out")
        yield Reader(left_out), Reader(url, cache_dir=tmp_path_factory.mktemp("cache"))


def part(reader, path):
    """The text of a part of a page, once it asks for nothing more."""
    page = reader.get(f"d0/{path}", part=True)
    while page.asks:
        page = reader.get(page.asks[0], part=True)
    return page.text


@pytest.mark.parametrize(
    "path", ["rejects/page?reason=not-json&page=2", "duplicates/equal", "charts/sample?length=64", "charts/sample"]
)
def test_a_part_of_a_page_is_the_same_on_s3(readers, path):
    of_folder, of_store = (part(reader, path) for reader in readers)
    assert of_folder == of_store and len(of_store) > 100


def test_the_texts_of_a_pair_on_s3_are_read_from_the_sources(left_out, readers):
    rows = pq.read_table(left_out / "near-duplicates.parquet").to_pylist()
    address = f"duplicates/{rows[3]['id']:016x}/texts"
    of_folder, of_store = (part(reader, address) for reader in readers)
    assert of_folder == of_store and "And a sentence more" in of_store
