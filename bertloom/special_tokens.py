"""The special tokens of a tokenizer.json: which they are, and the post-processor that adds them as in our examples.

[CLS], [SEP]   what the post-processor puts before and after a text; else the named cls_token and sep_token; else the
               tokens [CLS] and [SEP]
[MASK]         the named mask_token; else the token [MASK], <mask> or <|mask|>
[PAD]          the named pad_token, or that of `padding` in tokenizer.json; else the token [PAD], <pad> or <|pad|>
[UNK]          the model's; else the named unk_token; else the token [UNK] or <unk>; a byte-level tokenizer may have none

"Named" is: in special_tokens_map.json or tokenizer_config.json. What two of these sources contradict is refused.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bertloom.shapes import shown
from bertloom.tokenizer_parts import rows

ROLES = ("pad", "unk", "cls", "sep", "mask")
BERT_NAMES = {f"{role}_token": f"[{role.upper()}]" for role in ROLES}
"""The names of BERT's special tokens."""
UNUSED_OF_BERT = re.compile(r"\[unused\d+\]")
"""The words of BERT's vocabularies that have no meaning yet."""
USUAL = {
    "pad": ("[PAD]", "<pad>", "<|pad|>"),
    "unk": ("[UNK]", "<unk>"),
    "cls": ("[CLS]",),
    "sep": ("[SEP]",),
    "mask": ("[MASK]", "<mask>", "<|mask|>"),
}
"""The names that a token of a role has where no file names it."""


@dataclass(frozen=True, kw_only=True)
class SpecialTokens:
    """The ids of the special tokens, and their names."""

    pad: int
    cls: int
    sep: int
    mask: int
    unk: int | None
    """None if the tokenizer has none: a byte-level one can express any text."""
    names: Mapping[str, str]
    """As in special_tokens_map.json, {"pad_token": "<pad>", "cls_token": "<s>", …}; without "unk_token" if there is none."""


def find_special(
    content: Mapping[str, Any], ids: Mapping[str, int], names: Mapping[str, str], where: str
) -> SpecialTokens:
    """Return the special tokens of a tokenizer.json.

    Args:
        ids: token -> id.
        names: of special tokens, as in special_tokens_map.json.
        where: the file, for errors.

    Raises:
        ValueError: one of them cannot be known, two sources contradict each other, or two roles have one token.
    """
    for role in ROLES:
        name = names.get(f"{role}_token")
        if name is not None and name not in ids:
            raise ValueError(
                f"{where}: {role}_token is {shown(name)} in special_tokens_map.json or tokenizer_config.json, but no token "
                f"of this file is: load the tokenizer in transformers and save it again, or correct the name"
            )
    before, after = _around(content, ids, where)
    stated = {"cls": before, "sep": after, "unk": _unknown(content["model"]), "pad": _padding(content, ids, where)}
    found: dict[str, str] = {}
    for role in ROLES:
        name, other = names.get(f"{role}_token"), stated.get(role)
        if name is not None and other is not None and name != other:
            part = {"cls": "post_processor", "sep": "post_processor", "unk": "model", "pad": "padding"}[role]
            raise ValueError(
                f"{where}: its {part} has {shown(other)} as {role}_token, but special_tokens_map.json or "
                f"tokenizer_config.json has {shown(name)}: correct the one that is wrong"
            )
        usual = [usual for usual in USUAL[role] if usual in ids]
        if name is None and other is None and len(usual) > 1:
            raise ValueError(
                f'{where}: its {role} token may be {" or ".join(usual)}: name it, {{"{role}_token": "{usual[0]}"}}, in '
                f"special_tokens_map.json in the same folder"
            )
        if chosen := name or other or "".join(usual):
            found[role] = chosen
        elif role != "unk":
            raise ValueError(f"{where}: {_missing(role)}")
    for role, others in (("mask", ("pad", "unk", "cls", "sep")), ("cls", ("pad", "unk", "sep")), ("sep", ("unk",))):
        for other in others:
            if found.get(other) == found[role]:
                raise ValueError(
                    f"{where}: {shown(found[role])} is both the {role}_token and the {other}_token: expected two tokens; "
                    f"add one in transformers, tokenizer.add_special_tokens({{'{other}_token': …}}), and save it"
                )
    return SpecialTokens(
        **{role: ids[found[role]] if role in found else None for role in ROLES},  # type: ignore[arg-type]
        names={f"{role}_token": found[role] for role in ROLES if role in found},
    )


def _missing(role: str) -> str:
    """The end of an error about a token that is not known."""
    added = f"tokenizer.add_special_tokens({{'{role}_token': '[{role.upper()}]'}})"
    if role in ("cls", "sep"):
        side = "before" if role == "cls" else "after"
        return (
            f"it has no [{role.upper()}]: its post_processor adds no token {side} a text and no file names a {role}_token, "
            f"as in GPT-style tokenizers. An encoder needs [CLS] and [SEP]: in transformers, call {added} and save it"
        )
    return (
        f"it has no {role} token: expected one of {', '.join(USUAL[role])}, or a {role}_token in special_tokens_map.json of "
        f"the same folder. In transformers, call {added} and save it"
    )


def _around(content: Mapping[str, Any], ids: Mapping[str, int], where: str) -> tuple[str | None, str | None]:
    """Return the tokens that the post-processor puts before and after a text; None where it puts none."""
    tokens = {number: token for token, number in ids.items()}
    found: list[tuple[str | None, str | None]] = []
    for part in rows(content, "post_processor", where):
        kind, what = part.get("type"), f"{where}: its post_processor {shown(part.get('type'))}"
        if kind in ("BertProcessing", "RobertaProcessing"):
            pairs = [part.get("cls"), part.get("sep")]
        elif kind == "TemplateProcessing":
            pairs = _template(part, what)
        elif kind == "ByteLevel":
            continue
        else:
            raise ValueError(f"{what}: expected TemplateProcessing, BertProcessing, RobertaProcessing or ByteLevel")
        for pair in pairs:
            if pair is not None and not (isinstance(pair, (list, tuple)) and len(pair) == 2 and type(pair[1]) is int):
                raise ValueError(f"{what} has {shown(pair)}, expected a token and its id")
            if pair is not None and tokens.get(pair[1]) != pair[0]:
                raise ValueError(
                    f"{what} gives {shown(pair[0])} the id {pair[1]}, which is {shown(tokens.get(pair[1]))} in the "
                    f"vocabulary: the file is of two tokenizers; copy the model's own"
                )
        first, last = (None if pair is None else str(pair[0]) for pair in pairs)
        if first is not None or last is not None:
            found.append((first, last))
    if len(found) > 1:
        raise ValueError(f"{where}: its post_processor adds tokens twice: keep one TemplateProcessing")
    return found[0] if found else (None, None)


def _template(part: Mapping[str, Any], what: str) -> list[Any]:
    """Return [token, id] before and after the text in a TemplateProcessing; None for no token."""
    single, special = part.get("single"), part.get("special_tokens")
    sides: list[list[str]] = [[], []]
    side = 0
    for piece in single if isinstance(single, list) else []:
        token = piece.get("SpecialToken") if isinstance(piece, dict) else None
        if isinstance(token, dict):
            sides[side].append(str(token.get("id")))
        else:
            side += 1
            if side > 1:
                break
    if side != 1 or not isinstance(special, dict) or any(len(names) > 1 for names in sides):
        raise ValueError(
            f"{what} has the form {shown(single)} for one text: expected at most one token before $A, and one after it"
        )
    found: list[Any] = []
    for names in sides:
        entry = special.get(names[0]) if names else None
        ids, tokens = (entry.get("ids"), entry.get("tokens")) if isinstance(entry, dict) else (None, None)
        if names and not (isinstance(ids, list) and isinstance(tokens, list) and len(ids) == len(tokens) == 1):
            raise ValueError(
                f"{what}: special_tokens has {shown(entry)} for {shown(names[0])}, expected one token and its id"
            )
        found.append([tokens[0], ids[0]] if ids and tokens else None)
    return found


def _unknown(model: Mapping[str, Any]) -> str | None:
    """Return the token for unknown characters that the model itself has."""
    if model["type"] == "Unigram":
        return str(model["vocab"][model["unk_id"]][0])
    return model.get("unk_token", "[UNK]" if model["type"] == "WordPiece" else None) or None


def _padding(content: Mapping[str, Any], ids: Mapping[str, int], where: str) -> str | None:
    """Return the token of the `padding` of a tokenizer.json."""
    padding = content.get("padding")
    if padding is None:
        return None
    token, number = (padding.get("pad_token"), padding.get("pad_id")) if isinstance(padding, dict) else (None, None)
    if not isinstance(token, str) or ids.get(token) != number:
        raise ValueError(
            f"{where}: its padding has {shown(token)} with id {shown(number)}, which the vocabulary does not have: set "
            f'"padding" to null'
        )
    return token


def post_processor(content: Mapping[str, Any], special: SpecialTokens, where: str) -> dict[str, Any]:
    """Return the post-processor that makes `[CLS] A [SEP]` and `[CLS] A [SEP] B [SEP]`, and trims offsets if theirs does."""
    cls, sep = special.names["cls_token"], special.names["sep_token"]

    def token(name: str, kind: int) -> dict[str, Any]:
        return {"SpecialToken": {"id": name, "type_id": kind}}

    a, b = ({"Sequence": {"id": name, "type_id": kind}} for name, kind in (("A", 0), ("B", 1)))
    single = [token(cls, 0), a, token(sep, 0)]
    ids: Sequence[tuple[str, int]] = ((cls, special.cls), (sep, special.sep))
    template = {
        "type": "TemplateProcessing",
        "single": single,
        "pair": [*single, b, token(sep, 1)],
        "special_tokens": {name: {"id": name, "ids": [number], "tokens": [name]} for name, number in ids},
    }
    for part in rows(content, "post_processor", where):
        if part["type"] in ("ByteLevel", "RobertaProcessing") and part.get("trim_offsets", True) is True:
            trims = {"type": "ByteLevel", "add_prefix_space": part.get("add_prefix_space", True) is True}
            trims |= {"trim_offsets": True, "use_regex": True}
            return {"type": "Sequence", "processors": [trims, template]}
    return template


def names_split(names: Iterable[str]) -> dict[str, Any]:
    """Return a step of a pre-tokenizer that cuts the names of special tokens after their first character.

    A model cannot read a name that is cut as the token of this name. All other text is as before.
    """
    pattern = "|".join(f"{re.escape(name[0])}(?={re.escape(name[1:])})" for name in names if len(name) > 1)
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "MergedWithPrevious", "invert": False}
