"""The stage that turns a number of documents (`--sample 5000`) into a share of all documents, by reading all input once.

Each text has a draw, a hash of its id, and a share takes the texts with the smallest draws. This stage finds the N smallest
draws, and then the share that takes exactly these texts. Equal texts have the same draw and count as one.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import Any

import apache_beam as beam
import numpy as np

from bertloom.arrays import U64
from bertloom.draws import SAMPLE, mix, threshold
from bertloom.sealed_files import read_sealed, write_sealed
from pipeline.inputs.documents import read_documents
from pipeline.inputs.sources import SplitGroup
from pipeline.stages.counters import increment
from pipeline.stages.reading_notes import Note, reading
from pipeline.stages.transform import transform
from pipeline.stages.work_log import log_begin, log_piece
from pipeline.text.cleaning import CleanConfig
from pipeline.text.records import Document, document_id

MAX_HELD = 1 << 20  # ids of a split that are held before the largest draws are left out


def smallest_draws(ids: Iterable[int], number: int) -> U64:
    """Return the smallest different draws of these ids, at most `number`, sorted: uint64 (n,)."""
    kept, left = np.zeros(0, np.uint64), iter(ids)
    while held := list(islice(left, MAX_HELD)):
        kept = _smallest([kept, mix(np.array(held, np.uint64) ^ np.uint64(SAMPLE))], number)
    return kept


def _smallest(draws: list[U64], number: int) -> U64:
    found: U64 = np.unique(np.concatenate(draws))[:number]
    return found


def share_of(draws: U64, number: int) -> float:
    """Return a share that takes the texts with the `number` smallest draws.

    If no floating-point number is between two draws, the share takes fewer texts.

    Args:
        draws: the `number` + 1 smallest draws, or all if there are fewer; sorted.
    """
    if len(draws) <= number:
        return 1.0
    for last in range(number - 1, -1, -1):
        low, high = int(draws[last]), int(draws[last + 1])
        share = (low + high + 1) // 2 / 2**64
        if low < threshold(share, 64) <= high:
            return share
    raise ValueError(f"--sample {number}: no share takes so few documents: give a larger number")


def sampled(config: CleanConfig, share: float) -> CleanConfig:
    """Return the options with a share instead of the number of documents."""
    return replace(config, sample=share)


def read_share(path: str) -> float:
    """Return the share that `FindShare` wrote."""
    share: float = json.loads(read_sealed(path))
    return share


@dataclass
class Tally:
    """The texts of a group."""

    documents: int = 0
    text_bytes: int = 0


class Smallest(beam.CombineFn):
    """Arrays of draws -> the smallest of all."""

    def __init__(self, number: int):
        self.number = number

    def create_accumulator(self) -> U64:
        return np.zeros(0, np.uint64)

    def add_input(self, kept: U64, draws: U64) -> U64:
        return _smallest([kept, draws], self.number)

    def merge_accumulators(self, kept: Iterable[U64]) -> U64:
        return _smallest([np.zeros(0, np.uint64), *kept], self.number)

    def extract_output(self, kept: U64) -> U64:
        return kept


@transform
class FindShare(beam.PTransform[Any, Any]):
    """SplitGroups -> a file with the share that takes a number of documents, for `read_share`."""

    config: CleanConfig
    keep_lines: bool
    """Whether texts are cleaned with their line breaks, which later steps need."""
    path: str
    work_log: str
    """Folder of the log of finished work."""
    reading_notes: str = ""
    """Folder in which workers note what they read, if they do."""

    def expand(self, groups: Any) -> Any:
        return (
            groups
            | "draw" >> beam.Map(self.draw)
            | "smallest" >> beam.CombineGlobally(Smallest(self.number + 1)).without_defaults()
            | "share" >> beam.Map(self.write)
        )

    @property
    def number(self) -> int:
        return int(self.config.sample)

    def draw(self, group: SplitGroup) -> U64:
        log_begin(self.work_log, "choose sample")
        tally = Tally()
        with reading(self.reading_notes) as note:
            draws = smallest_draws(self._ids(group, tally, note), self.number + 1)
        increment("choose sample", documents_in=tally.documents, text_bytes=tally.text_bytes, draws_out=len(draws))
        log_piece(self.work_log, "choose sample", group.name, group.num_bytes, **asdict(tally))
        return draws

    def _ids(self, group: SplitGroup, tally: Tally, note: Note) -> Iterator[int]:
        """Yield the id that decides for each text: its own id, or the id of its first piece. Adds the texts to the tally."""
        config = sampled(self.config.without_rejection(), 1.0)
        for split in group.splits:
            note(split, 0)
            for record in read_documents(split, config=config, keep_lines=self.keep_lines):
                if isinstance(record, Document):
                    tally.documents += 1
                    tally.text_bytes += len(record.text)
                    yield document_id(record.text) if record.source_key is None else record.source_key

    def write(self, draws: U64) -> None:
        write_sealed(self.path, [json.dumps(share_of(draws, self.number)).encode()])
