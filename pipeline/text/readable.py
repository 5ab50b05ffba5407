"""Tokens as text that people read: of WordPiece, with spaces between its words, and of tokenizers that keep white space."""

import codecs
import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Protocol

BLANK = "␣"
"""Stands for a token of white space that is shown alone."""
PREFIX = "##"
"""The mark of a piece that continues a word, in BERT's vocabularies."""
_SAME = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_OTHERS = sorted({*range(0x100)} - {*_SAME})
BYTE_LETTERS = {chr(byte): byte for byte in _SAME} | {chr(0x100 + i): byte for i, byte in enumerate(_OTHERS)}
"""The byte of each letter in the tokens of byte-level tokenizers, as GPT-2 chose them: "Ġ" is a space."""
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_IDEOGRAPH = r"[\u3000-\u9fff\uff00-\uffef]"


class Readable(Protocol):
    """The tokens of a vocabulary as text."""

    @property
    def names(self) -> Sequence[str]:
        """Each token alone, such as "##ing", or " the" with the space that it holds."""

    @property
    def texts(self) -> Sequence[str | None]:
        """What each token stands for, such as "ing", without white space; None for a part of a character."""

    @property
    def joins(self) -> tuple[Sequence[bool], Sequence[bool]]:
        """(Whether each token continues the word before it, whether a word may go on after it.)

        A token continues a word if both it and the token before it say so.
        """

    def text(self, ids: Iterable[int], /) -> str:
        """Return the text of tokens."""

    def pieces(self, ids: Sequence[int], alone: Sequence[bool], /) -> list[tuple[str, str]]:
        """Return (white space before it, text) of each token. A character is with the token that completes it.

        alone: which tokens are shown by themselves. If such a token is a part of a character, its bytes are shown.
        """


class WordPieces:
    """Words, and pieces that continue a word. Between Chinese characters there is no space."""

    def __init__(self, words: Sequence[str], prefix: str | None = PREFIX):
        """prefix: the mark of a piece that continues a word; None if there is none."""
        self.words, self.prefix = words, prefix
        # What is not written between two words: the mark of a piece, and the space between Chinese characters.
        piece = rf" {re.escape(prefix)}(?=[^ ])|" if prefix else ""
        self._not_written = re.compile(rf"{piece} (?<={_IDEOGRAPH} )(?={_IDEOGRAPH})")

    @property
    def names(self) -> Sequence[str]:
        return self.words

    @cached_property
    def texts(self) -> Sequence[str | None]:
        return tuple(map(self._bare, self.words))

    @cached_property
    def joins(self) -> tuple[Sequence[bool], Sequence[bool]]:
        return tuple(map(self._continues, self.words)), (True,) * len(self.words)

    def text(self, ids: Iterable[int]) -> str:
        """Return the text of tokens.

        >>> WordPieces(["we", "know", "##s", "上", "海", "。"]).text(range(6))
        'we knows 上海。'
        """
        return self._not_written.sub("", " " + " ".join([self.words[i] for i in ids])).removeprefix(" ")

    def pieces(self, ids: Sequence[int], alone: Sequence[bool] = ()) -> list[tuple[str, str]]:
        found: list[tuple[str, str]] = []
        before = ""
        for word in (self.words[i] for i in ids):
            is_tight = not found or self._continues(word) or (_is_ideograph(before[-1:]) and _is_ideograph(word[:1]))
            found.append(("" if is_tight else " ", self._bare(word)))
            before = word
        return found

    def _continues(self, word: str) -> bool:
        return bool(self.prefix) and word.startswith(self.prefix or "") and word != self.prefix

    def _bare(self, word: str) -> str:
        return word.removeprefix(self.prefix or "") if self._continues(word) else word


class BytePieces:
    """Tokens that hold the white space of the text, or parts of its characters: the text is their bytes, end to end."""

    def __init__(self, contents: Sequence[bytes]):
        """contents: the UTF-8 bytes of each token."""
        self.contents = contents

    @cached_property
    def names(self) -> Sequence[str]:
        return tuple(content.decode("utf-8", "backslashreplace") for content in self.contents)

    @cached_property
    def texts(self) -> Sequence[str | None]:
        return tuple(map(_whole, self.contents))

    @cached_property
    def joins(self) -> tuple[Sequence[bool], Sequence[bool]]:
        texts = [content.decode(errors="replace") for content in self.contents]
        ends = (text[-1:] == " " or _is_inside(text[-1:]) for text in texts)  # " " may be cut off the word after it
        return tuple(_is_inside(text[:1]) for text in texts), tuple(ends)

    def text(self, ids: Iterable[int]) -> str:
        """Return the text of tokens.

        >>> BytePieces([b"we", b" know", b" ", b"\\xe4\\xb8", b"\\x8a"]).text(range(5))
        'we know 上'
        """
        return b"".join([self.contents[i] for i in ids]).decode("utf-8", "replace").strip()

    def pieces(self, ids: Sequence[int], alone: Sequence[bool]) -> list[tuple[str, str]]:
        texts: list[str] = []
        decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
        for i, is_alone in zip(ids, alone, strict=True):
            if is_alone and texts:
                texts[-1] += decoder.decode(b"", final=True)  # a character that is not complete
            texts.append(
                (self.names[i] if self.texts[i] != "" else BLANK) if is_alone else decoder.decode(self.contents[i])
            )
        if texts:
            texts[-1] += decoder.decode(b"", final=True)
        found: list[tuple[str, str]] = []
        space = ""
        for text in texts:
            bare = text.lstrip()
            space += text[: len(text) - len(bare)]
            found.append((space if found else "", bare.rstrip()))
            space = bare[len(bare.rstrip()) :]
        return found


def _is_inside(character: str) -> bool:
    """Return whether a character, or a part of one, may be inside a word. A Chinese character is a word."""
    if not character or _is_ideograph(character):
        return False
    return character == REPLACEMENT or unicodedata.category(character)[0] in "LMN"


def _whole(content: bytes) -> str | None:
    try:
        return content.decode().strip()
    except UnicodeDecodeError:
        return None


def _is_ideograph(character: str) -> bool:
    return "\u3000" <= character <= "\u9fff" or "\uff00" <= character <= "\uffef"
