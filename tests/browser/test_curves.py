"""The curves of runs in Chromium: drawn under the page's security policy, and longer while the run grows."""

import json
import re
import shutil

import pytest

from tests.jobs.browser.served import served

PLOTS = "#curves section:not([hidden]) .u-over"
SHOWN = "Array.from(document.querySelectorAll('#curves section:not([hidden])'), one => one.dataset.quantity)"


def line_of(step):
    values = {"loss": 9 / step, "learning_rate": 1e-3, "tokens": 10 * step, "seconds": step}
    return json.dumps({"step": step, "split": "train", **values}) + "\n"


def lines_of(first, last):
    return "".join(map(line_of, range(first, last + 1)))


@pytest.fixture
def runs(tmp_path, run):
    """Two runs: one of 30 steps that goes on, and a copy of one that was trained."""
    growing = tmp_path / "growing"
    growing.mkdir()
    (growing / "config.toml").write_text('data = "nowhere"\n')
    (growing / "metrics.jsonl").write_text(lines_of(1, 30))
    return growing, shutil.copytree(run, tmp_path / "<b>trained")


def last_step(one):
    """The step that the page shows while the pointer is at the right end of the first chart."""
    box = one.page.locator(PLOTS).first.bounding_box()
    one.page.mouse.move(box["x"] + 5, box["y"] + 20)
    one.page.mouse.move(box["x"] + box["width"] - 1, box["y"] + box["height"] / 2)
    return int(re.search(r"\d+", one.page.locator(".readout").first.inner_text())[0])


def test_curves_are_drawn_and_grow_and_lead_to_the_examples_of_a_step(tab, runs):
    growing, _ = runs
    with served(*runs) as running:
        one = tab(running.address)
        one.open("r0/curves")
        one.page.wait_for_selector(PLOTS)
        assert one.page.evaluate(SHOWN)[:2] == ["loss", "mlm_loss"]
        assert last_step(one) == 30
        with (growing / "metrics.jsonl").open("a") as file:
            file.write(lines_of(31, 50))
        while last_step(one) == 30:
            one.page.wait_for_timeout(200)
        assert last_step(one) == 50
        (growing / "metrics.jsonl").write_text(lines_of(1, 20))  # a resumed run cuts it back
        while last_step(one) == 50:
            one.page.wait_for_timeout(200)
        assert last_step(one) == 20
        box = one.page.locator(PLOTS).first.bounding_box()
        one.page.mouse.click(box["x"] + box["width"] - 3, box["y"] + box["height"] - 3)
        assert one.page.locator(".picked a").inner_text() == "Examples of step 20 of growing"
        one.page.close()  # or it asks on, after the server has ended


def test_the_settings_of_curves_are_kept_in_the_address(tab, runs):
    with served(*runs) as running:
        one = tab(running.address, width=400, language="zh-CN", theme="dark")
        one.open("r1/curves")
        one.page.wait_for_selector(PLOTS)
        one.page.select_option("[name=x]", "seconds")
        one.page.fill("[name=smooth]", "3")
        one.page.check("[name=log]")
        assert "x=seconds" in one.page.url and "log=1" in one.page.url
        one.open(one.page.url.removeprefix(running.address))
        one.page.wait_for_selector(PLOTS)
        assert one.page.input_value("[name=x]") == "seconds" and one.page.input_value("[name=smooth]") == "3"
        assert one.page.is_checked("[name=log]")
        one.page.uncheck("#curve-runs li:nth-child(2) input")
        assert one.page.evaluate(SHOWN) == ["loss", "learning_rate"]
        one.page.emulate_media(color_scheme="light")
        assert one.page.evaluate(SHOWN) == ["loss", "learning_rate"]
        one.page.close()


def test_a_mixture_has_a_legend_of_its_sources_in_their_colours(tab, tmp_path):
    names = ["web", "<i>books", *map(str, range(8))]
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.toml").write_text('data = "nowhere"\n')
        lines = [json.loads(line_of(step)) for step in range(1, 30)]
        for line in lines:
            line["loss_by_source"] = {source: number + 1 / line["step"] for number, source in enumerate(names)}
            line["tokens_by_source"] = dict.fromkeys(names, line["tokens"])
        (tmp_path / name / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with served(tmp_path / "one", tmp_path / "two") as running:
        one = tab(running.address)
        one.open("r0/curves")
        one.page.wait_for_selector(PLOTS)
        assert one.page.evaluate(SHOWN) == ["loss", "learning_rate", "loss_by_source", "tokens_by_source"]
        legend = one.page.locator("section[data-quantity=loss_by_source] .sources li")
        assert legend.all_inner_texts() == [*names, "━━ one", "╍╍ two"]
        colours = [item.evaluate("item => getComputedStyle(item).color") for item in legend.all()[:10]]
        assert len(set(colours)) == 10
        plot = one.page.locator("section[data-quantity=loss_by_source] .u-over")
        box = plot.bounding_box()
        one.page.mouse.move(box["x"] + 5, box["y"] + 20)
        one.page.mouse.move(box["x"] + box["width"] - 1, box["y"] + box["height"] / 2)
        readout = one.page.locator("section[data-quantity=loss_by_source] .readout").inner_text()
        assert readout.count("━") == 20 and "━ <i>books 1." in readout
        one.page.uncheck("#curve-runs li:nth-child(2) input")
        assert legend.all_inner_texts() == [*names, "━━ one"]
        one.page.close()
