"""Entities in tags of the forms IOB1, IOB2, IOE, BIOES, BILOU and BMES, and how well they are found.

The rule is that of CoNLL's conlleval and of seqeval's default: an entity begins wherever its tag, or a change of kind,
says so, even where a B is missing. Only whole entities of the right kind count.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

TAG = re.compile(r"O|([BIESLUM])-(.+)")
SAME = {"L": "E", "U": "S", "M": "I"}
"""BILOU's letters for what BIOES calls the end and a single word, and BMES's for what is within."""


class Entity(NamedTuple):
    """Words of a sequence that name one thing."""

    kind: str
    """Such as PER."""
    begin: int
    """Its first word,"""
    end: int
    """and the one behind its last."""


def has_entities(tags: Sequence[str]) -> bool:
    """Whether a set of tags is of these forms."""
    return all(TAG.fullmatch(tag) for tag in tags) and any(tag != "O" for tag in tags)


def entities(tags: Sequence[str]) -> list[Entity]:
    """The entities of one sequence.

    >>> entities(["B-PER", "I-PER", "O", "I-LOC", "B-LOC"])
    [Entity(kind='PER', begin=0, end=2), Entity(kind='LOC', begin=3, end=4), Entity(kind='LOC', begin=4, end=5)]
    """
    found = []
    begin, before, kind_before = 0, "O", ""
    for place, tag in enumerate([*tags, "O"]):
        letter, _, kind = tag.partition("-")
        letter = SAME.get(letter, letter)
        changes = kind != kind_before
        if before != "O" and (before in "ES" or letter in "BSO" or changes):
            found.append(Entity(kind_before, begin, place))
        if letter != "O" and (letter in "BS" or before in "ESO" or changes):
            begin = place
        before, kind_before = letter, kind
    return found


def entity_scores(true: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> dict[str, float]:
    """F1, precision and recall of the entities of all sequences together, each 0 to 1."""
    num_true = num_predicted = num_common = 0
    for true_tags, predicted_tags in zip(true, predicted, strict=True):
        first, second = set(entities(true_tags)), set(entities(predicted_tags))
        num_true, num_predicted, num_common = (
            num_true + len(first),
            num_predicted + len(second),
            num_common + len(first & second),
        )
    return {
        "f1": 2 * num_common / max(num_true + num_predicted, 1),
        "precision": num_common / max(num_predicted, 1),
        "recall": num_common / max(num_true, 1),
    }
