"""The Python in docs/ that is marked as running does run, on the golden data set."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
GOLDEN = ROOT / "tests/golden/dataset"
SHARDS = GOLDEN / "train/seq24/copy0/{00000..00000}.tar"
MARKED = re.compile(r"<!-- runs as a test[^>]*-->\s*```python\n(.*?)```", re.S)


def test_the_pipeline_for_a_trainer_of_ones_own_gives_padded_batches_and_what_to_predict():
    _, code = MARKED.findall((ROOT / "docs/training.md").read_text("utf-8"))
    # webdataset leaves its files to the garbage collector; from Python 3.12 on, torch's workers fork with a warning
    flags = ["-W", "error", "-W", "ignore::ResourceWarning", "-W", "ignore:This process:DeprecationWarning"]
    command = [sys.executable, *flags, "-c", f"shards = {str(SHARDS)!r}\n{code}"]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert ran.returncode == 0, ran.stderr
    shapes = re.findall(r"^\((\d+), (\d+)\) (\d+) to predict$", ran.stdout, re.M)
    assert len(shapes) > 1 and shapes[0][0] == "32" and all(int(length) <= 24 for _, length, _ in shapes)
    assert all(int(number) >= int(rows) for rows, _, number in shapes)


def test_the_loop_over_a_shard_data_set_trains_and_keeps_its_state(tmp_path):
    code, _ = MARKED.findall((ROOT / "docs/training.md").read_text("utf-8"))
    small = "hidden_size=16, num_hidden_layers=1, num_attention_heads=1, intermediate_size=16"
    code = code.replace("vocab_size=data.vocabulary_size", f"vocab_size=data.vocabulary_size, {small}")
    command = [sys.executable, "-c", f"dataset = {str(GOLDEN)!r}\n{code}"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert ran.returncode == 0, ran.stderr
    positions = [int(n) for n in re.findall(r"^epoch \d: loss \d+\.\d\d, (\d+) examples$", ran.stdout, re.M)]
    assert len(positions) == 2 and positions[1] > positions[0] > 32 and (tmp_path / "checkpoint.pt").exists()
