"""The stage that turns a number of documents (`--sample 5000`) into a share of all documents, by reading all input once.

Each text has a draw, a hash of its id, and a share takes the texts with the smallest draws. This stage finds the N smallest
draws, and then the share that takes exactly these texts. Equal texts have the same draw and count as one. Each table of
--inputs has its own number, and its own share.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import Any

import apache_beam as beam
import numpy as np

from bertloom.arrays import U64
from bertloom.draws import SAMPLE, mix, threshold
from bertloom.sealed_files import read_sealed, write_sealed
from pipeline.inputs.documents import read_documents
from pipeline.inputs.named_inputs import clean_of
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


def counts_documents(config: CleanConfig, of_inputs: Sequence[CleanConfig]) -> bool:
    """Return whether a sample is a number of documents. of_inputs: of each table of --inputs."""
    return any(one.sample > 1 for one in (config, *of_inputs))


def read_shares(
    path: str, config: CleanConfig, of_inputs: Sequence[CleanConfig]
) -> tuple[CleanConfig, list[CleanConfig]]:
    """Return the options with the shares that `FindShare` wrote instead of numbers of documents."""
    shares = {int(number): share for number, share in json.loads(read_sealed(path)).items()}

    def with_share(number: int, one: CleanConfig) -> CleanConfig:
        return sampled(one, shares.get(number, 1.0)) if one.sample > 1 else one

    return with_share(-1, config), [with_share(number, one) for number, one in enumerate(of_inputs)]


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
    """Whether texts are cleaned with their line breaks, for a later step that is not among the options for cleaning."""
    path: str
    work_log: str
    """Folder of the log of finished work."""
    reading_notes: str = ""
    """Folder in which workers note what they read, if they do."""
    of_inputs: Sequence[CleanConfig] = ()
    """How the texts of each table of --inputs are cleaned."""

    def expand(self, groups: Any) -> Any:
        return (
            groups
            | "draw" >> beam.FlatMap(self.draw)
            | "smallest" >> beam.CombinePerKey(Smallest(max(self.numbers.values(), default=0) + 1))
            | "all inputs" >> beam.GroupBy(lambda _: None)
            | "share" >> beam.MapTuple(self.write)
        )

    @property
    def numbers(self) -> dict[int, int]:
        """Number of a table of --inputs, or -1 -> number of documents, where a sample is one."""
        configs = enumerate((self.config, *self.of_inputs), -1)
        return {number: int(config.sample) for number, config in configs if config.sample > 1}

    def draw(self, group: SplitGroup) -> Iterator[tuple[int, U64]]:
        log_begin(self.work_log, "choose sample")
        tally, draws = Tally(), np.zeros(0, np.uint64)
        if group.input in self.numbers:
            with reading(self.reading_notes) as note:
                draws = smallest_draws(self._ids(group, tally, note), self.numbers[group.input] + 1)
            yield group.input, draws
        increment("choose sample", documents_in=tally.documents, text_bytes=tally.text_bytes, draws_out=len(draws))
        log_piece(self.work_log, "choose sample", group.name, group.num_bytes, **asdict(tally))

    def _ids(self, group: SplitGroup, tally: Tally, note: Note) -> Iterator[int]:
        """Yield the id that decides for each text: its own id, or the id of its first piece. Adds the texts to the tally."""
        own = clean_of(group.splits[0].source, self.config, self.of_inputs)
        keep_lines = self.keep_lines or bool(own.quality_filter)
        config = sampled(own.without_rejection(), 1.0)
        for split in group.splits:
            note(split, 0)
            for record in read_documents(split, config=config, keep_lines=keep_lines):
                if isinstance(record, Document):
                    tally.documents += 1
                    tally.text_bytes += len(record.text)
                    yield document_id(record.text) if record.source_key is None else record.source_key

    def write(self, _: None, found: Iterable[tuple[int, U64]]) -> None:
        numbers = self.numbers
        shares = {of: share_of(draws[: numbers[of] + 1], numbers[of]) for of, draws in found}
        write_sealed(self.path, [json.dumps(shares).encode()])
