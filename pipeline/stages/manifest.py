"""The manifest stage: all bucket records -> shards.parquet, the rejects, the vocabulary and, last, manifest.json.

The presence of manifest.json means that a data set is complete. From then on it never changes.
"""

import math
import platform
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bertloom import storage
from bertloom.manifest import FORMAT, manifest_sha256, manifest_text
from bertloom.sealed_files import read_sealed
from bertloom.shards import FORMAT_VERSION, digest_of, shards_table
from pipeline.dataset import (
    KNOWN_NEAR_DUPLICATES,
    KNOWN_NEAR_DUPLICATES_SCHEMA,
    NEAR_DUPLICATES,
    NEAR_DUPLICATES_SCHEMA,
    REPEATED,
)
from pipeline.examples.configuration import ExamplesConfig
from pipeline.extended import Extended, read_data_sets
from pipeline.inputs.sources import Source, differences
from pipeline.inputs.split_list import read_split_list
from pipeline.job import JobConfig
from pipeline.part_sources import files_of
from pipeline.places import Places
from pipeline.stages.counters import increment
from pipeline.stages.document_places import find_places
from pipeline.stages.document_sketches import page_name
from pipeline.stages.known_near_duplicates import read_known_near_duplicates
from pipeline.stages.layouts import layout_advice
from pipeline.stages.parquet import parquet_bytes
from pipeline.stages.plan import Plan, read_plan
from pipeline.stages.rejected import REJECTS, rejects_of
from pipeline.stages.selection import over_budget_logs
from pipeline.stages.similar_documents import read_near_duplicates
from pipeline.stages.source_counts import about_sources, selected_counts
from pipeline.stages.transform import transform
from pipeline.stages.weave import BucketRecord
from pipeline.stages.work_log import log_begin
from pipeline.text.versions import unicode_version, version_of
from pipeline.text.word_runs import RUN_WORDS, RunIndex
from pipeline.tokenizer import token_versions
from pipeline.vocabulary import Vocabulary
from pipeline.vocabulary_files import read_copy

MAX_DROPPED = 0.1  # share of pairs
MAX_DIVIDED = 0.5  # share of pairs that are parts of one sentence


def versions(job: JobConfig, sources: Sequence[Source]) -> dict[str, str]:
    """Return name -> version of the software that decides a data set of these sources."""
    always = ("bertloom", "apache-beam", "pyarrow", "numpy")
    found = {"python": platform.python_version(), **{name: version_of(name) for name in always}}
    for file_format, number in sorted({(source.format, source.input) for source in sources}):
        found |= token_versions(job.of_input(number).tokenize, file_format)
    return found


def add_up(
    plan: Plan, buckets: list[BucketRecord], extends: Sequence[Extended] = (), known_near: Sequence[int] = ()
) -> dict[str, Any]:
    """Return the counters of a job. ValueError if documents are missing: nothing may be lost in silence.

    Args:
        extends: the data sets that it extends.
        known_near: near duplicates of each of these; empty if they are not searched for. Those without sketches have none.
    """
    rejected, passed_over = _sum(part.rejected for part in plan.parts), _sum(part.passed_over for part in plan.parts)
    without = sum(bucket.num_without_example for bucket in buckets)
    if without:
        rejected["no-example"] = without
    over, left_out = selected_counts(plan, plan.parts)
    if over:
        rejected["over-budget"] = over
    counters: dict[str, Any] = {
        "documents_in": plan.num_documents + sum(sum(part.rejected.values()) for part in plan.parts),
        "documents_used": sum(bucket.num_used for bucket in buckets),
        "documents_duplicate": sum(bucket.num_duplicates for bucket in buckets) + left_out,
        "documents_rejected": sum(rejected.values()),
        "rejected": dict(sorted(rejected.items())),
        "passed_over": dict(sorted(passed_over.items())),
        "cleaned": dict(sorted(_sum(part.cleaned for part in plan.parts).items())),
        "characters_replaced": sum(part.num_replaced for part in plan.parts),
        "text_bytes": sum(part.text_bytes for part in plan.parts),
        "sentences": sum(bucket.num_sentences for bucket in buckets),
        "tokens": sum(bucket.num_tokens for bucket in buckets),
    }
    if plan.near_duplicates_sha256:
        counters["documents_near_duplicate"] = sum(bucket.num_near_duplicates for bucket in buckets) - sum(known_near)
    if extends:
        counters["duplicates_of"] = {
            one.name: {"equal": sum(bucket.num_known[i] for bucket in buckets)}
            | ({"near": known_near[i]} if known_near and one.sketches else {})
            for i, one in enumerate(extends)
        }
    ends = counters["documents_used"] + counters["documents_rejected"] + counters["documents_duplicate"]
    if ends != counters["documents_in"]:
        raise ValueError(
            f"{counters['documents_in']} documents came in, but {ends} were used, rejected or duplicate. This is a bug in "
            f"bertloom: please report it with the numbers {counters}"
        )
    counters["pairs"] = dict(sorted(_sum(bucket.counters for bucket in buckets).items()))
    counters["examples"] = {
        split: sum(row["examples"] for bucket in buckets for row in bucket.shards if row["split"] == split)
        for split in ("train", "validation")
    }
    return counters


def _sum(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for some in counts:
        total.update(some)
    return total


def check_pairs(counters: dict[str, Any], config: ExamplesConfig, advice: str = "") -> None:
    """Raise ValueError if next sentence prediction, or a similar objective, cannot be learned from these pairs.

    advice: about the layout of the texts, for the error.
    """
    for length in config.max_seq_length:
        kept, dropped = (counters["pairs"].get(f"{name}/{length}", 0) for name in ("pairs", "pairs-dropped"))
        if kept == 0:
            raise ValueError(f"--max-seq-length {length}: the documents give no example; give more text")
        random, divided = (
            counters["pairs"].get(f"{name}/{length}", 0) for name in ("pairs-random", "pairs-of-one-sentence")
        )
        most = MAX_DROPPED * (kept + dropped) + 4 * math.sqrt(kept + dropped)  # with few pairs, chance alone drops more
        if config.objective.predicts_label and (random == kept or dropped > most):
            raise ValueError(
                f"--max-seq-length {length}: {kept} pairs ({kept - random} next, {random} random) and {dropped} dropped: "
                f"the labels cannot be learned from so few pairs; give more text, or use --pairs none"
            )
        if divided > MAX_DIVIDED * (kept + dropped) + 2 * math.sqrt(kept + dropped):
            raise ValueError(
                f"--max-seq-length {length}: {divided:,} of {kept + dropped:,} pairs are parts of one sentence, because too "
                f"many documents have a single sentence. A blank line ends a document: check that the input has no blank "
                f"line after every sentence. If the documents are really that short, use --pairs none"
                + (f". {advice}" if advice else "")
            )


def write_files(
    plan: Plan, buckets: list[BucketRecord], job: JobConfig, places: Places, has_rejects: bool
) -> dict[str, str]:
    """Write the data set's files that are neither shards nor pages of documents, and return name -> SHA-256."""
    files: dict[str, str] = {}

    def write(name: str, chunks: Iterable[bytes]) -> None:
        _, files[name] = storage.write_whole(storage.join(places.dataset, *name.split("/")), chunks)

    def rejects() -> Iterator[bytes]:  # concatenated gzip members are one gzip file
        yield from rejects_of(plan.parts, places.parts)
        yield from over_budget_logs(places, plan.parts[0].input if places.source else None)
        for bucket in buckets:
            if bucket.rejects:
                yield storage.read(storage.join(places.records, bucket.rejects))

    if job.tokenize.max_line_repeats is not None:
        write(REPEATED, [storage.read(storage.join(places.parts, REPEATED))])
    if has_rejects:
        storage.make_folder(storage.join(places.dataset, "rejects"))
        write(REJECTS, rejects())
    if job.examples.near_duplicates is not None:
        write(
            NEAR_DUPLICATES,
            [near_duplicates_page(read_near_duplicates(places.near_duplicates), plan, places.parts)],
        )
        if job.extends:
            names = [one.name for one in read_data_sets(places.extended)]
            rows = read_known_near_duplicates(places, job)
            write(KNOWN_NEAR_DUPLICATES, [near_duplicates_page(rows, plan, places.parts, names)])
        files |= {page_name(bucket.split, bucket.number): bucket.sketches_sha256 for bucket in buckets}
    for name, content in read_copy(places.vocabulary(job.vocabulary_digest)).files(job.tokenize.casing).items():
        write(name, [content])
    files.pop(Vocabulary.file, None)  # the manifest has its digest under "vocabulary"
    return files


def write_manifest(
    plan: Plan,
    buckets: Iterable[BucketRecord],
    job: JobConfig,
    places: Places,
    sources: Sequence[Source],
    notes: Sequence[str],
) -> dict[str, Any]:
    """Write all files besides the shards and, last, manifest.json. Return the manifest.

    notes: messages about the sources.
    """
    buckets = sorted(buckets, key=lambda bucket: (bucket.split, bucket.number))
    if len(buckets) != len(plan.buckets):
        raise ValueError(
            f"{len(buckets)} of {len(plan.buckets)} buckets came back: start the job again to make the others"
        )
    extends = read_data_sets(places.extended) if job.extends else []
    counters = add_up(plan, buckets, extends, count_known_near(job, places, extends))
    known_near = read_known_near_duplicates(places, job)["part"].astype(np.int64)
    check_pairs(counters, job.examples, layout_advice(plan.parts, job.tokenize.text.read))
    rows = [row for bucket in buckets for row in bucket.shards]
    shards = parquet_bytes(shards_table(rows))
    _, shards_sha256 = storage.write_whole(storage.join(places.dataset, "shards.parquet"), [shards])
    files = write_files(plan, buckets, job, places, has_rejects=counters["documents_rejected"] > 0)
    scheme = job.examples.scheme
    manifest = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "configuration": job.as_dict(),
        "configuration_digest": job.digest,
        "masking": {"scheme": scheme.name, "can_be_redrawn": scheme.can_be_redrawn},
        "vocabulary": read_copy(places.vocabulary(job.vocabulary_digest)).as_dict(),
        "versions": versions(job, sources) | ({"unicode": unicode_version()} if job.excluded_sha256 else {}),
        "counters": counters,
        "notes": [*notes, *plan.notes],
        **({"excluded": about_excluded(job, places, plan)} if job.excluded_sha256 else {}),
        "inputs": about_inputs(plan, sources, job, places.parts),
        **({"sources": about_sources(plan, buckets, job, sources, known_near)} if job.inputs else {}),
        "shards_parquet": {"sha256": shards_sha256, "rows": len(rows)},
        "shards_digest": digest_of(rows),
        "documents": {
            f"documents/{bucket.split}/{bucket.number:05d}.parquet": bucket.documents_sha256 for bucket in buckets
        },
        "files": files,
        **({"extends": [about_extended(one) for one in extends]} if extends else {}),
    }
    manifest["sha256"] = manifest_sha256(manifest)
    storage.write_whole(places.manifest, [manifest_text(manifest)])
    return manifest


def about_extended(data_set: Extended) -> dict[str, Any]:
    """Return what the manifest records of a data set that it extends."""
    return {
        "name": data_set.name,
        "path": data_set.location,
        "sha256": data_set.sha256,
        "shards_digest": data_set.shards_digest,
        "files_not_read_again": data_set.num_files,
    }


def count_known_near(job: JobConfig, places: Places, extends: Sequence[Extended]) -> list[int]:
    """Return the number of near duplicates of each data set that the job extends; none if they are not searched for."""
    if job.examples.near_duplicates is None:
        return []
    rows = read_known_near_duplicates(places, job)
    return np.bincount(rows["data_set"], minlength=len(extends)).tolist() if extends else []


def near_duplicates_page(rows: NDArray[np.void], plan: Plan, folder: str, data_sets: Sequence[str] = ()) -> bytes:
    """Return a file of near duplicates: the documents left out, by id, and which document each one resembles.

    data_sets: names of the data sets by number, if the documents resemble documents of other data sets.
    """
    part_of = rows["part"].astype(np.intp) - plan.first_part
    own = (part_of >= 0) & (part_of < len(plan.parts))
    rows, part_of = rows[own], part_of[own]
    sources, positions = find_places(plan.parts, folder, part_of, rows)
    others = {}
    if data_sets:
        others = {"data_set": [data_sets[i] for i in rows["data_set"]], "is_exact": rows["is_exact"].copy()}
    table = pa.table(
        {
            "id": rows["id"].copy(),
            "resembles": rows["resembles"].copy(),
            "similarity": rows["shared"] / rows["either"],
            "source": pa.array(sources, pa.string()),
            "position": positions,
            "piece": rows["piece"].copy(),
            **others,
        },
        KNOWN_NEAR_DUPLICATES_SCHEMA if data_sets else NEAR_DUPLICATES_SCHEMA,
    )
    return parquet_bytes(table)


def about_excluded(job: JobConfig, places: Places, plan: Plan) -> dict[str, Any]:
    """Return the test sets of --exclude, and how many documents share a run of words with each."""
    index = RunIndex.from_bytes(read_sealed(places.excluded(job.excluded_sha256)))
    documents = _sum(part.in_test_sets for part in plan.parts)
    sets = [
        {
            "name": one.name,
            "records": one.num_records,
            "records_without_run": one.num_without_run,
            "runs": num_runs,
            "documents": documents.get(one.name, 0),
        }
        for one, num_runs in zip(index.sets, index.num_runs, strict=True)
    ]
    return {"sha256": job.excluded_sha256, "run_words": RUN_WORDS, "sets": sets}


def about_inputs(plan: Plan, sources: Sequence[Source], job: JobConfig, folder: str) -> list[dict[str, Any]]:
    """Return the input files and how much text each has, before duplicates are dropped.

    A file that is read with other options than the job's own lists them.

    Args:
        folder: of the parts.
    """
    read = job.tokenize.text.read
    names = ("documents", "sentences", "tokens", "text_bytes", "rejected")
    given: dict[str, dict[str, Any]] = {source.name: dict.fromkeys(names, 0) for source in sources}
    reading = {config: differences(config, read) for config in {source.read for source in sources}}
    damaged = set()
    for file in files_of(plan.parts, folder):
        values = (file.num_documents, file.num_sentences, file.num_tokens, file.text_bytes, file.num_rejected)
        for name, value in zip(names, values, strict=True):
            given[file.name][name] += value
        if file.is_damaged:
            damaged.add(file.name)
    return [
        {name: getattr(source, name) for name in ("name", "path", "format", "codec", "encoding")}
        | {"bytes": source.size, "fingerprint": source.fingerprint}
        | ({"damaged": True} if source.name in damaged else {})
        | ({"split": "validation"} if source.held_out else {})
        | ({"source": job.inputs[source.input].name} if source.input >= 0 else {})
        | ({"reading": reading[source.read]} if reading[source.read] else {})
        | given[source.name]
        for source in sources
    ]


@transform
class WriteManifest(beam.PTransform[Any, Any]):
    """BucketRecords -> the manifest, when the data set is complete."""

    job: JobConfig
    places: Places
    splits: str
    """The list of splits, and of their sources."""
    notes: Sequence[str]
    """Messages about the sources."""

    def expand(self, records: Any) -> Any:
        return (
            records
            | "all buckets" >> beam.GroupBy(lambda record: record.input)
            | "write manifest" >> beam.MapTuple(self.write_manifest)
        )

    def write_manifest(self, number: int, buckets: Iterable[BucketRecord]) -> dict[str, Any]:
        """Write the manifest of a data set. number: of its source; -1 for the data set of all sources."""
        log_begin(self.places.work_log, "manifest")
        places = self.job.places_of(self.places, number)
        plan = read_plan(places.plan)
        sources = [one for one in read_split_list(self.splits).all_sources() if number in (-1, one.input)]
        try:
            manifest = write_manifest(plan, buckets, self.job, places, sources, self.notes)
        except ValueError as error:
            raise ValueError(f"the source {places.source}: {error}" if places.source else str(error)) from error
        counters = manifest["counters"]
        increment(
            "manifest",
            buckets_in=len(plan.buckets),
            shards_in=manifest["shards_parquet"]["rows"],
            documents_in=counters["documents_in"],
            documents_used=counters["documents_used"],
            documents_rejected=counters["documents_rejected"],
            documents_duplicate=counters["documents_duplicate"],
            files_out=len(manifest["files"]),
        )
        return manifest
