"""Token parts: the tokenized documents of a few megabytes of text, in id order, in one file that is read by id range.

    magic | ids, uint16 or uint32 | inside words, bool, or nothing | sentence lengths, uint32 | documents, DOCUMENT rows |
    index | rejects | footer, JSON | its length, magic

The index has entries of (document, sentence, token), each the first at or behind a border of 4,096 equal ranges of ids, of
fewer where there are few documents; so a bucket's documents are one range of every section. Parts are internal to a job
and its --work-dir; `VERSION` is in their names.
"""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from bertloom import storage
from pipeline.inputs.rejects import rejects_log
from pipeline.text.chinese import Segment, inside_words
from pipeline.text.icu import FindSentences
from pipeline.text.records import Document, Reject, document_digest
from pipeline.text.sentences import sentence_starts, unit_marks
from pipeline.text.wordpiece import WordPiece

VERSION = 6  # raise it with any change in what a part holds for the same text
BLOCK_BYTES = 4_000_000  # text tokenized in one call: below 1 MB and above 10 MB are slower
RANGES = 4096  # of ids, at most, whose borders are in the index of a part
File = TypeVar("File", bound="TokenFile")
_UNCHECKED = pc.TakeOptions(boundscheck=False)
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
        ("part", "<u4"),
    ]
)
"""A document; `part` is 0 but in packs, see packs.py."""
INDEX = np.dtype([("document", "<u8"), ("sentence", "<u8"), ("token", "<u8")])


@dataclass(frozen=True, slots=True)
class TokenBlock:
    """Tokenized documents in CSR layout."""

    ids: NDArray
    """uint16 or uint32 (tokens,)."""
    sentence_lengths: NDArray[np.uint32]
    """Tokens of each sentence, never 0: (sentences,)."""
    documents: NDArray[np.void]
    """DOCUMENT rows: (documents,)."""
    inside_words: NDArray[np.bool_] | None = None
    """Tokens that go on with a Chinese word, where a segmenter found the words: (tokens,)."""


class DocumentTokenizer:
    """Documents to TokenBlocks: exact ids, and where the sentences begin. One a worker."""

    def __init__(
        self, wordpiece: WordPiece, segment: Segment | None = None, find_sentences: FindSentences | None = None
    ):
        """segment: finds Chinese words, where whole-word masks shall respect them. find_sentences: in place of the rule."""
        self.wordpiece, self.segment, self.find_sentences = wordpiece, segment, find_sentences
        self.marks = np.zeros(0, np.uint8)

    def __call__(self, documents: Sequence[Document]) -> TokenBlock:
        """Documents without a single token keep their row, with 0 tokens."""
        texts = [document.text for document in documents]
        block = b"\n".join(texts) + b"\n"
        text_starts = np.cumsum([0, *(len(text) + 1 for text in texts)])[:-1]
        units, new = self.wordpiece.units(block)
        if len(self.marks) + len(new) != len(self.wordpiece.sizes):  # the table was emptied
            self.marks = np.zeros(0, np.uint8)
        if new:
            marks = np.fromiter(map(unit_marks, new), np.uint8, len(new))
            self.marks = np.concatenate([self.marks, marks])
        ids, sizes = self.wordpiece.ids_of(units.codes)
        text = np.frombuffer(block, np.uint8)
        if self.find_sentences:
            begins = np.unique(
                np.searchsorted(units.starts, self.find_sentences(block))
            )  # inside a unit: at the next one
            begins = begins[begins < len(units.starts)]
        else:
            begins = np.flatnonzero(sentence_starts(text, units.starts, units.lengths, self.marks[units.codes]))

        ends = np.cumsum(sizes, dtype=np.int64)
        first_tokens = ends[begins] - sizes[begins]
        lengths = np.diff(first_tokens, append=len(ids))
        document_of = np.searchsorted(text_starts, units.starts[begins], side="right") - 1
        full = lengths > 0
        lengths, document_of = lengths[full], document_of[full]

        rows = np.zeros(len(documents), DOCUMENT)
        rows["num_sentences"] = np.bincount(document_of, minlength=len(rows))
        token_edges = np.concatenate([[0], ends])[np.searchsorted(units.starts, text_starts)]
        rows["num_tokens"] = np.diff(token_edges, append=len(ids))
        for name in ("position", "piece", "num_replaced"):
            rows[name] = [getattr(document, name) for document in documents]
        rows["length"] = [len(text) for text in texts]
        digests = np.frombuffer(b"".join(document_digest(text)[:16] for text in texts), ">u8").reshape(-1, 2)
        rows["id"], rows["id_low"] = digests[:, 0], digests[:, 1]
        keys = [document.source_key for document in documents]
        rows["source_key"] = rows["id"]
        for i, key in enumerate(keys):
            if key is not None:
                rows["source_key"][i] = key
        inside = np.repeat(inside_words(block, units, self.segment), sizes) if self.segment else None
        return TokenBlock(ids, lengths.astype(np.uint32), rows, inside)


@dataclass(frozen=True, kw_only=True)
class TokenFile:
    """What is in a file of tokens, and where."""

    name: str
    num_documents: int
    """With at least one token."""
    num_sentences: int
    num_tokens: int
    num_replaced: int
    sections: dict[str, tuple[int, int]]
    """Name -> (offset, bytes) in the file."""
    ids_dtype: str

    @classmethod
    def of(cls, fields: dict[str, Any]) -> Self:
        """From what JSON makes of it."""
        return cls(**{**fields, "sections": {name: tuple(span) for name, span in fields["sections"].items()}})


@dataclass(frozen=True, kw_only=True)
class PartRecord(TokenFile):
    """What the rest of the job knows of a part: its footer."""

    source: str
    """Name of the file that its documents come from."""
    path: str
    """Where that file lies."""
    start: int
    end: int
    """The bytes of the uncompressed file, or the rows, that it covers; the next part of the split begins at `end` …"""
    end_piece: int
    """… with this piece of the document there: 0, but for texts too long for one document."""
    last: bool
    """Nothing of the split is left behind it."""
    read_bytes: int
    """Bytes of the file on disk, for the progress bar."""
    text_bytes: int
    rejected: dict[str, int] = field(default_factory=dict)
    """Rejects by reason."""
    passed_over: dict[str, int] = field(default_factory=dict)
    """Records that nobody asked for, by reason."""
    cleaned: dict[str, int] = field(default_factory=dict)
    """Documents that a cleaning step changed, by its name."""

    @property
    def sort_key(self) -> tuple[str, int, int, str]:
        """Of the order of parts that all stages agree on."""
        return self.source, self.start, self.end_piece, self.name


def write_part(
    path: str, record: dict[str, Any], blocks: Sequence[TokenBlock], rejects: Sequence[Reject], dtype: np.dtype
) -> PartRecord:
    """Writes one part and gives back its footer.

    Documents without tokens are left out: they are among the rejects.
    """
    log = rejects_log((record["source"], reject) for reject in rejects)
    rejected = dict(Counter(reject.reason for reject in rejects))
    return write_tokens(path, PartRecord, record | {"rejected": rejected}, blocks, dtype, log)


def write_tokens(
    path: str, kind: type[File], fields: dict[str, Any], blocks: Sequence[TokenBlock], dtype: np.dtype, log: bytes = b""
) -> File:
    """Writes a file of tokens, its documents sorted by (id, part, position, piece), and gives back its footer.

    kind: of the footer. fields: its own ones, and the name. log: a section for rejects.
    """
    rows = np.concatenate([np.zeros(0, DOCUMENT), *(block.documents for block in blocks)])
    ids = np.concatenate([np.zeros(0, dtype), *(block.ids for block in blocks)])
    lengths = np.concatenate([np.zeros(0, np.uint32), *(block.sentence_lengths for block in blocks)])
    order = np.lexsort((rows["piece"], rows["position"], rows["part"], rows["id"]))
    order = order[rows["num_tokens"][order] > 0]
    first_tokens, num_tokens = _first(rows["num_tokens"])[order], rows["num_tokens"][order]
    ids = take_ranges(ids, first_tokens, num_tokens)
    inside: NDArray | bytes = b""
    if blocks and blocks[0].inside_words is not None:
        inside = take_ranges(np.concatenate([block.inside_words for block in blocks]), first_tokens, num_tokens)
    lengths = take_ranges(lengths, _first(rows["num_sentences"])[order], rows["num_sentences"][order])
    rows = rows[order]

    num_ranges = _num_ranges(len(rows))
    index = np.zeros(num_ranges + 1, INDEX)
    edges = np.arange(num_ranges, dtype=np.uint64) * np.uint64((1 << 64) // num_ranges)
    index["document"][:-1] = np.searchsorted(rows["id"], edges)
    index["document"][-1] = len(rows)
    index["sentence"] = np.concatenate([[0], np.cumsum(rows["num_sentences"], dtype=np.uint64)])[index["document"]]
    index["token"] = np.concatenate([[0], np.cumsum(rows["num_tokens"], dtype=np.uint64)])[index["document"]]

    sections, chunks, offset = {}, [MAGIC], len(MAGIC)
    contents = {
        "ids": ids,
        "inside_words": inside,
        "sentences": lengths,
        "documents": rows,
        "index": index,
        "rejects": log,
    }
    for name, data in contents.items():
        data = data if isinstance(data, bytes) else data.tobytes()
        sections[name] = (offset, len(data))
        offset += len(data)
        chunks.append(data)
    done = kind(
        **fields,
        num_documents=len(rows),
        num_sentences=len(lengths),
        num_tokens=len(ids),
        num_replaced=int(rows["num_replaced"].sum()),
        sections=sections,
        ids_dtype=np.dtype(dtype).name,
    )
    footer = json.dumps(asdict(done)).encode()
    storage.write_whole(path, [*chunks, footer, len(footer).to_bytes(8, "little"), MAGIC])
    return done


def _num_ranges(num_documents: int) -> int:
    """A power of two: four ranges a document, so that one is seldom read with its neighbour; but RANGES at most."""
    return min(RANGES, 4 << max(0, num_documents - 1).bit_length())


def read_footer(path: str, kind: type[File]) -> File:
    """The footer of a whole file of tokens; ValueError where it is not one."""
    size = storage.size(path) or 0
    with storage.open_read(path) as file:
        tail = storage.read_at(file, size - 16, 16) if size > 32 else b""
        if tail[8:] != MAGIC:
            raise ValueError(f"{path} is no file of tokens: remove it, and the next start writes it again")
        length = int.from_bytes(tail[:8], "little")
        return kind.of(json.loads(storage.read_at(file, size - 16 - length, length)))


def read_documents_table(path: str, part: TokenFile) -> NDArray[np.void]:
    """All DOCUMENT rows of a file."""
    with storage.open_read(path) as file:
        return np.frombuffer(storage.read_at(file, *part.sections["documents"]), DOCUMENT)


def read_rejects(path: str, part: PartRecord) -> bytes:
    """The gzip member of JSON lines that tells its rejects; empty where there are none."""
    with storage.open_read(path) as file:
        return storage.read_at(file, *part.sections["rejects"])


def read_range(
    path: str,
    part: TokenFile,
    low: int,
    high: int,
    choose: Callable[[NDArray[np.uint64]], NDArray[np.bool_]] | None = None,
) -> TokenBlock:
    """The documents with low <= id < high (0 ... 2^64), read by range; of these, those whose ids are chosen.

    Where few are chosen only they are read: one document in a hundred is held out, and all of them are one bucket's.
    """
    num_ranges = part.sections["index"][1] // INDEX.itemsize - 1
    first, last = low * num_ranges >> 64, ((high - 1) * num_ranges >> 64) + 1
    with storage.open_read(path) as file:
        start = part.sections["index"][0]
        head, tail = (
            np.frombuffer(storage.read_at(file, start + i * INDEX.itemsize, INDEX.itemsize), INDEX)[0]
            for i in (first, last)
        )

        def read(name: str, kind: np.dtype, begin: int, end: int) -> NDArray:
            offset = part.sections[name][0] + begin * kind.itemsize
            return np.frombuffer(storage.read_at(file, offset, (end - begin) * kind.itemsize), kind)

        rows = read("documents", DOCUMENT, int(head["document"]), int(tail["document"]))
        wanted = rows["id"] >= np.uint64(low)
        if high < 1 << 64:
            wanted &= rows["id"] < np.uint64(high)
        if choose is not None:
            wanted &= choose(rows["id"])
        tokens, sentences = (rows[name].astype(np.int64) for name in ("num_tokens", "num_sentences"))
        sparse = 2 * int(tokens[wanted].sum()) < int(tokens.sum())

        def gather(name: str, kind: np.dtype, begin: int, counts: NDArray[np.int64]) -> NDArray:
            ends = np.cumsum(counts)
            if sparse:
                pieces = [
                    read(name, kind, begin + int(ends[i] - counts[i]), begin + int(ends[i]))
                    for i in np.flatnonzero(wanted)
                ]
                return np.concatenate([np.zeros(0, kind), *pieces])
            values = read(name, kind, begin, begin + int(counts.sum()))
            return values if wanted.all() else take_ranges(values, (ends - counts)[wanted], counts[wanted])

        ids = gather("ids", np.dtype(part.ids_dtype), int(head["token"]), tokens)
        lengths = gather("sentences", np.dtype(np.uint32), int(head["sentence"]), sentences)
        has_words = part.sections["inside_words"][1] > 0
        inside = gather("inside_words", np.dtype(bool), int(head["token"]), tokens) if has_words else None
    return TokenBlock(ids, lengths, rows[wanted], inside)


def take_ranges(values: NDArray, starts: NDArray, lengths: NDArray) -> NDArray:
    """values[starts[0] : starts[0] + lengths[0]], then the next range, and so on, end to end."""
    narrow = np.int32 if len(values) < 1 << 31 else np.int64  # half the memory to move
    lengths = lengths.astype(np.int64)
    ends = np.cumsum(lengths)
    index = np.repeat((starts - (ends - lengths)).astype(narrow), lengths)
    index += np.arange(len(index), dtype=narrow)
    if len(index) == 0:
        return values[:0]
    numbers = values.view(np.uint8) if values.dtype == bool else values
    taken = pc.call_function("take", [pa.array(numbers), pa.array(index)], _UNCHECKED)  # NumPy's takes twice as long
    return np.frombuffer(taken.buffers()[1], values.dtype, len(index))


def _first(lengths: NDArray) -> NDArray[np.int64]:
    return np.cumsum(lengths, dtype=np.int64) - lengths
