"""The tokenizer of a model: turns text into token ids, and is read from and written to files.

The library `tokenizers` does the work. A "[MASK]" or "[SEP]" in a text is text, as everywhere here: special words are added
by id. Offsets count characters (code points) of the original text, including those that normalisation drops.
"""

import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Encoding, Tokenizer
from tokenizers.implementations import BertWordPieceTokenizer
from tokenizers.normalizers import BertNormalizer

from bertloom.json_files import parse_json, read_json, read_regular
from bertloom.shapes import shown

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
"""The supported classes of transformers, and whether tokenizer_config.json takes precedence over tokenizer.json there."""
PARTS = {
    "normalizer": ("BertNormalizer", "Lowercase", "StripAccents", "Strip", "NFC", "NFD", "NFKC", "NFKD"),
    "pre_tokenizer": ("BertPreTokenizer", "Whitespace", "WhitespaceSplit", "Punctuation", "Digits"),
}
"""The parts of a tokenizer.json that may be anything else, and their supported kinds, alone or in a Sequence."""
LONGEST_WORD = 1000
"""Largest number of characters of a word that is looked up; BERT's is 100. The time grows with its square."""
MAX_SPARE = 128
"""Largest number of a model's vectors beyond its words: for speed, their number is padded to a multiple of up to 128."""


class TextTokenizer:
    """Turns texts into ids, and has the ids of the special words."""

    def __init__(self, tokenizer: Tokenizer, where: str) -> None:
        """Raises ValueError if a special word is missing. where: the file, for errors."""
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
        """Return the ids and offsets of each text, without special words."""
        return self.tokenizer.encode_batch(list(texts), add_special_tokens=False)

    def ids(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Return the ids of each text, without special words, uint32."""
        return [np.array(encoding.ids, dtype=np.uint32) for encoding in self.encode(texts)]

    def word_ids(self, texts: Sequence[Sequence[str]]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return, for each list of words, the ids and the index of each word's first id.

        A word that normalisation removes, such as a lone accent, becomes [UNK]: every word has a token.
        """
        pairs = []
        lists = [list(words) for words in texts]
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

    @property
    def words(self) -> list[str]:
        """The vocabulary, in the order of ids."""
        return in_order(self.tokenizer.get_vocab())


def in_order(vocabulary: dict[str, int]) -> list[str]:
    """Return the words of a vocabulary, in the order of ids."""
    return sorted(vocabulary, key=vocabulary.__getitem__)


def check_special(words: Collection[str], where: str) -> None:
    """Raise ValueError if a special word is missing."""
    for word in SPECIAL_WORDS.values():
        if word not in words:
            raise ValueError(
                f"{where}: the vocabulary has no {word}, so it is not that of a BERT: give the model's own"
            )


def load_tokenizer(directory: Path, vocab_size: int) -> TextTokenizer:
    """Return the tokenizer in a model's folder: tokenizer.json, or else vocab.txt. It equals the one of transformers.

    Args:
        vocab_size: number of words that the model has vectors for. Padding may make it a little larger than the vocabulary.

    Raises:
        ValueError: the folder has no tokenizer, or it does not belong to a BERT or to this model.
    """
    names = ("tokenizer_config.json", "vocab.txt", "tokenizer.json")
    config_path, words_path, json_path = (directory / name for name in names)
    config = read_json(config_path) if config_path.exists() else {}
    if words_path.exists() and (directory / "bert_config.json").exists():
        # google-research/bert does not record whether its vocabulary is cased.
        is_cased = any(word.lower() != word for word in read_words(words_path) if word not in SPECIAL_WORDS.values())
        config = {"do_lower_case": not is_cased} | config
    kind = str(config.get("tokenizer_class", "BertTokenizer"))
    if kind not in CLASSES:
        raise ValueError(f"{config_path}: tokenizer_class is {kind[:80]!r}, expected BertTokenizer")
    words = read_words(words_path) if words_path.exists() else []
    if json_path.exists():
        tokenizer = read_tokenizer(json_path)
        # transformers writes words that were added later to tokenizer.json alone.
        if words and words not in (tokenizer.words, in_order(tokenizer.tokenizer.get_vocab(with_added_tokens=False))):
            raise ValueError(
                f"{directory}: vocab.txt and tokenizer.json have different words ({len(words):,} and "
                f"{tokenizer.vocab_size:,}): one of them is not the model's; restore it"
            )
    elif words:
        check_special(set(words), str(words_path))
        tokenizer = TextTokenizer(BertWordPieceTokenizer(vocab=str(words_path))._tokenizer, str(words_path))
    else:
        raise ValueError(f"{directory} has neither tokenizer.json nor vocab.txt: copy the model's vocabulary there")
    # A run folder has no tokenizer_config.json: its tokenizer.json, which is the data set's, decides.
    if not json_path.exists() or (config_path.exists() and CLASSES[kind]):
        tokenizer.tokenizer.normalizer = normalizer_of(config, config_path)
    check_size(tokenizer.vocab_size, vocab_size, directory)
    return tokenizer


def read_words(path: Path) -> list[str]:
    """Return the words in a vocab.txt, in the order of their ids; ValueError if it is not UTF-8."""
    try:
        return read_regular(path).decode().removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 ({error}): copy the model's vocabulary there") from None


def read_tokenizer(path: Path) -> TextTokenizer:
    """Return the tokenizer in a tokenizer.json; ValueError if it is not a BERT's."""
    content = read_regular(path)
    check_parts(parse_json(content, str(path)), path)
    try:
        return TextTokenizer(Tokenizer.from_str(content.decode()), str(path))
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 ({error}): copy the model's tokenizer.json there") from None
    except ValueError:
        raise
    except Exception as error:  # tokenizers raises plain Exceptions
        raise ValueError(f"{path} is not a tokenizer.json of the library tokenizers: {error}") from None


def check_parts(content: dict[str, Any], path: Path) -> None:
    """Raise ValueError unless a tokenizer.json has only parts of a BERT's tokenizer.

    Other parts may run regular expressions from the file, which can take any time or end the process, or may make a text
    much longer.
    """
    model = content.get("model")
    limit = model.get("max_input_chars_per_word", 100) if isinstance(model, dict) else 0
    if not isinstance(model, dict) or model.get("type", "WordPiece") != "WordPiece" or "merges" in model:
        raise ValueError(
            f"{path} is not a tokenizer.json of a BERT: its model is not WordPiece; copy the model's own there"
        )
    if not isinstance(limit, int) or limit > LONGEST_WORD:
        raise ValueError(f"{path}: max_input_chars_per_word is {shown(limit)}: expected at most {LONGEST_WORD:,}")
    for name, kinds in PARTS.items():
        parts = [content.get(name)]
        for part in parts:
            kind = part.get("type") if isinstance(part, dict) else part
            inner = part.get(f"{name}s") if isinstance(part, dict) else None
            if kind == "Sequence" and isinstance(inner, list):
                parts += inner
            elif kind is not None and kind not in kinds:
                raise ValueError(f"{path}: its {name} is {shown(kind)}: expected {', '.join(kinds)}")


def normalizer_of(config: dict[str, Any], where: Path) -> BertNormalizer:
    """Return the normaliser that transformers' BertTokenizer would use; it ignores the one in tokenizer.json.

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
    """Raise ValueError if a vocabulary of num_words cannot belong to a model with vectors for vocab_size words."""
    found = f"{directory}: the vocabulary has {num_words:,} words, the model has vectors for {vocab_size:,}"
    if num_words > vocab_size:
        raise ValueError(f"{found}: it belongs to another model; copy the model's own vocabulary there")
    if vocab_size - num_words > MAX_SPARE:
        raise ValueError(
            f"{found}: expected at least {vocab_size - MAX_SPARE:,} words, so it probably belongs to another model; copy "
            f"the model's own there. If the other vectors are unused, load the model in transformers, call "
            f"model.resize_token_embeddings({num_words}), and save it"
        )


def save_tokenizer(tokenizer: TextTokenizer, directory: Path, max_length: int) -> None:
    """Write the files that `transformers.AutoTokenizer` reads into an existing folder.

    Args:
        max_length: length of the longest sequence that the model should read, in tokens.
    """
    # Not `save` of the library, whose error about a full disk is a plain Exception.
    (directory / "tokenizer.json").write_text(tokenizer.tokenizer.to_str(pretty=True), encoding="utf-8")
    (directory / "vocab.txt").write_text("".join(word + "\n" for word in tokenizer.words), encoding="utf-8")
    config = tokenizer_configuration(read_json(directory / "tokenizer.json"), max_length)
    for name, content in (("tokenizer_config.json", config), ("special_tokens_map.json", SPECIAL_WORDS)):
        (directory / name).write_text(json.dumps(content, indent=2) + "\n")


def longest_sequence(directory: Path) -> int:
    """Return the length in a model's tokenizer_config.json at which texts are truncated, or else 512."""
    path = directory / "tokenizer_config.json"
    length = read_json(path).get("model_max_length") if path.exists() else None
    return length if isinstance(length, int) and 8 <= length < 512 else 512  # transformers writes 10^30 for "unknown"


def tokenizer_configuration(tokenizer: dict[str, Any], max_length: int) -> dict[str, Any]:
    """Return the tokenizer_config.json for a tokenizer.json; without one, transformers treats every BERT as uncased."""
    normalizer = tokenizer.get("normalizer") or {}
    return {
        "tokenizer_class": "BertTokenizer",
        "do_lower_case": normalizer.get("lowercase", True),
        "strip_accents": normalizer.get("strip_accents"),
        "tokenize_chinese_chars": normalizer.get("handle_chinese_chars", True),
        "model_max_length": max_length,
    }
