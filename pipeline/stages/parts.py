"""A token part while it grows: text is tokenized block by block, so that only tokens are kept."""

from collections import Counter
from typing import Any

import numpy as np

from bertloom import storage
from bertloom.arrays import I64
from pipeline.inputs.formats.registry import format_by_name, format_named
from pipeline.inputs.sources import Split, SplitGroup
from pipeline.job import JobConfig
from pipeline.part_sources import PartFile, entries_table, files_table
from pipeline.text.records import DAMAGED, Document, EntryPlace, PassedOver, Record, Reject, first_characters
from pipeline.tokenizer import DocumentTokenizer
from pipeline.tokens import BLOCK_BYTES, DOCUMENT, PartRecord, TokenBlock, write_part

FILE_BYTES = 100
"""What a file or a reject adds to the size of a part besides its texts, about."""


class _File:
    """What a part holds of one input file."""

    def __init__(self, split: Split, start: int):
        self.split, self.start = split, start
        self.text_bytes = 0
        self.rejected: Counter[str] = Counter()
        self.entries: dict[int, EntryPlace] = {}


class Part:
    """The documents and rejects of consecutive splits of a group."""

    def __init__(self, group: SplitGroup, job: JobConfig, first: int, start: int, start_piece: int):
        """first, start, start_piece: the split in which it begins, the position there, and the piece of the document."""
        self.group, self.job = group, job
        self.first, self.start, self.start_piece = first, start, start_piece
        self.size = 0
        self.files: list[_File] = []
        self.rejects: list[tuple[str, Reject]] = []
        self.passed_over: Counter[str] = Counter()
        self.cleaned: Counter[str] = Counter()
        self.in_test_sets: Counter[str] = Counter()
        self.blocks: list[TokenBlock] = []
        self.pending: list[Document] = []
        self.pending_files: list[int] = []
        self.pending_bytes = 0

    def open(self, split: Split) -> None:
        """Go on with this split, the next one of the group."""
        self.files.append(_File(split, split.start if self.files else self.start))
        self.size += len(split.source.name) + FILE_BYTES if len(self.files) > 1 else 0

    def add(self, item: Record, tokenizer: DocumentTokenizer) -> None:
        """Add a record of the open split."""
        if isinstance(item, PassedOver):
            self.passed_over[item.reason] += item.number
            return
        file = self.files[-1]
        if isinstance(item, Reject):
            self._reject(file, item)
            self.size += len(item.detail) + len(item.text) + FILE_BYTES
            return
        self.cleaned.update(item.cleaned)
        if item.entry and item.entry.first not in file.entries:
            file.entries[item.entry.first] = item.entry
            self.size += len(item.entry.name) + FILE_BYTES
        self.pending.append(item)
        self.pending_files.append(len(self.files) - 1)
        self.pending_bytes += len(item.text)
        file.text_bytes += len(item.text)
        self.size += len(item.text)
        if self.pending_bytes >= BLOCK_BYTES:
            self._tokenize(tokenizer)

    def write(
        self, folder: str, name: str, tokenizer: DocumentTokenizer, following: tuple[int, Record] | None = None
    ) -> PartRecord:
        """Write the part and return its footer. following: the split and the first record of the next part, if any."""
        self._tokenize(tokenizer)
        splits = self.group.splits
        last = splits[-1]
        end = last.source.size if last.end is None else last.end
        next_file, position, piece = (
            (following[0], following[1].position, following[1].piece) if following else (len(splits), end, 0)
        )
        documents, sentences, tokens = self._totals()
        is_text = [self._is_text(file) for file in self.files]
        record: dict[str, Any] = {
            "name": name,
            "source": splits[self.first].source.name,
            "start": self.start,
            "start_piece": self.start_piece,
            "num_files": len(self.files),
            "next_file": next_file,
            "end": position,
            "end_piece": piece,
            "last": following is None,
            "text_bytes": sum(file.text_bytes for file in self.files),
            "passed_over": dict(self.passed_over),
            "cleaned": dict(self.cleaned),
            "in_test_sets": dict(self.in_test_sets),
            "held_out": splits[0].source.held_out,
            "num_texts": sum(self._num_texts(file) for file in self.files),
            "num_text_documents": int(documents[is_text].sum()),
            "num_text_sentences": int(sentences[is_text].sum()),
        }
        files = [
            PartFile(
                name=file.split.source.name,
                format=file.split.source.format,
                num_documents=int(documents[i]),
                num_sentences=int(sentences[i]),
                num_tokens=int(tokens[i]),
                text_bytes=file.text_bytes,
                num_rejected=file.rejected.total(),
                is_damaged=DAMAGED in file.rejected,
            )
            for i, file in enumerate(self.files)
        ]
        entries = [(i, entry.first, entry.name) for i, file in enumerate(self.files) for entry in file.entries.values()]
        return write_part(
            storage.join(folder, name),
            record,
            self.blocks,
            self.rejects,
            tokenizer.block_tokenizer.dtype,
            files_table(files),
            entries_table(entries),
        )

    def _reject(self, file: _File, reject: Reject) -> None:
        self.rejects.append((file.split.source.name, reject))
        file.rejected[reject.reason] += 1
        self.in_test_sets.update(reject.test_sets)

    def _tokenize(self, tokenizer: DocumentTokenizer) -> None:
        if self.pending:
            block = tokenizer(self.pending)
            block.documents["file"] = self.pending_files
            self.blocks.append(block)
            for i in np.flatnonzero(block.documents["num_tokens"] == 0):
                self._reject(self.files[self.pending_files[i]], _without_tokens(self.pending[i]))
        self.pending, self.pending_files, self.pending_bytes = [], [], 0

    def _totals(self) -> tuple[I64, I64, I64]:
        """Return documents, sentences and tokens of each file, without documents that have no tokens."""
        rows = np.concatenate([np.zeros(0, DOCUMENT), *(block.documents for block in self.blocks)])
        rows = rows[rows["num_tokens"] > 0]
        documents, sentences, tokens = (
            np.bincount(rows["file"], weights, len(self.files)).astype(np.int64)
            for weights in (None, rows["num_sentences"], rows["num_tokens"])
        )
        return documents, sentences, tokens

    def _num_texts(self, file: _File) -> int:
        """Return how many files of plain text begin: the file itself, or files in an archive."""
        if not self._has_layout(file):
            return 0
        if format_named(file.split.source.format).has_layouts:
            return int(file.start == 0)
        return sum(entry.first >= file.start and _is_text(entry) for entry in file.entries.values())

    def _is_text(self, file: _File) -> bool:
        is_text = format_named(file.split.source.format).has_layouts
        return self._has_layout(file) and (is_text or any(map(_is_text, file.entries.values())))

    def _has_layout(self, file: _File) -> bool:
        """Return whether the file is read in the job's --text-layout."""
        read, given = file.split.source.read, self.job.tokenize.text.read
        return read.records == given.records == "documents" and read.text_layout == given.text_layout


def _is_text(entry: EntryPlace) -> bool:
    form, _ = format_by_name(entry.name)
    return form is not None and form.has_layouts


def _without_tokens(document: Document) -> Reject:
    text = first_characters(document.text)
    detail = "nothing but control characters"
    return Reject(document.position, "no-tokens", detail, text, document.record_id, document.piece, document.entry)
