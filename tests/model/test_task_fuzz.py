"""Files of rows in which bytes are changed: rows, bad rows, or one line of error, and never a crash or a hang."""

from pathlib import Path

import pytest

from tests.model.row_mutants import SEEDS, faults, read_for_every_task
from tests.pipeline.mutants import fault


@pytest.mark.parametrize("kind", SEEDS)
def test_the_files_that_are_changed_are_read_without_a_fault(kind, tmp_path):
    for name, data in SEEDS[kind]().items():
        (tmp_path / name).write_bytes(data)
        assert fault(tmp_path / name, read_for_every_task) == ""


@pytest.mark.slow
@pytest.mark.parametrize("kind", SEEDS)
def test_mutants_of_rows_give_rows_or_one_line(kind, tmp_path):
    assert list(faults(kind, 1000, 1, Path(tmp_path))) == []
