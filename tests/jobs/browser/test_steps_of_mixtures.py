"""The pages of the steps of a run on several data sets show what training reads, of the past and the future."""

from dataclasses import replace

import numpy as np
import pytest

from jobs.browser.run import BrowsedRun
from jobs.browser.step_rows import plan_step, rows_of_step
from jobs.pretrain import pretrain
from model.loading.batches import BatchReader
from model.loading.data_sets import open_data_sets
from tests.jobs.browser.page_reader import Reader
from tests.jobs.browser.test_steps import only
from tests.jobs.small_run import make_data, run_config


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mixture")
    make_data(folder / "web", rows=(90, 85), per_member=8, seed=1)
    make_data(folder / "pep", rows=(20, 25), per_member=8, seed=2)
    return folder


def config(data, out, **changes):
    words = (f"web={data}/web:0.9", f"pep={data}/pep:0.1:epochs=2")
    return replace(run_config("set", out, **{"batch_size": 16, "keep_checkpoints": 9} | changes), data=words)


@pytest.fixture
def read(monkeypatch):
    """What training reads while the test runs: for each step the sorted (data set, example)."""
    found = {}
    really = BatchReader.read

    def recording(reader, leg, step):
        found[step + 1] = sorted((name, row) for name, rows in reader.indices(leg, step).items() for row in rows)
        return really(reader, leg, step)

    monkeypatch.setattr(BatchReader, "read", recording)
    return found


def shown(run, data, steps):
    found = {}
    sets = open_data_sets(config(data, run).all_sources())
    for step in steps:
        planned = plan_step(BrowsedRun(run), step, lambda: sets)
        assert planned.is_certain
        rows = rows_of_step(sets, planned.leg, step, 0, planned.leg.batch_size)
        names = [planned.leg.sources[number].name for number in rows.sources]
        found[step] = sorted(zip(names, rows.indices))
        assert max(rows.copies) <= 1
    return found


@pytest.mark.parametrize("changes", [{"num_steps": 40}, {"num_tokens": 9000, "phases": ("32:0.6:13", "64:0.4:5")}])
def test_steps_of_the_past_and_the_future_are_those_of_training(data, read, tmp_path, changes):
    run = tmp_path / "run"
    pretrain(config(data, run, save_every=12, **changes))
    begun, after_twelve = only(run, tmp_path / "begun"), only(run, tmp_path / "after", 12)
    last = max(read)
    assert np.unique([len(rows) for rows in read.values()]).size == (1 if "num_steps" in changes else 2)
    for place in (begun, after_twelve, run):
        assert shown(place, data, range(1, last + 1)) == read


def test_the_page_of_a_step_links_to_the_examples_of_each_data_set(data, read, tmp_path):
    pretrain(config(data, tmp_path / "run", num_steps=4))
    reader = Reader(tmp_path / "run")
    page = reader.get("r0/steps?step=2")
    links = {link.rpartition("/examples/")[::2] for link in page.links if link.rpartition("/examples/")[2].isdigit()}
    folders = {"web": "/token/d0", "pep": "/token/d1"}
    assert links == {(folders[name], str(row)) for name, row in read[2]}
    overview = reader.get("r0/overview")
    assert {"/token/d0/examples", "/token/d1/examples"} <= {*overview.links}
