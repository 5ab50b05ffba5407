"""The tokenizer of a model, which `bertloom/tokenizer_files.py` reads: turns text into ids, and is written for transformers.

The library `tokenizers` does the work. A "[MASK]" or "</s>" in a text is text, as everywhere here: special tokens are added
by id. Offsets count characters (code points) of the original text, including those that normalisation drops.
"""

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from bertloom.json_files import read_json
from bertloom.tokenizer_files import TokenizerFile, read_tokenizer

MAX_SPARE = 128
"""Largest number of a model's vectors beyond its words: for speed, their number is padded to a multiple of up to 128."""


class TextTokenizer:
    """Turns texts into ids, and has the ids of the special tokens."""

    def __init__(self, file: TokenizerFile) -> None:
        self.file, self.tokenizer = file, file.load()
        self.vocab_size = len(file.tokens)
        special = file.special
        self.pad_id, self.cls_id, self.sep_id, self.mask_id = special.pad, special.cls, special.sep, special.mask
        self.unk_id = special.pad if special.unk is None else special.unk
        # A byte-level tokenizer has other tokens for a word that no space is before, as in the middle of a word.
        self._before_word = " " if self._encode(" a").ids != self._encode("a").ids else ""

    def _encode(self, text: str) -> Any:
        return self.tokenizer.encode(text, add_special_tokens=False)

    def ids(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Return the ids of each text, without special tokens, uint32."""
        encodings = self.tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array(encoding.ids, dtype=np.uint32) for encoding in encodings]

    def places(self, texts: Sequence[str]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return the ids of each text, and the places of its tokens, int32 (tokens, 2), without white space around them."""
        found = []
        for text, encoding in zip(texts, self.tokenizer.encode_batch(list(texts), add_special_tokens=False)):
            places = np.array(encoding.offsets, dtype=np.int32).reshape(-1, 2)
            is_space = np.array([character.isspace() for character in text] + [False])
            starts = np.flatnonzero(~is_space)  # where a token may begin, from each place on
            begins = np.minimum(starts[np.searchsorted(starts, places[:, 0])], places[:, 1])
            ends = np.concatenate([[0], starts[:-1] + 1])[np.searchsorted(starts[:-1], places[:, 1])]
            found.append((np.array(encoding.ids, dtype=np.uint32), np.stack([begins, np.maximum(begins, ends)], 1)))
        return found

    def word_ids(self, texts: Sequence[Sequence[str]]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return, for each list of words, the ids and the index of each word's first id.

        The ids are those of words that are separated by spaces. A word that normalisation removes, such as a lone accent,
        becomes [UNK], or [PAD] if there is no [UNK]: every word has a token.
        """
        pairs = []
        lists = [[self._before_word + word for word in words] for words in texts]
        encodings = self.tokenizer.encode_batch(lists, is_pretokenized=True, add_special_tokens=False)
        for words, encoding in zip(lists, encodings):
            counts = np.bincount(np.array(encoding.word_ids, dtype=np.int64), minlength=len(words))
            ids = np.array(encoding.ids, dtype=np.uint32)
            empty = np.flatnonzero(counts == 0)
            if len(empty):
                ids = np.insert(ids, (np.cumsum(counts) - counts)[empty], self.unk_id)
                counts[empty] = 1
            pairs.append((ids, np.cumsum(counts) - counts))
        return pairs

    def ids_with_masks(self, text: str) -> np.ndarray:
        """Return the ids of a text in which the name of the mask token is the mask, as in transformers."""
        return np.array(self._reads_masks.encode(text, add_special_tokens=False).ids, dtype=np.uint32)

    @cached_property
    def _reads_masks(self) -> Tokenizer:
        added = [
            entry | {"special": entry["special"] and entry["id"] != self.mask_id}
            for entry in self.file.content["added_tokens"]
        ]
        tokenizer = Tokenizer.from_str(json.dumps(self.file.content | {"added_tokens": added}))
        tokenizer.encode_special_tokens = True
        return tokenizer

    def shown(self, number: int) -> str:
        """Return the text of a token, as transformers shows it."""
        return str(self.tokenizer.decode([number], skip_special_tokens=False))

    @property
    def words(self) -> list[str]:
        """The tokens, in the order of ids; "" for an id without one."""
        return [token or "" for token in self.file.tokens]


def load_tokenizer(directory: Path, vocab_size: int) -> TextTokenizer:
    """Return the tokenizer in a model's folder. It equals the one of transformers.

    Args:
        vocab_size: number of words that the model has vectors for. Padding may make it a little larger than the vocabulary.

    Raises:
        ValueError: the folder has no tokenizer, or it is not one for an encoder, or not that of this model.
    """
    file = read_tokenizer(str(directory))
    check_size(len(file.tokens), vocab_size, directory)
    return TextTokenizer(file)


def check_size(num_words: int, vocab_size: int, directory: Path) -> None:
    """Raise ValueError if a vocabulary of num_words cannot belong to a model with vectors for vocab_size words."""
    found = f"{directory}: the vocabulary has {num_words:,} words, the model has vectors for {vocab_size:,}"
    if num_words > vocab_size:
        raise ValueError(
            f"{found}: it belongs to another model, for id {num_words - 1:,} has no vector; copy the model's own there"
        )
    if vocab_size - num_words > MAX_SPARE:
        raise ValueError(
            f"{found}: expected at least {vocab_size - MAX_SPARE:,} words, so it probably belongs to another model; copy "
            f"the model's own there. If the other vectors are unused, load the model in transformers, call "
            f"model.resize_token_embeddings({num_words}), and save it"
        )


def save_tokenizer(tokenizer: TextTokenizer, directory: Path, max_length: int, has_token_types: bool = True) -> None:
    """Write the files that `transformers.AutoTokenizer` reads into an existing folder.

    Args:
        max_length: length of the longest sequence that the model should read, in tokens.
        has_token_types: whether the model takes token_type_ids.
    """
    file = tokenizer.file
    if file.is_bert:
        written = {"strip_accents": file.content["normalizer"].get("strip_accents"), "tokenize_chinese_chars": True}
        config = {"tokenizer_class": "BertTokenizer"} | text_options(file) | written
    else:
        config = {"tokenizer_class": "PreTrainedTokenizerFast", **file.special.names}
    inputs = ["input_ids", *(["token_type_ids"] if has_token_types else []), "attention_mask"]
    config |= {"model_max_length": max_length, "model_input_names": inputs}
    files = file.files() | {"tokenizer_config.json": (json.dumps(config, indent=2, ensure_ascii=False) + "\n").encode()}
    for name, content in (files | ({"vocab.txt": file.vocab_txt} if file.is_bert else {})).items():
        (directory / name).write_bytes(content)


def longest_sequence(directory: Path) -> int:
    """Return the length in a model's tokenizer_config.json at which texts are truncated, or else 512."""
    path = directory / "tokenizer_config.json"
    length = read_json(path).get("model_max_length") if path.exists() else None
    return length if isinstance(length, int) and 8 <= length < 512 else 512  # transformers writes 10^30 for "unknown"


def text_options(file: TokenizerFile) -> dict[str, Any]:
    """Return how a BERT's tokenizer treats case and accents."""
    lowercase, strip = (file.content["normalizer"].get(name) for name in ("lowercase", "strip_accents"))
    return {"do_lower_case": lowercase, "strip_accents": lowercase if strip is None else strip}
