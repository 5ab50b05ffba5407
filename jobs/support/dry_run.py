"""Dry runs: jobs that are built and checked for Dataflow, and neither started nor written."""

import copy
from collections.abc import Sequence
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import DebugOptions, PipelineOptions, WorkerOptions

from bertloom import storage
from bertloom.counts import counted
from pipeline.inputs.sources import Source, SplitGroup
from pipeline.inputs.split_list import encode_split_list
from pipeline.places import Places
from pipeline.remote.dataflow import JobDescription, describe
from pipeline.stages.splits import build_job


class DryRun:
    """Builds the jobs that it is called with."""

    def __init__(
        self, options: PipelineOptions, places: Places, sources: Sequence[Source], groups: Sequence[SplitGroup]
    ):
        self.options, self.out, self.num_groups = options, places.dataset, len(groups)
        self.splits = storage.join(places.scratch, encode_split_list(sources, groups)[0])
        """Where the list of splits would be."""
        self.described: list[JobDescription] = []

    def __call__(self, transform: beam.PTransform[Any, Any]) -> None:
        """Build a job that applies a transform to the groups of splits."""
        pipeline = beam.Pipeline(options=copy.deepcopy(self.options))
        build_job(pipeline, self.splits, self.num_groups, transform)
        self.described.append(describe(pipeline.run()))

    def finish(self) -> str:
        """Write the description of the last job where --dataflow_job_file says. Return a message about all."""
        last = self.described[-1]
        worker = self.options.view_as(WorkerOptions)
        what = [
            f"image {worker.sdk_container_image or 'of Beam'}",
            f"machine type {worker.machine_type or 'of Dataflow'}",
            f"{worker.num_workers or 1} to {worker.max_num_workers or 'as many as Dataflow takes'} workers",
        ]
        message = (
            f"dry run: {counted(len(self.described), 'job')} for Dataflow built and checked. Nothing was submitted, or "
            f"written to {self.out}. {last.name}: {counted(self.num_groups, 'group')} of splits, a graph of "
            f"{len(last.graph):,} bytes, {', '.join(what)}"
        )
        if path := self.options.view_as(DebugOptions).dataflow_job_file:
            message += f". Its description is in {' and '.join(last.write(path))}"
        return message
