"""Runs in Chromium: curves that grow, the examples of a step, predictions and attention."""

import json
import shutil

import pytest

from tests.jobs.browser.served import served

DARK = "Array.from(document.querySelectorAll('canvas')[0].getContext('2d').getImageData(0, 0, 300, 150).data).some(Boolean)"


@pytest.fixture
def growing(run, tmp_path):
    """A copy of the run that a training process still writes."""
    copy = shutil.copytree(run, tmp_path / "growing")
    lines = (copy / "metrics.jsonl").read_text().splitlines(keepends=True)
    train = [line for line in lines if json.loads(line)["split"] == "train"]
    (copy / "metrics.jsonl").write_text("".join(train[:2]))
    return copy, train


def test_a_run_is_watched_while_it_grows(tab, growing):
    copy, lines = growing
    with served(copy) as running:
        one = tab(address=running.address)
        one.open("r0/curves")
        one.page.wait_for_selector("#curves canvas")
        assert one.page.evaluate(DARK)
        step = one.page.locator("#latest-values tbody td").first
        assert step.inner_text() == "2"
        with (copy / "metrics.jsonl").open("a") as file:
            file.write("".join(lines[2:5]))
            file.write(lines[5][:40])  # as a reader may find it
        one.page.wait_for_function("() => document.querySelector('#latest-values tbody td').textContent.trim() === '5'")
        with (copy / "metrics.jsonl").open("a") as file:
            file.write(lines[5][40:])
        one.page.wait_for_function("() => document.querySelector('#latest-values tbody td').textContent.trim() === '6'")


def test_the_examples_of_a_past_and_of_a_future_step_are_shown(tab, growing):
    with served(growing[0]) as running:
        one = tab(address=running.address)
        for step in (2, 5):
            one.open(f"r0/steps?step={step}")
            links = one.page.locator("main a[href*='/d0/examples/']")
            assert links.count() == 16  # the batch
        one.click("main a[href*='/d0/examples/']")
        assert one.page.inner_text("h1").startswith("Example ")


def test_a_masked_word_is_predicted(tab):
    one = tab(width=400)
    one.open("r0/fill-mask")
    one.page.fill("textarea[name=text]", "w1 w2 [MASK] w4")
    one.page.locator("main form button").first.click()
    one.settle()
    assert "%" in one.text and one.path.startswith("r0/fill-mask?")


def test_attention_is_drawn_for_a_head_that_is_chosen(tab):
    one = tab()
    one.open("r0/attention?text=w1+w2+w3")
    assert one.page.locator("#view svg").count() >= 1
    before = one.page.inner_html("#view")
    one.page.click("#head-2")
    one.page.wait_for_url("**head=2**")
    assert one.page.inner_html("#view") != before
