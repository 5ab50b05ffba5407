"""Documents that share a run of words with a test set become rejects with all sizes of batches and pieces."""

from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.stages import exclusion
from pipeline.stages.exclusion import count_in_test_sets, without_test_sets
from pipeline.text.records import Document, PassedOver, Reject
from tests.pipeline.test_word_runs import SENTENCE, index_of
from tests.pipeline.twins_of_exclusion import sets_of_pieces

LETTERS = st.lists(st.sampled_from(["a", "b", "中", "Ａ"]), max_size=16).map(" ".join)
TEST_SETS = st.dictionaries(st.sampled_from("xy"), st.lists(LETTERS, min_size=1, max_size=3), min_size=1)


def left_out(records, index, batch_bytes=1_000_000):
    with mock.patch.object(exclusion, "BATCH_BYTES", batch_bytes):
        return [record for _, record in without_test_sets(((0, record) for record in records), index)]


def test_a_reject_names_the_test_sets_and_the_run():
    index = index_of({"squad/dev.json": ["x", SENTENCE], "qnli/dev.jsonl": [SENTENCE]})
    document = Document(f"He wrote: “{SENTENCE.title()}”, and left.".encode(), 70, record_id="n1")
    other, gone = Document(b"A text.", 0), PassedOver(9, "redirect")
    kept, passed, reject = left_out([other, gone, document], index)
    assert (kept, passed) == (other, gone)
    assert (reject.reason, reject.position, reject.record_id) == ("in-test-set", 70, "n1")
    assert reject.test_sets == ("qnli/dev.jsonl", "squad/dev.json")
    assert reject.detail == (
        "qnli/dev.jsonl, line 0; squad/dev.json, line 1: the cat sat on the mat while a dog slept near the old"
    )
    assert reject.text.startswith("He wrote")


def test_documents_are_counted_for_each_test_set():
    index = index_of({"a": [SENTENCE], "b": [SENTENCE, "中" * 13]})
    documents = [Document(text.encode(), i) for i, text in enumerate([SENTENCE, "中，" * 13, "no"])]
    assert count_in_test_sets(documents, index) == {"a": 1, "b": 2}


@settings(deadline=None)
@given(st.lists(st.lists(LETTERS, min_size=1, max_size=6), max_size=5), TEST_SETS, st.integers(1, 60))
def test_every_piece_that_a_run_touches_is_left_out_whatever_the_batches(texts, test_sets, batch_bytes):
    """Each text is a list of pieces."""
    records, expected = [], []
    for position, pieces in enumerate(texts):
        key = None if len(pieces) == 1 else position
        records += [Document(piece.encode(), position, i, key) for i, piece in enumerate(pieces)]
        expected += sets_of_pieces(pieces, test_sets)
    index = index_of(test_sets)
    found = left_out(records, index, batch_bytes)
    assert [list(one.test_sets) if isinstance(one, Reject) else [] for one in found] == expected
    assert [(one.position, one.piece) for one in found] == [(one.position, one.piece) for one in records]
    assert found == left_out(records, index)  # also the runs that are shown


def test_few_records_wait_for_the_next_piece():
    """Memory holds a batch and the pieces with the last twelve words."""
    index, read = index_of({"a": [SENTENCE]}), 0

    def pieces():
        nonlocal read
        for i in range(100):
            read += 1
            yield 0, Document(b"a b c d e", 0, i, 7)

    with mock.patch.object(exclusion, "BATCH_BYTES", 1):
        for number, _ in enumerate(without_test_sets(pieces(), index), 1):
            assert read - number <= 3


def test_a_piece_after_a_rejected_one_begins_anew():
    words = SENTENCE.split()
    first, last = " ".join(words[:7]), " ".join(words[7:])
    records = [Document(first.encode(), 0, 0, 7), Reject(0, "too-long", piece=1), Document(last.encode(), 0, 2, 7)]
    assert left_out(records, index_of({"a": [SENTENCE]})) == records
