"""A tokenizer on disk: read, checked, and written as data sets, run folders and exported models hold it.

A *tokenizer directory* has tokenizer.json of the library `tokenizers`, or vocab.txt. It may also have tokenizer_config.json
and special_tokens_map.json of transformers. A data set, a run folder and an exported model are tokenizer directories. They
keep BERT's own WordPiece, which vocab.txt and two options can express, as vocab.txt and tokenizer.json. They keep any other
tokenizer as tokenizer.json and special_tokens_map.json (`TokenizerFile.files`).

A text has the tokens that the library gives it with `encode_special_tokens`: the name of a special token in a text is text.
The library's Unigram would still read "<s>" in a text as the token. Where a model could do so, the pre-tokenizer gets one
more step (`names_split`). Added tokens without "special", such as ModernBERT's runs of spaces and words that were added with
`add_tokens`, are found in a text first.

    >>> tokenizer = read_tokenizer("roberta-base")
    >>> tokenizer.special.cls, tokenizer.tokens[tokenizer.special.cls]
    (0, '<s>')
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from bertloom import storage
from bertloom.json_files import MAX_BYTES, parse_json, read_regular
from bertloom.shapes import shown
from bertloom.special_tokens import (
    BERT_NAMES,
    ROLES,
    UNUSED_OF_BERT,
    SpecialTokens,
    find_special,
    names_split,
    post_processor,
)
from bertloom.tokenizer_parts import MAX_ID, bert_casing, check_added, check_model, check_parts

if TYPE_CHECKING:
    from tokenizers import Tokenizer

BERT_CLASSES = ("BertTokenizer", "BertTokenizerFast")
"""Classes of transformers for which tokenizer_config.json takes precedence over the normalizer of tokenizer.json."""
BYTE_LEVEL_CLASSES = tuple(
    f"{name}Tokenizer{fast}" for name in ("Roberta", "GPT2", "Bart", "Longformer", "Deberta") for fast in ("", "Fast")
)
"""Classes for which its add_prefix_space takes precedence."""
WORDPIECE_CLASSES = (
    *BERT_CLASSES,
    *(f"{name}Tokenizer{fast}" for name in ("DistilBert", "Electra", "MPNet") for fast in ("", "Fast")),
    *("PreTrainedTokenizerFast", "TokenizersBackend"),
)
"""Classes of transformers whose vocab.txt is read as BERT's."""
PARTS = ("added_tokens", "normalizer", "pre_tokenizer", "post_processor", "decoder", "model")
OTHERS = ("version", "truncation", "padding")
FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")
MAX_HOLES = 1 << 16
"""Most ids without a token. Published tokenizers have a few hundred at most."""

_UNUSED = re.compile(r"\[unused\d+\]|<unused_?\d+>|<\|?reserved[\w ]*\d+\|?>|madeupword\d+|<extra_id_\d+>", re.I)


@dataclass(frozen=True, kw_only=True)
class TokenizerFile:
    """A tokenizer as it was read: safe to load, and complete."""

    where: str
    """The file, for errors."""
    content: dict[str, Any]
    """Of tokenizer.json. Its post-processor is that of our examples, `[CLS] A [SEP] B [SEP]`."""
    special: SpecialTokens
    tokens: tuple[str | None, ...]
    """The token of each id; None for an id without one."""
    reserved: frozenset[int]
    """Ids that are never drawn as random tokens: of special and unused tokens, and those without one."""
    is_bert: bool
    """Whether vocab.txt and the options do_lower_case and strip_accents express it."""

    def load(self) -> Tokenizer:
        """Return the library's tokenizer: names of special tokens in a text are text; no padding, no truncation."""
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_str(json.dumps(self.content))
        tokenizer.encode_special_tokens = True
        return tokenizer

    @cached_property
    def ids(self) -> dict[str, int]:
        """Token -> id."""
        return {token: number for number, token in enumerate(self.tokens) if token is not None}

    def files(self) -> dict[str, bytes]:
        """Return the files that a data set, a run or an exported model has: name -> content. They give the same again."""
        written = {"tokenizer.json": self.content, "special_tokens_map.json": dict(self.special.names)}
        return {
            name: (json.dumps(value, ensure_ascii=False, indent=1) + "\n").encode() for name, value in written.items()
        }

    @property
    def vocab_txt(self) -> bytes:
        """vocab.txt of a tokenizer with `is_bert`."""
        assert self.is_bert
        return "".join(f"{token}\n" for token in self.tokens).encode()


def read_tokenizer(path: str) -> TokenizerFile:
    """Return the tokenizer in a tokenizer.json or a tokenizer directory, on a local disk or in a store.

    Raises:
        ValueError: there is none, or it is not one for an encoder, or not safe.
    """
    if os.path.isfile(path) or (path.endswith(".json") and not os.path.isdir(path)):
        content = _read(path)
        if content is None:
            raise ValueError(f"{path} does not exist: expected a tokenizer.json, or a directory with one")
        folder, _, name = path.rpartition("/")
        if name != "tokenizer.json":
            return parse_tokenizer(content, path, _names(*_beside(folder or ".")))
        path = folder or "."  # the other files of its folder count, too
    names = ("tokenizer.json", "vocab.txt", "bert_config.json")
    where, words_path, google_path = (storage.join(path, name) for name in names)
    content, words = _read(where), _read(words_path)
    if content is None and words is None:
        raise ValueError(
            f"{path} has neither tokenizer.json nor vocab.txt: copy the model's vocabulary there. If it has another file, "
            f"such as merges.txt or sentencepiece.bpe.model, load it with AutoTokenizer of transformers and save it"
        )
    given, special_map = _beside(path)
    named, (config_path, config) = _names(given, special_map), (given[0], given[1] or {})
    if content is None:
        if (kind := config.get("tokenizer_class", BERT_CLASSES[0])) not in WORDPIECE_CLASSES:
            raise ValueError(
                f"{config_path}: tokenizer_class is {shown(kind)}: expected {', '.join(WORDPIECE_CLASSES)}, or a "
                f"tokenizer.json: load the tokenizer with AutoTokenizer of transformers and save it"
            )
        listed = split_words(words or b"", words_path)
        if storage.exists(google_path):  # google-research/bert does not record whether its vocabulary is cased
            is_cased = any(word.lower() != word for word in listed if word not in BERT_NAMES.values())
            config = {"do_lower_case": not is_cased} | config
        made = bert_content(listed, BERT_NAMES | named, normalizer_of(config_path, config), words_path)
        return parse_tokenizer(json.dumps(made).encode(), words_path, named)
    if given[1] is not None:  # a run folder has none: its tokenizer.json, which is the data set's, decides
        parsed = parse_json(content, where)
        content = json.dumps(parsed | _replaced(parsed, where, config_path, config)).encode()
    found = parse_tokenizer(content, where, named)
    if words is not None:
        _check_same(found, split_words(words, words_path), path)
    return found


def _replaced(content: dict[str, Any], where: str, config_path: str, config: dict[str, Any]) -> dict[str, Any]:
    """Return the parts of a tokenizer.json that the class of tokenizer_config.json makes anew in transformers."""
    kind, cut = config.get("tokenizer_class", BERT_CLASSES[0]), content.get("pre_tokenizer")
    if kind in BERT_CLASSES and _is_wordpiece(content):
        check_parts({"normalizer": content.get("normalizer")}, where)
        return {"normalizer": normalizer_of(config_path, config)}
    if kind in BYTE_LEVEL_CLASSES and isinstance(cut, dict) and cut.get("type") == "ByteLevel":
        return {"pre_tokenizer": cut | {"add_prefix_space": config.get("add_prefix_space", False)}}
    return {}


def _read(path: str) -> bytes | None:
    try:
        return read_regular(path) if storage.is_local(path) else storage.read(path, MAX_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        return None


Config = tuple[str, dict[str, Any] | None]
"""The path of a file, for errors, and its content; None if there is no such file."""


def _beside(directory: str) -> tuple[Config, Config]:
    """Return tokenizer_config.json and special_tokens_map.json of a directory."""
    paths = (storage.join(directory, name) for name in ("tokenizer_config.json", "special_tokens_map.json"))
    config, special_map = (
        (path, None if (content := _read(path)) is None else parse_json(content, path)) for path in paths
    )
    return config, special_map


def _names(*files: Config) -> dict[str, str]:
    """Return the names of special tokens in these files; ValueError if they contradict each other."""
    found: dict[str, str] = {}
    for path, content in files:
        for role in ROLES:
            value = (content or {}).get(f"{role}_token")
            name = value.get("content") if isinstance(value, dict) else value
            if name is None:
                continue
            if not isinstance(name, str):
                raise ValueError(f"{path}: {role}_token is {shown(value)}, expected the text of a token")
            if found.setdefault(f"{role}_token", name) != name:
                raise ValueError(
                    f"{path}: {role}_token is {name!r}, but {files[0][0]} has {found[f'{role}_token']!r}: correct one"
                )
    return found


def _is_wordpiece(content: Mapping[str, Any]) -> bool:
    model = content.get("model")
    return isinstance(model, dict) and model.get("type", "WordPiece") == "WordPiece" and "merges" not in model


def split_words(content: bytes, where: str) -> list[str]:
    """Return the words of a vocab.txt, in the order of their ids; ValueError if it is not UTF-8."""
    try:
        return content.decode().removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{where} is not UTF-8 ({error}): copy the model's vocabulary there") from None


def _check_same(found: TokenizerFile, words: list[str], directory: str) -> None:
    """Raise ValueError unless vocab.txt has the words of tokenizer.json, perhaps without those that were added later."""
    vocabulary = found.content["model"]["vocab"]
    own = sorted(vocabulary, key=vocabulary.__getitem__) if isinstance(vocabulary, dict) else []
    if words != list(found.tokens) and words != own:
        raise ValueError(
            f"{directory}: vocab.txt and tokenizer.json have different words ({len(words):,} and "
            f"{len(found.tokens):,}): one of them is not the model's; restore it"
        )


def normalizer_of(where: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the normalizer that transformers' BertTokenizer uses; it ignores the one in tokenizer.json.

    Args:
        where: the path of tokenizer_config.json, for errors.
        config: its content.
    """
    defaults = {"do_lower_case": True, "strip_accents": None, "tokenize_chinese_chars": True}
    values: dict[str, Any] = {name: config.get(name, default) for name, default in defaults.items()}
    for name, value in values.items():
        if not isinstance(value, bool) and not (name == "strip_accents" and value is None):
            expected = "true, false or null" if name == "strip_accents" else "true or false"
            raise ValueError(f"{where}: {name} is {json.dumps(value)}, expected {expected}")
    return {
        "type": "BertNormalizer",
        "clean_text": True,
        "handle_chinese_chars": values["tokenize_chinese_chars"],
        "strip_accents": values["strip_accents"],
        "lowercase": values["do_lower_case"],
    }


def bert_content(words: list[str], names: Mapping[str, str], normalizer: dict[str, Any], where: str) -> dict[str, Any]:
    """Return the tokenizer.json of a vocab.txt; ValueError if a special word is missing, or a word has two ids."""
    ids = {word: number for number, word in enumerate(words)}
    for number, word in enumerate(words):
        if ids[word] != number:
            raise ValueError(f"{where}: the word {word!r} has two ids, {number} and {ids[word]}: rename one")
    for role in ROLES:
        if names[f"{role}_token"] not in ids:
            raise ValueError(
                f"{where}: the vocabulary has no {names[f'{role}_token']}, so it is not a BERT's: give the model's own"
            )
    return {
        "added_tokens": [added_token(ids[names[f"{role}_token"]], names[f"{role}_token"]) for role in ROLES],
        "normalizer": normalizer,
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": None,
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {
            "type": "WordPiece",
            "unk_token": names["unk_token"],
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": ids,
        },
    }


def added_token(number: int, content: str) -> dict[str, Any]:
    """Return an added token of a tokenizer.json that is special."""
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {"id": number, "content": content} | flags


def parse_tokenizer(content: bytes, where: str, names: Mapping[str, str] | None = None) -> TokenizerFile:
    """Return the tokenizer in the content of a tokenizer.json.

    Args:
        where: the path of the file, for errors.
        names: of the special tokens, as in special_tokens_map.json, if they are known.

    Raises:
        ValueError: it is not a tokenizer.json, it is not safe, or its special tokens are not known.
    """
    given = parse_json(content, where)
    if unknown := sorted(given.keys() - {*PARTS, *OTHERS}):
        raise ValueError(
            f"{where} has an unknown part {shown(unknown[0])}: it is not a tokenizer.json, or of a later version"
        )
    given = {"version": "1.0"} | {name: given.get(name) for name in (*OTHERS[1:], *PARTS)}
    given["model"] = model = check_model(given["model"], where)
    added = _added(given["added_tokens"], where)
    given["pre_tokenizer"] = _without_split(given["pre_tokenizer"], added)
    check_parts(given, where)
    tokens = _tokens(model, added, where)
    ids = {token: number for number, token in enumerate(tokens) if token is not None}
    special = find_special(given, ids, names or {}, where)
    given["added_tokens"] = added = _with_special(added, special, ids)
    given["post_processor"] = post_processor(given, special, where)
    given |= {"truncation": None, "padding": None}
    is_bert = _is_bert(given, special, tokens)
    unused = UNUSED_OF_BERT if is_bert else _UNUSED
    reserved = {number for number, token in enumerate(tokens) if token is None or unused.fullmatch(token)}
    found = TokenizerFile(
        where=where,
        content=given,
        special=special,
        tokens=tokens,
        reserved=frozenset(reserved | {entry["id"] for entry in added if entry["special"]}),
        is_bert=is_bert,
    )
    _check_loads(found)
    if _reads_names(found):
        steps = [*([given["pre_tokenizer"]] if given["pre_tokenizer"] else []), names_split(_special_names(added))]
        given["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": steps}
    return found


def _special_names(added: list[dict[str, Any]]) -> list[str]:
    return [entry["content"] for entry in added if entry["special"]]


def _without_split(pre_tokenizer: Any, added: list[dict[str, Any]]) -> Any:
    """Return a pre-tokenizer without the step that `parse_tokenizer` gave it when the file was written."""
    steps = pre_tokenizer.get("pretokenizers") if isinstance(pre_tokenizer, dict) else None
    if not isinstance(steps, list) or not 1 <= len(steps) <= 2 or steps[-1] != names_split(_special_names(added)):
        return pre_tokenizer
    return steps[0] if len(steps) == 2 else None


def _reads_names(found: TokenizerFile) -> bool:
    """Whether the model could read the name of a special token in a text as that token."""
    tokenizer, model = found.load(), found.content["model"]
    vocabulary = model["vocab"] if isinstance(model["vocab"], dict) else {row[0] for row in model["vocab"]}
    prefix = model.get("continuing_subword_prefix") or ""
    merged: set[str] | None = None
    is_read = False
    for name in _special_names(found.content["added_tokens"]):
        text = tokenizer.normalizer.normalize_str(name) if tokenizer.normalizer else name
        cut = tokenizer.pre_tokenizer.pre_tokenize_str(text) if tokenizer.pre_tokenizer else [(text, (0, 0))]
        if name not in vocabulary or not any(name in piece for piece, _ in cut):
            continue
        if model["type"] == "BPE" and len(name) > 1 and not model.get("ignore_merges"):
            pairs = (merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"])
            merged = merged or {first + second.removeprefix(prefix) for first, second in pairs}
            if name not in merged:
                continue
        if len(name) == 1:
            raise ValueError(
                f"{found.where}: the special token {shown(name)} is one character, which a text may have: rename it"
            )
        is_read = True
    return is_read


def _added(entries: Any, where: str) -> list[dict[str, Any]]:
    """Return the added tokens of a tokenizer.json, each with all its flags."""
    found = []
    for entry in [] if entries is None else entries if isinstance(entries, list) else [entries]:
        number, content = (entry.get("id"), entry.get("content")) if isinstance(entry, dict) else (None, None)
        if type(number) is not int or not 0 <= number <= MAX_ID or not isinstance(content, str) or not content:
            raise ValueError(
                f"{where}: an added token is {shown(entry)}, expected its id, up to {MAX_ID:,}, and its text"
            )
        flags = {flag: entry.get(flag, flag == "normalized" and not entry.get("special")) for flag in FLAGS}
        for flag, value in flags.items():
            if not isinstance(value, bool):
                raise ValueError(
                    f"{where}: {flag} of the added token {shown(content)} is {shown(value)}, not true or false"
                )
        found.append({"id": number, "content": content} | flags)
    return found


def _tokens(model: dict[str, Any], added: list[dict[str, Any]], where: str) -> tuple[str | None, ...]:
    """Return the token of each id; ValueError if two tokens have one id, or one token has two."""
    vocabulary = model["vocab"]
    ids = (
        dict(vocabulary) if isinstance(vocabulary, dict) else {row[0]: number for number, row in enumerate(vocabulary)}
    )
    for entry in added:
        if (known := ids.setdefault(entry["content"], entry["id"])) != entry["id"]:
            raise ValueError(f"{where}: {shown(entry['content'])} has two ids, {known} and {entry['id']}: correct one")
    by_id: dict[int, str] = {}
    for token, number in ids.items():
        if (other := by_id.setdefault(number, token)) != token:
            raise ValueError(
                f"{where}: {shown(other)} and {shown(token)} both have the id {number}: expected one token for each id; "
                f"copy the model's own file again, or give one of them another id"
            )
    size = max(by_id, default=-1) + 1
    if size - len(by_id) > MAX_HOLES:
        raise ValueError(
            f"{where}: its largest id is {size - 1:,}, but it has only {len(by_id):,} tokens: expected ids without gaps"
        )
    return tuple(by_id.get(number) for number in range(size))


def _with_special(added: list[dict[str, Any]], special: SpecialTokens, ids: Mapping[str, int]) -> list[dict[str, Any]]:
    """Return the added tokens in the order of ids; each special token is among them and is "special"."""
    names = set(special.names.values())
    known = {entry["content"]: entry | {"special": entry["special"] or entry["content"] in names} for entry in added}
    for name in special.names.values():
        known.setdefault(name, added_token(ids[name], name))
    return sorted(known.values(), key=lambda entry: int(entry["id"]))


def _is_bert(content: Mapping[str, Any], special: SpecialTokens, tokens: tuple[str | None, ...]) -> bool:
    """Whether vocab.txt and the options do_lower_case and strip_accents express a tokenizer."""
    model = content["model"]
    words = {"unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100}
    return (
        model["type"] == "WordPiece"
        and words == {name: model.get(name, default) for name, default in words.items()}
        and special.names == BERT_NAMES
        and bert_casing(content) is not None
        and all(entry == added_token(entry["id"], entry["content"]) for entry in content["added_tokens"])
        and len(content["added_tokens"]) == len(BERT_NAMES)
        and all(token and "\n" not in token and not token.endswith("\r") for token in tokens)
    )


def _check_loads(found: TokenizerFile) -> None:
    """Raise ValueError if the library cannot load a tokenizer, or reads other ids in it."""
    try:
        tokenizer = found.load()
    except Exception as error:  # tokenizers raises plain Exceptions
        raise ValueError(f"{found.where} is not a tokenizer.json of the library tokenizers: {error}") from None
    theirs = tokenizer.get_vocab()
    for token, number in found.ids.items():
        if theirs.get(token) != number:
            raise ValueError(
                f"{found.where}: the library tokenizers gives {shown(token)} the id {theirs.get(token)}, the file {number}: "
                f"added tokens must have the ids after the model's vocabulary, without gaps"
            )
    check_added(tokenizer, found.content["added_tokens"], found.where)
