"""Measure what a bucket of many small files costs if it reads every part or packs of parts, and what packing costs.

    python benchmarks/bench_small_files.py --input 'corpus_en/*.jsonl.gz' --vocab vocab.txt --files 20000

Every file is one document of a few paragraphs and becomes a part, as in `bertloom preprocess`. Then one bucket, a sixteenth
of all documents, is read repeatedly, alternately from the parts and from the packs. A job reads its parts once for each
bucket of about 8 million tokens, so its cost is the seconds of a row times the number of buckets.
"""

import argparse
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from large_corpus import documents, paragraphs_of
from setting import add_text_arguments, header, inputs_of, spread, vocabulary_of, write_report

from pipeline.examples.configuration import ExamplesConfig
from pipeline.inputs.discovery import find_sources
from pipeline.inputs.documents import TextConfig
from pipeline.inputs.sources import ReadConfig
from pipeline.inputs.splitting import split_source
from pipeline.job import JobConfig
from pipeline.places import Places
from pipeline.stages.packs import pack_parts
from pipeline.stages.plan import Bucket, Plan
from pipeline.stages.tokenization import tokenize_split
from pipeline.stages.weave import read_bucket
from pipeline.tokenizer import TokenizeConfig, make_document_tokenizer
from pipeline.tokens import PartRecord
from pipeline.vocabulary import read_vocabulary

BUCKET = Bucket("train", 0, 0, 1 << 60)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_text_arguments(parser)
    parser.add_argument("--files", type=int, default=200)
    parser.add_argument("--repeat", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        lines = measure(arguments, Path(folder))
    write_report("small_files", lines, not arguments.input)


def measure(arguments: argparse.Namespace, folder: Path) -> list[str]:
    start = time.perf_counter()
    parts = tokenize(arguments, folder)
    tokenizing = time.perf_counter() - start
    plan = Plan(tuple(parts), (BUCKET,), 0.0, sum(part.num_documents for part in parts), ())
    start = time.perf_counter()
    packed = replace(plan, packs=pack_parts(plan.parts, places_in(folder).parts))
    packing = time.perf_counter() - start
    seconds: dict[str, list[float]] = {"parts": [], "packs": []}
    found = {}
    for _ in range(arguments.repeat):
        for name, each in (("parts", plan), ("packs", packed)):
            start = time.perf_counter()
            tokens, *others = read_bucket(BUCKET, each, places_in(folder).parts)
            seconds[name].append(time.perf_counter() - start)
            found[name] = (tokens.ids.tobytes(), others)
    if found["parts"] != found["packs"]:
        raise SystemExit("the bucket differs")
    what = (
        f"{len(parts):,} files of one document each, {sum(part.num_tokens for part in parts):,} tokens; seconds of "
        f"{arguments.repeat} interleaved runs, median [min, max]. The bucket is the same, byte for byte."
    )
    ratio = statistics.median(seconds["parts"]) / statistics.median(seconds["packs"])
    return [
        *header("Many small files", what, "numpy", "pyarrow", "tokenizers"),
        "| a bucket read from | files | seconds |",
        "|---|---|---|",
        *(
            f"| {name} | {len(list(each.files)):,} | {spread(seconds[name])} |"
            for name, each in (("parts", plan), ("packs", packed))
        ),
        "",
        f"From packs it takes **1 / {ratio:.0f}** of the time. Packing took {packing:.1f} s, once. Writing the files and "
        f"tokenizing them in one process took {tokenizing:.1f} s.",
    ]


def places_in(folder: Path) -> Places:
    return Places(dataset=str(folder), work=str(folder))


def tokenize(arguments: argparse.Namespace, folder: Path) -> list[PartRecord]:
    """Write and tokenize the files. Return their parts in the order of the files' names."""
    vocabulary = read_vocabulary(vocabulary_of(arguments, folder))
    texts = documents(paragraphs_of(inputs_of(arguments)), megabytes=float("inf"))
    (folder / "in").mkdir()
    for i in range(arguments.files):
        (folder / f"in/{i:06d}.txt").write_text(next(texts), encoding="utf-8")
    config = TokenizeConfig(text=TextConfig(read=ReadConfig(text_layout="file")))
    job = JobConfig(config, ExamplesConfig(), vocabulary.sha256)
    places = places_in(folder)
    Path(places.parts).mkdir()
    tokenizer = make_document_tokenizer(config, vocabulary)
    parts = []
    for source in find_sources([str(folder / "in")], None, config.text.read):
        for split in split_source(source, 8_000_000):
            parts += tokenize_split(split, job, places, tokenizer, 8_000_000)
    return parts


if __name__ == "__main__":
    main()
