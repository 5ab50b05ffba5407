"""Examples as readable text: word pieces joined to words, with every masked word marked."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pipeline.vocabulary import Vocabulary

_IDEOGRAPH = r"[\u3000-\u9fff\uff00-\uffef]"
# What is not written between two words: the mark of a piece, and the space between Chinese characters.
_NOT_WRITTEN = re.compile(rf" ##(?=[^ ])| (?<={_IDEOGRAPH} )(?={_IDEOGRAPH})")


@dataclass(frozen=True, slots=True)
class Span:
    """One word piece."""

    space: str
    """White space before it: a space or nothing."""
    there: str
    """What the model reads, without its ##."""
    truth: str
    """What the text has, without its ##."""
    kind: Literal["", "mask", "random", "kept"]
    """What the mask replaced it by; empty where it is not masked."""

    def __str__(self) -> str:
        if not self.kind:
            return self.space + self.there
        change = {"mask": "MASK→", "random": f"{self.there}→", "kept": "="}[self.kind]
        return f"{self.space}⟦{change}{self.truth}⟧"


def decode(row: dict[str, Any], vocabulary: Vocabulary, labels: Mapping[int, str]) -> dict[str, Any]:
    """Return an example as readable text with its masks marked: `⟦MASK→an⟧`, `⟦瘦→vague⟧`, `⟦=无⟧`.

    labels: what each value of next_sentence_label is called; a value without a name is shown as a number.
    """
    a, b = segments(row, vocabulary)
    label = row["next_sentence_label"]
    return {
        "label": labels.get(label, str(label)),
        "tokens": len(row["input_ids"]),
        "masks": len(row["masked_lm_positions"]),
        "document_a": f"{row['document_a']:016x}",
        "token_a": row["token_a"],
        "document_b": f"{row['document_b']:016x}",
        "token_b": row["token_b"],
        "a": "".join(map(str, a)),
        "b": "".join(map(str, b)),
    }


def segments(row: dict[str, Any], vocabulary: Vocabulary) -> tuple[list[Span], list[Span]]:
    """Return the pieces of A and of B."""
    there = [vocabulary.words[i] for i in row["input_ids"]]
    truth, masked = list(there), [False] * len(there)
    for position, word in zip(row["masked_lm_positions"], row["masked_lm_ids"], strict=True):
        truth[position], masked[position] = vocabulary.words[word], True
    b, end = row["segment_b_start"], len(there) - 1
    return spans(there[1 : b - 1], truth[1 : b - 1], masked[1 : b - 1]), spans(
        there[b:end], truth[b:end], masked[b:end]
    )


def plain_text(words: Sequence[str]) -> str:
    """Return word pieces as text.

    >>> plain_text(["we", "know", "##s", "上", "海", "。"])
    'we knows 上海。'
    """
    return _NOT_WRITTEN.sub("", " " + " ".join(words)).removeprefix(" ")


def spans(there: Sequence[str], truth: Sequence[str], masked: Sequence[bool]) -> list[Span]:
    """Return word pieces with the white space between them: none between Chinese characters."""
    found: list[Span] = []
    before = ""
    for word, was, is_masked in zip(there, truth, masked, strict=True):
        tight = not found or _continues(was) or (_is_ideograph(before[-1:]) and _is_ideograph(was[:1]))
        kind: Literal["", "mask", "random", "kept"] = ""
        if is_masked:
            kind = "kept" if word == was else "mask" if word == "[MASK]" else "random"
        found.append(Span("" if tight else " ", _bare(word), _bare(was), kind))
        before = was
    return found


def _continues(word: str) -> bool:
    return word.startswith("##") and len(word) > 2


def _bare(word: str) -> str:
    return word[2:] if _continues(word) else word


def _is_ideograph(character: str) -> bool:
    return "\u3000" <= character <= "\u9fff" or "\uff00" <= character <= "\uffef"
