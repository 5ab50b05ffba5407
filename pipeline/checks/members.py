"""Check the values of a member of a shard: ranges, special words, and labels against the documents."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bertloom.arrays import I64, U64, Bools, id_type
from bertloom.members import metadata_of
from bertloom.shards import FORMAT_VERSION, schema
from pipeline.examples.configuration import ExamplesConfig
from pipeline.examples.objectives.objective import PlacedPairs
from pipeline.examples.pairs import NO_PAIR
from pipeline.vocabulary import Vocabulary


@dataclass(frozen=True)
class Page:
    """The documents of a bucket, in id order. All arrays (documents,)."""

    ids: U64
    source_keys: U64
    num_tokens: I64
    used: Bools
    """Whether a checked example has a segment of it; the checks fill this in."""

    def place(self, ids: U64) -> tuple[NDArray[np.intp], Bools]:
        """Return (row of each document, whether it is there)."""
        if len(self.ids) == 0:
            return np.zeros(len(ids), np.intp), np.zeros(len(ids), bool)
        at = np.minimum(np.searchsorted(self.ids, ids), len(self.ids) - 1)
        return at, self.ids[at] == ids


@dataclass(frozen=True)
class Member:
    """The columns of a member, with lists as flat arrays and their offsets."""

    ids: NDArray[np.unsignedinteger]
    """(tokens,)."""
    starts: I64
    lengths: I64
    """Of each example in `ids`: (n,)."""
    positions: NDArray[np.uint16]
    truths: NDArray[np.unsignedinteger]
    """(masks,)."""
    num_masks: I64
    num_truths: I64
    b_start: I64
    """Index of B's first token in its example: (n,)."""
    label: NDArray[np.int8]
    batch: pa.RecordBatch

    @classmethod
    def of(cls, batch: pa.RecordBatch) -> "Member":
        starts, lengths, ids = _list(batch, "input_ids")
        _, num_masks, positions = _list(batch, "masked_lm_positions")
        _, num_truths, truths = _list(batch, "masked_lm_ids")
        b_start = batch.column("segment_b_start").to_numpy().astype(np.int64)
        label = batch.column("next_sentence_label").to_numpy()
        return cls(ids, starts, lengths, positions, truths, num_masks, num_truths, b_start, label, batch)


def _list(batch: pa.RecordBatch, name: str) -> tuple[I64, I64, NDArray[Any]]:
    """Return (start of each list, its length, the values of all lists)."""
    column = batch.column(name)
    offsets = column.offsets.to_numpy().astype(np.int64)
    return offsets[:-1] - offsets[0], np.diff(offsets), column.flatten().to_numpy()


Faults = Iterator[tuple[str, Bools]]
"""(what is wrong, which examples have the fault)."""


def check_batch(
    batch: pa.RecordBatch, row: dict[str, Any], config: ExamplesConfig, vocabulary: Vocabulary, page: Page
) -> Iterator[str]:
    """Yield what is wrong with a member.

    Args:
        row: of its shard, from shards.parquet.
        page: of its bucket; `used` is filled in.
    """
    metadata = metadata_of(batch.schema)
    expected = {
        "format_version": str(FORMAT_VERSION),
        "max_seq_length": str(row["max_seq_length"]),
        "copy": str(row["copy"]),
        "vocabulary_sha256": vocabulary.sha256,
    }
    if not batch.schema.equals(schema(id_type(len(vocabulary.words)))) or metadata != expected:
        yield f"schema {batch.schema.names} with {metadata}, expected {expected}"
        return
    member, broken = Member.of(batch), False
    for what, where in _row_faults(member, row["max_seq_length"], config, page):
        if where.any():
            broken = True
            yield f"example {int(where.argmax())} {what}"
    if not broken:  # the other checks use these values as indexes
        yield from _check_words(member, config, vocabulary)


def _row_faults(member: Member, longest: int, config: ExamplesConfig, page: Page) -> Faults:
    """Yield faults of lengths, counts, labels and documents."""
    lengths, b, label = member.lengths, member.b_start, member.label
    single = label == NO_PAIR
    yield (
        "is longer than max_seq_length or has no room for its segments",
        (lengths > longest) | (lengths < np.where(single, 3, 5)),
    )
    yield "has B outside of it", (b < 3) | np.where(single, b != lengths, b > lengths - 2)
    yield "has masks without a word", member.num_masks != member.num_truths
    fewest = 0 if config.scheme.whole_words else 1  # in a short example all words may be too long
    outside = (member.num_masks < fewest) | (member.num_masks > config.max_predictions(longest))
    yield "has no masks or too many", outside
    labels = tuple(sorted(config.objective.labels))
    yield f"has a label that is none of {labels}", ~np.isin(label, labels)
    yield from _document_faults(member, config, page)


def _document_faults(member: Member, config: ExamplesConfig, page: Page) -> Faults:
    """Yield segments outside of their documents and labels that are not true. Fills in `page.used`."""
    names = ("document_a", "token_a", "document_b", "token_b")
    document_a, token_a, document_b, token_b = (member.batch.column(name).to_numpy() for name in names)
    pair = member.label >= 0
    end_a = token_a + member.b_start - 2
    end_b = token_b + np.where(pair, member.lengths - member.b_start - 1, 0)
    (row_a, known_a), (row_b, known_b) = page.place(document_a), page.place(document_b)
    yield "has a document_a that documents/ does not hold", ~known_a
    yield "has a document_b that documents/ does not hold", pair & ~known_b
    page.used[row_a[known_a]] = True
    page.used[row_b[pair & known_b]] = True
    known = known_a & (known_b | ~pair)
    if not known.any():
        return
    yield "has an A beyond the end of its document", known & (end_a > page.num_tokens[row_a])
    yield "has a B beyond the end of its document", known & pair & (end_b > page.num_tokens[row_b])
    yield from config.objective.label_faults(
        PlacedPairs(
            label=member.label,
            document_a=document_a,
            start_a=token_a,
            end_a=end_a,
            document_b=document_b,
            start_b=token_b,
            end_b=end_b,
            one_source=known & (page.source_keys[row_a] == page.source_keys[row_b]),
        )
    )


def _check_words(member: Member, config: ExamplesConfig, vocabulary: Vocabulary) -> Iterator[str]:
    """Yield faults of the words and of the masks."""
    ids, starts, lengths, truths = member.ids, member.starts, member.lengths, member.truths
    example = np.repeat(np.arange(len(lengths)), member.num_masks)
    at = starts[example] + member.positions
    is_special = np.zeros(len(ids), bool)
    for edge, word in (
        (starts, vocabulary.cls),
        (starts + member.b_start - 1, vocabulary.sep),
        (starts + lengths - 1, vocabulary.sep),
    ):
        is_special[edge] = True
        if (wrong := ids[edge] != word).any():
            yield f"example {int(wrong.argmax())} lacks {vocabulary.words[word]} where it belongs"
    words = np.concatenate([ids, truths])
    if (words >= len(vocabulary.words)).any():
        yield f"holds a word id of {int(words.max())}, but the vocabulary has {len(vocabulary.words)}"
        return
    outside = (member.positions < 1) | (member.positions >= lengths[example] - 1)
    if outside.any():
        yield f"example {int(example[outside.argmax()])} has a mask outside of it"
        return
    if is_special[at].any():
        yield f"example {int(example[is_special[at].argmax()])} has a mask on [CLS] or [SEP]"
    unsorted = (np.diff(member.positions.astype(np.int64)) <= 0) & (example[1:] == example[:-1])
    if unsorted.any():
        yield f"example {int(example[1:][unsorted.argmax()])} has masks that are not sorted"
    reserved = np.zeros(len(vocabulary.words), bool)
    reserved[[vocabulary.pad, vocabulary.cls, vocabulary.sep, vocabulary.mask]] = True
    stray = reserved[ids] & ~is_special
    stray[at] &= (ids[at] != vocabulary.mask) & (not config.scheme.draws_any_word)
    if stray.any():
        word = vocabulary.words[ids[stray.argmax()]]
        yield f"example {int(np.searchsorted(starts, stray.argmax(), side='right')) - 1} holds {word} inside a segment"
    if reserved[truths].any():
        yield f"example {int(example[reserved[truths].argmax()])} has a special word as the true word of a mask"
