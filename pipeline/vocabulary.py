"""The vocabulary: reading `vocab.txt`, the tokenizer of a vocabulary, and `tokenizer.json`.

A vocabulary file has one word per line. A word's id is the number of its line, from 0. Only a line feed ends a line: real
vocabularies contain U+2028 and U+0085 as words.

    >>> vocabulary = read_vocabulary("vocab.txt")
    >>> vocabulary.words[vocabulary.mask]
    '[MASK]'
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bertloom import storage
from bertloom.arrays import Bools, id_type

if TYPE_CHECKING:  # functions import what they use: --help needs none of it
    from tokenizers import Tokenizer

SPECIAL_WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
MIN_WORDS = 6  # the five special words and one more
MAX_WORD_CHARACTERS = 100  # `tokenizers` returns [UNK] for longer words
MAX_LOST = 0.01  # largest share of a vocabulary's words with capitals or accents if the text has none

SENTENCE_ENDS = frozenset(".!?…。！？；｡؟۔।॥")
CLOSING_MARKS = frozenset("\"'”’»」』）)]】》〉")

_UNUSED = re.compile(r"\[unused\d+\]")


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


@dataclass(frozen=True)
class Vocabulary:
    """Words and their ids, as `read_vocabulary` has checked them."""

    words: tuple[str, ...]
    """A word's id is its index."""
    notes: tuple[str, ...] = ()
    """Messages for the user about what was corrected while reading."""

    @cached_property
    def text(self) -> bytes:
        """`vocab.txt` in a data set: UTF-8, with a line feed after every word."""
        return "".join(f"{word}\n" for word in self.words).encode()

    @cached_property
    def sha256(self) -> str:
        """Digest of `text`: files that differ only in their line ends are the same vocabulary."""
        return hashlib.sha256(self.text).hexdigest()

    @cached_property
    def ids(self) -> dict[str, int]:
        """Word -> id."""
        return {word: index for index, word in enumerate(self.words)}

    @property
    def pad(self) -> int:
        return self.ids["[PAD]"]

    @property
    def unk(self) -> int:
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
    def kinds(self) -> WordKinds:
        """What each word may be in a sentence."""
        bare = [word[2:] if inside else word for word, inside in zip(self.words, self.continuation, strict=True)]
        ends = np.array([word[-1:] in SENTENCE_ENDS for word in bare], bool)
        return WordKinds(self.continuation, ends, np.array([word in CLOSING_MARKS for word in bare], bool))

    @cached_property
    def continuation(self) -> Bools:
        """Whether the word continues the one before it, such as "##ing": bool (words,)."""
        return np.array([word.startswith("##") and len(word) > 2 for word in self.words], bool)

    @cached_property
    def ordinary(self) -> NDArray[np.unsignedinteger]:
        """Ids that may replace a masked word: all except the special and [unusedN] words. uint16 or uint32, sorted."""
        chosen = [i for i, word in enumerate(self.words) if word not in SPECIAL_WORDS and not _UNUSED.fullmatch(word)]
        return np.array(chosen, id_type(len(self.words)))


def read_vocabulary(path: str) -> Vocabulary:
    """Return the vocabulary in a file, which may be on an object store. ValueError if it is not a usable one."""
    try:
        data = storage.read(path)
    except IsADirectoryError:
        raise ValueError(f"{path}: is a folder; expected a vocabulary file, one word per line") from None
    except OSError as error:
        reason = error.strerror or "there is no such file, or it cannot be read"
        raise ValueError(f"{path}: {reason}; make a vocabulary with `bertloom build-vocab`") from error
    return parse_vocabulary(data, path)


@lru_cache(maxsize=2)
def cached_vocabulary(path: str) -> Vocabulary:
    """Return the vocabulary of a running job. Cached per process: the file's name contains its digest."""
    return read_vocabulary(path)


def parse_vocabulary(data: bytes, name: str) -> Vocabulary:
    """Return the vocabulary in these bytes. `name` is the file's name in errors."""
    notes = []
    if data.lstrip()[:1] == b"{" and b'"vocab"' in data:
        raise ValueError(
            f"{name} is a tokenizer.json: expected a text file with one word per line, such as the vocab.txt beside it"
        )
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
        lost = [word for word in words if is_on and normalizer.normalize_str(word) != word]
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
