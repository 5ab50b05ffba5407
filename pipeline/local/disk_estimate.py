"""The disk space that a job needs, estimated before it starts from a sample of its texts.

A job that fails on a full disk after hours loses no work, but hours. docs/preprocessing.md compares the estimate with what
jobs wrote.
"""

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from bertloom import storage
from pipeline.inputs.beginnings import read_beginning
from pipeline.inputs.sources import Split, SplitGroup
from pipeline.job import JobConfig
from pipeline.places import Places
from pipeline.stages.tokenization import part_names
from pipeline.tokenizer import make_document_tokenizer
from pipeline.tokens import DOCUMENT, INDEX, RANGES
from pipeline.vocabulary import Vocabulary

SAMPLE_SPLITS = 8
SAMPLE_BYTES = 100_000  # text of each

SENTENCE_BYTES = 4  # per sentence, in a part
PAGE_BYTES = 60  # per document, in documents/
EXAMPLE_BYTES = 40  # per example: its columns except the lists, and its share of a member's header
MASK_BYTES = 2  # per masked position


@dataclass(frozen=True)
class Rates:
    """Averages of a sample of texts."""

    text: float
    """Bytes of text per byte of the input files."""
    tokens: float
    """Per byte of text."""
    sentences: float
    """Per byte of text."""
    documents: float
    """Per byte of text."""


@dataclass(frozen=True)
class Need:
    """Bytes that a job writes, about."""

    parts: int
    """Token parts, in the work folder."""
    shards: int
    """Shards and all other files of the data set."""


def check_room(
    places: Places, job: JobConfig, vocabulary: Vocabulary, groups: Sequence[SplitGroup], part_bytes: int
) -> str | None:
    """Return a message with the space needed and free. ValueError if too little is free.

    None if it is unknown: on object stores, or if the sample holds no document.
    """
    folders = [folder for folder in (places.work, places.dataset) if storage.is_local(folder)]
    splits = [split for group in groups for split in group.splits]
    rates = measure(splits, job, vocabulary) if folders else None
    if rates is None:
        return None
    finished = storage.names_in(places.parts)
    left = [group for group in groups if part_names(group, job.of_input(group.input), part_bytes)(0) not in finished]
    num_bytes, to_tokenize = (sum(s.num_bytes for group in some for s in group.splits) for some in (groups, left))
    num_parts = max(len(left), round(to_tokenize * rates.text / part_bytes))
    need = estimate(rates, num_bytes, to_tokenize, num_parts, job, vocabulary)
    return compare(places, replace(need, shards=max(0, need.shards - _size_below(places.dataset))))


def compare(places: Places, need: Need) -> str:
    """Return a message with the space needed and free, per disk. ValueError if too little is free."""
    on_disk: dict[int, list[tuple[str, int, str]]] = {}  # device -> (place, bytes, what they are)
    free: dict[int, int] = {}
    for flag, folder, size, what in (
        ("--work-dir", places.work, need.parts, "tokens while the job works"),
        ("--out", places.dataset, need.shards, "shards"),
    ):
        if storage.is_local(folder):
            device, free_bytes = disk_of(folder)
            free[device] = free_bytes
            on_disk.setdefault(device, []).append((f"{flag} {folder}", size, what))
    messages = []
    for device, rows in on_disk.items():
        place, total, left = rows[-1][0], sum(size for _, size, _ in rows), _in_words(free[device])
        parts = " and ".join(f"{_in_words(size)} for {what}" for _, size, what in rows)
        if total > free[device]:
            raise ValueError(
                f"{place}: {left} are free on this disk, but about {_in_words(total)} are needed ({parts}): make room, "
                f"choose other disks for --out and --work-dir, or use fewer copies (--dupe-factor) or lengths"
            )
        messages.append(f"needs about {parts}, {left} are free")
    return "; ".join(messages)


def disk_of(folder: str) -> tuple[int, int]:
    """Return (device, bytes free) of the disk of a local folder, which need not exist."""
    existing = os.path.abspath(folder)
    while not os.path.isdir(existing):
        existing = os.path.dirname(existing)
    return os.stat(existing).st_dev, shutil.disk_usage(existing).free


def _size_below(folder: str) -> int:
    """Return the bytes of the shards that an earlier start wrote."""
    if not storage.is_local(folder):
        return 0
    return sum(
        os.path.getsize(os.path.join(folder, name)) for name in storage.files_below(folder) if ".work/" not in name
    )


def _in_words(size: int) -> str:
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.1f} MB"


def measure(splits: Sequence[Split], job: JobConfig, vocabulary: Vocabulary) -> Rates | None:
    """Return the averages of the beginnings of some splits, more of large files. None if they hold no document."""
    edges = np.cumsum([split.num_bytes for split in splits])
    quantiles = (np.arange(SAMPLE_SPLITS) + 0.5) / SAMPLE_SPLITS * edges[-1]
    chosen = np.unique(np.minimum(np.searchsorted(edges, quantiles), len(splits) - 1))
    tokenizer = make_document_tokenizer(job.tokenize, vocabulary)
    counts = np.zeros(3)  # tokens, sentences, documents
    text, shares = 0, []
    for split in (splits[i] for i in chosen):
        clean = job.of_input(split.source.input).tokenize.text.clean
        beginning = read_beginning(split, clean, SAMPLE_BYTES)
        if documents := beginning.documents:
            block = tokenizer(documents)
            counts += (len(block.ids), len(block.sentence_lengths), len(documents))
            text += sum(len(document.text) for document in documents)
        shares.append(beginning.text_per_byte)
    return Rates(float(np.mean(shares)), *(counts / text)) if counts[0] else None


def estimate(
    rates: Rates,
    num_bytes: int,
    to_tokenize: int,
    num_parts: int,
    job: JobConfig,
    vocabulary: Vocabulary,
) -> Need:
    """Return the bytes that a job writes.

    Args:
        num_bytes: of the input files.
        to_tokenize: of these, bytes that have no token parts yet.
        num_parts: number of the parts to write.
    """
    examples, id_bytes = job.examples, 2 if len(vocabulary.words) < 65536 else 4
    token_bytes = id_bytes + (job.tokenize.chinese_words or vocabulary.marks_words)
    of_text = rates.tokens * token_bytes + rates.sentences * SENTENCE_BYTES + rates.documents * DOCUMENT.itemsize
    index_entries = min(num_parts * RANGES, 8 * (to_tokenize * rates.text * rates.documents + num_parts))
    parts = to_tokenize * rates.text * of_text + index_entries * INDEX.itemsize
    tokens, documents = (num_bytes * rates.text * rate for rate in (rates.tokens, rates.documents))
    shards = documents * PAGE_BYTES
    for length in examples.max_seq_length:
        in_examples = tokens * examples.objective.tokens_per_token
        num_examples = max(in_examples / (0.9 * length), documents)
        size = (in_examples + 3 * num_examples) * id_bytes + num_examples * EXAMPLE_BYTES
        size += in_examples * examples.masked_lm_prob * (MASK_BYTES + id_bytes)
        shards += size * examples.dupe_factor
    return Need(round(parts), round(shards))
