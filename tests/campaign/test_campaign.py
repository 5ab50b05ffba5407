"""Each part of the campaign runs, with a small share; and its report."""

import json

import pytest

from tests.campaign import runner
from tests.campaign.outcome import Outcome
from tests.campaign.parts import PARTS, run_part
from tests.campaign.report import section, write_section

SHARE = 0.004


@pytest.mark.slow
@pytest.mark.parametrize("name", PARTS)
def test_a_small_share_of_each_part_finds_no_fault(name, tmp_path):
    outcomes = list(run_part(name, tmp_path, seed=1, share=SHARE))
    assert outcomes and [outcome for outcome in outcomes if outcome.is_fault] == []


def test_a_section_counts_cases_and_shows_how_to_repeat_a_fault():
    alike = [Outcome("a cut", "same digest", 2.0), Outcome("a cut", "same digest", 4.0, count=2)]
    outcomes = list(enumerate([*alike, Outcome("a | swap", "hangs\nfor ever", 1.0, is_fault=True)]))
    text = section("kills", "python -m tests.campaign", 5, outcomes, 90)
    assert "**4 cases in 2 minutes, faults: 1**" in text
    assert "| a cut | same digest | 3 | 2 |" in text and "| a \\| swap | fault | 1 | 1 |" in text
    assert "`python -m tests.campaign --part kills --seed 5 --only 2`" in text and "```\nhangs\nfor ever\n```" in text


def test_a_part_that_is_run_again_replaces_its_own_section(tmp_path, monkeypatch):
    monkeypatch.setattr("tests.campaign.report.PARTS", {"first": "", "second": ""})
    report = tmp_path / "campaign.md"
    for name, text in (("second", "old"), ("first", "one"), ("second", "new")):
        write_section(name, f"## {name}\n\n{text}\n", report)
    assert report.read_text("utf-8").split("\n\n", 2)[2] == "## first\n\none\n\n## second\n\nnew\n"


def test_a_fault_or_an_error_of_a_part_gives_the_exit_status_1(tmp_path, monkeypatch, capsys):
    def run(name, folder, seed, share, only):
        (folder / "seed.json").write_text(json.dumps(seed))
        yield Outcome("one", "same digest", 0.1)
        if seed == 2:
            yield Outcome("two", "another digest", 0.1, is_fault=True)
        if seed == 3:
            raise OSError("no such tool")

    monkeypatch.setattr(runner, "run_part", run)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for seed, faults in ((1, []), (2, ["another digest"]), (3, ["no such tool"])):
        found, _ = runner.attempt("kills", runner.parse(["--seed", str(seed)]))
        shown = [outcome.result for _, outcome in found if outcome.is_fault]
        assert len(shown) == len(faults) and all(text in whole for text, whole in zip(faults, shown))
    assert "the files of the cases are in" in capsys.readouterr().out
