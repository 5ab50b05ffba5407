"""The stages as plain calls, by which `benchmarks/bench_workers.py` tells what Beam costs: the same job."""

from benchmarks.plain_job import plain_job
from tests.jobs.corpus import documents, run_job, write, write_vocabulary


def test_the_stages_as_plain_calls_make_the_shards_of_the_job(tmp_path):
    source = write(tmp_path / "texts.jsonl", documents(60))
    vocab = write_vocabulary(tmp_path / "vocab.txt")
    _, digest = plain_job(str(source), str(vocab), str(tmp_path / "plain"), 2)
    made = run_job(source, tmp_path / "job", vocab, max_seq_length=(128,), validation_fraction=0.01)
    assert digest == made["shards_digest"]
