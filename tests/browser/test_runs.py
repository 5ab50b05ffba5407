"""The examples of a step in Chromium."""

import json
import shutil

import pytest

from tests.jobs.browser.served import served


@pytest.fixture
def growing(run, tmp_path):
    """A copy of the run that a training process still writes."""
    copy = shutil.copytree(run, tmp_path / "growing")
    lines = (copy / "metrics.jsonl").read_text().splitlines(keepends=True)
    train = [line for line in lines if json.loads(line)["split"] == "train"]
    (copy / "metrics.jsonl").write_text("".join(train[:2]))
    return copy, train


def test_the_examples_of_a_past_and_of_a_future_step_are_shown(tab, growing):
    with served(growing[0]) as running:
        one = tab(address=running.address)
        for step in (2, 5):
            one.open(f"r0/steps?step={step}")
            links = one.page.locator("main a[href*='/d0/examples/']")
            assert links.count() == 16  # the batch
        one.click("main a[href*='/d0/examples/']")
        assert one.page.inner_text("h1").startswith("Example ")
