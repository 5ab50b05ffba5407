"""Raw text to a data set: the composed pipeline, one stage per line.

    match -> tokenize -> (find known documents ->) (find near duplicates ->) plan -> weave -> write the manifest

The bulk of the data goes through files, and only small records go through the runner (the claim-check pattern), because
local runners keep grouped data in memory. So memory stays flat, a restart finds its finished parts and shards, and a
retried bundle writes the same bytes again. docs/shard-format.md describes the result.
"""

from collections.abc import Sequence
from typing import Any

import apache_beam as beam

from pipeline.job import JobConfig
from pipeline.places import Places
from pipeline.stages.known_documents import FindKnownDocuments
from pipeline.stages.known_near_duplicates import FindKnownNearDuplicates
from pipeline.stages.manifest import WriteManifest
from pipeline.stages.near_duplicates import FindNearDuplicates
from pipeline.stages.plan import PlanBuckets
from pipeline.stages.tokenization import Tokenize
from pipeline.stages.transform import transform
from pipeline.stages.weave import Weave


@transform
class Preprocess(beam.PTransform[Any, Any]):
    """SplitGroups -> the manifest of a complete data set."""

    job: JobConfig
    reading: JobConfig
    """The same job with a share as its --sample, which may be a number of documents in `job`."""
    places: Places
    part_bytes: int
    """Text of a token part, about."""
    splits: str
    """The list of splits, and of their sources."""
    notes: Sequence[str]
    """Messages about the sources."""

    def expand(self, groups: Any) -> Any:
        job, places = self.job, self.places
        parts = groups | "tokenize" >> Tokenize(self.reading, places, self.part_bytes)
        if job.extends:
            parts = parts | "known documents" >> FindKnownDocuments(job, places)
        if job.examples.near_duplicates is not None:
            parts = parts | "near duplicates" >> FindNearDuplicates(job, places)
            if job.extends:
                parts = parts | "known near duplicates" >> FindKnownNearDuplicates(job, places)
        return (
            parts
            | "plan" >> PlanBuckets(job, places)
            | "weave" >> Weave(job, places)
            | "manifest" >> WriteManifest(job, places, self.splits, self.notes)
        )
