"""What the beginnings of the input files hold: the numbers of `bertloom preview`, and of the warnings of `preprocess`.

Files of one format that are read with the same options form a group. Of each group, the beginnings of a few files are read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from bertloom.arrays import I64
from pipeline.inputs.beginnings import read_beginning
from pipeline.inputs.formats.registry import format_by_name, format_named
from pipeline.inputs.named_inputs import NamedInput, clean_of
from pipeline.inputs.sources import ReadConfig, Source, Split
from pipeline.inputs.splitting import check_source
from pipeline.text.cleaning import CleanConfig
from pipeline.text.offsets import token_offsets
from pipeline.text.records import Document, PassedOver, Reject, place_of
from pipeline.text.scripts import script_of
from pipeline.tokenizer import TokenizeConfig, make_document_tokenizer
from pipeline.vocabulary import SPECIAL_WORDS, Vocabulary

if TYPE_CHECKING:
    from pipeline.tokenizer import DocumentTokenizer

LOOKED_AT_BYTES = 1_000_000
"""Text of a group that is read."""
LOOKED_AT_RECORDS = 5_000
LOOKED_AT_FILES = 8
SCRIPT_TEXTS, SCRIPT_CHARACTERS = 50, 1_000
"""Texts of a group, and characters of each, in which scripts are counted."""


@dataclass(kw_only=True)
class Look:
    """The beginnings of the files of one group."""

    format: str
    """Description of the format, such as "JSON Lines"."""
    has_rows: bool
    """Whether its records are rows or lines with a text of their own, for which --records decides what they are."""
    has_layouts: bool
    """Whether --text-layout decides what its documents are."""
    read: ReadConfig
    sources: list[Source]
    input: str = ""
    """Name of the table of --inputs to which the files belong."""
    clean: CleanConfig = field(default_factory=CleanConfig)
    num_files: int = 0
    """Number of files whose beginning was read."""
    num_whole: int = 0
    """Number of these that were read to their end."""
    documents: list[tuple[str, Document]] = field(default_factory=list)
    """(name of the file, document)."""
    rejects: list[tuple[str, Reject]] = field(default_factory=list)
    """(name of the file, reject)."""
    passed_over: Counter[str] = field(default_factory=Counter)
    text_per_byte: float = 0.0
    error: str = ""
    """Why its files cannot be read, such as a missing column."""
    num_sentences: I64 = field(default_factory=lambda: np.zeros(0, np.int64))
    """Sentences of each document: int64 (documents,)."""
    sentences: list[list[str]] = field(default_factory=list)
    """Of the first documents."""
    num_tokens: int = 0
    num_unknown: int = 0
    """Number of tokens that are [UNK]; 0 without a vocabulary."""

    @property
    def num_texts(self) -> int:
        """Number of files whose beginning was read; files in an archive count, too, if a document of them was read."""
        return max(self.num_files, len({name for name, _ in self.documents}))

    @property
    def num_bytes(self) -> int:
        return sum(source.size for source in self.sources)

    @cached_property
    def texts(self) -> list[str]:
        return [document.text.decode() for _, document in self.documents]

    @property
    def num_text_bytes(self) -> int:
        return sum(len(document.text) for _, document in self.documents)

    @property
    def is_whole(self) -> bool:
        """Whether all files were read to their end, so that nothing is estimated."""
        return self.num_whole == len(self.sources)

    @property
    def estimated_text_bytes(self) -> int:
        return self.num_text_bytes if self.is_whole else round(self.num_bytes * self.text_per_byte)

    @property
    def estimated_documents(self) -> int:
        if self.num_whole == self.num_files > 0:  # files may be documents, whatever their size
            return round(len(self.documents) / self.num_files * len(self.sources))
        return round(self.estimated_text_bytes * len(self.documents) / max(1, self.num_text_bytes))

    @cached_property
    def scripts(self) -> dict[str, float]:
        """Script -> its share of the words, the most frequent one first. A Chinese character is a word."""
        counts = Counter[str]()
        for text in self.texts[:: -(-len(self.texts) // SCRIPT_TEXTS) or 1]:
            counts.update(map(script_of, _words(text[:SCRIPT_CHARACTERS])))
        return {script: number / counts.total() for script, number in counts.most_common() if script != "punctuation"}


def _words(text: str) -> list[str]:
    from tokenizers.normalizers import BertNormalizer
    from tokenizers.pre_tokenizers import BertPreTokenizer

    text = BertNormalizer(lowercase=False, strip_accents=False).normalize_str(text)
    return [word for word, _ in BertPreTokenizer().pre_tokenize_str(text)]


def look_at(
    sources: Iterable[Source],
    config: TokenizeConfig,
    vocabulary: Vocabulary | None = None,
    num_shown: int = 0,
    inputs: Sequence[NamedInput] = (),
) -> list[Look]:
    """Return a look at each group of files, the largest first.

    Args:
        num_shown: number of documents of each group whose sentences are needed.
        inputs: the tables of --inputs. The files of two of them are in different groups.
    """
    groups: dict[tuple[str, ReadConfig, int], list[Source]] = {}
    for source in sources:
        if not source.left_out:
            groups.setdefault((source.format, source.read, source.input), []).append(source)
    cutter = SentenceCutter(config, vocabulary, num_shown)
    looks = [_look(files, config, cutter, inputs) for files in groups.values()]
    return sorted(looks, key=lambda look: -look.num_bytes)


def _look(sources: list[Source], config: TokenizeConfig, cutter: SentenceCutter, inputs: Sequence[NamedInput]) -> Look:
    form = format_named(sources[0].format)
    clean = clean_of(sources[0], config.text.clean, [one.clean for one in inputs])
    look = Look(
        format=form.description.removeprefix("a "),  # without the article
        has_rows=form.has_records and not form.has_layouts,
        has_layouts=form.has_layouts,
        read=sources[0].read,
        sources=sources,
        clean=clean,
        input=inputs[sources[0].input].name if inputs and sources[0].input >= 0 else "",
    )
    chosen = sources[:: -(-len(sources) // LOOKED_AT_FILES)]
    shares = []
    try:
        for source in chosen:
            check_source(source)
            split = Split(source, 0, None, source.size)  # without a search for cuts, which may read all of the file
            num_bytes, num_records = LOOKED_AT_BYTES // len(chosen), LOOKED_AT_RECORDS // len(chosen)
            beginning = read_beginning(split, clean, num_bytes, num_records)
            shares.append(beginning.text_per_byte)
            look.num_files += 1
            look.num_whole += beginning.is_whole
            for record in beginning.records:
                if isinstance(record, PassedOver):
                    look.passed_over[record.reason] += record.number
                else:
                    _add(look, source, record)
    except ValueError as error:
        look.error = str(error)
    look.text_per_byte = float(np.mean(shares)) if shares else 0.0
    cutter.cut(look)
    return look


def _add(look: Look, source: Source, record: Document | Reject) -> None:
    """Add a record under the name of its file, which may be in an archive."""
    name, position = place_of(source.name, record)
    if record.entry and (form := format_by_name(name)[0]):
        look.has_layouts |= form.has_layouts
        look.has_rows |= form.has_records and not form.has_layouts
    if isinstance(record, Document):
        look.documents.append((name, replace(record, position=position, entry=None)))
    else:
        look.rejects.append((name, replace(record, position=position, entry=None)))


class SentenceCutter:
    """Cuts documents into sentences as a job would. Without a vocabulary the sentences are the same; no [UNK] is counted."""

    def __init__(self, config: TokenizeConfig, vocabulary: Vocabulary | None, num_shown: int):
        self.vocabulary, self.num_shown = vocabulary, num_shown
        known = vocabulary or Vocabulary((*SPECIAL_WORDS, "a"))
        self._unknown = known.unk
        self._tokenizer: DocumentTokenizer = make_document_tokenizer(config, known)
        self._encode = known.encoder(config.casing)

    def cut(self, look: Look) -> None:
        """Fill in the sentences and tokens of a look."""
        documents = [document for _, document in look.documents]
        if not documents:
            return
        block = self._tokenizer(documents)
        look.num_sentences = block.documents["num_sentences"].astype(np.int64)
        if self.vocabulary:
            look.num_tokens = len(block.ids)
            look.num_unknown = 0 if self._unknown is None else int((block.ids == self._unknown).sum())
        ends = np.cumsum(block.sentence_lengths, dtype=np.int64)
        sentences, tokens = (np.cumsum([0, *block.documents[name]]) for name in ("num_sentences", "num_tokens"))
        for i, text in enumerate(look.texts[: self.num_shown]):
            offsets = token_offsets(text, block.ids[tokens[i] : tokens[i + 1]], self._encode)
            look.sentences.append(_cut(text, offsets, ends[sentences[i] : sentences[i + 1]] - tokens[i]))


def _cut(text: str, offsets: I64, ends: I64) -> list[str]:
    """Return the sentences of a text. ends: number of tokens up to the end of each one."""
    begins = [0, *offsets[ends[:-1], 0].tolist(), len(text)]
    return [text[begin:end].strip() for begin, end in zip(begins, begins[1:])]
