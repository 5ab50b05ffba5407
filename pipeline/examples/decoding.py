"""Examples as readable text, with every masked word marked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pipeline.vocabulary import Vocabulary

MaskKind = Literal["mask", "random", "kept"]


@dataclass(frozen=True, slots=True)
class Span:
    """One token."""

    space: str
    """White space before it."""
    there: str
    """What the model reads, without the mark of a piece."""
    truth: str
    """What the text has, without the mark of a piece."""
    kind: MaskKind | Literal[""]
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


def true_ids(row: Mapping[str, Any]) -> list[int]:
    """Return the ids of an example before it was masked."""
    ids = list(row["input_ids"])
    for position, word in zip(row["masked_lm_positions"], row["masked_lm_ids"], strict=True):
        ids[position] = word
    return ids


def mask_kind(there: int, truth: int, vocabulary: Vocabulary) -> MaskKind:
    """Return what a masked token was replaced by. there, truth: ids with and without the mask."""
    return "kept" if there == truth else "mask" if there == vocabulary.mask else "random"


def segments(row: dict[str, Any], vocabulary: Vocabulary) -> tuple[list[Span], list[Span]]:
    """Return the tokens of A and of B."""
    there, truth = row["input_ids"], true_ids(row)
    masked = [False] * len(there)
    for position in row["masked_lm_positions"]:
        masked[position] = True
    b, end = row["segment_b_start"], len(there) - 1
    a, b = (spans(there[part], truth[part], masked[part], vocabulary) for part in (slice(1, b - 1), slice(b, end)))
    return a, b


def spans(there: Sequence[int], truth: Sequence[int], masked: Sequence[bool], vocabulary: Vocabulary) -> list[Span]:
    """Return tokens with the white space between them.

    there, truth: ids with and without the masks.
    """
    found: list[Span] = []
    pieces = vocabulary.readable.pieces(truth, masked)
    for i, was, is_masked, (space, text) in zip(there, truth, masked, pieces, strict=True):
        if not is_masked:
            found.append(Span(space, text, text, ""))
            continue
        ((_, instead),) = vocabulary.readable.pieces([i], [True])
        found.append(Span(space, instead, text, mask_kind(i, was, vocabulary)))
    return found
