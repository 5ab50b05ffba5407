"""The bound on the memory of decoding: it is there during a batch and gone after it, also after an error."""

import resource
import threading

import pytest

from bertloom import decoding
from bertloom.decoding import bounded_decoding, decoded

pytestmark = pytest.mark.skipif(not decoding.STATM.exists(), reason="only Linux bounds the memory of decoding")


def limit() -> int:
    return resource.getrlimit(resource.RLIMIT_DATA)[0]


def test_each_batch_is_decoded_within_the_bound_and_used_without_it():
    before, within = limit(), []

    def batches():
        for number in range(3):
            within.append(limit())
            yield number

    found = []
    for batch in decoded(batches()):
        found.append(batch)
        assert limit() == before
    assert found == [0, 1, 2] and all(each > 0 and each != before for each in within)


def test_a_batch_that_takes_too_much_is_an_error_that_says_what_to_do():
    before = limit()

    def batches():
        yield 1
        yield bytearray(1 << 40)

    iterator = decoded(batches())
    assert next(iterator) == 1
    with pytest.raises(
        OSError, match="it takes more than 536,870,912 bytes of memory at once, .*: write it in smaller"
    ):
        next(iterator)
    assert limit() == before


def test_threads_that_decode_at_the_same_time_leave_no_limit_behind():
    before = limit()

    def decode():
        for _ in range(200):
            with bounded_decoding():
                pass

    threads = [threading.Thread(target=decode) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert limit() == before


def test_a_system_that_does_not_count_memory_has_no_bound(monkeypatch, tmp_path):
    monkeypatch.setattr(decoding, "STATM", tmp_path / "none")
    before = limit()
    with bounded_decoding():
        assert limit() == before
