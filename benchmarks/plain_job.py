"""The stages of `bertloom preprocess` as plain calls in one process, without Beam: the same splits, parts and shards.

`bench_workers.py` measures with it what Beam costs. It is not for real work: it cannot resume, takes no lock and uses one
core.
"""

import time

from bertloom import storage
from pipeline.examples.configuration import ExamplesConfig
from pipeline.inputs.discovery import find_sources
from pipeline.inputs.splitting import group_splits, split_size, split_source
from pipeline.job import JobConfig
from pipeline.places import Places
from pipeline.stages.manifest import write_manifest
from pipeline.stages.plan import make_plan, write_plan
from pipeline.stages.tokenization import tokenize_group
from pipeline.stages.weave import weave_bucket
from pipeline.tokenizer import TokenizeConfig, make_document_tokenizer, settled
from pipeline.vocabulary_files import read_vocabulary, write_copy


def plain_job(text: str, vocab: str, out: str, dupe_factor: int) -> tuple[float, str]:
    """Make the data set that `bertloom preprocess` makes of this text by default. Return (seconds, shards_digest)."""
    start = time.perf_counter()
    vocabulary, places = read_vocabulary(vocab), Places(out, storage.join(out, ".work"))
    job = JobConfig(
        settled(TokenizeConfig(), vocabulary, vocab), ExamplesConfig(dupe_factor=dupe_factor), vocabulary.sha256
    )
    storage.make_folder(places.parts)
    storage.make_folder(places.records)
    write_copy(places.vocabulary(vocabulary.sha256), vocabulary, job.tokenize.casing)
    sources = find_sources([text])
    part_bytes = split_size(sum(source.size for source in sources))

    tokenizer = make_document_tokenizer(job.tokenize, vocabulary)
    splits = [split for source in sources for split in split_source(source, part_bytes)]
    parts = []
    for group in group_splits(splits, part_bytes):
        parts += tokenize_group(group, job, places, tokenizer, part_bytes)
    plan = make_plan(
        parts,
        places.parts,
        job.examples.validation_fraction,
        job.examples.min_sources,
        min_shards=job.examples.min_shards,
    )
    write_plan(places.plan, plan)
    buckets = [weave_bucket(bucket, plan, job, places) for bucket in plan.buckets]
    manifest = write_manifest(plan, buckets, job, places, sources, [])
    storage.remove(places.scratch)
    return time.perf_counter() - start, manifest["shards_digest"]
