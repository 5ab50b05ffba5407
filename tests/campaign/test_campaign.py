"""Each part of the campaign runs, with a small share; and its report."""

import json
from concurrent.futures import ThreadPoolExecutor

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


def test_a_fault_of_a_part_of_a_campaign_is_repeated_with_its_share():
    outcomes = [(-1, Outcome("the part itself", "a crash", 0, is_fault=True)), (7, Outcome("a", "b", 1, is_fault=True))]
    text = section("fuzz", "python -m tests.campaign", 1, outcomes, 90, share=0.1)
    assert "`python -m tests.campaign --part fuzz --seed 1 --share 0.1`" in text
    assert "`python -m tests.campaign --part fuzz --seed 1 --share 0.1 --only 7`" in text


@pytest.fixture
def campaign(tmp_path, monkeypatch):
    """Runs the command with parts of at most three cases. Returns the exit status and the sections of the report."""

    def run(name, folder, seed, share, only):
        (folder / "seed.json").write_text(json.dumps(seed))
        outcomes = [Outcome("one", "same digest", 0.1), Outcome("two", "not run: no tool", 0, count=0)]
        outcomes += [Outcome("three", "another digest", 0.1, is_fault=True)] * (seed == 2)
        yield from outcomes if only is None else outcomes[only : only + 1]
        if seed == 3:
            raise OSError("no such file")

    def ran(*words):
        sections = {}
        monkeypatch.setattr(runner, "write_section", lambda name, text: sections.update({name: text}))
        return runner.main(words), sections

    monkeypatch.setattr(runner, "run_part", run)
    monkeypatch.setattr(runner, "ProcessPoolExecutor", lambda *_, **__: ThreadPoolExecutor(2))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return ran


def test_the_exit_status_is_1_after_a_fault_or_an_error_whose_files_stay(campaign, tmp_path, capsys):
    status, sections = campaign()
    assert (status, sections.keys()) == (0, PARTS.keys()) and list(tmp_path.iterdir()) == []
    assert "kills 1: two: not run: no tool" in capsys.readouterr().out
    for seed, fault in (("2", "another digest"), ("3", "OSError: no such file")):
        status, sections = campaign("--seed", seed, "--part", "damage", "clock")
        assert status == 1 and sections.keys() == {"damage", "clock"}
        assert all("faults: 1**\n" in text and fault in text for text in sections.values())
        assert "the files of the cases are in" in capsys.readouterr().out
    assert len(list(tmp_path.iterdir())) == 4


def test_a_case_alone_changes_no_report_and_must_exist(campaign, capsys):
    assert campaign("--part", "kills", "--seed", "2", "--only", "0") == (0, {})
    assert campaign("--part", "kills", "--seed", "2", "--only", "2") == (1, {})
    assert campaign("--part", "kills", "--only", "2") == (1, {})
    assert "the part has no case 2" in capsys.readouterr().out


def test_a_part_ends_after_the_case_in_which_its_minutes_are_over(campaign):
    _, sections = campaign("--part", "kills", "--minutes", "0")
    assert "**1 case in 0 minutes, faults: 0**" in sections["kills"]


@pytest.mark.parametrize(
    "words", [("--only", "1"), ("--part", "kills", "--only", "-1"), ("--share", "0"), ("--part",), ("--minutes", "x")]
)
def test_a_wrong_option_is_refused(words):
    with pytest.raises(SystemExit, match="2"):
        runner.parse(words)
