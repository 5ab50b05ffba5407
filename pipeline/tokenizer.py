"""Documents to blocks of tokens: the options that decide the tokens of a text, and the tokenizer of one worker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from pipeline.inputs.documents import TextConfig, text_versions
from pipeline.text.chinese import Segment, inside_words, load_segmenter
from pipeline.text.icu import ICU, RULE, FindSentences, check_sentences, load_sentence_finder
from pipeline.text.records import Document, document_digest
from pipeline.text.sentences import sentence_starts, unit_marks
from pipeline.text.versions import version_of
from pipeline.tokens import DOCUMENT, TokenBlock
from pipeline.vocabulary import Vocabulary, make_tokenizer

if TYPE_CHECKING:
    from pipeline.text.wordpiece import WordPiece


@dataclass(frozen=True, kw_only=True)
class TokenizeConfig:
    """Options that affect the tokens of a text. After a change, all texts are tokenized again."""

    text: TextConfig = field(default_factory=TextConfig)
    do_lower_case: bool = True
    """Lower-case the text, for an uncased vocabulary. Use the value that the vocabulary was made with."""
    strip_accents: bool | None = None
    """Remove accents. By default they are removed when the text is lower-cased, as in BERT. Use False for languages in which
    accents distinguish words, such as Japanese, Korean, Hindi or Vietnamese."""
    chinese_words: bool = False
    """Find Chinese words with jieba, so that --do-whole-word-mask masks whole words instead of single characters."""
    max_line_repeats: int | None = None
    """Leave out lines that occur in more than this number of documents, such as menus and notices. This reads all input
    twice. By default no line is left out."""
    sentences: str = RULE
    """How sentences are found: "rule" for English and Chinese, or "icu:LOCALE" for other languages, such as icu:ja, icu:ru
    or icu:de-AT."""

    def __post_init__(self) -> None:
        check_sentences(self.sentences)
        if self.max_line_repeats is not None and self.max_line_repeats < 1:
            raise ValueError(f"--max-line-repeats {self.max_line_repeats}: expected 1 or more")


class DocumentTokenizer:
    """Documents to TokenBlocks: exact token ids, and the sentences. One per worker process."""

    def __init__(
        self, wordpiece: WordPiece, segment: Segment | None = None, find_sentences: FindSentences | None = None
    ):
        """
        Args:
            segment: finds Chinese words, for whole-word masks.
            find_sentences: replaces the rule for English and Chinese.
        """
        self.wordpiece, self.segment, self.find_sentences = wordpiece, segment, find_sentences
        self.marks = np.zeros(0, np.uint8)

    def __call__(self, documents: Sequence[Document]) -> TokenBlock:
        """Tokenize documents. One without a single token keeps its row, with 0 tokens."""
        texts = [document.text for document in documents]
        block = b"\n".join(texts) + b"\n"
        text_starts = np.cumsum([0, *(len(text) + 1 for text in texts)])[:-1]
        borders = np.zeros(0, np.int64)
        if self.find_sentences:
            borders = self.find_sentences(block)
            block, added = self.wordpiece.interner.with_spaces(block, borders)
            text_starts += np.searchsorted(added, text_starts, side="right")
            borders += np.searchsorted(added, borders, side="right")
        units, new = self.wordpiece.units(block)
        if len(self.marks) + len(new) != len(self.wordpiece.sizes):  # the table of units was emptied
            self.marks = np.zeros(0, np.uint8)
        if new:
            marks = np.fromiter(map(unit_marks, new), np.uint8, len(new))
            self.marks = np.concatenate([self.marks, marks])
        ids, sizes = self.wordpiece.ids_of(units.codes)
        if self.find_sentences:
            first_units = np.unique(np.searchsorted(units.starts, borders))  # a border inside a unit: at the next unit
            first_units = first_units[first_units < len(units.starts)]
        else:
            text = np.frombuffer(block, np.uint8)
            first_units = np.flatnonzero(sentence_starts(text, units.starts, units.lengths, self.marks[units.codes]))

        ends = np.cumsum(sizes, dtype=np.int64)
        first_tokens = ends[first_units] - sizes[first_units]
        lengths = np.diff(first_tokens, append=len(ids))
        document_of = np.searchsorted(text_starts, units.starts[first_units], side="right") - 1
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
        rows["source_key"] = rows["id"]
        for i, document in enumerate(documents):
            if document.source_key is not None:
                rows["source_key"][i] = document.source_key
        inside = np.repeat(inside_words(block, units, self.segment), sizes) if self.segment else None
        return TokenBlock(ids, lengths.astype(np.uint32), rows, inside)


def make_document_tokenizer(config: TokenizeConfig, vocabulary: Vocabulary) -> DocumentTokenizer:
    """Return the tokenizer of one worker."""
    from pipeline.text.wordpiece import WordPiece  # not at the top: --help does not need pyarrow and tokenizers

    tokenizer = make_tokenizer(vocabulary, config.do_lower_case, config.strip_accents)
    wordpiece = WordPiece(tokenizer, config.do_lower_case, len(vocabulary.words))
    segment = load_segmenter() if config.chinese_words else None
    return DocumentTokenizer(wordpiece, segment, load_sentence_finder(config.sentences))


def check_packages(config: TokenizeConfig) -> None:
    """Raise the error of a missing optional package now, before a job begins."""
    load_sentence_finder(config.sentences)
    if config.chinese_words:
        load_segmenter()


def token_versions(config: TokenizeConfig, file_format: str) -> dict[str, str]:
    """Return name -> version of the software that decides the tokens, and the texts, of a file of this format."""
    used = {"tokenizers": True, "rjieba": config.chinese_words, "icu4py": config.sentences.startswith(ICU)}
    versions = {name: version_of(name) for name, is_used in used.items() if is_used}
    return versions | text_versions(config.text.clean, file_format)
