"""The tokenize stage: a split -> the token parts of its text. A part that is there already is not made again."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import apache_beam as beam
import numpy as np
from numpy.typing import NDArray

from bertloom import storage
from pipeline.inputs.documents import TextConfig, read_documents, text_versions
from pipeline.inputs.sources import Split
from pipeline.options import flat
from pipeline.stages.line_repeats import read_repeated
from pipeline.text.chinese import load_segmenter
from pipeline.text.icu import ICU, RULE, check_sentences, load_sentence_finder
from pipeline.text.records import Document, PassedOver, Record, Reject, first_characters
from pipeline.text.versions import version_of
from pipeline.text.wordpiece import WordPiece
from pipeline.tokens import (
    BLOCK_BYTES,
    VERSION,
    DocumentTokenizer,
    PartRecord,
    TokenBlock,
    read_footer,
    write_part,
)
from pipeline.vocabulary import Vocabulary, kept_vocabulary, make_tokenizer


@dataclass(frozen=True, kw_only=True)
class TokenizeConfig:
    """What decides the tokens of a text. Any change here makes other parts; any other option of the job does not."""

    text: TextConfig = field(default_factory=TextConfig)
    do_lower_case: bool = True
    """Lower-case the text, for an uncased vocabulary."""
    strip_accents: bool | None = None
    """Remove accents; None: where the text is lower-cased, as BERT does."""
    chinese_words: bool = False
    """Find Chinese words with jieba, so that --do-whole-word-mask masks words and not single characters."""
    max_line_repeats: int | None = None
    """Leave out the lines that are in more documents than this, such as menus and notices; all input is read twice."""
    sentences: str = RULE
    """How sentences are found: "rule", for English and Chinese, or "icu:LOCALE" for other languages, such as icu:ja, icu:ru
    or icu:de-AT."""

    def __post_init__(self) -> None:
        check_sentences(self.sentences)
        if self.max_line_repeats is not None and self.max_line_repeats < 1:
            raise ValueError(f"--max-line-repeats {self.max_line_repeats}: expected 1 or more")


LATER = {"sentences": RULE, "max_line_repeats": None, **flat(TextConfig())}
"""Options that came after the first parts, which keep their names, and what they are where they are not used."""


def make_document_tokenizer(config: TokenizeConfig, vocabulary: Vocabulary) -> DocumentTokenizer:
    """The tokenizer of a worker."""
    tokenizer = make_tokenizer(vocabulary, config.do_lower_case, config.strip_accents)
    wordpiece = WordPiece(tokenizer, config.do_lower_case, len(vocabulary.words))
    segment = load_segmenter() if config.chinese_words else None
    return DocumentTokenizer(wordpiece, segment, load_sentence_finder(config.sentences))


def token_versions(config: TokenizeConfig, form: str) -> dict[str, str]:
    """Name -> version of what decides the tokens of a file of this format, its texts included."""
    used = {"tokenizers": True, "rjieba": config.chinese_words, "icu4py": config.sentences.startswith(ICU)}
    return {name: version_of(name) for name, is_used in used.items() if is_used} | text_versions(
        config.text.clean, form
    )


def part_names(split: Split, config: TokenizeConfig, vocabulary_sha256: str) -> Callable[[int], str]:
    """ordinal -> file name of a split's parts: a digest of everything that decides what they hold."""
    options = {name: value for name, value in flat(config).items() if name not in LATER or value != LATER[name]}
    versions = token_versions(config, split.source.format)
    key = [VERSION, split.source.fingerprint, split.start, split.end, options, vocabulary_sha256, versions]
    if split.source.encoding:
        key.append(split.source.encoding)
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:24]
    return lambda ordinal: f"{digest}-{ordinal:05d}.part"


def finished_parts(folder: str, name: Callable[[int], str]) -> list[PartRecord]:
    """The footers of the parts that a split has already, in order."""
    found: list[PartRecord] = []
    while not (found and found[-1].last):
        path = storage.join(folder, name(len(found)))
        if not storage.exists(path):
            break
        found.append(read_footer(path, PartRecord))
    return found


def tokenize_split(
    split: Split,
    name: Callable[[int], str],
    folder: str,
    tokenizer: DocumentTokenizer,
    part_bytes: int,
    config: TextConfig | None = None,
    repeated_lines: NDArray[np.uint64] | None = None,
) -> Iterator[PartRecord]:
    """Yields the parts of a split, each of about `part_bytes` of text, writing those that are not there."""
    done = finished_parts(folder, name)
    yield from done
    if done and done[-1].last:
        return
    start, piece, ordinal = split.start, 0, len(done)
    if done:
        start, piece = done[-1].end, done[-1].end_piece
    part = _Part(start)
    for item in read_documents(split, start, config, repeated_lines):
        if item.position == start and item.piece < piece:
            continue  # an earlier part holds these pieces of a long text
        if part.size >= part_bytes:
            yield part.write(split, folder, name(ordinal), tokenizer, item)
            part, ordinal = _Part(item.position), ordinal + 1
        part.add(item, tokenizer)
    yield part.write(split, folder, name(ordinal), tokenizer, None)


class _Part:
    """A part while it grows: text is tokenized block by block, so that only tokens are kept."""

    def __init__(self, start: int):
        self.start = start
        self.size = 0
        self.text_bytes = 0
        self.rejects: list[Reject] = []
        self.passed_over: Counter[str] = Counter()
        self.cleaned: Counter[str] = Counter()
        self.blocks: list[TokenBlock] = []
        self.pending: list[Document] = []
        self.pending_bytes = 0

    def add(self, item: Record, tokenizer: DocumentTokenizer) -> None:
        if isinstance(item, PassedOver):
            self.passed_over[item.reason] += 1
            return
        if isinstance(item, Reject):
            self.rejects.append(item)
            self.size += len(item.detail) + len(item.text) + 100
            return
        self.cleaned.update(item.cleaned)
        self.pending.append(item)
        self.pending_bytes += len(item.text)
        self.text_bytes += len(item.text)
        self.size += len(item.text)
        if self.pending_bytes >= BLOCK_BYTES:
            self._tokenize(tokenizer)

    def _tokenize(self, tokenizer: DocumentTokenizer) -> None:
        if self.pending:
            block = tokenizer(self.pending)
            self.blocks.append(block)
            silent = np.flatnonzero(block.documents["num_tokens"] == 0)
            self.rejects += [_without_tokens(self.pending[i]) for i in silent]
        self.pending, self.pending_bytes = [], 0

    def write(
        self,
        split: Split,
        folder: str,
        name: str,
        tokenizer: DocumentTokenizer,
        following: Record | None,
    ) -> PartRecord:
        self._tokenize(tokenizer)
        source = split.source
        end = following.position if following else split.end if split.end is not None else source.size
        record: dict[str, Any] = {
            "name": name,
            "source": source.name,
            "path": source.path,
            "start": self.start,
            "end": end,
            "end_piece": following.piece if following else 0,
            "last": following is None,
            "text_bytes": self.text_bytes,
            "read_bytes": 0 if following else split.num_bytes,
            "passed_over": dict(self.passed_over),
            "cleaned": dict(self.cleaned),
        }
        dtype = tokenizer.wordpiece.dtype
        return write_part(storage.join(folder, name), record, self.blocks, self.rejects, dtype)


def _without_tokens(document: Document) -> Reject:
    shown = first_characters(document.text)
    return Reject(
        document.position, "no-tokens", "nothing but control characters", shown, document.record_id, document.piece
    )


class TokenizeSplit(beam.DoFn):
    """Split -> PartRecord, one for each part."""

    def __init__(self, folder: str, config: TokenizeConfig, vocabulary: str, part_bytes: int):
        self.folder, self.config, self.vocabulary, self.part_bytes = folder, config, vocabulary, part_bytes

    def setup(self):
        self.tokenizer = make_document_tokenizer(self.config, kept_vocabulary(self.vocabulary))
        self.repeated_lines = read_repeated(self.folder) if self.config.max_line_repeats is not None else None

    def process(self, split: Split) -> Iterator[PartRecord]:
        name = part_names(split, self.config, kept_vocabulary(self.vocabulary).sha256)
        yield from tokenize_split(
            split, name, self.folder, self.tokenizer, self.part_bytes, self.config.text, self.repeated_lines
        )


class Tokenize(beam.PTransform):
    """Splits -> PartRecords."""

    def __init__(self, folder: str, config: TokenizeConfig, vocabulary: str, part_bytes: int):
        super().__init__()
        self.do = TokenizeSplit(folder, config, vocabulary, part_bytes)

    def expand(self, splits):
        return splits | "tokenize split" >> beam.ParDo(self.do)
