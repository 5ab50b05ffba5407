"""The stages of `bertloom preprocess` as plain calls in one process, without Beam: the same splits, parts and shards.

    python benchmarks/plain_job.py TEXT vocab.txt OUT DUPE_FACTOR

prints {"seconds", "shards_digest"} as JSON; the clock starts behind the imports. `bench_workers.py` tells from it what
Beam costs. Not for use: it does not resume, knows no lock and takes one core.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from pipeline import storage
from pipeline.examples import WeaveConfig
from pipeline.inputs import find_sources, split_size, split_source
from pipeline.manifest import JobConfig, write_manifest
from pipeline.planning import make_plan, write_plan
from pipeline.preprocess import Places
from pipeline.tokenizing import TokenizeConfig, part_names, tokenize_split
from pipeline.tokens import DocumentTokenizer
from pipeline.vocabulary import make_tokenizer, read_vocabulary
from pipeline.weaving import weave_bucket
from pipeline.wordpiece import WordPiece


def plain_job(text: str, vocab: str, out: str, dupe_factor: int) -> dict[str, Any]:
    """The manifest of the data set that `bertloom preprocess` makes of this text with the defaults."""
    job = JobConfig(TokenizeConfig(), WeaveConfig(dupe_factor=dupe_factor), read_vocabulary(vocab))
    places, weave, vocabulary = Places(out, storage.join(out, ".work")), job.weave, job.vocabulary
    storage.make_folder(places.parts)
    storage.make_folder(places.records)
    sources = find_sources([text])
    part_bytes = split_size(sum(source.size for source in sources))

    tokenizer = DocumentTokenizer(WordPiece(make_tokenizer(vocabulary, True, None), True, len(vocabulary.words)))
    splits = [split for source in sources for split in split_source(source, part_bytes)]
    parts = []
    for split in splits:
        names = part_names(split, job.tokenize, vocabulary.sha256)
        parts += tokenize_split(split, names, places.parts, tokenizer, part_bytes)
    plan = make_plan(parts, places.parts, weave.validation_fraction, weave.min_sources)
    write_plan(places.plan, plan)
    buckets = [
        weave_bucket(bucket, plan, places.parts, out, places.records, weave, vocabulary) for bucket in plan.buckets
    ]
    manifest = write_manifest(out, plan, places.parts, places.records, buckets, job, sources)
    storage.remove(places.scratch)
    return manifest


def main() -> None:
    if len(sys.argv) != 5:
        raise SystemExit(__doc__)
    text, vocab, out, dupe_factor = sys.argv[1:]
    start = time.perf_counter()
    manifest = plain_job(text, vocab, out, int(dupe_factor))
    print(json.dumps({"seconds": time.perf_counter() - start, "shards_digest": manifest["shards_digest"]}))


if __name__ == "__main__":
    main()
