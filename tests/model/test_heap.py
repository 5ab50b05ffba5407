import sys

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
