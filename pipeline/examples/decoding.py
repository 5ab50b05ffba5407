"""Examples as people read them: word pieces joined to text, with every masked word marked."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pipeline.vocabulary import Vocabulary


@dataclass(frozen=True, slots=True)
class Span:
    """One word piece."""

    space: str
    """What parts it from the piece before: a space, or nothing."""
    there: str
    """What the model reads, without its ##."""
    truth: str
    """What the text says."""
    kind: Literal["", "mask", "random", "kept"]
    """How it was masked, if it was."""

    def __str__(self) -> str:
        if not self.kind:
            return self.space + self.there
        change = {"mask": "MASK→", "random": f"{self.there}→", "kept": "="}[self.kind]
        return f"{self.space}⟦{change}{self.truth}⟧"


def decode(row: dict[str, Any], vocabulary: Vocabulary) -> dict[str, Any]:
    """One example as readable text, its masks marked: `⟦MASK→an⟧`, `⟦瘦→vague⟧`, `⟦=无⟧`."""
    a, b = segments(row, vocabulary)
    return {
        "label": label_name(row["next_sentence_label"], row["document_a"] == row["document_b"]),
        "tokens": len(row["input_ids"]),
        "masks": len(row["masked_lm_positions"]),
        "document_a": f"{row['document_a']:016x}",
        "token_a": row["token_a"],
        "document_b": f"{row['document_b']:016x}",
        "token_b": row["token_b"],
        "a": "".join(map(str, a)),
        "b": "".join(map(str, b)),
    }


def label_name(label: int, one_document: bool) -> str:
    """The label in a word: B of a random pair is from another document, that of a swapped one is not."""
    return {0: "next", 1: "swapped" if one_document else "random", -1: "none"}[label]


def segments(row: dict[str, Any], vocabulary: Vocabulary) -> tuple[list[Span], list[Span]]:
    """The pieces of A and of B."""
    there = [vocabulary.words[i] for i in row["input_ids"]]
    truth, masked = list(there), [False] * len(there)
    for position, word in zip(row["masked_lm_positions"], row["masked_lm_ids"], strict=True):
        truth[position], masked[position] = vocabulary.words[word], True
    b, end = row["segment_b_start"], len(there) - 1
    return spans(there[1 : b - 1], truth[1 : b - 1], masked[1 : b - 1]), spans(
        there[b:end], truth[b:end], masked[b:end]
    )


def plain_text(words: Sequence[str]) -> str:
    """Word pieces as text.

    >>> plain_text(["we", "know", "##s", "上", "海", "。"])
    'we knows 上海。'
    """
    return "".join(map(str, spans(words, words, [False] * len(words))))


def spans(there: Sequence[str], truth: Sequence[str], masked: Sequence[bool]) -> list[Span]:
    """Word pieces, joined as the words of the text join: Chinese characters without spaces."""
    found: list[Span] = []
    before = ""
    for word, was, is_masked in zip(there, truth, masked, strict=True):
        tight = not found or _goes_on(was) or (_is_ideograph(before[-1:]) and _is_ideograph(was[:1]))
        kind: Literal["", "mask", "random", "kept"] = ""
        if is_masked:
            kind = "kept" if word == was else "mask" if word == "[MASK]" else "random"
        found.append(Span("" if tight else " ", _bare(word), _bare(was), kind))
        before = was
    return found


def _goes_on(word: str) -> bool:
    return word.startswith("##") and len(word) > 2


def _bare(word: str) -> str:
    return word[2:] if _goes_on(word) else word


def _is_ideograph(character: str) -> bool:
    return "\u3000" <= character <= "\u9fff" or "\uff00" <= character <= "\uffef"
