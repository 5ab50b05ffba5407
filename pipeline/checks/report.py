"""Statistics of a data set from a sample of its examples and documents: functions from arrays to plain values.

Exact counts come from the manifest (`jobs/report.py`). These functions measure what only the examples show: how they are
masked, whether a label can be guessed, which words are [UNK], and which lines are repeated.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bertloom.arrays import I64, U64, Bools
from bertloom.draws import mix
from bertloom.manifest import DAMAGED
from pipeline.inputs.sources import source_of
from pipeline.text.scripts import script_of
from pipeline.tokens import take_ranges
from pipeline.vocabulary import Vocabulary

BINS = 16
MAX_PIECES = 5  # longer words are counted with those of five pieces
MIN_LINE_TOKENS = 8  # shorter lines are addresses and common phrases
_LINE_ENDS = frozenset(".!?。！？")
UNKNOWN, PARTS = "[UNK]", "parts of characters"
"""What takes the place of a script for unknown words, and for the bytes of a character that is not one token."""
SEGMENTS = ("segment_b_start", "document_a", "token_a", "document_b", "token_b")


@dataclass(frozen=True, slots=True)
class Examples:
    """A table of examples as flat arrays."""

    ids: NDArray[np.unsignedinteger]
    """Token ids with the masks applied: (tokens,)."""
    truth: NDArray[np.unsignedinteger]
    """Token ids of the text: (tokens,)."""
    starts: I64
    """First token of each example: (n,)."""
    lengths: I64
    """Tokens of each example, specials counted: (n,)."""
    segment_b: I64
    """Index of B's first token in its example: (n,)."""
    masks: I64
    """Index in `ids` of every masked token: (masks,)."""
    num_masks: I64
    """Of each example: (n,)."""
    label: NDArray[np.int8]
    document_a: U64
    document_b: U64
    max_seq_length: int

    @property
    def b_length(self) -> I64:
        """Tokens of B, 0 where there is none: (n,)."""
        b_length: I64 = np.maximum(self.lengths - self.segment_b - 1, 0)
        return b_length

    def specials(self) -> Bools:
        """Return whether each token is the [CLS] or a [SEP] of its example: (tokens,)."""
        found = np.zeros(len(self.ids), bool)
        found[self.starts] = found[self.starts + self.lengths - 1] = found[self.starts + self.segment_b - 1] = True
        return found


def flatten(table: pa.Table) -> Examples:
    """Return the examples of a table that was read from shards."""
    columns = {name: table[name].combine_chunks() for name in table.column_names}

    def lengths_of(name: str) -> I64:
        lengths: I64 = columns[name].value_lengths().to_numpy().astype(np.int64)
        return lengths

    lengths, num_masks = lengths_of("input_ids"), lengths_of("masked_lm_positions")
    ids = columns["input_ids"].flatten().to_numpy()
    starts = np.cumsum(lengths) - lengths
    masks = np.repeat(starts, num_masks) + columns["masked_lm_positions"].flatten().to_numpy()
    truth = ids.copy()
    truth[masks] = columns["masked_lm_ids"].flatten().to_numpy()
    return Examples(
        ids,
        truth,
        starts,
        lengths,
        columns["segment_b_start"].to_numpy().astype(np.int64),
        masks,
        num_masks,
        columns["next_sentence_label"].to_numpy(),
        columns["document_a"].to_numpy(),
        columns["document_b"].to_numpy(),
        int(table.schema.metadata[b"max_seq_length"]),
    )


# ---- examples


def shape(e: Examples, labels: Mapping[int, str]) -> dict[str, Any]:
    """Return lengths, labels and numbers of masks. labels: what each value of next_sentence_label is called."""
    counts, edges = np.histogram(e.lengths, bins=min(BINS, e.max_seq_length), range=(0, e.max_seq_length))
    return {
        "examples": len(e.lengths),
        "tokens": int(e.lengths.sum()),
        "fill": round(float(e.lengths.mean() / e.max_seq_length), 4),
        "length_quartiles": [int(q) for q in np.percentile(e.lengths, [0, 25, 50, 75, 100])],
        "length_histogram": {
            f"{int(low)}-{int(high)}": int(n) for low, high, n in zip(edges, edges[1:], counts, strict=False)
        },
        "segment_a_mean": round(float((e.segment_b - 2).mean()), 2),
        "labels": {name: int((e.label == value).sum()) for value, name in labels.items()},
        "segment_b_mean": {
            name: round(float(e.b_length[e.label == value].mean()), 2)
            for value, name in labels.items()
            if value >= 0 and (e.label == value).any()
        },
        "masks_per_example": round(float(e.num_masks.mean()), 2),
        "masked_share": round(float(e.num_masks.sum() / e.lengths.sum()), 4),
    }


def treatment(e: Examples, vocabulary: Vocabulary) -> dict[str, float]:
    """Return what became of the masked tokens: the shares of [MASK], of another word, of the word itself."""
    there, truth = e.ids[e.masks], e.truth[e.masks]
    masked, kept = there == vocabulary.mask, there == truth
    counts = np.array([masked.sum(), (~masked & ~kept).sum(), (~masked & kept).sum()])
    shares = counts / max(1, counts.sum())
    return {name: round(float(share), 4) for name, share in zip(("mask", "random", "kept"), shares, strict=True)}


def mask_rate_by_position(e: Examples) -> list[float | None]:
    """Return the share of masked tokens in BINS equal ranges of positions, without [CLS] and [SEP]; None for no tokens."""
    longest, a_end = e.max_seq_length, e.segment_b - 1
    place = np.arange(longest) * min(BINS, longest) // longest
    there = np.cumsum(np.bincount(e.lengths, minlength=longest + 1)[::-1])[::-1][1:]  # examples that have a position
    for positions in (np.zeros(len(e.lengths), np.int64), a_end, e.lengths[a_end < e.lengths - 1] - 1):
        there = there - np.bincount(positions, minlength=longest)
    hits = np.bincount(e.masks - np.repeat(e.starts, e.num_masks), minlength=longest)
    return _rates(*(np.bincount(place, counts, BINS) for counts in (hits, there)))


def mask_rate_by_pieces(e: Examples, vocabulary: Vocabulary) -> list[float | None]:
    """Return the share of masked tokens in words of 1, 2, ... MAX_PIECES or more pieces; None for no such words."""
    head = ~vocabulary.continues(e.truth)
    specials = e.specials()
    head |= specials
    head[e.starts + 1] = head[np.minimum(e.starts + e.segment_b, len(head) - 1)] = True
    first = np.flatnonzero(head)
    size = np.diff(first, append=len(head))
    place = np.minimum(size, MAX_PIECES) - 1
    there = np.bincount(place, size, MAX_PIECES)
    there[0] -= np.count_nonzero(specials)  # each is a word of one piece
    word_of = np.cumsum(head, dtype=np.int32)
    hits = np.bincount(place[word_of[e.masks] - 1], minlength=MAX_PIECES)
    return _rates(hits, there)


def _rates(hits: NDArray[Any], there: NDArray[Any]) -> list[float | None]:
    return [round(float(m / n), 5) if n else None for m, n in zip(hits, there, strict=True)]


@dataclass(frozen=True)
class Guess:
    """How well the label can be guessed from B's length alone; an accuracy of 0.5 is chance."""

    accuracy: float
    """Mean of the shares of right guesses of both labels, so that unequal numbers of them do not count."""
    error: float
    """Its standard error."""


def guess_from_length(length: I64, label: NDArray[np.int8]) -> Guess | None:
    """Learn the likelier label of each length on every second example and return how often it is right on the others.

    Unlike a threshold, such a table also finds that, say, both short and long Bs are random. Examples are in random order,
    so every second one is a random half. Returns None unless both halves have both labels.
    """
    learn, test = slice(0, None, 2), slice(1, None, 2)
    counts = [np.bincount(label[half] == 1, minlength=2) for half in (learn, test)]
    if min(map(min, counts)) == 0:
        return None
    weights = np.where(label[learn] == 1, 1 / counts[0][1], -1 / counts[0][0])
    votes = np.bincount(length[learn], weights, minlength=int(length.max()) + 1)
    right = (votes[length[test]] > 0) == (label[test] == 1)
    shares = [float(right[label[test] == value].mean()) for value in (0, 1)]
    error = 0.5 * float(np.sqrt(sum(0.25 / n for n in counts[1])))
    return Guess(sum(shares) / 2, error)


def lengths_of_b(e: Examples, labels: Mapping[int, str]) -> dict[str, list[int]]:
    """Return the number of examples by the length of B, in BINS equal ranges, for the name of each label."""
    return {
        name: np.histogram(e.b_length[e.label == value], BINS, (0, e.max_seq_length))[0].tolist()
        for value, name in labels.items()
        if value >= 0 and (e.label == value).any()
    }


# ---- words


def scripts(vocabulary: Vocabulary) -> tuple[list[str], I64]:
    """Return (Unicode names of scripts, index of the script of each word), which is that of its first letter."""
    scripts = [PARTS if text is None else script_of(text) for text in vocabulary.readable.texts]
    if vocabulary.unk is not None:
        scripts[vocabulary.unk] = UNKNOWN
    names = {script: number for number, script in enumerate(dict.fromkeys(scripts))}
    return list(names), np.array([names[script] for script in scripts])


def share_unknown(counts: I64, vocabulary: Vocabulary) -> float:
    """Return the share of tokens that are [UNK]; 0 if the vocabulary has none. counts: tokens of each word."""
    return 0.0 if vocabulary.unk is None else round(float(counts[vocabulary.unk] / counts.sum()), 6)


def word_statistics(e: Examples, vocabulary: Vocabulary) -> dict[str, Any]:
    """Return shares of [UNK] and of scripts and the use of the vocabulary, without [CLS] and [SEP]."""
    counts = np.bincount(e.truth, minlength=len(vocabulary.words))
    counts -= np.bincount(e.truth[np.flatnonzero(e.specials())], minlength=len(counts))
    total = max(1, int(counts.sum()))
    names, index = scripts(vocabulary)
    by_script = np.bincount(index, counts, minlength=len(names)) / total
    ordinary = counts[vocabulary.ordinary]
    return {
        "tokens": total,
        "unknown": share_unknown(counts, vocabulary),
        "vocabulary_used": int((ordinary > 0).sum()),
        "vocabulary_ordinary": len(ordinary),
        "scripts": {
            names[i]: round(float(by_script[i]), 5) for i in np.argsort(-by_script, kind="stable") if by_script[i] > 0
        },
    }


def words_by_source(e: Examples, source: I64, vocabulary: Vocabulary) -> dict[int, dict[str, Any]]:
    """Return statistics of the words of A by source. source: of each example's A, negative where unknown."""
    names, index = scripts(vocabulary)
    is_script = ~np.isin(names, ("punctuation", "digits", PARTS, UNKNOWN))
    found = {}
    for number in np.unique(source[source >= 0]).tolist():
        mine = np.flatnonzero(source == number)
        words = take_ranges(e.truth, e.starts[mine] + 1, e.segment_b[mine] - 2)
        counts = np.bincount(words, minlength=len(vocabulary.words))
        by_script = np.bincount(index, counts, len(names))
        main = int(np.argmax(np.where(is_script, by_script, -1)))
        found[number] = {"unknown": share_unknown(counts, vocabulary), "script": names[main]}
    return found


# ---- lines and documents


@dataclass(frozen=True)
class DocumentInputs:
    """The input files of some documents."""

    ids: U64
    """Of the documents, sorted."""
    numbers: I64
    """The number of the input of each document; -1 if it is not among the given ones."""

    @classmethod
    def of(cls, documents: pa.Table, numbers: Mapping[str, int]) -> "DocumentInputs":
        """Return the inputs of the rows of documents/. numbers: name of an input -> its number."""
        files = documents["source"].combine_chunks().dictionary_encode()
        of_input = [source_of(name, numbers) for name in files.dictionary.to_pylist()]
        of_file = np.array([-1 if name is None else numbers[name] for name in of_input], np.int64)
        ids = documents["id"].to_numpy()
        order = np.argsort(ids)
        return cls(ids[order], of_file[files.indices.to_numpy()[order]])

    def place(self, documents: U64) -> I64:
        """Return the number of each document's input, -1 if it is not known: (n,)."""
        if len(self.ids) == 0:
            return np.full(len(documents), -1)
        at = np.minimum(np.searchsorted(self.ids, documents), len(self.ids) - 1)
        found: I64 = np.where(self.ids[at] == documents, self.numbers[at], -1)
        return found


def repeated_lines(e: Examples, vocabulary: Vocabulary, most: int = 20) -> list[dict[str, Any]]:
    """Return the lines that occur in most documents of the sample: runs of words up to a sentence-ending mark.

    A line in several documents may be a quotation; a line in thousands of them is boilerplate.
    """
    is_end = np.array([text in _LINE_ENDS for text in vocabulary.readable.texts])
    specials = e.specials()
    begins = np.ones(len(e.ids), bool)
    begins[1:] = is_end[e.truth[:-1]] | specials[1:] | specials[:-1]
    first = np.flatnonzero(begins)
    size = np.diff(first, append=len(e.ids))
    place = (np.arange(len(e.ids)) - np.repeat(first, size)).astype(np.uint64)
    keys = np.add.reduceat(mix(e.truth.astype(np.uint64) + (place << np.uint64(32))), first)
    whole = (size >= MIN_LINE_TOKENS) & is_end[e.truth[first + size - 1]]
    first, size, keys = first[whole], size[whole], keys[whole]
    example = np.searchsorted(e.starts, first, side="right") - 1
    in_b = first - e.starts[example] >= e.segment_b[example]
    document = np.where(in_b, e.document_b[example], e.document_a[example])

    order = np.lexsort((document, keys))
    keys, document, first, size = keys[order], document[order], first[order], size[order]
    fresh = np.ones(len(keys), bool)
    fresh[1:] = keys[1:] != keys[:-1]
    another = fresh.copy()
    another[1:] |= document[1:] != document[:-1]
    group = np.cumsum(fresh) - 1
    documents = np.bincount(group[another])
    heads = np.flatnonzero(fresh)
    top = np.argsort(-documents, kind="stable")[:most]
    return [
        {
            "documents": int(documents[i]),
            "line": vocabulary.readable.text(e.truth[first[heads[i]] : first[heads[i]] + size[heads[i]]]),
        }
        for i in top
        if documents[i] > 1
    ]


def spread(values: I64) -> dict[str, Any]:
    """Return quartiles and a histogram over powers of two: [[from, to, number], ...]."""
    power = np.floor(np.log2(np.maximum(values, 1))).astype(np.int64)
    counts = np.bincount(power)
    return {
        "quartiles": [int(q) for q in np.percentile(values, [0, 25, 50, 75, 100])],
        "histogram": [[1 << i, (2 << i) - 1, int(n)] for i, n in enumerate(counts)],
    }


def coverage(ids: U64, num_tokens: I64, shards: Iterable[Iterable[pa.RecordBatch]]) -> dict[str, float]:
    """Return the share of tokens that are in an example: of all shards of a bucket, and of one shard on average.

    Args:
        ids, num_tokens: of the first documents of the bucket, in id order.
        shards: the members of each shard of the bucket.
    """
    first, total = np.cumsum(num_tokens) - num_tokens, int(num_tokens.sum())
    reached = np.zeros(total, bool)
    shares = []
    for members in shards:
        steps = np.zeros(total + 1, np.int32)  # +1 where a segment begins, -1 after its end
        for batch in members:
            columns = {name: batch.column(name).to_numpy() for name in SEGMENTS}
            lengths = batch.column("input_ids").value_lengths().to_numpy().astype(np.int64)
            b = columns["segment_b_start"].astype(np.int64)
            for segment, size in (("a", b - 2), ("b", np.maximum(lengths - b - 1, 0))):
                wanted = np.flatnonzero((columns[f"document_{segment}"] <= ids[-1]) & (size > 0))
                document = np.searchsorted(ids, columns[f"document_{segment}"][wanted])
                start = first[document] + columns[f"token_{segment}"][wanted]
                if (ids[document] != columns[f"document_{segment}"][wanted]).any() or (
                    start + size[wanted] > first[document] + num_tokens[document]
                ).any():
                    raise ValueError(
                        f"a shard has an example with a document that is not in its page of documents/; {DAMAGED}"
                    )
                np.add.at(steps, start, 1)
                np.add.at(steps, start + size[wanted], -1)
        here = np.cumsum(steps[:-1], dtype=np.int32) > 0
        shares.append(float(here.mean()))
        reached |= here
    return {"all": round(float(reached.mean()), 5), "one_copy": round(float(np.mean(shares)), 5)}
