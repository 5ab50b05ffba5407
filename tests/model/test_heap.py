import sys

import psutil
import pytest

from model.runs import heap
from model.runs.heap import Heap


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's heap")
def test_trimming_gives_back_the_holes_between_blocks_that_live():
    def resident() -> int:
        return psutil.Process().memory_info().rss >> 20

    blocks = [bytes(100_000) for _ in range(3000)]  # too small for memory of their own
    kept = blocks[::50]
    del blocks
    before = resident()
    Heap().trim()
    assert resident() < before - 100
    assert len(kept) == 60


def test_the_heap_is_trimmed_once_per_interval(monkeypatch):
    now, trims = [100.0], []
    monkeypatch.setattr(heap.time, "monotonic", lambda: now[0])
    watched = Heap()
    watched._trim = trims.append
    for now[0] in (101.0, 129.9, 130.0, 159.0, 161.0):
        watched.trim_if_due()
    assert len(trims) == 2
