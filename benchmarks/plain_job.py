"""The stages of `bertloom preprocess` as plain calls in one process, without Beam: the same splits, parts and shards.

`bench_workers.py` tells from it what Beam costs. Not for use: it does not resume, knows no lock and takes one core.
"""

import time

from bertloom import storage
from pipeline.examples.configuration import ExamplesConfig
from pipeline.inputs.discovery import find_sources
from pipeline.inputs.splitting import split_size, split_source
from pipeline.preprocess import Places
from pipeline.stages.manifest import JobConfig, write_manifest
from pipeline.stages.plan import make_plan, write_plan
from pipeline.stages.tokenization import TokenizeConfig, make_document_tokenizer, part_names, tokenize_split
from pipeline.stages.weave import weave_bucket
from pipeline.vocabulary import read_vocabulary


def plain_job(text: str, vocab: str, out: str, dupe_factor: int) -> tuple[float, str]:
    """Makes the data set that `bertloom preprocess` makes of this text with the defaults: (seconds, shards_digest)."""
    start = time.perf_counter()
    job = JobConfig(TokenizeConfig(), ExamplesConfig(dupe_factor=dupe_factor), read_vocabulary(vocab))
    places, weave, vocabulary = Places(out, storage.join(out, ".work")), job.weave, job.vocabulary
    storage.make_folder(places.parts)
    storage.make_folder(places.records)
    sources = find_sources([text])
    part_bytes = split_size(sum(source.size for source in sources))

    tokenizer = make_document_tokenizer(job.tokenize, vocabulary)
    splits = [split for source in sources for split in split_source(source, part_bytes, job.tokenize.text.read)]
    parts = []
    for split in splits:
        names = part_names(split, job.tokenize, vocabulary.sha256)
        parts += tokenize_split(split, names, places.parts, tokenizer, part_bytes, job.tokenize.text)
    plan = make_plan(parts, places.parts, weave.validation_fraction, weave.min_sources)
    write_plan(places.plan, plan)
    buckets = [
        weave_bucket(bucket, plan, places.parts, out, places.records, weave, vocabulary) for bucket in plan.buckets
    ]
    manifest = write_manifest(out, plan, places.parts, places.records, buckets, job, sources, [])
    storage.remove(places.scratch)
    return time.perf_counter() - start, manifest["shards_digest"]
