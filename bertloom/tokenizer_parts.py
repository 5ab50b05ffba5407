"""The parts of a tokenizer.json: what may be in one that a stranger wrote.

The library `tokenizers` trusts its files. A regular expression can take any time, normalizers in a row can make a text
longer without bound, and some values end the process. So each part is one of those below, with values within bounds, and
regular expressions are those of published tokenizers.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bertloom.charsmap import check_charsmap
from bertloom.shapes import shown

LONGEST_WORD = 1000
"""Largest number of characters of a word that WordPiece looks up; BERT's is 100. The time grows with its square."""
MAX_PARTS = 64
"""Most parts in a row of one kind. The longest of a published tokenizer has about 20."""
MAX_AFFIX = 16
"""Most characters of a prefix or an end of words."""
MAX_ID = (1 << 24) - 1
"""Largest id: the largest vocabulary of an encoder has 2^24 words."""

PATTERNS = {
    "GPT-2": r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "cl100k, Llama 3": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+",
    "Qwen 2": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+",
    "o200k": r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "Tekken": r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "DeepSeek 3, digits": r"\p{N}{1,3}",
    "DeepSeek 3, Chinese and Japanese": "[一-龥\u3040-ゟ゠-ヿ]+",
    "DeepSeek 3": r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
    r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "CLIP": r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+",
    "CLIP, spelled otherwise": r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+",
    "BLOOM": " ?[^(\\s|[.,!?…。，、।۔،])]+",
    "Falcon": "[0-9][0-9][0-9]",
    "SentencePiece, several spaces": " {2,}",
    "white space": r"\s+",
    "line ends": r"[\r\n]",
    "digits": r"\d+",
}
"""The regular expressions that are taken, by the tokenizers that have them. Each needs time in proportion to the text."""

Check = Callable[[dict[str, Any], str], None]
"""Raises ValueError if a part is not possible. Its arguments are the part and how errors name it."""


def check_parts(content: dict[str, Any], where: str) -> None:
    """Raise ValueError unless the normalizer, the pre-tokenizer and the decoder of a tokenizer.json are possible ones."""
    for name, kinds in (("normalizer", NORMALIZERS), ("pre_tokenizer", PRE_TOKENIZERS), ("decoder", DECODERS)):
        found = rows(content, name, where)
        if len(found) > MAX_PARTS:
            raise ValueError(f"{where}: its {name} has {len(found):,} parts, expected at most {MAX_PARTS}")
        for part in found:
            kind = part.get("type")
            if not isinstance(kind, str) or kind not in kinds:
                raise ValueError(
                    f"{where}: its {name} is {shown(kind)}, which bertloom does not run: expected {', '.join(kinds)}"
                )
            kinds[kind](part, f"{where}: its {name} {kind}")
        for kind in ONCE:
            if sum(part["type"] == kind for part in found) > 1:
                raise ValueError(f"{where}: its {name} has {kind} twice: it would make texts longer and longer")


def rows(content: Mapping[str, Any], name: str, where: str) -> list[dict[str, Any]]:
    """Return the parts of one kind ("normalizer", …) in the order in which they run, without the Sequences around them."""
    found, left = [], [content.get(name)]
    while left:
        part = left.pop(0)
        if part is None:
            continue
        if not isinstance(part, dict):
            raise ValueError(f"{where}: its {name} is {shown(part)}, expected an object with a type")
        if part.get("type") != "Sequence":
            found.append(part)
            continue
        inner = part.get(SEQUENCES[name])
        if not isinstance(inner, list):
            raise ValueError(f"{where}: its {name} is a Sequence without a list of {SEQUENCES[name]}")
        left = inner + left
    return found


def check_added(tokenizer: Any, added: Sequence[Mapping[str, Any]], where: str) -> None:
    """Raise ValueError if a normalizer removes an added token, or makes two of them the same. tokenizer: the library's."""
    read: dict[str, str] = {}  # what the library looks for in normalized texts -> the token
    for entry in added:
        if not entry["normalized"] or entry["special"] or tokenizer.normalizer is None:
            continue
        text, token = tokenizer.normalizer.normalize_str(entry["content"]), entry["content"]
        if not text:
            raise ValueError(f"{where}: its normalizer removes the added token {shown(token)}")
        if text in read:
            raise ValueError(
                f"{where}: its normalizer makes the added tokens {shown(read[text])} and {shown(token)} the same, "
                f"and the library tokenizers chooses one of them anew in each process: remove one of them"
            )
        read[text] = token


def bert_casing(content: Mapping[str, Any]) -> tuple[bool, bool | None] | None:
    """Return (do_lower_case, strip_accents) of a tokenizer.json that cuts texts into words as BERT does; None for others."""
    normalizer = content.get("normalizer") or {}
    cleaning = {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True}
    is_bert = "lowercase" in normalizer and cleaning == {name: normalizer.get(name) for name in cleaning}
    if not is_bert or content.get("pre_tokenizer") != {"type": "BertPreTokenizer"}:
        return None
    return normalizer["lowercase"], normalizer.get("strip_accents")


SEQUENCES = {
    "normalizer": "normalizers",
    "pre_tokenizer": "pretokenizers",
    "decoder": "decoders",
    "post_processor": "processors",
}
"""The names of the lists in Sequences."""
ONCE = ("Precompiled", "ByteLevel", "Prepend", "Metaspace")
"""Parts that can make a text longer: one of each."""


def _plain(part: dict[str, Any], what: str) -> None:
    """A part whose values are true, false, null, or a name."""
    for name, value in part.items():
        if value is not None and not isinstance(value, bool) and not (isinstance(value, str) and len(value) <= 32):
            raise ValueError(f"{what}: {name} is {shown(value)}, expected true, false or a short text")


def _pattern(part: dict[str, Any], what: str) -> None:
    """A Split or Replace: its pattern is a text, or a regular expression of a published tokenizer."""
    pattern = part.get("pattern")
    [(kind, value)] = pattern.items() if isinstance(pattern, dict) and len(pattern) == 1 else [(None, None)]
    if kind not in ("String", "Regex") or not isinstance(value, str) or not value:
        raise ValueError(f"{what}: pattern is {shown(pattern)}, expected a String or a Regex")
    if kind == "Regex" and value not in PATTERNS.values():
        raise ValueError(
            f"{what}: the regular expression {shown(value)} is not one of the published tokenizers that bertloom knows "
            f"({', '.join(PATTERNS)}): another may take any time; use ByteLevel or one of these, or make a tokenizer with "
            f"`bertloom build-vocab`"
        )


def _replace(part: dict[str, Any], what: str) -> None:
    _pattern(part, what)
    [(kind, value)] = part["pattern"].items()
    content, fewest = part.get("content"), len(value) if kind == "String" else 1
    if not isinstance(content, str) or len(content) > fewest:
        raise ValueError(f"{what}: content is {shown(content)}, expected a text that is not longer than the pattern")


def _split(part: dict[str, Any], what: str) -> None:
    _pattern(part, what)
    _plain({name: value for name, value in part.items() if name != "pattern"}, what)


def _precompiled(part: dict[str, Any], what: str) -> None:
    table = part.get("precompiled_charsmap")
    if not isinstance(table, str):
        raise ValueError(f"{what}: precompiled_charsmap is {shown(table)}, expected base64")
    try:
        check_charsmap(table)
    except ValueError as error:
        raise ValueError(f"{what}: precompiled_charsmap cannot be used: {error}; copy the file again") from None


def _short(name: str, most: int) -> Check:
    """A part with a text of at most `most` characters."""

    def check(part: dict[str, Any], what: str) -> None:
        value = part.get(name)
        if not isinstance(value, str) or not 1 <= len(value) <= most:
            raise ValueError(f"{what}: {name} is {shown(value)}, expected a text of 1 to {most} characters")

    return check


def _strip(part: dict[str, Any], what: str) -> None:
    for name in ("start", "stop"):
        if type(part.get(name)) is not int or not 0 <= part[name] <= MAX_AFFIX:
            raise ValueError(f"{what}: {name} is {shown(part.get(name))}, expected 0 to {MAX_AFFIX}")
    _short("content", 1)(part, what)


NORMALIZERS: dict[str, Check] = {
    **dict.fromkeys(("BertNormalizer", "Lowercase", "StripAccents", "Strip", "NFC", "NFD", "NFKC", "NFKD"), _plain),
    **dict.fromkeys(("Nmt", "ByteLevel"), _plain),
    "Precompiled": _precompiled,
    "Replace": _replace,
    "Prepend": _short("prepend", MAX_AFFIX),
}
PRE_TOKENIZERS: dict[str, Check] = {
    **dict.fromkeys(("BertPreTokenizer", "Whitespace", "WhitespaceSplit", "Punctuation", "Digits"), _plain),
    **dict.fromkeys(("ByteLevel", "UnicodeScripts"), _plain),
    "Metaspace": _short("replacement", 1),
    "CharDelimiterSplit": _short("delimiter", 1),
    "Split": _split,
}
DECODERS: dict[str, Check] = {
    **dict.fromkeys(("WordPiece", "ByteLevel", "BPEDecoder", "ByteFallback", "Fuse"), _plain),
    "Metaspace": _short("replacement", 1),
    "Replace": _replace,
    "Strip": _strip,
}


def check_model(model: Any, where: str) -> dict[str, Any]:
    """Return the model of a tokenizer.json with its type; ValueError if it is not WordPiece, BPE or Unigram, or wrong."""
    if not isinstance(model, dict) or "vocab" not in model:
        raise ValueError(
            f"{where} is not a tokenizer.json of the library tokenizers: it has no model with a vocab; copy the model's own"
        )
    kind = model.get("type") or (
        "BPE" if "merges" in model else "Unigram" if isinstance(model["vocab"], list) else "WordPiece"
    )
    if not isinstance(kind, str) or kind not in MODELS:
        raise ValueError(f"{where}: its model is {shown(kind)}: expected {', '.join(MODELS)}")
    MODELS[kind](model, f"{where}: its model {kind}")
    return {"type": kind} | model


def _ids(model: dict[str, Any], what: str) -> dict[str, int]:
    """Return the vocabulary of WordPiece or BPE, checked; two words with one id are found with the added ones."""
    vocabulary = model["vocab"]
    if not isinstance(vocabulary, dict):
        raise ValueError(f"{what}: vocab is {shown(vocabulary)}, expected an object with the ids of words")
    for word, number in vocabulary.items():
        if type(number) is not int or not 0 <= number <= MAX_ID:
            raise ValueError(f"{what}: the id of {shown(word)} is {shown(number)}, expected 0 to {MAX_ID:,}")
    return vocabulary


def _affixes(model: dict[str, Any], what: str, *names: str) -> None:
    for name in names:
        value = model.get(name)
        if value is not None and not (isinstance(value, str) and len(value) <= MAX_AFFIX):
            raise ValueError(f"{what}: {name} is {shown(value)}, expected a text of at most {MAX_AFFIX} characters")


def _check_unknown(token: Any, vocabulary: Mapping[str, int], what: str) -> None:
    if not isinstance(token, str) or token not in vocabulary:
        raise ValueError(f"{what}: unk_token is {shown(token)}, which is not in its vocab")


def _wordpiece(model: dict[str, Any], what: str) -> None:
    vocabulary, limit = _ids(model, what), model.get("max_input_chars_per_word", 100)
    _affixes(model, what, "continuing_subword_prefix")
    if type(limit) is not int or not 1 <= limit <= LONGEST_WORD:
        raise ValueError(f"{what}: max_input_chars_per_word is {shown(limit)}: expected at most {LONGEST_WORD:,}")
    _check_unknown(model.get("unk_token", "[UNK]"), vocabulary, what)


def _bpe(model: dict[str, Any], what: str) -> None:
    vocabulary, merges = _ids(model, what), model.get("merges")
    _affixes(model, what, "continuing_subword_prefix", "end_of_word_suffix")
    if model.get("dropout"):
        raise ValueError(
            f"{what}: dropout is {shown(model['dropout'])}: a text would have other tokens each time; set it to null"
        )
    if not isinstance(merges, list):
        raise ValueError(f"{what}: merges is {shown(merges)}, expected a list of pairs")
    prefix = model.get("continuing_subword_prefix") or ""
    for number, merge in enumerate(merges):
        pair = merge.split(" ") if isinstance(merge, str) else merge
        is_pair = isinstance(pair, list) and len(pair) == 2 and all(isinstance(word, str) for word in pair)
        words = (*pair, pair[0] + pair[1].removeprefix(prefix)) if is_pair else ()
        if lost := [word for word in words if word not in vocabulary]:
            raise ValueError(f"{what}: merge {number} needs {shown(lost[0])}, which is not in its vocab")
        if not is_pair or not pair[1].startswith(prefix):
            raise ValueError(f"{what}: merge {number} is {shown(merge)}, expected two words of its vocab")
    if model.get("unk_token") not in (None, ""):  # GPT-2 has ""
        _check_unknown(model["unk_token"], vocabulary, what)


def _unigram(model: dict[str, Any], what: str) -> None:
    vocabulary, unk = model["vocab"], model.get("unk_id")
    if not isinstance(vocabulary, list) or not 1 <= len(vocabulary) <= MAX_ID:
        raise ValueError(f"{what}: vocab is {shown(vocabulary)}, expected a list of words and their scores")
    seen: set[str] = set()
    for number, row in enumerate(vocabulary):
        if not (isinstance(row, list) and len(row) == 2 and isinstance(row[0], str) and type(row[1]) in (int, float)):
            raise ValueError(f"{what}: word {number} is {shown(row)}, expected a word and its score")
        if not abs(row[1]) < 1e30:
            raise ValueError(f"{what}: the score of word {number}, {shown(row[0])}, is {row[1]}")
        if row[0] in seen:
            raise ValueError(f"{what}: word {number}, {shown(row[0])}, has two ids: remove one")
        seen.add(row[0])
    if type(unk) is not int or not 0 <= unk < len(vocabulary):
        raise ValueError(f"{what}: unk_id is {shown(unk)}, expected the id of the word for unknown characters")


MODELS: dict[str, Check] = {"WordPiece": _wordpiece, "BPE": _bpe, "Unigram": _unigram}
