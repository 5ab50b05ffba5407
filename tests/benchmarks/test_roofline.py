"""benchmarks/roofline.py runs the trainer's step without a GPU and without memory."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.fake_cuda.library import missing

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(bool(missing()), reason=missing())
@pytest.mark.slow
def test_the_step_is_counted_uncompiled_and_compiled():
    command = [sys.executable, str(ROOT / "benchmarks/roofline.py"), "--cases", "tiny:32:4:2", "--top", "1"]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    assert not done.stderr
    lines = done.stdout.splitlines()
    rows = [line.strip("| ").split(" | ") for line in lines if line.startswith("| tiny")]
    assert [row[:2] for row in rows[:2]] == [["tiny:32:4:2", "uncompiled"], ["tiny:32:4:2", "compiled"]]
    assert int(rows[1][2]) < int(rows[0][2])  # kernels
    after_attention, fused, uncompiled, compiled = map(float, rows[2][1:])
    assert fused < after_attention < compiled < uncompiled
