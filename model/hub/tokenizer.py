"""A model's own tokenizer: text to token ids, and the files that keep it.

The work is done by `tokenizers`. A "[MASK]" or "[SEP]" in a text is text, as everywhere here: the special words are put in
by id. Offsets are counted in characters (code points) of the text as it was given, whatever its normalization drops.
"""

import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Encoding, Tokenizer
from tokenizers.implementations import BertWordPieceTokenizer
from tokenizers.normalizers import BertNormalizer

from bertloom.json_files import read_json

FILES = ("tokenizer.json", "vocab.txt", "tokenizer_config.json", "special_tokens_map.json")
SPECIAL_WORDS = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
CLASSES = {
    "BertTokenizer": True,
    "BertTokenizerFast": True,
    "PreTrainedTokenizerFast": False,
    "TokenizersBackend": False,
}
"""By the classes of transformers that are read: whether tokenizer_config.json says how texts are read, or tokenizer.json."""
MAX_SPARE = 128
"""Vectors that a model has at most beyond its words: the number is padded to a multiple, of 128 at most, for speed."""


class TextTokenizer:
    """Texts to ids, and the ids of the special words."""

    def __init__(self, tokenizer: Tokenizer, where: str) -> None:
        """
        Args:
            where: what the tokenizer was read from, for errors.

        Raises:
            ValueError: it has not all special words.
        """
        tokenizer.no_padding()
        tokenizer.no_truncation()
        tokenizer.encode_special_tokens = True
        self.tokenizer = tokenizer
        self.vocab_size = tokenizer.get_vocab_size()
        ids = tokenizer.get_vocab()
        check_special(ids, where)
        self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id = (
            ids[word] for word in SPECIAL_WORDS.values()
        )

    def encode(self, texts: Sequence[str]) -> list[Encoding]:
        """Ids and offsets of each text, without special words."""
        return self.tokenizer.encode_batch(list(texts), add_special_tokens=False)

    def ids(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The ids of each text, without special words."""
        return [np.array(encoding.ids, dtype=np.uint32) for encoding in self.encode(texts)]

    def word_ids(self, texts: Sequence[Sequence[str]]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Of texts in words: the ids of each text, and where in them each of its words begins.

        A word of which nothing is left, such as a lone accent, is [UNK]: every word has a token.
        """
        pairs = []
        for words, encoding in zip(
            texts,
            self.tokenizer.encode_batch(
                [list(words) for words in texts], is_pretokenized=True, add_special_tokens=False
            ),
        ):
            counts = np.bincount(np.array(encoding.word_ids, dtype=np.int64), minlength=len(words))
            ids = np.array(encoding.ids, dtype=np.uint32)
            empty = np.flatnonzero(counts == 0)
            if len(empty):
                ids = np.insert(ids, (np.cumsum(counts) - counts)[empty], self.unk_id)
                counts[empty] = 1
            pairs.append((ids, np.cumsum(counts) - counts))
        return pairs

    @property
    def words(self) -> list[str]:
        """The vocabulary in the order of its ids."""
        return in_order(self.tokenizer.get_vocab())


def in_order(vocabulary: dict[str, int]) -> list[str]:
    """Words in the order of their ids."""
    return sorted(vocabulary, key=vocabulary.__getitem__)


def check_special(words: Collection[str], where: str) -> None:
    """Raises ValueError unless all special words are among the words."""
    for word in SPECIAL_WORDS.values():
        if word not in words:
            raise ValueError(f"{where}: the vocabulary has no {word}: it is none of a BERT")


def load_tokenizer(directory: Path, vocab_size: int) -> TextTokenizer:
    """The tokenizer of a model: tokenizer.json in its folder, else vocab.txt; it reads texts as transformers' does.

    Args:
        vocab_size: words that the model has vectors for. It may have some more than the vocabulary, where they are padded.

    Raises:
        ValueError: there is none, it is not a BERT's, or not this model's.
    """
    config_path, words_path, json_path = (
        directory / n for n in ("tokenizer_config.json", "vocab.txt", "tokenizer.json")
    )
    config = read_json(config_path) if config_path.exists() else {}
    kind = config.get("tokenizer_class", "BertTokenizer")
    if kind not in CLASSES:
        raise ValueError(f"{config_path}: tokenizer_class is {kind!r}, only BertTokenizer can be read")
    words = words_path.read_text(encoding="utf-8").removesuffix("\n").split("\n") if words_path.exists() else []
    if json_path.exists():
        tokenizer = read_tokenizer(json_path)
        # transformers writes words that were added behind the others to tokenizer.json alone.
        if words and words not in (tokenizer.words, in_order(tokenizer.tokenizer.get_vocab(with_added_tokens=False))):
            raise ValueError(
                f"{directory}: vocab.txt and tokenizer.json hold other words ({len(words):,} and "
                f"{tokenizer.vocab_size:,}): one of them is not the model's; put the right one back"
            )
    elif words:
        check_special(set(words), str(words_path))
        tokenizer = TextTokenizer(BertWordPieceTokenizer(vocab=str(words_path))._tokenizer, str(words_path))
    else:
        raise ValueError(f"{directory} has neither tokenizer.json nor vocab.txt: copy the model's vocabulary there")
    # The folder of a run has no tokenizer_config.json: its tokenizer.json is the data set's, and holds.
    if not json_path.exists() or (config_path.exists() and CLASSES[kind]):
        tokenizer.tokenizer.normalizer = normalizer_of(config, config_path)
    check_size(tokenizer.vocab_size, vocab_size, directory)
    return tokenizer


def read_tokenizer(path: Path) -> TextTokenizer:
    """What a tokenizer.json holds; ValueError if that is no BERT's tokenizer."""
    try:
        return TextTokenizer(Tokenizer.from_file(str(path)), str(path))
    except ValueError:
        raise
    except Exception as error:  # what tokenizers raises has no type of its own
        raise ValueError(f"{path} is no tokenizer: {error}") from None


def normalizer_of(config: dict[str, Any], where: Path) -> BertNormalizer:
    """What transformers' BertTokenizer does to a text before it looks for words, whatever tokenizer.json says of that.

    Args:
        config: the content of tokenizer_config.json.
        where: its path, for errors.
    """
    defaults = {"do_lower_case": True, "strip_accents": None, "tokenize_chinese_chars": True}
    values: dict[str, Any] = {name: config.get(name, default) for name, default in defaults.items()}
    for name, value in values.items():
        if not isinstance(value, bool) and not (name == "strip_accents" and value is None):
            expected = "true, false or null" if name == "strip_accents" else "true or false"
            raise ValueError(f"{where}: {name} is {json.dumps(value)}, expected {expected}")
    return BertNormalizer(
        clean_text=True,
        handle_chinese_chars=values["tokenize_chinese_chars"],
        strip_accents=values["strip_accents"],
        lowercase=values["do_lower_case"],
    )


def check_size(num_words: int, vocab_size: int, directory: Path) -> None:
    """Raises ValueError unless a vocabulary of so many words can be that of a model with vectors for `vocab_size`."""
    found = f"{directory}: the vocabulary has {num_words:,} words, the model has vectors for {vocab_size:,}"
    if num_words > vocab_size:
        raise ValueError(f"{found}: it is another model's")
    if vocab_size - num_words > MAX_SPARE:
        raise ValueError(
            f"{found}: expected at least {vocab_size - MAX_SPARE:,} words, so it is likely another model's: put the right "
            f"one there; or, if the rest is spare, load the model in transformers, "
            f"model.resize_token_embeddings({num_words}), save it"
        )


def save_tokenizer(tokenizer: TextTokenizer, directory: Path, max_length: int) -> None:
    """Writes the files that `transformers.AutoTokenizer` reads, into a folder that exists.

    Args:
        max_length: of sequences, in tokens.
    """
    tokenizer.tokenizer.save(str(directory / "tokenizer.json"))
    (directory / "vocab.txt").write_text("".join(word + "\n" for word in tokenizer.words), encoding="utf-8")
    config = tokenizer_configuration(read_json(directory / "tokenizer.json"), max_length)
    for name, content in (("tokenizer_config.json", config), ("special_tokens_map.json", SPECIAL_WORDS)):
        (directory / name).write_text(json.dumps(content, indent=2) + "\n")


def tokenizer_configuration(tokenizer: dict[str, Any], max_length: int) -> dict[str, Any]:
    """tokenizer_config.json for a tokenizer.json; without it, transformers takes any BERT for an uncased one."""
    normalizer = tokenizer.get("normalizer") or {}
    return {
        "tokenizer_class": "BertTokenizer",
        "do_lower_case": normalizer.get("lowercase", True),
        "strip_accents": normalizer.get("strip_accents"),
        "tokenize_chinese_chars": normalizer.get("handle_chinese_chars", True),
        "model_max_length": max_length,
    }
