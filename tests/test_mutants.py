"""Changed files and folders of every kind that we read: no signal, no traceback, no hang."""

import ctypes

import pytest

from tests.jobs import data_set_mutants
from tests.model import model_mutants, row_mutants
from tests.mutants import Target, fault, faults, target_of_files
from tests.pipeline import input_mutants

TARGETS = {
    f"{kind}-{name}": target
    for kind, listed in {
        "inputs": input_mutants,
        "rows": row_mutants,
        "data": data_set_mutants,
        "models": model_mutants,
    }.items()
    for name, target in listed.TARGETS.items()
}


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS.keys())
def test_no_mutant_ends_in_a_signal_a_traceback_or_a_hang(target: Target, tmp_path):
    assert list(faults(target, target.number, 1, tmp_path)) == []


def test_a_few_mutated_data_sets_do_neither(tmp_path):
    assert list(faults(data_set_mutants.TARGETS["set"], 48, 1, tmp_path)) == []
    assert data_set_mutants.verify(str(tmp_path / "originals"))[0] == []


@pytest.mark.parametrize("kind", row_mutants.TARGETS)
def test_files_of_rows_are_read_without_a_fault_before_they_are_changed(kind, tmp_path):
    target = row_mutants.TARGETS[kind]
    for name, data in target.prepare(tmp_path).items():
        (tmp_path / name).write_bytes(data)
        assert fault(target, tmp_path / name, row_mutants.uses(tmp_path / name)) == ""


def test_a_crash_a_traceback_and_a_line_without_the_name_are_faults(tmp_path):
    def crash() -> None:
        ctypes.string_at(0)

    def fail() -> None:
        raise KeyError(path.name)

    def complain() -> None:
        raise ValueError("bad file")

    def name() -> None:
        raise ValueError(f"{path}: bad")

    path = tmp_path / "a.txt"
    target = target_of_files(dict, lambda path: [], 1)
    assert fault(target, path, [crash]).startswith("SIGSEGV") and "KeyError" in fault(target, path, [fail])
    assert "ValueError: bad file" in fault(target, path, [name, complain]) and fault(target, path, [name]) == ""
