"""The page of duplicates of the data sets of sources. One source has a budget."""

import pytest

from tests.jobs.browser.page_reader import Reader
from tests.jobs.corpus import documents, write, write_vocabulary
from tests.jobs.test_sources_of_jobs import job

TOML = """
[[input]]
path = "DIR/a.txt"
tokens = 2500

[[input]]
path = "DIR/b.txt"
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The manifests of two data sets: a has a budget, 5 texts twice; b has 20 texts that resemble one of a."""
    folder = tmp_path_factory.mktemp("sources")
    texts = documents(90)
    write(folder / "a.txt", [*texts[:60], *texts[:5]])
    write(folder / "b.txt", [*texts[60:], *([*text, "And a sentence more."] for text in texts[:20])])
    vocab = write_vocabulary(folder / "vocab.txt")
    return job(folder, TOML, vocab, per_source=True, near_duplicates=0.5)


def test_equal_documents_by_file_do_not_count_those_over_a_budget(made):
    counters = made[0]["counters"]
    over, near = counters["rejected"]["over-budget"], counters["documents_near_duplicate"]
    page = Reader(made[0]["out"]).whole("d0/duplicates/equal")
    assert over > 10 and page.rows[0][-2:] == ["Over a budget", "Equal"]
    numbers = [
        "65",
        str(counters["documents_used"] + counters["rejected"].get("no-example", 0)),
        str(near),
        str(over),
        "5",
    ]
    assert page.rows[1] == ["a.txt", *numbers]


def test_a_document_may_resemble_one_of_another_source(made):
    reader = Reader(made[1]["out"])
    links = [link for link in reader.get("d0/duplicates").links if "/duplicates/" in link]
    assert links
    error = "it is over the budget of its source, or in the data set of another source of the same job"
    assert any(error in reader.client.get(link).text for link in links)
