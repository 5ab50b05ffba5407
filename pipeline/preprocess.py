"""Raw text to a data set: the composed pipeline, one stage a line.

    match -> tokenize -> (near duplicates ->) plan -> weave -> manifest

The bulk goes by file and only small records go through the runner (the claim-check pattern): local runners keep what they
group in memory. So memory stays flat, a started-again job finds its finished parts and shards, and a retried bundle only
writes the same bytes again. See docs/shard-format.md for what comes out.
"""

from dataclasses import dataclass

import apache_beam as beam

from bertloom import storage
from pipeline.inputs.sources import Source, Split
from pipeline.stages.manifest import JobConfig, Manifest
from pipeline.stages.near_duplicates import FindNearDuplicates, Search
from pipeline.stages.plan import PlanBuckets
from pipeline.stages.tokenization import Tokenize
from pipeline.stages.weave import Weave


@dataclass(frozen=True)
class Places:
    """Where a job writes."""

    dataset: str
    work: str
    """Token parts; may be shared by jobs over the same texts."""
    repeated_lines: str = ""
    """Digest of the lines that are left out: they decide what a part holds."""

    @property
    def parts(self) -> str:
        return storage.join(self.work, "parts", *filter(None, [self.repeated_lines]))

    @property
    def scratch(self) -> str:
        """What belongs to this data set alone and is removed when it is complete."""
        return storage.join(self.dataset, ".work")

    def vocabulary(self, sha256: str) -> str:
        """The job's own copy: workers read it there, for Beam packs all that a function holds again and again."""
        return storage.join(self.scratch, f"vocab-{sha256}.txt")

    @property
    def plan(self) -> str:
        return storage.join(self.scratch, "plan.json")

    @property
    def near(self) -> str:
        """Files of the search for near duplicates."""
        return storage.join(self.parts, "near")

    @property
    def left_out(self) -> str:
        """The near duplicates that it found."""
        return storage.join(self.scratch, "near-duplicates")

    @property
    def records(self) -> str:
        return storage.join(self.scratch, "weave")


class Preprocess(beam.PTransform):
    """Splits -> the manifest of a complete data set."""

    def __init__(self, places: Places, job: JobConfig, sources: list[Source], notes: list[str], part_bytes: int):
        """notes: what was said of the sources."""
        super().__init__()
        self.places, self.job, self.sources, self.notes, self.part_bytes = places, job, sources, notes, part_bytes

    def expand(self, splits):
        places, job = self.places, self.job
        vocabulary = places.vocabulary(job.vocabulary.sha256)
        parts = splits | "tokenize" >> Tokenize(places.parts, job.tokenize, vocabulary, self.part_bytes)
        similarity, left_out = job.weave.near_duplicates, None
        if similarity is not None:
            left_out = places.left_out
            search = Search(similarity, places.parts, places.near, left_out)
            parts = parts | "near duplicates" >> FindNearDuplicates(search)
        fraction, min_sources = job.weave.validation_fraction, job.weave.min_sources
        return (
            parts
            | "plan" >> PlanBuckets(places.parts, places.plan, fraction, min_sources, left_out)
            | "weave"
            >> Weave(
                folder=places.parts,
                plan=places.plan,
                dataset=places.dataset,
                records=places.records,
                config=job.weave,
                vocabulary=vocabulary,
                near=left_out,
            )
            | "manifest"
            >> Manifest(
                dataset=places.dataset,
                plan=places.plan,
                parts=places.parts,
                records=places.records,
                tokenize=job.tokenize,
                weave=job.weave,
                vocabulary=vocabulary,
                sources=self.sources,
                notes=self.notes,
                near=left_out,
            )
        )


def balanced(splits: list[Split], num_workers: int) -> list[Split]:
    """The splits in an order in which a runner that deals them out in turn gives every worker about the same bytes."""

    def size(split: Split) -> int:
        return split.num_bytes * (3 if split.source.codec else 1)  # text packs about 3:1

    ordered = sorted(splits, key=lambda split: (-size(split), split.source.name, split.start))
    rows = [ordered[i : i + num_workers] for i in range(0, len(ordered), num_workers)]
    return [split for i, row in enumerate(rows) for split in (row[::-1] if i % 2 else row)]
