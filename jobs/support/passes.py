"""What `bertloom preprocess` does with the results of passes over all texts, before its pipeline."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bertloom import storage
from bertloom.counts import counted
from bertloom.messages import print_message
from pipeline.places import Places

if TYPE_CHECKING:
    from pipeline.job import JobConfig


def take_sample(run: Callable[[Any], object], job: JobConfig, places: Places) -> JobConfig:
    """Return the job with a share as each sample, which may be a number of documents. run: runs a transform."""
    from bertloom.sealed_files import is_sealed
    from pipeline.stages.sampling import FindShare, counts_documents, read_shares

    text, cleaning = job.tokenize.text, job.cleaning
    if not counts_documents(text.clean, cleaning):
        return job
    if not is_sealed(places.sample):
        numbers = {f" of {one.name}": one.clean.sample for one in job.inputs} or {"": text.clean.sample}
        chosen = [f"{counted(int(number), 'document')}{of}" for of, number in numbers.items() if number > 1]
        print_message("preprocess", f"reading all documents once, to choose {', '.join(chosen)}")
        keeps_lines = job.tokenize.max_line_repeats is not None
        run(FindShare(text.clean, keeps_lines, places.sample, places.work_log, places.reading_notes, cleaning))
    clean, shares = read_shares(places.sample, text.clean, cleaning)
    inputs = tuple(replace(one, clean=share) for one, share in zip(job.inputs, shares, strict=True))
    return replace(job, tokenize=replace(job.tokenize, text=replace(text, clean=clean)), inputs=inputs)


def with_repeated_lines(places: Places) -> Places:
    """Copy the list of repeated lines into the folder of the parts without these lines. Return the places of that folder."""
    from pipeline.dataset import REPEATED
    from pipeline.output import make_folder

    lines = storage.read(storage.join(places.scratch, REPEATED))
    places = replace(places, repeated_lines=hashlib.sha256(lines).hexdigest()[:24])
    make_folder("--work-dir", places.parts)
    storage.write_whole(storage.join(places.parts, REPEATED), [lines])
    return places
