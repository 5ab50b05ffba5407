"""What the tests of engines share, and the table that they print at the end."""

import time

import pytest

from tests.engines.engines import ENGINES
from tests.engines.job import Job, bertloom, write_sample
from tests.engines.places import Disk, bucket, digest

HEAD = ("runner", "workers", "files", "killed", "digest", "seconds")
TABLE = pytest.StashKey[list[tuple[str, ...]]]()


@pytest.fixture(scope="session")
def table(request) -> list[tuple[str, ...]]:
    """The rows of the table."""
    return request.config.stash.setdefault(TABLE, [])


@pytest.fixture(scope="session")
def job(tmp_path_factory, table) -> Job:
    """The job, with the digest that the embedded runner gives."""
    place = Disk(tmp_path_factory.mktemp("embedded"))
    write_sample(place)
    vocab = place.folder / "vocab.txt"
    finish(bertloom("build-vocab", "--input", place.url("in"), "--vocab-size", "4000", "--out", str(vocab)))
    began = time.monotonic()
    finish(Job(vocab).start(place, "out"))
    found = digest(place, "out")
    table.append(("embedded", "2", place.name, "", found, f"{time.monotonic() - began:.1f}"))
    return Job(vocab, found)


def finish(process) -> None:
    said, _ = process.communicate()
    assert process.returncode == 0, said


@pytest.fixture(scope="module", params=ENGINES)
def engine(request, tmp_path_factory):
    """Each engine, running."""
    with ENGINES[request.param](tmp_path_factory.mktemp(request.param)) as engine:
        yield engine


@pytest.fixture(params=["disk", "s3"])
def place(request, tmp_path):
    """Each kind of place, with the sample as input."""
    if request.param == "disk":
        place = Disk(tmp_path)
        write_sample(place)
        yield place
    else:
        with bucket(request.node.callspec.params["engine"]) as place:
            write_sample(place)
            yield place


def pytest_terminal_summary(terminalreporter, config) -> None:
    """Print the table."""
    rows = config.stash.get(TABLE, [])
    if rows:
        terminalreporter.section("the job on each engine")
        widths = [max(map(len, column)) for column in zip(HEAD, *rows)]
        for row in (HEAD, *rows):
            terminalreporter.write_line("  ".join(cell.ljust(width) for cell, width in zip(row, widths)))
