"""Documents to blocks of tokens: the options that decide the tokens of a text, and the tokenizer of one worker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from bertloom.arrays import I64, Bools
from pipeline.inputs.documents import TextConfig, text_versions
from pipeline.text.chinese import Segment, inside_words, load_segmenter
from pipeline.text.icu import ICU, RULE, FindSentences, check_sentences, load_sentence_finder
from pipeline.text.records import Document, document_digest
from pipeline.text.sentences import sentence_starts, unit_marks
from pipeline.text.versions import version_of
from pipeline.tokens import DOCUMENT, TokenBlock
from pipeline.vocabulary import Casing, Vocabulary

if TYPE_CHECKING:  # --help needs neither pyarrow nor tokenizers
    from pipeline.text.blocks import Block, BlockTokenizer


@dataclass(frozen=True, kw_only=True)
class TokenizeConfig:
    """Options that affect the tokens of a text. After a change, all texts are tokenized again."""

    text: TextConfig = field(default_factory=TextConfig)
    do_lower_case: bool | None = None
    """Lower-case the text, for an uncased vocabulary. The files of a tokenizer decide the default; a vocab.txt alone is
    taken to be uncased. Use the value that the vocabulary was made with."""
    strip_accents: bool | None = None
    """Remove accents. The files of a tokenizer decide the default; with a vocab.txt alone they are removed when the
    text is lower-cased, as in BERT. Use False for languages in which accents distinguish words, such as Japanese, Korean,
    Hindi or Vietnamese."""
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

    @property
    def casing(self) -> Casing:
        """Its options of BERT's normalizer."""
        return Casing(self.do_lower_case, self.strip_accents)


class DocumentTokenizer:
    """Documents to TokenBlocks: exact token ids, and the sentences. One per worker process."""

    def __init__(
        self,
        block_tokenizer: BlockTokenizer,
        segment: Segment | None = None,
        find_sentences: FindSentences | None = None,
    ):
        """
        Args:
            segment: finds Chinese words, for whole-word masks.
            find_sentences: replaces the rule for English and Chinese.
        """
        self.block_tokenizer, self.segment, self.find_sentences = block_tokenizer, segment, find_sentences
        self.marks = np.zeros(0, np.uint8)

    def __call__(self, documents: Sequence[Document]) -> TokenBlock:
        """Tokenize documents. One without a single token keeps its row, with 0 tokens."""
        texts = [document.text for document in documents]
        block = self._cut(texts)
        tokens = self.block_tokenizer.tokens(block)
        lengths = np.diff(tokens.sentences, append=len(tokens.ids))
        document_of = np.searchsorted(block.text_starts, block.borders, side="right") - 1
        full = lengths > 0
        lengths, document_of = lengths[full], document_of[full]

        rows = np.zeros(len(documents), DOCUMENT)
        rows["num_sentences"] = np.bincount(document_of, minlength=len(rows))
        rows["num_tokens"] = np.diff(tokens.texts, append=len(tokens.ids))
        for name in ("position", "piece", "num_replaced"):
            rows[name] = [getattr(document, name) for document in documents]
        rows["length"] = [len(text) for text in texts]
        digests = np.frombuffer(b"".join(document_digest(text)[:16] for text in texts), ">u8").reshape(-1, 2)
        rows["id"], rows["id_low"] = digests[:, 0], digests[:, 1]
        rows["source_key"] = rows["id"]
        for i, document in enumerate(documents):
            if document.source_key is not None:
                rows["source_key"][i] = document.source_key
        return TokenBlock(tokens.ids, lengths.astype(np.uint32), rows, tokens.inside)

    def _cut(self, texts: Sequence[bytes]) -> Block:
        """Return texts end to end, with their units and sentences."""
        content = b"\n".join(texts) + b"\n"
        text_starts = np.cumsum([0, *(len(text) + 1 for text in texts)])[:-1]
        borders = added = np.zeros(0, np.int64)
        if self.find_sentences:
            borders = self.find_sentences(content)
            content, added = self.block_tokenizer.interner.with_spaces(content, borders)
            text_starts += np.searchsorted(added, text_starts, side="right")
            borders += np.searchsorted(added, borders, side="right")
        units, new = self.block_tokenizer.units(content)
        if len(self.marks) + len(new) != len(self.block_tokenizer.interner.codes):  # the table of units was emptied
            self.marks = np.zeros(0, np.uint8)
        if new:
            marks = np.fromiter(map(unit_marks, new), np.uint8, len(new))
            self.marks = np.concatenate([self.marks, marks])
        if self.find_sentences:
            first_units = np.unique(np.searchsorted(units.starts, borders))  # a border inside a unit: at the next unit
            begins = np.zeros(len(units.starts), bool)
            begins[first_units[first_units < len(begins)]] = True
        else:
            text = np.frombuffer(content, np.uint8)
            marks = np.take(self.marks, units.codes, mode="clip")
            begins = sentence_starts(text, units.starts, units.lengths, marks)
        from pipeline.text.blocks import Block

        return Block(
            texts=texts,
            content=content,
            added=added,
            text_starts=text_starts,
            borders=sentence_borders(text_starts, units.starts, begins),
            units=units,
            inside=inside_words(content, units, self.segment) if self.segment else None,
        )


def sentence_borders(text_starts: I64, unit_starts: I64, begins: Bools) -> I64:
    """Return the first byte of each sentence. The first one begins with the text, also if that is white space.

    text_starts: distinct. begins: whether a sentence begins at each unit; overwritten.
    """
    of_texts = np.searchsorted(unit_starts, text_starts)
    begins[of_texts[of_texts < len(begins)]] = False
    inner = unit_starts[np.flatnonzero(begins)]
    return np.insert(inner, np.searchsorted(inner, text_starts), text_starts)


def make_document_tokenizer(config: TokenizeConfig, vocabulary: Vocabulary) -> DocumentTokenizer:
    """Return the tokenizer of one worker."""
    segment = load_segmenter() if config.chinese_words else None
    return DocumentTokenizer(vocabulary.block_tokenizer(config.casing), segment, load_sentence_finder(config.sentences))


def settled(config: TokenizeConfig, vocabulary: Vocabulary, name: str) -> TokenizeConfig:
    """Return the options with those that the tokenizer's own files decide; ValueError if a flag contradicts them.

    name: of the vocabulary, for errors.
    """
    do_lower_case, strip_accents = vocabulary.settled_casing(config.casing, name)
    return replace(config, do_lower_case=do_lower_case, strip_accents=strip_accents)


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
