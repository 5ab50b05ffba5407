"""What pages show when a data set is made again, or removed, while they are served."""

import gc
import shutil
import weakref

import pytest

from bertloom.manifest import read_dataset
from jobs.pretrain import pretrain
from tests.jobs.browser.page_reader import Reader
from tests.jobs.browser.served import GOLDEN
from tests.jobs.small_run import make_data, run_config

PAGES = ["examples", "examples/3", "examples/3/explain", "rejects", "duplicates", "charts/sample", "documents"]


@pytest.fixture
def folder(tmp_path, left_out):
    return shutil.copytree(left_out, tmp_path / "data")


def leads_to_examples(page):
    return any(link.startswith("/token/d0/examples/") for link in page.links)


def replace(folder, other):
    shutil.rmtree(folder)
    shutil.copytree(other, folder)


def test_a_data_set_that_was_made_again_is_opened_again(folder):
    reader = Reader(folder)
    for path in PAGES:
        reader.whole(f"d0/{path}")
    replace(folder, GOLDEN)
    there = Reader(GOLDEN)
    num_examples = sum(read_dataset(str(GOLDEN))[1]["examples"].to_pylist())
    for path in PAGES:
        assert reader.whole(f"d0/{path}").rows == there.whole(f"d0/{path}").rows
    reader.get(f"d0/examples/{num_examples - 1}")
    reader.get(f"d0/examples/{num_examples}", 404)


def test_a_data_set_that_was_removed_is_named_until_it_is_there_again(folder, left_out):
    reader = Reader(folder)
    before = reader.whole("d0/examples/3").text
    shutil.rmtree(folder)
    for path in PAGES:
        assert f"{folder} does not exist" in reader.get(f"d0/{path}", 400).text
    shutil.copytree(left_out, folder)
    (folder / "manifest.json").rename(folder / "not-yet")
    assert f"{folder} is not a data set, or not a finished one" in reader.get("d0/examples", 400).text
    (folder / "not-yet").rename(folder / "manifest.json")
    assert reader.whole("d0/examples/3").text == before


def test_nothing_is_kept_of_a_data_set_that_was_made_again(folder):
    reader = Reader(folder)
    for path in PAGES:
        reader.whole(f"d0/{path}")
    targets = reader.client.app.app.state.targets
    old = weakref.ref(targets.data_sets["d0"])
    replace(folder, GOLDEN)
    reader.whole("d0/examples")
    gc.collect()
    assert old() is None


def test_a_step_never_leads_to_the_examples_of_a_data_set_that_was_made_again(tmp_path):
    data, run = make_data(tmp_path / "data"), tmp_path / "run"
    pretrain(run_config(data, run))
    reader = Reader(run)
    assert leads_to_examples(reader.get("r0/steps?step=2"))
    shutil.rmtree(data)
    assert "which is not open" in reader.get("r0/steps?step=2").text
    make_data(data, rows=(200,))
    for path in ("r0/steps?step=2", "r0/overview"):
        page = reader.get(path)
        assert "not open" in page.text or "has changed since the run read it" in page.text
        assert not leads_to_examples(page)
