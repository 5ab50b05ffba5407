"""A run on several data sets, from training to its pages and its plot."""

import shutil
from dataclasses import replace

import pytest

from jobs.plot import panels_of, read_run
from jobs.pretrain import pretrain
from model.runs.metrics import read_metrics
from tests.jobs.browser.page_reader import Reader
from tests.jobs.small_run import make_data, run_config


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mixture")
    web, books = make_data(folder / "web", num_validation=0), make_data(folder / "books", seed=2)
    config = run_config(web, folder / "run", batch_size=16, num_steps=6)
    pretrain(replace(config, data=(f"{web}:0.75", f"prose={books}:0.25")))
    return folder / "run"


def test_the_losses_of_data_sets_have_the_mean_of_the_step_between_them(run):
    lines = read_metrics(run / "metrics.jsonl")
    for line in lines:
        if line["split"] == "train":
            losses = line["loss_by_source"].values()
            assert min(losses) <= line["mlm_loss"] <= max(losses)
            assert sum(line["tokens_by_source"].values()) == line["tokens"]
    evaluation = lines[-1]
    assert evaluation["split"] == "validation" and evaluation["loss_by_source"] == {"prose": evaluation["mlm_loss"]}


def test_plot_has_charts_of_them_with_the_same_colours(run):
    panels = {panel.key: panel for panel in panels_of(read_run(run))}
    assert list(panels["loss_by_source"].sources) == list(panels["tokens_by_source"].sources) == ["web", "prose"]
    assert panels["loss_by_source"].sources == panels["tokens_by_source"].sources


def test_the_pages_of_the_run_have_its_data_sets(run):
    reader = Reader(run)
    last = read_metrics(run / "metrics.jsonl")[-2]
    overview = {row[0]: row[1:] for row in reader.get("r0/overview").rows}
    tokens = last["tokens_by_source"]
    assert overview["web"][0] == f"{tokens['web']:,}"
    assert overview["web"][1] == f"{100 * tokens['web'] / last['tokens']:.1f} %"
    assert overview["web"][3] == "–" and overview["prose"][3] != "–"
    titles = [row[0] for row in reader.get("r0/curves").rows if "by source" in row[0]]
    of = ["MLM loss by source", "tokens read by source"]
    assert titles == [f"{title} · {name}" for title in of for name in ("web", "prose")]
    train = reader.client.get("/token/r0/curves/points").json()["splits"]["train"]["values"]
    assert train["tokens_by_source/web"]["mean"][-1] == tokens["web"]


def test_a_data_set_that_is_gone_is_said_in_its_own_line(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "copy")
    config = (copy / "config.toml").read_text()
    (copy / "config.toml").write_text(config.replace("/books:", "/gone:"))
    page = Reader(copy).get("r0/overview")
    assert page.text.count("gone does not exist") == 1 and "/token/d0/examples" in page.links


def test_the_page_of_a_step_says_how_many_examples_are_of_each_data_set(run):
    reader = Reader(run)
    for step in (1, 2, 6):
        page = reader.get(f"r0/steps?step={step}")
        numbers = {name: page.source.count(f'<span class="note">{name}, ') for name in ("web", "prose")}
        assert sum(numbers.values()) == 16
        for name, number in numbers.items():
            assert f"{name}, {number} examples:" in page.text
    assert "条样本" in reader.get("r0/steps?step=2", language="zh").text
