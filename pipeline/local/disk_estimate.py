"""How much disk a job needs, before it begins: from a sample of its texts and the sizes of what it writes.

A job that dies of a full disk after hours loses no work, but hours. How near the estimate is to the truth stands in
docs/preprocessing.md.
"""

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from bertloom import storage
from pipeline.inputs.documents import read_documents
from pipeline.inputs.formats.registry import format_named
from pipeline.inputs.sources import Split
from pipeline.inputs.streams import first_bytes
from pipeline.preprocess import Places
from pipeline.stages.manifest import JobConfig
from pipeline.stages.packs import FEWEST, SMALL
from pipeline.stages.tokenization import make_document_tokenizer, part_names
from pipeline.text.records import Document
from pipeline.tokens import DOCUMENT, INDEX, RANGES

SAMPLE_SPLITS = 8
SAMPLE_BYTES = 100_000  # of text from each

SENTENCE_BYTES = 4  # in a part
PAGE_BYTES = 60  # of documents/, a document
EXAMPLE_BYTES = 40  # its columns but the lists, and its share of a member's header
MASK_BYTES = 2  # a position


@dataclass(frozen=True)
class Rates:
    """What a sample of texts tells of all."""

    text: float
    """Bytes of text in a byte of the input files."""
    tokens: float
    sentences: float
    documents: float
    """In a byte of text."""


@dataclass(frozen=True)
class Need:
    """Bytes that a job writes, about."""

    parts: int
    """Tokenized text, in the work folder."""
    shards: int
    """Shards and all that stays."""


def check_room(places: Places, job: JobConfig, splits: Sequence[Split], part_bytes: int) -> str | None:
    """What a job still has to write and what is free, in words; ValueError where that is too little.

    None where neither can be told: on object stores, or where the sample holds no document.
    """
    folders = [folder for folder in (places.work, places.dataset) if storage.is_local(folder)]
    rates = measure(splits, job) if folders else None
    if rates is None:
        return None
    there = storage.names_in(places.parts)
    left = [s for s in splits if part_names(s, job.tokenize, job.vocabulary.sha256)(0) not in there]
    num_bytes, to_tokenize = (sum(split.num_bytes for split in some) for some in (splits, left))
    num_parts = max(len(left), round(to_tokenize * rates.text / part_bytes))
    small = [split.num_bytes for split in splits if split.num_bytes * rates.text * rates.tokens < SMALL]
    to_pack = sum(small) if len(small) >= FEWEST else 0
    need = estimate(rates, num_bytes, to_tokenize, num_parts, job, to_pack)
    return compare(places, replace(need, shards=max(0, need.shards - _size_below(places.dataset))))


def compare(places: Places, need: Need) -> str:
    """The need and what is free, in words; ValueError where a disk has less than that."""
    on_disk: dict[int, list[tuple[str, int, str]]] = {}  # device -> (where, bytes, what they are)
    free: dict[int, int] = {}
    for flag, folder, size, what in (
        ("--work-dir", places.work, need.parts, "tokens while the job works"),
        ("--out", places.dataset, need.shards, "shards"),
    ):
        if storage.is_local(folder):
            device, free_bytes = disk_of(folder)
            free[device] = free_bytes
            on_disk.setdefault(device, []).append((f"{flag} {folder}", size, what))
    said = []
    for device, rows in on_disk.items():
        where, total, left = rows[-1][0], sum(size for _, size, _ in rows), _in_words(free[device])
        parts = " and ".join(f"{_in_words(size)} for {what}" for _, size, what in rows)
        if total > free[device]:
            raise ValueError(
                f"{where}: {left} are free there, and about {_in_words(total)} are needed ({parts}): make room, choose "
                f"other disks for --out and --work-dir, or ask for fewer copies (--dupe-factor) or lengths"
            )
        said.append(f"needs about {parts}, {left} are free")
    return "; ".join(said)


def disk_of(folder: str) -> tuple[int, int]:
    """(device, bytes free) of the disk on which a local folder lies, or will."""
    there = os.path.abspath(folder)
    while not os.path.isdir(there):
        there = os.path.dirname(there)
    return os.stat(there).st_dev, shutil.disk_usage(there).free


def _size_below(folder: str) -> int:
    """Bytes of the shards that an earlier start left."""
    if not storage.is_local(folder):
        return 0
    return sum(
        os.path.getsize(os.path.join(folder, name)) for name in storage.files_below(folder) if ".work/" not in name
    )


def _in_words(size: int) -> str:
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.1f} MB"


def measure(splits: Sequence[Split], job: JobConfig) -> Rates | None:
    """The rates of the beginnings of some splits, more of large files; None where they hold no document."""
    edges = np.cumsum([split.num_bytes for split in splits])
    quantiles = (np.arange(SAMPLE_SPLITS) + 0.5) / SAMPLE_SPLITS * edges[-1]
    chosen = np.unique(np.minimum(np.searchsorted(edges, quantiles), len(splits) - 1))
    tokenizer = make_document_tokenizer(job.tokenize, job.vocabulary)
    counts = np.zeros(3)  # tokens, sentences, documents
    text = 0
    shares: list[float] = []
    for split in (splits[i] for i in chosen):
        documents, share = _beginning(split, job)
        if documents:
            block = tokenizer(documents)
            counts += (len(block.ids), len(block.sentence_lengths), len(documents))
            text += sum(len(document.text) for document in documents)
        shares.append(share)
    return Rates(float(np.mean(shares)), *(counts / text)) if counts[0] else None


def _beginning(split: Split, job: JobConfig) -> tuple[list[Document], float]:
    """(the first documents of a split, bytes of text in a byte of its file)."""
    documents: list[Document] = []
    size = first = last = 0
    for item in read_documents(split, config=job.tokenize.text):
        first, last = (first if documents else item.position), item.position
        if size >= SAMPLE_BYTES:
            break
        if isinstance(item, Document):
            documents.append(item)
            size += len(item.text)
    source = split.source
    form = format_named(source.format)
    if form.position_unit == "row":
        return documents, form.text_per_byte
    share = size / (last - first) if size >= SAMPLE_BYTES and last > first else size / max(1, size, split.num_bytes)
    if source.codec:
        with storage.open_read(source.path) as file:
            share *= len(first_bytes(file, source.codec)) / max(1, file.tell())
    return documents, share


def estimate(rates: Rates, num_bytes: int, to_tokenize: int, num_parts: int, job: JobConfig, to_pack: int = 0) -> Need:
    """What a job over so many bytes of input files writes. to_tokenize: those without tokens yet; num_parts: of these;
    to_pack: those of splits so small that packs hold their tokens once more."""
    weave, id_bytes = job.weave, 2 if len(job.vocabulary.words) < 65536 else 4
    token_bytes = id_bytes + job.tokenize.chinese_words
    of_text = rates.tokens * token_bytes + rates.sentences * SENTENCE_BYTES + rates.documents * DOCUMENT.itemsize
    entries = min(
        num_parts * RANGES, 8 * (to_tokenize * rates.text * rates.documents + num_parts)
    )  # of the parts' indexes
    parts = (to_tokenize + to_pack) * rates.text * of_text + entries * INDEX.itemsize
    tokens, documents = (num_bytes * rates.text * rate for rate in (rates.tokens, rates.documents))
    shards = documents * PAGE_BYTES
    for length in weave.max_seq_length:
        in_examples = tokens * weave.objective.tokens_per_token
        examples = max(in_examples / (0.9 * length), documents)
        size = (in_examples + 3 * examples) * id_bytes + examples * EXAMPLE_BYTES
        size += in_examples * weave.masked_lm_prob * (MASK_BYTES + id_bytes)
        shards += size * weave.dupe_factor
    return Need(round(parts), round(shards))
