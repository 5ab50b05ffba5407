"""What the page of a run says about it, and how its data set is found."""

import re
import shutil

import pytest

from tests.jobs.browser.page_reader import Reader
from tests.jobs.small_run import make_data, make_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("overview")
    data = make_data(folder / "data")
    make_run(data, folder / "run", keep_checkpoints=2)
    make_run(
        data, folder / "run", keep_checkpoints=2, num_steps=8, batch_size=8, allow_change=("num_steps", "batch_size")
    )
    return folder / "run"


def test_the_page_of_a_run_says_what_it_is_and_where_it_is(run):
    page = Reader(run).get("r0/overview")
    for fact in ("pretraining", str(run), "finished", "step-00000008"):
        assert fact in page.text
    assert re.search(r"Last step\s*8\b", page.text)
    for first, batch_size in (("0", "16"), ("6", "8")):
        assert [first, "32", batch_size, "1", "global", "data"] in page.rows
    assert ["6", "num_steps", "6", "8"] in page.rows and ["model.hidden_size", "32"] in page.rows
    assert "/token/d0/examples" in page.links


def test_the_phases_of_a_run_are_listed_with_their_steps_masks_and_rates(run, tmp_path):
    out = tmp_path / "run"
    make_run(run.parent / "data", out, num_steps=10, phases=("annealing",), remask=True, batch_size=4)
    page = Reader(out).get("r0/overview")
    assert ["70 %", "1", "7", "the shortest", "4", "30 %", "0.003", ""] in page.rows
    assert ["20 %", "8", "9", "the shortest", "4", "15 %", "0.003 to 0.0015 (cosine)", ""] in page.rows
    assert ["10 %", "10", "10", "the shortest", "4", "5 %", "0.0015 to 0 (sqrt)", ""] in page.rows
    make_run(run.parent / "data", tmp_path / "words", num_steps=None, num_tokens=2000, phases=("32:0.5", "64:0.5:4"))
    page = Reader(tmp_path / "words").get("r0/overview")
    assert ["50 %", "", "2,000", "64", "4", "", "", ""] in page.rows
    assert "Phases" not in Reader(run).get("r0/overview").text


def test_a_run_opens_its_own_page_and_its_data_set_too(run):
    reader = Reader(run)
    answer = reader.client.get("/token/", follow_redirects=False)
    assert answer.headers["location"] == "/token/r0/overview"
    assert "/token/d0/examples" in reader.get("r0/overview").links


def test_a_data_set_that_moved_is_found_if_it_is_given_too(run, tmp_path):
    moved = shutil.copytree(run.parent / "data", tmp_path / "moved")
    shutil.copytree(run, tmp_path / "copy")
    config = (tmp_path / "copy/config.toml").read_text()
    (tmp_path / "copy/config.toml").write_text(config.replace(str(run.parent / "data"), str(tmp_path / "gone")))
    alone = Reader(tmp_path / "copy").get("r0/overview")
    assert f"{tmp_path}/gone" in alone.text and "give the data set to the command, too" in alone.text
    assert "/token/d0/examples" not in alone.links
    assert "/token/d0/examples" in Reader(tmp_path / "copy", moved).get("r0/overview").links


def test_a_data_set_that_has_changed_is_said_to_have_changed(run, tmp_path):
    other = make_data(tmp_path / "data", rows=(40,))
    copy = shutil.copytree(run, tmp_path / "copy")
    config = (copy / "config.toml").read_text()
    (copy / "config.toml").write_text(config.replace(str(run.parent / "data"), str(other)))
    page = Reader(copy).get("r0/overview")
    assert f"{other} has changed since the run read it" in page.text and "not open: sha256" in page.text


def test_a_run_without_checkpoints_and_a_damaged_configuration_are_shown(tmp_path):
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun/config.toml").write_text("data = [")
    page = Reader(tmp_path / "begun").get("r0/overview")
    assert "no step is done yet" in page.text and "config.toml is missing or damaged" in page.text


def test_the_runs_of_several_seeds_are_runs_of_their_own(tmp_path):
    for seed in (2, 10):
        (tmp_path / f"tuned/seed-{seed}").mkdir(parents=True)
        (tmp_path / f"tuned/seed-{seed}/config.toml").write_text('task = "classify"\n')
        (tmp_path / f"tuned/seed-{seed}/metrics.jsonl").write_text("")
    (tmp_path / "tuned/config.toml").write_text('task = "classify"\n')
    reader = Reader(tmp_path / "tuned")
    page = reader.get("")
    assert [link for link in page.links if "overview" in link] == ["/token/r0/overview", "/token/r1/overview"]
    assert "seed-2" in reader.get("r0/overview").text and "seed-10" in reader.get("r1/overview").text
