"""The vocabulary of any tokenizer of the library `tokenizers`: BPE, Unigram, and WordPiece that vocab.txt cannot express."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from bertloom.arrays import id_type
from bertloom.tokenizer_files import TokenizerFile
from bertloom.tokenizer_parts import rows
from pipeline.text.readable import BYTE_LETTERS, PREFIX, BytePieces, Readable, WordPieces
from pipeline.vocabulary import SPECIAL_TOKENS, Casing, Vocabulary, cut_as_bert, ids_and_offsets

if TYPE_CHECKING:  # functions import what they use: --help needs none of it
    from pipeline.text.blocks import BlockTokenizer
    from pipeline.text.offsets import Encode


@dataclass(frozen=True)
class TokenizerVocabulary(Vocabulary):
    """The tokens of a tokenizer and their ids. An id without a token has the word ""."""

    tokenizer: TokenizerFile = field(kw_only=True)

    file: ClassVar[str] = "tokenizer.json"
    marks_words: ClassVar[bool] = True

    @classmethod
    def of(cls, tokenizer: TokenizerFile) -> TokenizerVocabulary:
        return cls(tuple(token or "" for token in tokenizer.tokens), (), _casing(tokenizer), tokenizer=tokenizer)

    @cached_property
    def _files(self) -> dict[str, bytes]:
        return self.tokenizer.files()

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self._files[self.file]).hexdigest()

    @property
    def special_tokens_sha256(self) -> str:
        return hashlib.sha256(self._files[SPECIAL_TOKENS]).hexdigest()

    def as_dict(self) -> dict[str, Any]:
        return super().as_dict() | {"file": self.file}

    def files(self, casing: Casing) -> dict[str, bytes]:
        return self._files

    @property
    def pad(self) -> int:
        return self.tokenizer.special.pad

    @property
    def unk(self) -> int | None:
        return self.tokenizer.special.unk

    @property
    def cls(self) -> int:
        return self.tokenizer.special.cls

    @property
    def sep(self) -> int:
        return self.tokenizer.special.sep

    @property
    def mask(self) -> int:
        return self.tokenizer.special.mask

    @cached_property
    def readable(self) -> Readable:
        return _readable(self.tokenizer)

    @cached_property
    def present(self) -> NDArray[np.unsignedinteger]:
        return np.flatnonzero([bool(word) for word in self.words]).astype(id_type(len(self.words)))

    @cached_property
    def ordinary(self) -> NDArray[np.unsignedinteger]:
        return np.setdiff1d(self.present, sorted(self.tokenizer.reserved)).astype(id_type(len(self.words)))

    def settled_casing(self, given: Casing, name: str) -> Casing:
        for flag, value in given._asdict().items():
            if value is not None:
                raise ValueError(
                    f"--{flag.replace('_', '-')} {value}: {name} is not BERT's tokenizer, so its own rules decide about "
                    f"capital letters and accents: leave the flag out"
                )
        return given

    def block_tokenizer(self, casing: Casing) -> BlockTokenizer:
        from tokenizers import Tokenizer
        from tokenizers.models import WordPiece

        from pipeline.text.pretoken_blocks import PreTokenBlocks

        bert = Tokenizer(WordPiece({"[UNK]": 0}, unk_token="[UNK]"))
        cut_as_bert(bert, do_lower_case=True, strip_accents=None)
        return PreTokenBlocks(self.tokenizer.load(), bert, len(self.words))

    def encoder(self, casing: Casing) -> Encode:
        tokenizer = self.tokenizer.load()
        return lambda text: ids_and_offsets(tokenizer, text.replace("\n", " "))


def _casing(tokenizer: TokenizerFile) -> Casing:
    """Return what a tokenizer's normalizer does to capital letters and accents."""
    parts = rows(tokenizer.content, "normalizer", tokenizer.where)
    bert = next((part for part in parts if part["type"] == "BertNormalizer"), {})
    kinds = {part["type"] for part in parts}
    lowers = "Lowercase" in kinds or bert.get("lowercase", False)
    strips = bert.get("strip_accents")
    return Casing(lowers, "StripAccents" in kinds or (bool(bert) and (lowers if strips is None else strips)))


def _readable(tokenizer: TokenizerFile) -> Readable:
    """Return the tokens of a tokenizer as text."""
    model, content, where = tokenizer.content["model"], tokenizer.content, tokenizer.where
    words = [token or "" for token in tokenizer.tokens]
    kinds = [rows(content, name, where) for name in ("decoder", "pre_tokenizer", "normalizer")]
    is_bytes = any(part["type"] == "ByteLevel" for parts in kinds for part in parts)
    space, suffix = _space_mark(content, where), model.get("end_of_word_suffix") or ""
    if model["type"] == "WordPiece":
        return WordPieces(words, model.get("continuing_subword_prefix", PREFIX))
    if not (is_bytes or space or suffix):
        return WordPieces(words, model.get("continuing_subword_prefix"))
    added = {entry["content"]: " " * entry["lstrip"] + entry["content"] for entry in content["added_tokens"]}
    bytes_of = {letter: bytes([byte]) for letter, byte in BYTE_LETTERS.items()} if is_bytes else {}
    names = {f"<0x{byte:02X}>": bytes([byte]) for byte in range(256)} if model.get("byte_fallback") else {}

    def content_of(word: str) -> bytes:
        if word in added:
            return str(added[word]).encode()
        if word in names:
            return names[word]
        bare = word.removesuffix(suffix)
        text = bare.replace(space, " ") if space else bare
        return b"".join(bytes_of.get(letter) or letter.encode() for letter in text) + b" " * (bare != word)

    return BytePieces([content_of(word) for word in words])


def _space_mark(content: dict[str, Any], where: str) -> str:
    """Return the character that stands for a space in tokens, such as "▁"; empty if none does."""
    for name in ("decoder", "pre_tokenizer", "normalizer"):
        for part in rows(content, name, where):
            if part["type"] == "Metaspace":
                return str(part["replacement"])
            if part["type"] == "Replace":
                one, other = part["pattern"].get("String"), part["content"]
                if " " in (one, other):
                    return str(other if one == " " else one)
    return ""
