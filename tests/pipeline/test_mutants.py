"""Mutated input files and token parts: no signal, no traceback, no hang."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.pipeline.mutants import TARGETS, fault

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_mutated_files_give_records_rejects_or_one_line(target, tmp_path):
    command = [sys.executable, "-m", "tests.pipeline.mutants", target, "500", "1", str(tmp_path)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1000)
    assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-3000:]


def test_a_crash_a_traceback_and_a_line_without_the_name_are_faults(tmp_path):
    def crash(path: Path) -> None:
        import ctypes

        ctypes.string_at(0)

    def fail(path: Path) -> None:
        raise KeyError(path.name)

    def complain(path: Path) -> None:
        raise ValueError("bad file")

    def name(path: Path) -> None:
        raise ValueError(f"{path}: bad")

    path = tmp_path / "a.txt"
    path.write_bytes(b"")
    assert fault(path, crash).startswith("SIGSEGV") and "KeyError" in fault(path, fail)
    assert "ValueError: bad file" in fault(path, complain) and fault(path, name) == ""
