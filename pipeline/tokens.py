"""Token parts: files with the tokenized documents of a few megabytes of text, sorted by id, read by ranges of ids.

    magic, checksum | token ids | inside_words | sentence lengths | documents | index | rejects | files | entries |
    footer, JSON | its length, magic

The ids are cut into at most RANGES equal ranges. The index holds, for each range, the numbers of its first document,
sentence and token, so the documents of a bucket are one range of every section. A part holds a range of one large input
file, or many small files: `files` and `entries` say where the documents are from (pipeline/part_sources.py). Parts are
internal to a job and its --work-dir. bertloom/sealed_files.py describes the checksum.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from bertloom import storage
from bertloom.arrays import I64, U64, Bools
from bertloom.sealed_files import BODY, is_sealed, write_sealed
from pipeline.inputs.rejects import rejects_log
from pipeline.text.records import Reject

VERSION = 12  # raise it with any change in the content of a part for the same text
BLOCK_BYTES = 4_000_000  # text tokenized in one call: less than 1 MB and more than 10 MB are slower
RANGES = 4096  # at most, in the index
LONG_RANGE = 256  # items: copying ranges of this mean length one by one is faster than taking items by their numbers
MAGIC = b"BLPART01"

DOCUMENT = np.dtype(
    [
        ("id", "<u8"),
        ("id_low", "<u8"),
        ("source_key", "<u8"),
        ("position", "<i8"),
        ("length", "<i8"),
        ("piece", "<i4"),
        ("num_sentences", "<i4"),
        ("num_tokens", "<i4"),
        ("num_replaced", "<i4"),
        ("file", "<u4"),
    ]
)
"""A document. `file`: number of its input file in the part."""
INDEX = np.dtype([("document", "<u8"), ("sentence", "<u8"), ("token", "<u8")])


@dataclass(frozen=True, slots=True)
class TokenBlock:
    """Tokenized documents in CSR layout."""

    ids: NDArray[np.unsignedinteger]
    """uint16 or uint32 (tokens,)."""
    sentence_lengths: NDArray[np.uint32]
    """Tokens per sentence, at least 1: (sentences,)."""
    documents: NDArray[np.void]
    """DOCUMENT rows: (documents,)."""
    inside_words: Bools | None = None
    """Whether a token continues a word, where the tokens themselves do not say so: (tokens,). None for BERT's vocabularies
    without a segmenter."""


@dataclass(frozen=True, kw_only=True)
class PartRecord:
    """The footer of a token part: all that the rest of the job knows of it."""

    name: str
    num_documents: int
    """Documents with at least one token."""
    num_sentences: int
    num_tokens: int
    num_replaced: int
    sections: dict[str, tuple[int, int]]
    """Name -> (byte offset, bytes)."""
    ids_dtype: str
    source: str
    """Name of the input file, of the first one if there are several."""
    start: int
    """First byte of the uncompressed file, or first row, of its documents ..."""
    start_piece: int
    """... and the piece of the document there. 0, unless a text is too long for one document."""
    num_files: int
    """Input files from which it was made."""
    next_file: int
    """The next part of the group of splits begins in the split of this number ..."""
    end: int
    """... at this byte or row of the file ..."""
    end_piece: int
    """... with this piece of the document."""
    last: bool
    """Whether this is the last part of the group."""
    text_bytes: int
    rejected: dict[str, int] = field(default_factory=dict)
    """Number of rejects by reason."""
    passed_over: dict[str, int] = field(default_factory=dict)
    """Number of skipped records, which are not meant to be documents, such as redirects, by reason."""
    cleaned: dict[str, int] = field(default_factory=dict)
    """Number of documents that a cleaning step changed, by its name."""
    in_test_sets: dict[str, int] = field(default_factory=dict)
    """Number of documents that share a run of words with a test set of --exclude, by its name."""
    held_out: bool = False
    """Whether --validation-input names the input files."""
    num_texts: int = 0
    """Files of plain text in the job's --text-layout that begin in this part; files in archives are counted, too."""
    num_text_documents: int = 0
    """Documents of such files."""
    num_text_sentences: int = 0
    """Sentences of these documents."""
    input: int = -1
    """Number of the table of --inputs of its files; -1: no table names them. Not in the file, which other jobs use, too."""

    @property
    def sort_key(self) -> tuple[int, str, int, int, str]:
        """The order of parts, which all stages use. Of equal documents the one in the first part is kept."""
        return self.input, self.source, self.start, self.start_piece, self.name

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Self:
        """Return the footer with these fields, as `json.loads` gives them."""
        return cls(**{**fields, "sections": {name: tuple(span) for name, span in fields["sections"].items()}})


def write_part(
    path: str,
    fields: dict[str, Any],
    blocks: Sequence[TokenBlock],
    rejects: Sequence[tuple[str, Reject]],
    dtype: np.dtype[Any],
    files: bytes = b"",
    entries: bytes = b"",
) -> PartRecord:
    """Write one part, its documents sorted by (id, file, position, piece), and return its footer.

    Documents without tokens are left out: they are among the rejects.

    Args:
        fields: those of the footer that do not follow from the other arguments.
        rejects: (name of the file, reject) each.
        files, entries: the sections of these names (pipeline/part_sources.py).
    """
    rows = np.concatenate([np.zeros(0, DOCUMENT), *(block.documents for block in blocks)])
    ids = np.concatenate([np.zeros(0, dtype), *(block.ids for block in blocks)])
    lengths = np.concatenate([np.zeros(0, np.uint32), *(block.sentence_lengths for block in blocks)])
    order = np.lexsort((rows["piece"], rows["position"], rows["file"], rows["id"]))
    order = order[rows["num_tokens"][order] > 0]
    first_tokens, num_tokens = _starts(rows["num_tokens"])[order], rows["num_tokens"][order]
    ids = take_ranges(ids, first_tokens, num_tokens)
    inside: NDArray[Any] | bytes = b""
    if blocks and blocks[0].inside_words is not None:
        inside = take_ranges(np.concatenate([block.inside_words for block in blocks]), first_tokens, num_tokens)
    lengths = take_ranges(lengths, _starts(rows["num_sentences"])[order], rows["num_sentences"][order])
    rows = rows[order]

    sections, chunks, offset = {}, list[bytes](), BODY
    contents: dict[str, NDArray[Any] | bytes] = {
        "ids": ids,
        "inside_words": inside,
        "sentences": lengths,
        "documents": rows,
        "index": _index(rows),
        "rejects": rejects_log(rejects),
        "files": files,
        "entries": entries,
    }
    for name, values in contents.items():
        data = values if isinstance(values, bytes) else values.tobytes()
        sections[name] = (offset, len(data))
        offset += len(data)
        chunks.append(data)
    footer = PartRecord(
        **fields,
        rejected=dict(Counter(reject.reason for _, reject in rejects)),
        num_documents=len(rows),
        num_sentences=len(lengths),
        num_tokens=len(ids),
        num_replaced=int(rows["num_replaced"].sum()),
        sections=sections,
        ids_dtype=np.dtype(dtype).name,
    )
    text = json.dumps(vars(footer)).encode()
    write_sealed(path, [*chunks, text, len(text).to_bytes(8, "little"), MAGIC])
    return footer


def _index(rows: NDArray[np.void]) -> NDArray[np.void]:
    """Return the INDEX entries of documents: a power of two of ranges, at least four per document but at most RANGES.

    With four per document, two documents are seldom in one range and read together.
    """
    num_ranges = min(RANGES, 4 << max(0, len(rows) - 1).bit_length())
    index = np.zeros(num_ranges + 1, INDEX)
    edges = np.arange(num_ranges, dtype=np.uint64) * np.uint64((1 << 64) // num_ranges)
    index["document"][:-1] = np.searchsorted(rows["id"], edges)
    index["document"][-1] = len(rows)
    index["sentence"] = np.concatenate([[0], np.cumsum(rows["num_sentences"], dtype=np.uint64)])[index["document"]]
    index["token"] = np.concatenate([[0], np.cumsum(rows["num_tokens"], dtype=np.uint64)])[index["document"]]
    return index


def read_footer(path: str) -> PartRecord:
    """Return the footer of a part. ValueError if the file is incomplete."""
    with storage.open_read(path) as file:
        size = file.seek(0, os.SEEK_END)
        tail = storage.read_at(file, size - 16, 16) if size > 32 else b""
        if tail[8:] != MAGIC:
            raise ValueError(f"{path} is not a token part: remove it, and the next start writes it again")
        length = int.from_bytes(tail[:8], "little")
        return PartRecord.from_json(json.loads(storage.read_at(file, size - 16 - length, length)))


def read_finished(path: str) -> PartRecord | None:
    """Return the footer of a part from an earlier start, or None if the file is missing or damaged."""
    return read_footer(path) if is_sealed(path) else None


def read_documents_table(path: str, part: PartRecord) -> NDArray[np.void]:
    """Return all DOCUMENT rows of a part."""
    with storage.open_read(path) as file:
        return np.frombuffer(storage.read_at(file, *part.sections["documents"]), DOCUMENT)


def read_document_rows(path: str, part: PartRecord, low: int, high: int) -> NDArray[np.void]:
    """Return the DOCUMENT rows of a part with low <= id < high (0 ... 2^64), without their tokens."""
    num_ranges = part.sections["index"][1] // INDEX.itemsize - 1
    begin, _ = part.sections["index"]
    edges = [low * num_ranges >> 64, ((high - 1) * num_ranges >> 64) + 1]
    spans = [(begin + edge * INDEX.itemsize, INDEX.itemsize) for edge in edges]
    first, end = (int(np.frombuffer(entry, INDEX)["document"][0]) for entry in storage.read_ranges(path, spans))
    place = (part.sections["documents"][0] + first * DOCUMENT.itemsize, (end - first) * DOCUMENT.itemsize)
    rows = np.frombuffer(storage.read_ranges(path, [place])[0], DOCUMENT)
    wanted = rows["id"] >= np.uint64(low)
    if high < 1 << 64:
        wanted &= rows["id"] < np.uint64(high)
    return rows[wanted]


def read_rejects(path: str, part: PartRecord) -> bytes:
    """Return the rejects of a part: a gzip member of JSON lines, or nothing if there are none."""
    with storage.open_read(path) as file:
        return storage.read_at(file, *part.sections["rejects"])


def read_range(
    path: str, part: PartRecord, low: int, high: int, choose: Callable[[U64], Bools] | None = None
) -> TokenBlock:
    """Return the documents with low <= id < high (0 ... 2^64) whose ids are chosen.

    If few are chosen, only these are read: one document in a hundred is held out, and one bucket holds all of them.
    """
    num_ranges = part.sections["index"][1] // INDEX.itemsize - 1
    first, last = low * num_ranges >> 64, ((high - 1) * num_ranges >> 64) + 1

    def read(*spans: tuple[str, np.dtype[Any], int, int]) -> list[NDArray[Any]]:
        """Return items begin ... end - 1 of sections, given as (name, type, begin, end)."""
        places = [
            (part.sections[name][0] + begin * kind.itemsize, (end - begin) * kind.itemsize)
            for name, kind, begin, end in spans
        ]
        contents = storage.read_ranges(path, places)
        return [np.frombuffer(content, kind) for content, (_, kind, _, _) in zip(contents, spans, strict=True)]

    (head,), (tail,) = read(*(("index", INDEX, i, i + 1) for i in (first, last)))
    (rows,) = read(("documents", DOCUMENT, int(head["document"]), int(tail["document"])))
    wanted = rows["id"] >= np.uint64(low)
    if high < 1 << 64:
        wanted &= rows["id"] < np.uint64(high)
    if choose is not None:
        wanted &= choose(rows["id"])
    tokens, sentences = (rows[name].astype(np.int64) for name in ("num_tokens", "num_sentences"))
    is_sparse = 2 * int(tokens[wanted].sum()) < int(tokens.sum())
    columns = {
        "ids": (np.dtype(part.ids_dtype), int(head["token"]), tokens),
        "sentences": (np.dtype(np.uint32), int(head["sentence"]), sentences),
    }
    if part.sections["inside_words"][1]:
        columns["inside_words"] = (np.dtype(bool), int(head["token"]), tokens)

    def span_of(begin: int, counts: I64) -> list[tuple[int, int]]:
        """Return the (begin, end) of each wanted document or, if most are wanted, one of all documents."""
        ends = begin + np.cumsum(counts)
        if is_sparse:
            return list(zip((ends - counts)[wanted].tolist(), ends[wanted].tolist()))
        return [(begin, begin + int(counts.sum()))]

    spans = {name: span_of(begin, counts) for name, (_, begin, counts) in columns.items()}
    pieces = iter(read(*((name, columns[name][0], *span) for name, some in spans.items() for span in some)))
    found: dict[str, NDArray[Any]] = {}
    for name, (kind, _, counts) in columns.items():
        some = list(islice(pieces, len(spans[name])))
        values = some[0] if len(some) == 1 else np.concatenate([np.zeros(0, kind), *some])  # of one without a copy
        if not is_sparse and not wanted.all():
            values = take_ranges(values, (np.cumsum(counts) - counts)[wanted], counts[wanted])
        found[name] = values
    return TokenBlock(found["ids"], found["sentences"], rows[wanted], found.get("inside_words"))


def take_ranges(values: NDArray[Any], starts: NDArray[Any], lengths: NDArray[Any]) -> NDArray[Any]:
    """Return values[starts[0] : starts[0] + lengths[0]], then the next range, and so on, concatenated."""
    lengths = lengths.astype(np.int64)
    ends = np.cumsum(lengths)
    if len(ends) and ends[-1] >= LONG_RANGE * len(ends):
        stops = (starts + lengths).tolist()
        return np.concatenate([values[start:stop] for start, stop in zip(starts.tolist(), stops)])
    return take_short_ranges(values, starts, lengths, ends)


def take_short_ranges(values: NDArray[Any], starts: NDArray[Any], lengths: I64, ends: I64) -> NDArray[Any]:
    """Do what `take_ranges` does, by the number of each item. ends: of the ranges in the result."""
    import pyarrow as pa  # not at the top: --help does not need it
    import pyarrow.compute as pc

    narrow = np.int32 if len(values) < 1 << 31 else np.int64  # halves the memory to move
    index = np.repeat((starts - (ends - lengths)).astype(narrow), lengths)
    index += np.arange(len(index), dtype=narrow)
    if len(index) == 0:
        return values[:0]
    numbers = values.view(np.uint8) if values.dtype == bool else values
    unchecked = pc.TakeOptions(boundscheck=False)
    taken = pc.call_function("take", [pa.array(numbers), pa.array(index)], unchecked)  # takes half as long as NumPy's
    return np.frombuffer(taken.buffers()[1], values.dtype, len(index))


def _starts(lengths: NDArray[Any]) -> I64:
    return np.cumsum(lengths, dtype=np.int64) - lengths
