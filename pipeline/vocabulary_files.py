"""Vocabularies on disk: what --vocab names, and the copies in data sets and running jobs."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

from bertloom import storage
from bertloom.json_files import MAX_BYTES, parse_json
from bertloom.tokenizer_files import TokenizerFile, parse_tokenizer, read_tokenizer
from bertloom.tokenizer_parts import bert_casing
from pipeline.tokenizer_vocabulary import TokenizerVocabulary
from pipeline.vocabulary import SPECIAL_TOKENS, Casing, Vocabulary, parse_vocabulary

HEAD_BYTES = 64
CONVERT = (
    "expected the tokenizer.json of the same model, which AutoTokenizer.from_pretrained(FOLDER).save_pretrained(NEW) of "
    "transformers writes, or the folder NEW"
)


def read_vocabulary(path: str) -> Vocabulary:
    """Return the vocabulary in a vocab.txt, a tokenizer.json, or a folder with one of them. All may be on an object store.

    Raises:
        ValueError: there is none, or it is not a usable one.
    """
    try:
        if _is_folder(path):
            return _of_tokenizer(read_tokenizer(path))
        head = storage.read_range(path, 0, HEAD_BYTES)
        _check_kind(path, head)
        if head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"{":
            return _of_tokenizer(read_tokenizer(path))
        data = storage.read(path, MAX_BYTES)
    except OSError as error:
        reason = error.strerror or "there is no such file, or it cannot be read"
        raise ValueError(f"{path}: {reason}; make a vocabulary with `bertloom build-vocab`") from error
    return parse_vocabulary(data, path)


def _is_folder(path: str) -> bool:
    return os.path.isdir(path) if storage.is_local(path) else storage.info(path) == storage.FOLDER


def _check_kind(path: str, head: bytes) -> None:
    """Raise ValueError for a file of a model that is not its tokenizer. head: the first bytes of the file."""
    if head[8:9] == b"{" and head[6:8] == b"\0\0":
        what = "holds the weights of a model (safetensors)"
    elif head.startswith(b"PK\x03\x04"):
        what = "is a zip archive, perhaps with the weights of a model"
    elif head.startswith(b"\n") and b"<unk>" in head or path.endswith(".model"):
        what = "is a model of SentencePiece"
    elif head.startswith(b"#version:") or path.endswith(("/merges.txt", "/vocab.json")):
        what = "is one of two files of a tokenizer (vocab.json and merges.txt)"
    else:
        return
    raise ValueError(f"{path} {what}: {CONVERT}")


def _of_tokenizer(tokenizer: TokenizerFile) -> Vocabulary:
    casing = bert_casing(tokenizer.content)
    if not tokenizer.is_bert or casing is None:
        return TokenizerVocabulary.of(tokenizer)
    return replace(parse_vocabulary(tokenizer.vocab_txt, tokenizer.where), casing=Casing(*casing))


def parse_copy(file: str, read: Callable[[str], bytes], folder: str = "") -> Vocabulary:
    """Return the vocabulary of a data set or a job.

    Args:
        file: the name of the file that holds it, as `Vocabulary.file`.
        read: returns the content of a file by its name.
        folder: where the file is, for errors.
    """
    path = storage.join(folder, file) if folder else file
    if file == Vocabulary.file:
        return parse_vocabulary(read(file), path)
    names = parse_json(read(SPECIAL_TOKENS), SPECIAL_TOKENS)
    return TokenizerVocabulary.of(parse_tokenizer(read(file), path, names))


def write_copy(folder: str, vocabulary: Vocabulary, casing: Casing) -> None:
    """Write a job's copy of a vocabulary."""
    storage.make_folder(folder)
    for name, content in vocabulary.files(casing).items():
        storage.write_whole(storage.join(folder, name), [content])


@lru_cache(maxsize=2)
def read_copy(folder: str) -> Vocabulary:
    """Return the vocabulary of a running job. Cached per process: the folder's name contains its digest."""
    kind = Vocabulary if storage.exists(storage.join(folder, Vocabulary.file)) else TokenizerVocabulary
    return parse_copy(kind.file, lambda name: storage.read(storage.join(folder, name)), folder)
