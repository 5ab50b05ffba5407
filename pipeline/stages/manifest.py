"""The manifest stage: all bucket records -> shards.parquet, the rejects, the vocabulary, and manifest.json, last.

The presence of manifest.json means that a data set is complete; from then on it never changes.
"""

import hashlib
import io
import json
import math
import platform
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bertloom import storage
from bertloom.shards import FORMAT_VERSION, digest_of, shards_table
from pipeline.examples.configuration import ExamplesConfig
from pipeline.inputs.sources import Source
from pipeline.options import Config, compose, flat, option_names
from pipeline.stages import tokenization as tokenizing
from pipeline.stages.line_repeats import REPEATED
from pipeline.stages.near_duplicates import read_near_duplicates
from pipeline.stages.plan import Plan, read_plan
from pipeline.stages.tokenization import TokenizeConfig
from pipeline.stages.weave import BucketRecord
from pipeline.text.versions import version_of
from pipeline.tokens import read_rejects
from pipeline.vocabulary import Vocabulary, kept_vocabulary, tokenizer_json

FORMAT = "bertloom-dataset"
MAX_DROPPED = 0.1
LATER = {"mask_spans": False, "near_duplicates": None, **tokenizing.LATER}
"""Options that came after the first data sets, and what they are where they are not named."""
DAMAGED = "`bertloom verify DATASET` tells what is damaged"


@dataclass(frozen=True)
class JobConfig:
    """Everything that decides the bytes of a data set, but the texts."""

    tokenize: TokenizeConfig
    weave: ExamplesConfig
    vocabulary: Vocabulary

    @classmethod
    def of(cls, manifest: dict[str, Any], vocabulary: Vocabulary) -> "JobConfig":
        """The configuration that a data set was made with."""
        values = {k: tuple(v) if isinstance(v, list) else v for k, v in manifest["configuration"].items()}

        def part(config_class: type[Config]) -> Config:
            return compose(
                config_class, **{name: values[name] for name in option_names(config_class) if name in values}
            )

        return cls(part(TokenizeConfig), part(ExamplesConfig), vocabulary)

    def as_dict(self) -> dict[str, Any]:
        """Every option; those of LATER only where they are used, so that data sets made before them keep their digest."""
        values: dict[str, Any] = {**flat(self.tokenize), **flat(self.weave)}
        values["max_predictions_per_seq"] = [self.weave.max_predictions(n) for n in self.weave.max_seq_length]
        values = {name: value for name, value in values.items() if name not in LATER or value != LATER[name]}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    @property
    def digest(self) -> str:
        return hashlib.sha256(json.dumps([self.as_dict(), self.vocabulary.sha256], sort_keys=True).encode()).hexdigest()


def versions(config: TokenizeConfig, sources: list[Source]) -> dict[str, str]:
    """The software whose version could show in a data set of these sources."""
    always = ("bertloom", "apache-beam", "pyarrow", "numpy")
    found = {"python": platform.python_version(), **{name: version_of(name) for name in always}}
    for form in sorted({source.format for source in sources}):
        found |= tokenizing.token_versions(config, form)
    return found


def count(plan: Plan, buckets: list[BucketRecord]) -> dict[str, Any]:
    """The counters of a job; ValueError where documents are missing: nothing is lost in silence."""
    rejected, passed_over = _sum(part.rejected for part in plan.parts), _sum(part.passed_over for part in plan.parts)
    without = sum(bucket.num_without_example for bucket in buckets)
    if without:
        rejected["no-example"] = without
    counters: dict[str, Any] = {
        "documents_in": plan.num_documents + sum(sum(part.rejected.values()) for part in plan.parts),
        "documents_used": sum(bucket.num_used for bucket in buckets),
        "documents_duplicate": sum(bucket.num_duplicates for bucket in buckets),
        "documents_rejected": sum(rejected.values()),
        "rejected": dict(sorted(rejected.items())),
        "passed_over": dict(sorted(passed_over.items())),
        "cleaned": dict(sorted(_sum(part.cleaned for part in plan.parts).items())),
        "characters_replaced": sum(part.num_replaced for part in plan.parts),
        "text_bytes": sum(part.text_bytes for part in plan.parts),
        "sentences": sum(bucket.num_sentences for bucket in buckets),
        "tokens": sum(bucket.num_tokens for bucket in buckets),
    }
    if plan.left_out:
        counters["documents_near_duplicate"] = sum(bucket.num_near_duplicates for bucket in buckets)
    ends = counters["documents_used"] + counters["documents_rejected"] + counters["documents_duplicate"]
    if ends != counters["documents_in"]:
        raise ValueError(
            f"{counters['documents_in']} documents came in, but {ends} were used, rejected or duplicate: this is a fault "
            f"in bertloom; please report it with the numbers {counters}"
        )
    counters["pairs"] = dict(sorted(_sum(bucket.counters for bucket in buckets).items()))
    counters["examples"] = {
        split: sum(row["examples"] for bucket in buckets for row in bucket.shards if row["split"] == split)
        for split in ("train", "validation")
    }
    return counters


def _sum(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for count in counts:
        total.update(count)
    return total


def check_pairs(counters: dict[str, Any], config: ExamplesConfig) -> None:
    """ValueError where next sentence prediction, or its like, cannot be learnt from these pairs."""
    for length in config.max_seq_length:
        kept, dropped = (counters["pairs"].get(f"{name}/{length}", 0) for name in ("pairs", "pairs-dropped"))
        if kept == 0:
            raise ValueError(f"--max-seq-length {length}: the documents gave no example at all; give more text")
        random = counters["pairs"].get(f"pairs-random/{length}", 0)
        most = MAX_DROPPED * (kept + dropped) + 4 * math.sqrt(kept + dropped)  # of a few pairs, coins alone drop more
        if config.objective.predicts_label and (random == kept or dropped > most):
            raise ValueError(
                f"--max-seq-length {length}: {kept} pairs ({kept - random} next, {random} random), and {dropped} dropped "
                f"because too many documents have a single sentence, from which no next pair can be made; is there a "
                f"blank line behind every sentence of the input? A blank line ends a document. If the documents are so "
                f"short, --pairs none makes single segments of them"
            )


def write_manifest(
    dataset: str,
    plan: Plan,
    parts: str,
    records: str,
    buckets: list[BucketRecord],
    job: JobConfig,
    sources: list[Source],
    notes: list[str],
    near: str | None = None,
) -> dict[str, Any]:
    """Writes what lies beside the shards, then manifest.json; gives the manifest back.

    notes: what was said of the sources. near: the file of near duplicates.
    """
    if len(buckets) != len(plan.buckets):
        raise ValueError(
            f"{len(buckets)} of {len(plan.buckets)} buckets came back: start the job again to make the rest"
        )
    counters = count(plan, buckets)
    check_pairs(counters, job.weave)
    rows = [row for bucket in buckets for row in bucket.shards]
    table = shards_table(rows)
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    _, shards_sha256 = storage.write_whole(storage.join(dataset, "shards.parquet"), [sink.getvalue()])

    files: dict[str, str] = {}  # name -> sha256
    if job.tokenize.max_line_repeats is not None:
        lines = storage.read(storage.join(parts, REPEATED))
        _, files[REPEATED] = storage.write_whole(storage.join(dataset, REPEATED), [lines])

    def rejects() -> Iterator[bytes]:  # gzip members end to end are one gzip file
        for part in plan.parts:
            yield read_rejects(storage.join(parts, part.name), part)
        for bucket in sorted(buckets, key=lambda bucket: (bucket.split, bucket.number)):
            if bucket.rejects:
                yield storage.read(storage.join(records, bucket.rejects))

    if counters["documents_rejected"]:
        folder = storage.join(dataset, "rejects")
        storage.make_folder(folder)
        _, files["rejects/rejects.jsonl.gz"] = storage.write_whole(storage.join(folder, "rejects.jsonl.gz"), rejects())
    if near:
        page = near_duplicates_page(read_near_duplicates(near), plan)
        name = "near-duplicates.parquet"
        _, files[name] = storage.write_whole(storage.join(dataset, name), [page])
    vocabulary, tokenize, scheme = job.vocabulary, job.tokenize, job.weave.scheme
    storage.write_whole(storage.join(dataset, "vocab.txt"), [vocabulary.text])
    tokenizer = tokenizer_json(vocabulary, tokenize.do_lower_case, tokenize.strip_accents)
    _, files["tokenizer.json"] = storage.write_whole(storage.join(dataset, "tokenizer.json"), [tokenizer])
    manifest = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "configuration": job.as_dict(),
        "configuration_digest": job.digest,
        "masking": {"scheme": scheme.name, "can_be_redrawn": scheme.can_be_redrawn},
        "vocabulary": {"sha256": vocabulary.sha256, "size": len(vocabulary.words)},
        "versions": versions(tokenize, sources),
        "counters": counters,
        "notes": [*notes, *plan.notes],
        "inputs": about_inputs(plan, sources),
        "shards_parquet": {"sha256": shards_sha256, "rows": len(rows)},
        "shards_digest": digest_of(rows),
        "documents": {
            f"documents/{b.split}/{b.number:05d}.parquet": b.documents_sha256
            for b in sorted(buckets, key=lambda b: (b.split, b.number))
        },
        "files": files,
    }
    manifest["sha256"] = manifest_sha256(manifest)
    storage.write_whole(storage.join(dataset, "manifest.json"), [manifest_text(manifest)])
    return manifest


def near_duplicates_page(rows: NDArray[np.void], plan: Plan) -> bytes:
    """The documents that were left out, by id, and which each resembles."""
    table = pa.table(
        {
            "id": rows["id"].copy(),
            "resembles": rows["resembles"].copy(),
            "similarity": rows["shared"] / rows["either"],
            "source": pa.array([plan.parts[i].source for i in rows["part"]], pa.string()),
            "position": rows["position"].copy(),
            "piece": rows["piece"].copy(),
        }
    )
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()


def about_inputs(plan: Plan, sources: list[Source]) -> list[dict[str, Any]]:
    """The input files and what each gave, before duplicates were dropped."""
    names = ("documents", "sentences", "tokens", "text_bytes", "rejected")
    given = {source.name: dict.fromkeys(names, 0) for source in sources}
    for part in plan.parts:
        values = (
            part.num_documents,
            part.num_sentences,
            part.num_tokens,
            part.text_bytes,
            sum(part.rejected.values()),
        )
        for name, value in zip(names, values):
            given[part.source][name] += value
    return [
        {name: getattr(source, name) for name in ("name", "path", "format", "codec", "encoding")}
        | {"bytes": source.size, "fingerprint": source.fingerprint}
        | given[source.name]
        for source in sources
    ]


def read_dataset(dataset: str) -> tuple[dict[str, Any], pa.Table]:
    """(the manifest, shards.parquet) of a finished data set; ValueError where it is none, or cannot be read."""
    path = storage.join(dataset, "manifest.json")
    if not storage.exists(path):
        what = "is no data set, or one that is not finished" if storage.exists(dataset) else "does not exist"
        raise ValueError(
            f"{dataset} {what}: expected a folder with manifest.json, as `bertloom preprocess --out` makes it"
        )
    try:
        manifest = json.loads(storage.read(path))
        path = storage.join(dataset, "shards.parquet")
        return manifest, pq.read_table(pa.BufferReader(storage.read(path)))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read ({error}); {DAMAGED}") from error


def manifest_text(manifest: dict[str, Any]) -> bytes:
    """manifest.json, byte for byte."""
    return json.dumps(manifest, indent=1, ensure_ascii=False).encode() + b"\n"


def manifest_sha256(manifest: dict[str, Any]) -> str:
    """What its key `sha256` has to say: the digest of the file without that key."""
    return hashlib.sha256(manifest_text({key: value for key, value in manifest.items() if key != "sha256"})).hexdigest()


class MakeManifest(beam.DoFn):
    """(None, all BucketRecords) -> the manifest."""

    def __init__(
        self,
        dataset: str,
        plan: str,
        parts: str,
        records: str,
        tokenize: TokenizeConfig,
        weave: ExamplesConfig,
        vocabulary: str,
        sources: list[Source],
        notes: list[str],
        near: str | None = None,
    ):
        self.dataset, self.plan, self.parts, self.records = dataset, plan, parts, records
        self.tokenize, self.weave, self.vocabulary = tokenize, weave, vocabulary
        self.sources, self.notes, self.near = sources, notes, near

    def process(self, group: tuple[None, Iterable[BucketRecord]]) -> Iterator[dict[str, Any]]:
        buckets = sorted(group[1], key=lambda bucket: (bucket.split, bucket.number))
        plan = read_plan(self.plan)
        job = JobConfig(self.tokenize, self.weave, kept_vocabulary(self.vocabulary))
        yield write_manifest(
            self.dataset, plan, self.parts, self.records, buckets, job, self.sources, self.notes, self.near
        )


class Manifest(beam.PTransform):
    """BucketRecords -> the manifest of the data set."""

    def __init__(self, **arguments: Any):
        super().__init__()
        self.do = MakeManifest(**arguments)

    def expand(self, records):
        return records | "all buckets" >> beam.GroupBy(lambda _: None) | "write manifest" >> beam.ParDo(self.do)
