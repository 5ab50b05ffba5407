"""The Python in docs/ that is marked as running does run, on the golden data set."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
SHARDS = ROOT / "tests/golden/dataset/train/seq24/copy0/{00000..00000}.tar"
MARKED = re.compile(r"<!-- runs as a test[^>]*-->\s*```python\n(.*?)```", re.S)


def test_the_pipeline_for_a_trainer_of_ones_own_gives_padded_batches_and_what_to_predict():
    (code,) = MARKED.findall((ROOT / "docs/training.md").read_text("utf-8"))
    # webdataset leaves its files to the garbage collector; from Python 3.12 on, torch's workers fork with a warning
    flags = ["-W", "error", "-W", "ignore::ResourceWarning", "-W", "ignore:This process:DeprecationWarning"]
    command = [sys.executable, *flags, "-c", f"shards = {str(SHARDS)!r}\n{code}"]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert ran.returncode == 0, ran.stderr
    shapes = re.findall(r"^\((\d+), (\d+)\) (\d+) to predict$", ran.stdout, re.M)
    assert len(shapes) > 1 and shapes[0][0] == "32" and all(int(length) <= 24 for _, length, _ in shapes)
    assert all(int(number) >= int(rows) for rows, _, number in shapes)
