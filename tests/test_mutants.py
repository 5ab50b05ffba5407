"""Changed files and folders of every kind that we read: no signal, no traceback, no hang."""

import ctypes
import random
from functools import partial
from pathlib import Path

import pytest

from tests.batches import batches
from tests.jobs import data_set_mutants
from tests.model import row_mutants
from tests.mutant_targets import TARGETS
from tests.mutants import Target, fault, faults, target_of_files


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS.keys())
def test_no_mutant_ends_in_a_signal_a_traceback_or_a_hang(target: Target, tmp_path):
    number = target.number * target.inputs
    found = list(batches(target, number, 1, tmp_path))
    assert sum(batch.number for batch in found) == number and [batch.faults for batch in found if batch.faults] == []


@pytest.mark.slow
def test_a_few_mutated_data_sets_do_neither(tmp_path):
    assert list(faults(data_set_mutants.TARGETS["set"], 48, 1, tmp_path)) == []
    assert data_set_mutants.verify(str(tmp_path / "originals"))[0] == []


@pytest.mark.slow
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


def test_the_mutant_at_which_a_process_ends_is_named_and_the_next_ones_are_used(tmp_path):
    """Each third mutant is a crash, an endless loop or an error."""

    def write(original: object, place: Path, draw: random.Random) -> Path:
        place.write_text("".join(draw.choices("ab", k=3)))
        return place

    def use(path: Path) -> None:
        with open(tmp_path / "used", "a") as file:
            file.write(f"{path.name}\n")
        number = int(path.name)
        if number == 2:
            ctypes.string_at(0)
        while number == 5:
            pass
        if number == 8:
            raise KeyError(path.name)

    target = Target(lambda folder: None, write, lambda _, path, draw: [partial(use, path)], 0, seconds=1, inputs=10)
    [first, second] = batches(target, 115, 1, tmp_path / "mutants", size=7)
    assert (first.number, second.number) == (70, 45)
    assert [f.split(": ")[1].split()[0] for f in first.faults] == ["SIGSEGV", "SIGALRM"]
    assert "in use" in first.faults[1] and "KeyError" in second.faults[0] and len(second.faults) == 1
    used = (tmp_path / "used").read_text().split()
    assert sorted({*used}) == [f"{number:06d}" for number in range(12)] and len(used) == 12 + 3
    assert sorted(path.name for path in (tmp_path / "mutants").iterdir()) == ["000002", "000005", "000008"]


def test_what_only_mutants_before_show_is_a_fault(tmp_path):
    seen: list[int] = []

    def write(original: object, place: Path, draw: random.Random) -> Path:
        place.touch()
        return place

    def use() -> None:
        seen.append(1)
        if len(seen) == 3:
            raise KeyError("third")

    target = Target(lambda folder: None, write, lambda *arguments: [use], 0)
    [batch] = batches(target, 5, 1, tmp_path)
    assert len(batch.faults) == 1 and "000002: only after the mutants before it: error" in batch.faults[0]
