"""The fuzzing part of the campaign: a few batches of it, and what it does without atheris."""

from dataclasses import replace

import pytest
from hypothesis import strategies as st

from tests.campaign import fuzz, guided, structured
from tests.mutant_targets import TARGETS


def test_a_whole_campaign_is_a_million_inputs_of_every_target():
    assert fuzz.NUMBERS.keys() == TARGETS.keys() and guided.SEARCHED.keys() <= TARGETS.keys()
    assert sum(fuzz.NUMBERS.values()) + fuzz.STRUCTURED + fuzz.GUIDED == 1_000_000


def test_a_case_is_the_same_batch_when_it_is_run_alone(tmp_path, monkeypatch):
    names = ("texts-wordpiece", "inputs-json", "settings-phases")
    monkeypatch.setattr(fuzz, "NUMBERS", {name: fuzz.NUMBERS[name] for name in names})
    monkeypatch.setattr(guided, "find_spec", lambda name: None)
    monkeypatch.setattr(fuzz, "MUTANTS_OF_BATCH", 20)
    outcomes = list(fuzz.run(tmp_path / "all", 1, 0.001))
    assert [(one.what, one.count) for one in outcomes[:4]] == [
        ("texts-wordpiece", 256),
        ("inputs-json", 20),
        ("inputs-json", 10),
        ("settings-phases", 8),
    ]
    assert [one.result for one in outcomes if one.is_fault] == [] and "left out" in outcomes[-1].result
    assert len(outcomes) == 4 + len(structured.PROPERTIES) + 1
    [alone] = fuzz.run(tmp_path / "alone", 1, 0.001, only=2)
    assert (alone.what, alone.count, alone.result) == ("inputs-json", 10, outcomes[2].result)
    [alone] = fuzz.run(tmp_path / "property", 1, 0.001, only=4)
    assert alone.what == "structured: JSON Lines" and not alone.is_fault


def test_a_reader_that_loses_a_record_or_a_letter_is_a_fault(tmp_path, monkeypatch):
    records = [{"text": "One word."}, {"text": ""}, {"x": 1}, {"text": "\ud800 and more"}]
    structured.json_lines(tmp_path, records)
    read = structured.read
    lost = [lambda items: items[1:], lambda items: [], lambda items: [replace(items[0], text=b"One wod."), *items[1:]]]
    for lose in lost:
        monkeypatch.setattr(structured, "read", lambda *words, lose=lose: lose(read(*words)))
        with pytest.raises(AssertionError):
            structured.json_lines(tmp_path, records)


def test_a_property_that_fails_is_a_fault_with_a_smallest_input(tmp_path, monkeypatch):
    def refuse(folder, number):
        if number >= 10:
            raise KeyError(f"number {number}")

    monkeypatch.setattr(structured, "PROPERTIES", {"numbers": (refuse, (st.integers(),))})
    [outcome] = structured.run(tmp_path, 1, 200)
    assert outcome.is_fault and outcome.count == 200 and "number 10" in outcome.result
