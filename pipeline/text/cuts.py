"""Where a text may be cut so that the tokens of its pieces, end to end, are those of the whole text.

A cut between two characters is *provable* when no part of a tokenizer looks across it:

- the normalizer, which is one of those below: each changes a character by itself, or with marks after it, or at the ends of
  a text. A character counts as what the normalizer makes of it;
- the added tokens, because none of them contains the two characters;
- the pre-tokenizer, which always cuts there; or the model. A BPE may merge nothing across the place (`merges`): a space for
  Gemma and Llama 2, and some pairs of ideographs. A Unigram has only one way to go on with the last sign of a word if no
  word of its vocabulary has both characters. (Other cuts within words could change how its sums of scores are rounded.)

Characters count by their *kind*. Only characters that Unicode 3.2 knew have one: their properties are the same in all
versions since, and so in all libraries. None of them joins the character before it, as some signs of Indian scripts do.
A tokenizer with a part that is not known here has no cuts.
"""

import json
import re
import unicodedata
from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from bertloom.arrays import I64, U64, Bools
from bertloom.special_tokens import names_split
from bertloom.tokenizer_parts import PATTERNS, rows
from pipeline.text.merges import IdeographPairs, Merges

# OTHER: cut only before a space. ALONE: BERT's normalizer puts spaces around it. LINE: before a text, as `PreTokens` has it
NONE, SPACE, LINE, LETTER, IDEOGRAPH, DIGIT, SIGN, OTHER, ALONE, ASK = range(10)
VISIBLE = (LETTER, IDEOGRAPH, DIGIT, SIGN, OTHER, ALONE)
WORDS = (LETTER, IDEOGRAPH, DIGIT)

META = "▁"
_FRAME = "1"  # nothing composes with it
_GUARDS = "ax17,;|"
Rule = Callable[[int, int, str], bool | None]
"""Whether a step always cuts between characters of two kinds (True), or may look from one to the other (False), or does
neither (None). The third argument is what a space is at this step."""


class Cuts:
    """The provable cuts of texts, for one tokenizer."""

    def __init__(self, tokenizer: Tokenizer):
        """tokenizer: without a post-processor, and with `encode_special_tokens`."""
        self.tokenizer = tokenizer
        content = json.loads(tokenizer.to_str())
        self.kinds = np.full(65536, ASK, np.uint8)
        self.forbidden = np.zeros(65536, bool)  # by the last byte before a cut and the first byte after it
        self.last_signs = np.zeros(65536, bool)  # likewise: cuts before the last character of a word
        self.pairs = np.zeros(256, bool)  # by 16 times the kind before a cut and the kind after it
        self.guards: dict[int, str] = {}
        self.pairs.reshape(16, 16)[:, LINE] = True
        self._precompiled = any(part["type"] == "Precompiled" for part in rows(content, "normalizer", ""))
        self.head = self._normalized(_FRAME)
        self.images = [self._image(chr(point)) for point in range(128)]
        self.added: set[str] = set()  # characters of added tokens
        self.ideographs: IdeographPairs | None = None
        self.begins_added = np.zeros(256, bool)  # first bytes of added tokens that are found in texts
        self.strips = False  # whether added tokens take the white space around them
        self.space = self.images[32]
        if self._normalizer_is_known(content) and self.space in (" ", META):
            self._find_pairs(content)
            self._forbid(content)
            self._choose_guards()
        self.forbidden.reshape(256, 256)[:, ord("\n")] = False
        self.ascii = bytes(self._kind(point) if point < 128 else NONE for point in range(256))

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self.guards)

    def __call__(self, block: bytes) -> tuple[I64, Bools]:
        """Return where the pieces of texts begin, and whether that is within a word.

        A line feed is before each text and nowhere else.
        """
        data, kind, is_ascii = np.frombuffer(block, np.uint8), self.kinds_of(block), block.isascii()
        may = np.take(self.pairs, kind[:-1] << 4 | kind[1:])
        if not is_ascii:
            may &= (data[1:] & 0xC0) != 0x80  # within a character
        within = np.zeros(len(block), bool)
        if self.last_signs.any():
            is_last = np.append(np.isin(kind[2:], (SPACE, LINE)), True)[: len(may)]
            at = np.flatnonzero(is_last & (kind[1:] == SIGN) & (kind[:-1] != NONE))
            within[at + 1] = np.take(self.last_signs, data[at].astype(np.uint16) << 8 | data[at + 1])
        if self.ideographs and not is_ascii:
            at = np.flatnonzero((kind[:-1] == IDEOGRAPH) & (kind[1:] == IDEOGRAPH) & ((data[1:] & 0xC0) != 0x80))
            before, after = (_three_bytes(data, at + shift) for shift in (-2, 1))
            within[at + 1] = self.ideographs(before, after)
        within[self.begins_added[data]] = False  # there an added token may begin, which is no part of a word
        may |= within[1:]
        at = np.flatnonzero(may) + 1
        at = at[~self.forbidden[data[at - 1].astype(np.uint16) << 8 | data[at]]]
        starts = np.concatenate([np.zeros(min(1, len(block)), np.int64), at])
        return starts, within[starts]

    def kinds_of(self, block: bytes) -> NDArray[np.uint8]:
        """Return the kind of the character of each byte."""
        data = np.frombuffer(block, np.uint8)
        kind = np.frombuffer(block.translate(self.ascii), np.uint8)
        if not block.isascii():
            kind = kind.copy()
            for first, end, size in ((0xC2, 0xE0, 2), (0xE0, 0xF0, 3)):
                lead = np.flatnonzero((data >= first) & (data < end))
                kinds = self._kinds_of(_points(data, lead, size))
                for i in range(size):
                    kind[lead + i] = kinds
        return _not_after_joiners(data, kind) if self._precompiled else kind

    def guard(self, piece: str) -> str:
        """Return a character that can be before the piece, with a cut between them."""
        return self.guards[self._kind(ord(piece[0]))]

    def _kinds_of(self, points: NDArray[np.uint16]) -> NDArray[np.uint8]:
        kinds = np.take(self.kinds, points)
        unknown = np.unique(points[kinds == ASK]).tolist()
        for point in unknown:
            self._kind(point)
        return np.take(self.kinds, points) if unknown else kinds

    def _kind(self, point: int) -> int:
        if self.kinds[point] == ASK:
            self.kinds[point] = self._kind_of(chr(point))
        return int(self.kinds[point])

    def _kind_of(self, character: str) -> int:
        """Return the kind of a character by what the normalizer makes of it."""
        kind = plain_kind(character)
        if kind in (NONE, SPACE, LINE) or (unicodedata.category(character)[0] == "M" and self._precompiled):
            return kind if kind in (SPACE, LINE) else NONE
        image = self._image(character)
        if image == f" {character} ":  # an added token may begin or end with one of these spaces
            return NONE if self.strips or " " in self.added else ALONE
        if image != character and not character.isascii() and self.added.intersection(image):
            return NONE
        kinds = set(map(plain_kind, image))
        if not kinds or NONE in kinds or SPACE in kinds or LINE in kinds:
            return NONE
        if kind == IDEOGRAPH and image != character:
            return LETTER if kinds == {kind} else OTHER
        return kind if kinds == {kind} else OTHER

    def _normalized(self, text: str) -> str:
        normalizer = self.tokenizer.normalizer
        return normalizer.normalize_str(text) if normalizer else text

    def _image(self, character: str) -> str:
        """Return what the normalizer makes of a character within a text; "" if this is not certain."""
        whole = self._normalized(_FRAME + character + _FRAME)
        framed = len(whole) > len(self.head) and whole.startswith(self.head) and whole.endswith(_FRAME)
        return whole[len(self.head) : -1] if framed else ""

    def _normalizer_is_known(self, content: dict[str, Any]) -> bool:
        replaced = ""  # what replacements before a part have made
        is_first = True  # of all but replacements
        for part in rows(content, "normalizer", ""):
            pattern, made = part.get("pattern", {}), part.get("content", "")
            text = pattern.get("String", "")
            if part["type"] in _LOCAL:
                is_first = False
            elif pattern.get("Regex") in _SPACES:
                if made not in (" ", META):
                    return False
            elif len(text) > 1:  # such as `` to "
                is_plain = made and all(plain_kind(character) in (SIGN, OTHER) for character in text + made)
                if not is_plain or not is_first or set(replaced) & set(text):
                    return False
                self._forbid_within([text])
            elif not text:
                return False
            replaced += made
        return True

    def _find_pairs(self, content: dict[str, Any]) -> None:
        special = [entry["content"] for entry in content["added_tokens"] if entry["special"]]
        steps = [step for step in rows(content, "pre_tokenizer", "") if step != names_split(special)]
        rules = list(filter(None, map(_rule, steps)))
        if len(rules) < len(steps):
            return
        is_bytes = any(step["type"] == "ByteLevel" for step in steps)
        merges = Merges(content["model"], is_bytes)
        for before in VISIBLE:
            for after in (SPACE, LETTER, IDEOGRAPH, DIGIT, SIGN, ALONE) if before != OTHER else (SPACE,):
                space, verdict = self.space, None
                for step, rule in zip(steps, rules):
                    verdict = rule(before, after, space) if verdict is None else verdict
                    space = META if step["type"] == "Metaspace" else space
                if verdict is None and after == SPACE:
                    verdict = merges.never_before(space)
                self.pairs[before << 4 | after] = bool(verdict)
        is_unigram = content["model"]["type"] == "Unigram" and self.pairs[SIGN << 4 | SPACE]
        if is_unigram and all(rule(LETTER, SIGN, space) is None for rule in rules for space in (" ", META)):
            self._find_last_signs([word for word, _ in content["model"]["vocab"]])
        if is_bytes and merges.are_all and self.pairs[DIGIT << 4 | IDEOGRAPH]:
            self.ideographs = IdeographPairs(merges)

    def _find_last_signs(self, words: list[str]) -> None:
        known, pairs = set(words), set(re.findall(r"(?=(.[!-/:-@\[-`{-~]))", "\n".join(words)))
        table = self.last_signs.reshape(256, 256)
        letters = [point for point in range(128) if self._kind(point) in (LETTER, DIGIT)]
        for sign in range(33, 127):
            if self._kind(sign) == SIGN and self.images[sign] == chr(sign) in known:
                table[letters, sign] = [self.images[point][-1] + chr(sign) not in pairs for point in letters]
        self.guards[SIGN] = max(_GUARDS[:4], key=lambda guard: int(table[ord(guard)].sum()))
        table &= table[ord(self.guards[SIGN])]

    def _forbid(self, content: dict[str, Any]) -> None:
        """Forbid cuts within added tokens, and next to those whose neighbours decide whether they are found."""
        parts = rows(content, "normalizer", "") + rows(content, "pre_tokenizer", "")
        at_the_start = any(part["type"] in ("Prepend", "Strip", "Metaspace", "ByteLevel") for part in parts)
        table = self.forbidden.reshape(256, 256)
        for entry in content["added_tokens"]:
            texts = {entry["content"], self._normalized(entry["content"])} - {""}
            self._forbid_within(texts)
            self.added.update(*texts)
            if entry["special"]:
                continue
            self.strips |= entry["lstrip"] or entry["rstrip"]
            for text in texts:
                self.begins_added[self._bytes(text[0], 0)] = True
                if at_the_start or entry["rstrip"] or entry["single_word"]:
                    table[self._bytes(text[-1], -1)] = True
                if entry["single_word"]:
                    table[:, self._bytes(text[0], 0)] = True

    def _forbid_within(self, texts: Iterable[str]) -> None:
        for text in texts:
            for before, after in pairwise(text):
                self.forbidden.reshape(256, 256)[np.ix_(self._bytes(before, -1), self._bytes(after, 0))] = True

    def _bytes(self, character: str, at: int) -> list[int]:
        """Return the first (at=0) or last (-1) byte of a character and of the ASCII ones that the normalizer makes it of."""
        return [character.encode()[at], *(i for i, image in enumerate(self.images) if image[at:][:1] == character)]

    def _choose_guards(self) -> None:
        for after in (SPACE, *VISIBLE):
            before = [guard for guard in _GUARDS if self.pairs[self._kind(ord(guard)) << 4 | after]]
            if before:
                table = self.forbidden.reshape(256, 256)
                self.guards[after] = min(before, key=lambda guard: int(table[ord(guard)].sum()))
                table[:, table[ord(self.guards[after])]] = True  # these have no guard


def plain_kind(character: str) -> int:
    """Return the kind of a character that no normalizer changes."""
    if character in " \n":
        return SPACE if character == " " else LINE
    category = unicodedata.category(character)
    if category != unicodedata.ucd_3_2_0.category(character) or category[0] in "CZ" or character == META:
        return NONE
    if "0" <= character <= "9":
        return DIGIT
    if "\u4e00" <= character <= "\u9fa5":
        return IDEOGRAPH
    if category in ("Lu", "Ll", "Lt", "Lo") and not "\u1100" <= character <= "\u11ff":  # Korean letters that join
        return OTHER if character in "\u0e33\u0eb3" else LETTER  # these two join the letter before
    is_sign = category[0] == "P" or (category[0] == "S" and character.isascii())
    return SIGN if is_sign and category != "Pc" and character not in "'\u2019" else OTHER


def _rule(step: dict[str, Any]) -> Rule | None:
    """Return the rule of a step of a pre-tokenizer, or None if it is not known."""
    if step["type"] == "Split":
        return _split_rule(step)
    if step["type"] == "ByteLevel":
        return _runs if step["use_regex"] else _nothing
    if step["type"] == "Metaspace":
        return (_meta if step.get("split", True) else _nothing) if step["replacement"] == META else None
    if step["type"] == "Punctuation" and step["behavior"] not in ("Isolated", "Removed", "Contiguous"):
        return None
    if step["type"] == "CharDelimiterSplit" and step["delimiter"] != " ":
        return None
    return _RULES.get(step["type"])


def _split_rule(step: dict[str, Any]) -> Rule | None:
    [(kind, pattern)] = step["pattern"].items()
    behavior = "" if step["invert"] else step["behavior"]
    if kind == "Regex":
        is_whole = behavior == "Isolated" or (step["invert"] and step["behavior"] == "Removed")
        name = next((name for name, known in PATTERNS.items() if known == pattern), "")
        return _PATTERN_RULES.get(name) if is_whole else None
    if pattern not in (" ", META) or behavior not in ("Isolated", "Removed", "MergedWithNext", "MergedWithPrevious"):
        return None

    def rule(before: int, after: int, space: str) -> bool | None:
        if ALONE in (before, after):
            return False
        return behavior != "MergedWithPrevious" if after == SPACE and space == pattern else None

    return rule


def _nothing(before: int, after: int, space: str) -> bool | None:
    return None


def _white_space(before: int, after: int, space: str) -> bool | None:
    """Cuts at white space and removes it."""
    return True if ALONE in (before, after) or (after == SPACE and space == " ") else None


def _word_characters(before: int, after: int, space: str) -> bool | None:
    r"""Whitespace, which is \w+|[^\w\s]+."""
    is_border = (before in WORDS and after == SIGN) or (before == SIGN and after in WORDS)
    return True if is_border else _white_space(before, after, space)


def _bert(before: int, after: int, space: str) -> bool | None:
    return True if SIGN in (before, after) else _white_space(before, after, space)


def _meta(before: int, after: int, space: str) -> bool | None:
    if ALONE in (before, after):
        return False
    return True if after == SPACE else None


def _digits(before: int, after: int, space: str) -> bool | None:
    return True if (before == DIGIT) != (after == DIGIT) and before != OTHER else None


def _signs(before: int, after: int, space: str) -> bool | None:
    return True if (before == SIGN) != (after == SIGN) else None


def _runs(before: int, after: int, space: str) -> bool | None:
    """GPT-2's pattern: runs of letters, of digits and of other characters, each perhaps after a space."""
    if after == SPACE:
        return space == " " and before != ALONE
    groups = {LETTER: 0, IDEOGRAPH: 0, DIGIT: 1, SIGN: 2}
    return before in groups and after in groups and groups[before] != groups[after]


def _runs_after_a_sign(before: int, after: int, space: str) -> bool | None:
    """Later patterns: a run of letters may begin with one other character."""
    return False if before == SIGN and after in (LETTER, IDEOGRAPH) else _runs(before, after, space)


_RULES: dict[str, Rule] = {
    "BertPreTokenizer": _bert,
    "CharDelimiterSplit": _white_space,
    "Digits": _digits,
    "Punctuation": _signs,
    "Whitespace": _word_characters,
    "WhitespaceSplit": _white_space,
}
_PATTERN_RULES: dict[str, Rule] = {
    "GPT-2": _runs,
    **dict.fromkeys(("cl100k, Llama 3", "Qwen 2", "o200k", "Tekken", "DeepSeek 3"), _runs_after_a_sign),
    "DeepSeek 3, digits": _digits,
    **dict.fromkeys(("DeepSeek 3, Chinese and Japanese", "Falcon"), _nothing),
}
_LOCAL = frozenset("NFC NFD NFKC NFKD Lowercase StripAccents Nmt Precompiled BertNormalizer Prepend Strip".split())
_SPACES = (PATTERNS["SentencePiece, several spaces"], PATTERNS["white space"])


def _not_after_joiners(data: NDArray[np.uint8], kind: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the kinds, with NONE for characters after one without a kind.

    Some such characters, as U+0600, join what follows, and Precompiled may then replace both.
    """
    at = np.flatnonzero((kind[:-1] == NONE) & (kind[1:] >= LETTER) & ((data[1:] & 0xC0) != 0x80)) + 1
    if len(at):
        kind = kind.copy()
        for i, lead in enumerate((0, 0xC2, 0xE0)):
            kind[at[data[at] >= lead] + i] = NONE
    return kind


def _three_bytes(data: NDArray[np.uint8], at: NDArray[np.intp]) -> U64:
    first, second, third = (data[at + i].astype(np.uint64) for i in range(3))
    return first << np.uint64(16) | second << np.uint64(8) | third


def _points(data: NDArray[np.uint8], lead: NDArray[np.intp], size: int) -> NDArray[np.uint16]:
    """Return the code points of the characters of 2 or 3 bytes that begin at `lead`."""
    points = (data[lead] & (0x1F if size == 2 else 0x0F)).astype(np.uint16)
    for i in range(1, size):
        points <<= np.uint16(6)
        points |= data[lead + i] & 63
    return points
