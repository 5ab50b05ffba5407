"""The vocabulary of a tokenizer: what the rest of the pipeline needs to know of it, and BERT's own, vocab.txt.

A vocabulary file has one word per line. A word's id is the number of its line, from 0. Only a line feed ends a line: real
vocabularies contain U+2028 and U+0085 as words.

    >>> vocabulary = parse_vocabulary(b"[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nthe\n", "vocab.txt")
    >>> vocabulary.words[vocabulary.mask]
    '[MASK]'

`TokenizerVocabulary` (pipeline/tokenizer_vocabulary.py) is that of any other tokenizer, and `read_vocabulary`
(pipeline/vocabulary_files.py) reads either.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bertloom.arrays import Bools, id_type
from bertloom.special_tokens import BERT_NAMES, UNUSED_OF_BERT
from pipeline.text.readable import Readable, WordPieces

if TYPE_CHECKING:  # functions import what they use: --help needs none of it
    from tokenizers import Tokenizer

    from pipeline.text.blocks import BlockTokenizer
    from pipeline.text.offsets import Encode
    from pipeline.text.pieces import GreedyPieces

SPECIAL_TOKENS = "special_tokens_map.json"
"""The file of a data set that names the special tokens of other tokenizers than BERT's."""
SPECIAL_WORDS = tuple(BERT_NAMES.values())
MIN_WORDS = 6  # the five special words and one more
MAX_WORD_CHARACTERS = 100  # `tokenizers` returns [UNK] for longer words
MAX_LOST = 0.01  # largest share of a vocabulary's words with capitals or accents if the text has none

SENTENCE_ENDS = frozenset(".!?…。！？；｡؟۔।॥")
CLOSING_MARKS = frozenset("\"'”’»」』）)]】》〉")
_CLOSING = "".join(CLOSING_MARKS)


@dataclass(frozen=True)
class WordKinds:
    """What each word of a vocabulary may be in a sentence. All arrays (words,)."""

    continuation: Bools
    """Whether it continues the word before it, such as "##ing"."""
    ends: Bools
    """Whether it ends a sentence, such as "?"."""
    closes: Bools
    """Whether it may come after the end of a sentence, such as a closing quotation mark."""

    def end_a_sentence(self, last: NDArray[Any], before: NDArray[Any]) -> Bools:
        """Return whether text with these last words, and these words before them, ends a sentence. Both are ids, (n,)."""
        found: Bools = self.ends[last] | (self.closes[last] & self.ends[before])
        return found


class Casing(NamedTuple):
    """What BERT's normalizer does to a text. Has no meaning for a tokenizer with another normalizer."""

    do_lower_case: bool | None
    """None: yes."""
    strip_accents: bool | None
    """None: if the text is lower-cased."""

    @property
    def lowers(self) -> bool:
        """Whether the text is lower-cased."""
        return self.do_lower_case is not False

    @property
    def strips(self) -> bool:
        """Whether accents are removed."""
        return self.lowers if self.strip_accents is None else self.strip_accents


@dataclass(frozen=True)
class Vocabulary:
    """Words and their ids, as `parse_vocabulary` has checked them."""

    words: tuple[str, ...]
    """A word's id is its index."""
    notes: tuple[str, ...] = ()
    """Messages for the user about what was corrected while reading."""
    casing: Casing | None = None
    """What the tokenizer's own files say; None where there are none, so that flags decide."""

    file: ClassVar[str] = "vocab.txt"
    """The file of a data set that holds it."""
    marks_words: ClassVar[bool] = False
    """Whether each token's `TokenBlock.inside_words` is recorded, because the tokens themselves do not say it."""

    @cached_property
    def text(self) -> bytes:
        """`vocab.txt` in a data set: UTF-8, with a line feed after every word."""
        return "".join(f"{word}\n" for word in self.words).encode()

    @cached_property
    def sha256(self) -> str:
        """Digest of `text`: files that differ only in their line ends are the same vocabulary."""
        return hashlib.sha256(self.text).hexdigest()

    @property
    def special_tokens_sha256(self) -> str:
        """Digest of what decides the special tokens in addition to `sha256`; empty where nothing does."""
        return ""

    def as_dict(self) -> dict[str, Any]:
        """Return what a manifest records of it."""
        return {"sha256": self.sha256, "size": len(self.words)}

    def files(self, casing: Casing) -> dict[str, bytes]:
        """Return the files of a data set, by name."""
        return {self.file: self.text, "tokenizer.json": tokenizer_json(self, casing.lowers, casing.strip_accents)}

    @cached_property
    def ids(self) -> dict[str, int]:
        """Word -> id."""
        return {word: index for index, word in enumerate(self.words)}

    @property
    def pad(self) -> int:
        return self.ids["[PAD]"]

    @property
    def unk(self) -> int | None:
        """The id of unknown words; None for a tokenizer that knows every text."""
        return self.ids["[UNK]"]

    @property
    def cls(self) -> int:
        return self.ids["[CLS]"]

    @property
    def sep(self) -> int:
        return self.ids["[SEP]"]

    @property
    def mask(self) -> int:
        return self.ids["[MASK]"]

    @cached_property
    def readable(self) -> Readable:
        """The words as text."""
        return WordPieces(self.words)

    @cached_property
    def kinds(self) -> WordKinds:
        """What each word may be in a sentence."""
        texts = [text or "" for text in self.readable.texts]
        continuation = np.zeros(len(self.words), bool) if self.marks_words else self.continuation
        ends = np.array([_ends_sentence(text) for text in texts], bool)
        closes = np.array([text != "" and CLOSING_MARKS.issuperset(text) for text in texts], bool)
        return WordKinds(continuation, ends, closes)

    @cached_property
    def continuation(self) -> Bools:
        """Whether the word continues the one before it, such as "##ing": bool (words,)."""
        return np.array(self.readable.joins[0], bool)

    @cached_property
    def goes_on(self) -> Bools:
        """Whether a word may go on after it: bool (words,)."""
        return np.array(self.readable.joins[1], bool)

    def continues(self, ids: NDArray[Any]) -> Bools:
        """Return which tokens of a text continue the word before them, as far as the tokens show it: bool (tokens,)."""
        found: Bools = self.continuation[ids]
        found[:1] = False
        if not self.goes_on.all():  # in BERT's vocabularies, a word may go on after every token
            found[1:] &= self.goes_on[ids[:-1]]
        return found

    @cached_property
    def present(self) -> NDArray[np.unsignedinteger]:
        """All ids that have a word: uint16 or uint32, sorted."""
        return np.arange(len(self.words), dtype=id_type(len(self.words)))

    @cached_property
    def ordinary(self) -> NDArray[np.unsignedinteger]:
        """Ids that may replace a masked word: all except the special and [unusedN] words. uint16 or uint32, sorted."""
        chosen = [
            i for i, word in enumerate(self.words) if word not in SPECIAL_WORDS and not UNUSED_OF_BERT.fullmatch(word)
        ]
        return np.array(chosen, id_type(len(self.words)))

    def settled_casing(self, given: Casing, name: str) -> Casing:
        """Return how texts are changed before they are cut into words.

        Args:
            given: the flags; None where a flag was not given.
            name: of the file, for errors.

        Raises:
            ValueError: the tokenizer's own files say otherwise, or many words could never occur.
        """
        if self.casing is None:
            check_casing(self, given.lowers, given.strip_accents, name)
            return Casing(given.lowers, given.strip_accents)
        own = self.casing
        if given.do_lower_case not in (None, own.lowers):
            flag = "--do-lower-case" if given.do_lower_case else "--no-do-lower-case"
            does = "lower-cases the text" if own.lowers else "keeps capital letters"
            raise ValueError(f"{flag}: the tokenizer of {name} {does}, as its own files say: leave the flag out")
        if given.strip_accents not in (None, own.strips):
            does = "removes accents" if own.strips else "keeps accents"
            raise ValueError(
                f"--strip-accents {given.strip_accents}: the tokenizer of {name} {does}, as its own files say: leave the "
                f"flag out"
            )
        return own

    def block_tokenizer(self, casing: Casing) -> BlockTokenizer:
        """Return what makes tokens of blocks of texts."""
        from pipeline.text.wordpiece import WordPiece  # not at the top: --help does not need pyarrow and tokenizers

        tokenizer, pieces = _shared_parts(self.words, casing.lowers, casing.strip_accents)
        return WordPiece(tokenizer, casing.lowers, len(self.words), pieces)

    def encoder(self, casing: Casing) -> Encode:
        """Return a function text -> (ids of its tokens, (first character, end) of each)."""
        tokenizer = make_tokenizer(self, casing.lowers, casing.strip_accents)
        return lambda text: ids_and_offsets(tokenizer, text)


def ids_and_offsets(tokenizer: Tokenizer, text: str) -> tuple[Sequence[int], Sequence[tuple[int, int]]]:
    """Return the ids of the tokens of a text, and (first character, end) of each."""
    encoding = tokenizer.encode(text, add_special_tokens=False)
    return encoding.ids, encoding.offsets


def _ends_sentence(text: str) -> bool:
    return text.rstrip(_CLOSING)[-1:] in SENTENCE_ENDS


def parse_vocabulary(data: bytes, name: str) -> Vocabulary:
    """Return the vocabulary in these bytes. `name` is the file's name in errors."""
    notes = []
    if data.startswith(b"\xef\xbb\xbf"):
        data = data[3:]
        notes.append(f"{name}: a byte order mark at the start was ignored")
    try:
        words = data.decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{name}: line {line}: not UTF-8 ({error.reason}); convert the file to UTF-8") from None
    num_crlf = sum(word.endswith("\r") for word in words)
    if num_crlf:
        words = [word.removesuffix("\r") for word in words]
        notes.append(f"{name}: {num_crlf} lines end in CRLF, which was read as LF")
    if words[-1] == "":
        words.pop()
    num_blank = len(words)
    while words and words[-1] == "":
        words.pop()
    if num_blank > len(words):
        notes.append(f"{name}: {num_blank - len(words)} empty lines at the end were ignored")
    _check_words(words, name)
    return Vocabulary(tuple(words), tuple(notes))


def _check_words(words: list[str], name: str) -> None:
    if "" in words:
        line = words.index("") + 1
        raise ValueError(
            f"{name}: line {line} is empty; every line must be a word, because its number is the word's id: "
            f"remove the line, or write [unused{line - 1}] there so that later words keep their ids"
        )
    if len(words) < MIN_WORDS:
        raise ValueError(f"{name}: {len(words)} words; expected one word per line, at least {MIN_WORDS}")
    first: dict[str, int] = {}
    for line, word in enumerate(words, 1):
        if word in first:
            raise ValueError(
                f"{name}: the word {word!r} is on line {first[word]} and again on line {line}; a word has "
                f"one id: write [unused{line - 1}] on the second line, so that all other words keep theirs"
            )
        first[word] = line
    missing = [word for word in SPECIAL_WORDS if word not in first]
    if missing:
        similar = [f"line {line} has {word!r}" for word, line in first.items() if word.strip().upper() in missing]
        hint = f" ({'; '.join(similar)})" if similar else ""
        raise ValueError(
            f"{name}: {' '.join(missing)} missing{hint}; BERT needs {' '.join(SPECIAL_WORDS)}: replace [unusedN] "
            f"lines by them, or make a vocabulary with `bertloom build-vocab`"
        )


def check_casing(vocabulary: Vocabulary, do_lower_case: bool, strip_accents: bool | None, name: str) -> None:
    """Raise ValueError if many words can never occur, because texts are lower-cased or lose their accents.

    strip_accents: None removes them if the text is lower-cased. `name` is the file's name.
    """
    from tokenizers.normalizers import BertNormalizer

    def check(is_on: bool, lowercase: bool, why: str, flag: str) -> None:
        normalizer = BertNormalizer(
            clean_text=False, handle_chinese_chars=False, strip_accents=not lowercase, lowercase=lowercase
        )
        words = [word for word in vocabulary.words if word not in SPECIAL_WORDS]
        normalized = normalizer.normalize_str("\n".join(words)).split("\n") if is_on else words
        lost = [word for word, changed in zip(words, normalized, strict=True) if changed != word]
        if len(lost) > MAX_LOST * len(words):
            raise ValueError(
                f"{name}: {len(lost):,} of {len(words):,} words can never occur, such as {', '.join(lost[-3:])}, because "
                f"{why}: give {flag}, or a vocabulary that was made without it"
            )

    check(do_lower_case, True, "the text is lower-cased", "--no-do-lower-case")
    is_stripped = do_lower_case if strip_accents is None else strip_accents
    check(is_stripped, False, "accents are removed from the text", "--strip-accents False")


def make_tokenizer(vocabulary: Vocabulary, do_lower_case: bool, strip_accents: bool | None) -> Tokenizer:
    """Return the reference tokenizer: `BertWordPieceTokenizer` with `encode_special_tokens`, so "[MASK]" in a text is text.

    strip_accents: None strips them if the text is lower-cased, as BERT does.
    """
    from tokenizers import Tokenizer, decoders
    from tokenizers.models import WordPiece

    tokenizer = Tokenizer(WordPiece(vocabulary.ids, unk_token="[UNK]", max_input_chars_per_word=MAX_WORD_CHARACTERS))
    tokenizer.add_special_tokens(list(SPECIAL_WORDS))
    cut_as_bert(tokenizer, do_lower_case, strip_accents)
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    tokenizer.encode_special_tokens = True
    return tokenizer


def cut_as_bert(tokenizer: Tokenizer, do_lower_case: bool, strip_accents: bool | None) -> None:
    """Give a tokenizer BERT's normalizer and pre-tokenizer."""
    from tokenizers.normalizers import BertNormalizer
    from tokenizers.pre_tokenizers import BertPreTokenizer

    tokenizer.normalizer = BertNormalizer(
        clean_text=True, handle_chinese_chars=True, strip_accents=strip_accents, lowercase=do_lower_case
    )
    tokenizer.pre_tokenizer = BertPreTokenizer()


@lru_cache(maxsize=2)
def _shared_parts(
    words: tuple[str, ...], do_lower_case: bool, strip_accents: bool | None
) -> tuple[Tokenizer, GreedyPieces]:
    """Return what all tokenizers of a vocabulary share in a process, because nothing changes it."""
    from pipeline.text.pieces import GreedyPieces

    vocabulary = Vocabulary(words)
    return make_tokenizer(vocabulary, do_lower_case, strip_accents), GreedyPieces(vocabulary.ids)


def tokenizer_json(vocabulary: Vocabulary, do_lower_case: bool, strip_accents: bool | None) -> bytes:
    """Return `tokenizer.json` for `tokenizers` and `transformers`: the same tokenizer, which also adds [CLS] and [SEP].

    The file format cannot store `encode_special_tokens`: a tokenizer loaded from it reads "[MASK]" as the mask.
    """
    from tokenizers.processors import TemplateProcessing

    tokenizer = make_tokenizer(vocabulary, do_lower_case, strip_accents)
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[("[CLS]", vocabulary.cls), ("[SEP]", vocabulary.sep)],
    )
    return tokenizer.to_str(pretty=True).encode() + b"\n"
