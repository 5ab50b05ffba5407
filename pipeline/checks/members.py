"""The values of a member of a shard: each in its range, every special where it belongs, every label true."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.examples.shards import FORMAT_VERSION, schema
from pipeline.vocabulary import Vocabulary


@dataclass(frozen=True)
class Page:
    """The documents of a bucket, in id order, all arrays (documents,)."""

    ids: NDArray[np.uint64]
    source_keys: NDArray[np.uint64]
    num_tokens: NDArray[np.int64]
    used: NDArray[np.bool_]
    """Which are in an example that was looked at: filled in on the way."""

    def place(self, ids: NDArray[np.uint64]) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
        """(row of each document, is it there)."""
        if len(self.ids) == 0:
            return np.zeros(len(ids), np.intp), np.zeros(len(ids), bool)
        at = np.minimum(np.searchsorted(self.ids, ids), len(self.ids) - 1)
        return at, self.ids[at] == ids


def check_batch(
    batch: pa.RecordBatch,
    row: dict[str, Any],
    configuration: dict[str, Any],
    vocabulary: Vocabulary,
    page: Page,
) -> Iterator[str]:
    """What is wrong with a member. row: its shard's of shards.parquet; page: of its bucket, whose `used` is filled in."""
    ids_type = np.dtype(np.uint16 if len(vocabulary.words) < 65536 else np.uint32)
    metadata = {key.decode(): value.decode() for key, value in (batch.schema.metadata or {}).items()}
    expected = {
        "format_version": str(FORMAT_VERSION),
        "max_seq_length": str(row["max_seq_length"]),
        "copy": str(row["copy"]),
        "vocabulary_sha256": vocabulary.sha256,
    }
    if not batch.schema.equals(schema(ids_type)) or metadata != expected:
        yield f"schema {batch.schema.names} with {metadata}, expected {expected}"
        return
    starts, lengths, ids = _list(batch, "input_ids")
    mask_starts, mask_counts, positions = _list(batch, "masked_lm_positions")
    _, truth_counts, truths = _list(batch, "masked_lm_ids")
    b = batch.column("segment_b_start").to_numpy().astype(np.int64)
    label = batch.column("next_sentence_label").to_numpy()
    longest = row["max_seq_length"]
    most = configuration["max_predictions_per_seq"][configuration["max_seq_length"].index(longest)]

    def faults() -> Iterator[tuple[str, NDArray[np.bool_]]]:
        alone = label == -1  # a single segment
        shortest = np.where(alone, 3, 5)
        yield (
            "is longer than max_seq_length or has no room for its segments",
            (lengths > longest) | (lengths < shortest),
        )
        yield "has B outside of it", (b < 3) | np.where(alone, b != lengths, b > lengths - 2)
        yield "has masks without a word", mask_counts != truth_counts
        whole = configuration.get("do_whole_word_mask") or configuration.get("mask_spans")
        fewest = 0 if whole else 1  # of a few words, all may be too long
        yield "has no masks or too many", (mask_counts < fewest) | (mask_counts > most)
        labels = (-1,) if configuration.get("pairs") == "none" else (0, 1)
        yield f"has a label that is none of {labels}", ~np.isin(label, labels)
        yield from _about_documents(batch, lengths, b, configuration, page)

    broken = False
    for what, where in faults():
        if where.any():
            broken = True
            yield f"example {int(where.argmax())} {what}"
    if broken:
        return  # what follows reads by these values
    example = np.repeat(np.arange(len(lengths)), mask_counts)
    at = starts[example] + positions
    words = np.concatenate([ids, truths])
    specials = np.zeros(len(ids), np.int64)
    for edge, word in (
        (starts, vocabulary.cls),
        (starts + b - 1, vocabulary.sep),
        (starts + lengths - 1, vocabulary.sep),
    ):
        specials[edge] = 1
        if (wrong := ids[edge] != word).any():
            yield f"example {int(wrong.argmax())} lacks {vocabulary.words[word]} where it belongs"
    if (words >= len(vocabulary.words)).any():
        yield f"holds a word id of {int(words.max())}, but the vocabulary has {len(vocabulary.words)}"
        return
    outside = (positions < 1) | (positions >= lengths[example] - 1)
    if outside.any():
        yield f"example {int(example[outside.argmax()])} has a mask outside of it"
        return
    if specials[at].any():
        yield f"example {int(example[specials[at].argmax()])} has a mask on [CLS] or [SEP]"
    unsorted = (np.diff(positions.astype(np.int64)) <= 0) & (example[1:] == example[:-1])
    if unsorted.any():
        yield f"example {int(example[1:][unsorted.argmax()])} has masks that are not sorted"
    reserved = np.zeros(len(vocabulary.words), bool)
    reserved[[vocabulary.pad, vocabulary.cls, vocabulary.sep, vocabulary.mask]] = True
    stray = reserved[ids] & (specials == 0)
    stray[at] &= (ids[at] != vocabulary.mask) & (configuration.get("compat") != "google")  # which draws them, too
    if stray.any():
        word = vocabulary.words[ids[stray.argmax()]]
        yield f"example {int(np.searchsorted(starts, stray.argmax(), side='right')) - 1} holds {word} inside a segment"
    if reserved[truths].any():
        yield f"example {int(example[reserved[truths].argmax()])} has a special word as the true one behind a mask"


def _list(batch: pa.RecordBatch, name: str) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray]:
    """(start of each list, its length, the values of all)."""
    column = batch.column(name)
    offsets = column.offsets.to_numpy().astype(np.int64)
    return offsets[:-1] - offsets[0], np.diff(offsets), column.flatten().to_numpy()


def _about_documents(
    batch: pa.RecordBatch, lengths: NDArray[np.int64], b: NDArray[np.int64], configuration: dict[str, Any], page: Page
) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """(fault, which examples have it): segments outside of their documents, and labels that are not true."""
    names = ("document_a", "token_a", "document_b", "token_b", "next_sentence_label")
    document_a, token_a, document_b, token_b, label = (batch.column(name).to_numpy() for name in names)
    pair = label >= 0
    size_a, size_b = b - 2, np.where(pair, lengths - b - 1, 0)
    (row_a, known_a), (row_b, known_b) = page.place(document_a), page.place(document_b)
    yield "has a document_a that documents/ does not hold", ~known_a
    yield "has a document_b that documents/ does not hold", pair & ~known_b
    page.used[row_a[known_a]] = True
    page.used[row_b[pair & known_b]] = True
    sure = known_a & (known_b | ~pair)
    yield "has an A beyond the end of its document", sure & (token_a + size_a > page.num_tokens[row_a])
    yield "has a B beyond the end of its document", sure & pair & (token_b + size_b > page.num_tokens[row_b])
    one_document = document_a == document_b
    kind = configuration.get("compat") or configuration.get("pairs")
    follows = one_document & (token_a + size_a == token_b)
    precedes = one_document & (token_b + size_b == token_a)
    if kind == "google":  # which cuts B's front, too, and may take a random B from A's own source
        yield "has label 0, but B does not follow A", (label == 0) & ~(one_document & (token_a + size_a <= token_b))
    elif kind in ("nsp", "sop"):
        yield "has label 0, but B does not follow A", (label == 0) & ~follows
    if kind == "nsp":
        same = page.source_keys[row_a] == page.source_keys[row_b]
        yield "has label 1, but A and B are of one source", sure & (label == 1) & same
    elif kind == "sop":
        yield "has label 1, but A does not follow B", (label == 1) & ~precedes
