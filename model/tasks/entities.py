"""Entities in tags of the schemes IOB1, IOB2, IOE, BIOES, BILOU and BMES, with kinds or without, and their F1 score.

The rule is that of CoNLL's conlleval and of seqeval's default mode: a tag, or a change of the kind, can begin an entity even
if a B is missing. An entity counts only if both its words and its kind are right.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

TAG = re.compile(r"O|[BIESLUM](-.+)?")
SAME = {"L": "E", "U": "S", "M": "I"}
"""The letters of BILOU and BMES, and the equal ones of BIOES."""


class Entity(NamedTuple):
    """A run of words that names one thing."""

    kind: str
    """Its kind, such as PER; _ for tags without kinds, such as B and I."""
    begin: int
    """Index of its first word."""
    end: int
    """Index after its last word."""


def has_entities(tags: Sequence[str]) -> bool:
    """Return whether tags are of these schemes. Tags without kinds have at least B or I."""
    return all(TAG.fullmatch(tag) for tag in tags) and any("-" in tag or tag in ("B", "I") for tag in tags)


def entities(tags: Sequence[str]) -> list[Entity]:
    """Return the entities of one sequence.

    >>> entities(["B-PER", "I-PER", "O", "I-LOC", "B-LOC"])
    [Entity(kind='PER', begin=0, end=2), Entity(kind='LOC', begin=3, end=4), Entity(kind='LOC', begin=4, end=5)]
    """
    found = []
    begin, before, kind_before = 0, "O", ""
    for place, tag in enumerate([*tags, "O"]):
        letter, _, kind = tag.partition("-")
        letter, kind = SAME.get(letter, letter), kind or "_"
        changes = kind != kind_before
        if before != "O" and (before in "ES" or letter in "BSO" or changes):
            found.append(Entity(kind_before, begin, place))
        if letter != "O" and (letter in "BS" or before in "ESO" or changes):
            begin = place
        before, kind_before = letter, kind
    return found


def entity_scores(true: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> dict[str, float]:
    """Return F1, precision and recall of the entities of all sequences together, each 0 to 1."""
    num_true = num_predicted = num_common = 0
    for true_tags, predicted_tags in zip(true, predicted, strict=True):
        first, second = set(entities(true_tags)), set(entities(predicted_tags))
        num_true += len(first)
        num_predicted += len(second)
        num_common += len(first & second)
    return {
        "f1": 2 * num_common / max(num_true + num_predicted, 1),
        "precision": num_common / max(num_predicted, 1),
        "recall": num_common / max(num_true, 1),
    }
