"""Make a bucket again from the texts of its sources, to show how an example was drawn and to compare it with the shard.

A finished data set does not record how its pairs were drawn, and a random B is drawn from all sentences of its bucket. So
the documents of the bucket are read, tokenized and woven again by the functions that made the shard.
"""

import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from bertloom import storage
from bertloom.arrays import U64
from bertloom.json_files import check_regular
from bertloom.members import read_shard
from bertloom.shards import ShardName
from pipeline.examples.pairs import Pairs
from pipeline.examples.sentences import Sentences
from pipeline.examples.shards import shard_order, write_shard
from pipeline.inputs.discovery import find_sources
from pipeline.inputs.documents import TextConfig, read_documents
from pipeline.inputs.formats.registry import format_named
from pipeline.inputs.sources import Split, source_of
from pipeline.inputs.streams import CHUNK
from pipeline.job import JobConfig
from pipeline.text.records import LAST_POSITION, Document, document_id, place_of
from pipeline.tokenizer import make_document_tokenizer
from pipeline.tokens import BLOCK_BYTES, TokenBlock
from pipeline.vocabulary import Vocabulary


@dataclass(frozen=True)
class Woven:
    """A shard that was made again."""

    sentences: Sentences
    pairs: Pairs
    """In the order of the shard."""
    table: pa.Table
    sha256: str


@dataclass(eq=False, kw_only=True)
class Bucket:
    """The documents of a bucket, read again from their sources."""

    page: pa.Table
    """Of documents/."""
    inputs: dict[str, dict[str, Any]]
    """Name of a source -> its row of `inputs` in manifest.json."""
    job: JobConfig
    vocabulary: Vocabulary
    split: str
    number: int
    repeated_lines: U64 | None
    """Hashes of the lines that are left out."""
    _woven: tuple[tuple[int, int], Woven] | None = None

    @cached_property
    def documents(self) -> list[Document]:
        """All of them, in id order; ValueError where a source is missing or was changed."""
        found: dict[int, Document] = {}
        names = np.array([source_of(name, self.inputs) for name in self.page["source"].to_pylist()], object)
        for name in sorted(set(names)):
            found |= self._read_again(self.page.take(np.flatnonzero(names == name)))
        return [found[document] for document in self.page["id"].to_pylist()]

    def place(self, document: int) -> int | None:
        """Return the row of a document in its page, or None."""
        ids = self.page["id"].to_numpy()
        at = int(np.searchsorted(ids, np.uint64(document)))
        return at if at < len(ids) and ids[at] == document else None

    def document(self, place: int) -> Document:
        """Return one of them. Nothing else is read if the others were not read before."""
        if "documents" in self.__dict__:
            return self.documents[place]
        (document,) = self._read_again(self.page.slice(place, 1)).values()
        return document

    def _read_again(self, rows: pa.Table) -> dict[int, Document]:
        return read_from_source(rows, self.inputs, self.job, self.repeated_lines)

    @cached_property
    def tokens(self) -> TokenBlock:
        """The tokens of the bucket, as the weave stage reads them."""
        tokenizer = make_document_tokenizer(self.job.tokenize, self.vocabulary)
        blocks = [tokenizer(block) for block in _blocks(self.documents)]
        inside = [block.inside_words for block in blocks if block.inside_words is not None]
        return TokenBlock(
            np.concatenate([block.ids for block in blocks]),
            np.concatenate([block.sentence_lengths for block in blocks]),
            np.concatenate([block.documents for block in blocks]),
            np.concatenate(inside) if inside else None,
        )

    def weave(self, max_seq_length: int, copy: int) -> Woven:
        """Make the shard of one length and copy. Only the last one is kept."""
        key = (max_seq_length, copy)
        if self._woven is None or self._woven[0] != key:
            self._woven = None
            config = self.job.examples
            name = ShardName(split=self.split, max_seq_length=max_seq_length, copy=copy, number=self.number)
            sentences = config.sentences(self.tokens, self.vocabulary.kinds, max_seq_length)
            pairs, _ = config.make_pairs(sentences, max_seq_length, copy)
            masking = config.masking(max_seq_length, self.vocabulary)
            with tempfile.TemporaryDirectory() as folder:
                row = write_shard(folder, name, sentences, pairs, config.seed, masking)
                table = read_shard(storage.join(folder, name.path))
            order = shard_order(name, len(pairs), config.seed)
            self._woven = key, Woven(sentences, pairs.take(order), table, row["sha256"])
        return self._woven[1]


def read_from_source(
    rows: pa.Table, inputs: dict[str, dict[str, Any]], job: JobConfig, repeated_lines: U64 | None
) -> dict[int, Document]:
    """Return id -> document for rows of one source: of documents/, or of near-duplicates.parquet.

    inputs: name of a source -> its row of `inputs` in manifest.json.
    """
    name = source_of(rows["source"][0].as_py(), inputs)
    assert name is not None
    config = job.text_config(inputs[name])
    return read_again(rows, name, inputs[name]["path"], config, repeated_lines)


def read_again(
    rows: pa.Table, name: str, path: str, config: TextConfig, repeated_lines: U64 | None
) -> dict[int, Document]:
    """Return id -> document for rows of documents/ of one source; ValueError where one of them is not there any more."""
    wanted = {row["id"]: (row["source"], row["position"], row["piece"]) for row in rows.to_pylist()}
    places = set(wanted.values())
    try:
        if storage.is_local(path):
            path = str(check_regular(os.path.abspath(path)))  # one file: no folder, pattern, list of files or device
        elif storage.size(path) is None:
            raise FileNotFoundError(path)
        (source,) = find_sources([path], None, config.read)
    except (ValueError, OSError) as error:
        raise ValueError(
            f"{name} is no longer at {path}, so its documents cannot be read again: put it back there"
        ) from error
    found: dict[int, Document] = {}
    starts = sorted({position for _, position, _ in places})
    form = format_named(source.format)
    few = source.size > len(starts) * CHUNK and form.position_unit == "byte"
    stream = source.codec or form.counts_records(source.read) or not few  # or it is faster to read each document alone
    end = starts[-1] if form.read else LAST_POSITION
    for start, last in [(0, end)] if stream else zip(starts, starts):
        for item in read_documents(Split(source, 0, None), start, config.clean, repeated_lines):
            if item.position > last or len(found) == len(wanted):
                break
            if isinstance(item, Document) and (*place_of(name, item), item.piece) in places:
                document = document_id(item.text)
                if document in wanted:  # of files with one name in an archive, any may be at this place
                    found[document] = item
    for document, (file, position, piece) in wanted.items():
        if document not in found:
            raise ValueError(
                f"{path} was changed: document {document:016x} is no longer at position {position}, piece {piece}"
                + f" of {file}" * (file != name)
            )
    return {document: found[document] for document in wanted}


def _blocks(documents: Sequence[Document]) -> Iterator[list[Document]]:
    block: list[Document] = []
    size = 0
    for document in documents:
        block.append(document)
        size += len(document.text)
        if size >= BLOCK_BYTES:
            yield block
            block, size = [], 0
    if block:
        yield block
