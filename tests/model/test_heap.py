import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest

from model.runs.heap import Heap, trim_heap


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's heap")
def test_trimming_returns_the_holes_between_live_blocks():
    blocks = [bytes(100_000) for _ in range(300)]  # too small for memory mappings of their own
    kept = blocks[::50]
    del blocks
    assert trim_heap()
    assert len(kept) == 6


def test_the_heap_is_trimmed_once_per_interval():
    now, trims = [100.0], []
    heap = Heap(trim=lambda: trims.append(now[0]), clock=lambda: now[0])
    for now[0] in (101.0, 129.9, 130.0, 159.0, 161.0):
        heap.trim_if_due()
    assert trims == [130.0, 161.0]


INFO = """
import ctypes, sys
import torch

class Info(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in "a b c d mapped e f used free g".split()]

library = ctypes.CDLL(None)
library.mallinfo2.restype = Info
"""
FREE_BYTES = """
from model.runs.heap import keep_blocks

if sys.argv[1:]:
    assert keep_blocks()
blocks = [torch.empty(30 * 2**20, dtype=torch.uint8) for _ in range(4)]
del blocks
print(library.mallinfo2().free)
"""
needs_mallinfo = pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="needs glibc 2.33")


@needs_mallinfo
def test_blocks_of_30_mib_stay_in_the_heap_for_the_next_step():
    """In bytes of free blocks. glibc by itself returns these blocks to the system, page by page."""
    assert int(run_code(INFO + FREE_BYTES, "keep")) > 115 * 2**20
    assert int(run_code(INFO + FREE_BYTES)) < 30 * 2**20


def run_code(code: str, *words: str) -> str:
    """Run Python code in a process of its own, and return what it prints."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("ONEDNN", "MALLOC"))}
    environment["PYTHONPATH"] = str(Path(__file__).parents[2])
    command = [sys.executable, "-c", code, *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout


LIVE_BYTES = """
from model.loading.batches import global_batch
from model.loading.data import DataSet
from model.mixed_precision import compute_copy
from model.optimizer import build_optimizer
from model.runs.heap import limit_kernels
from model.step import train_step
from tests.model.small_model import random_model

data, precision = sys.argv[1:]
limit_kernels(precision)
examples = DataSet(data).examples("train", 32)
order = examples.order(1, "global")
model = random_model()
copy, optimizer = compute_copy(model, precision), build_optimizer(model, 0.01)
sizes = set()
for step in range(120):
    batch = global_batch(examples, order, step * 24, 24, 24)
    train_step(model, optimizer, batch, copy=copy, learning_rate=1e-3, max_gradient_norm=1.0, seed=1, step=step)
    sizes.add(batch.num_tokens)
    if step in (39, 119):
        info = library.mallinfo2()
        print(len(sizes), info.used + info.mapped)
"""


@pytest.mark.slow
@needs_mallinfo
def test_live_memory_is_the_same_after_40_and_120_steps_of_different_sizes(data_set):
    """In bytes of live blocks, which neither the machine nor its load changes. Kernels of 80 sizes would be 10 MiB."""
    ran = run_code(INFO + LIVE_BYTES, str(data_set), "fp32")
    (few, before), (many, after) = (map(int, line.split()) for line in ran.splitlines())
    assert many > few + 20
    assert after - before < 2**20
