import hashlib
import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.tasks.entities import Entity, entities, entity_scores, has_entities

# tags -> (kind, begin, end) as seqeval 1.2.2 gives them
KNOWN = {
    "B-A I-A O B-B": [("A", 0, 2), ("B", 3, 4)],
    "I-A I-A O I-B": [("A", 0, 2), ("B", 3, 4)],
    "B-A B-A I-B": [("A", 0, 1), ("A", 1, 2), ("B", 2, 3)],
    "S-A E-A E-A": [("A", 0, 1), ("A", 1, 2), ("A", 2, 3)],
    "B-A E-A I-A O O": [("A", 0, 2), ("A", 2, 3)],
    "I-a-b I-a-b S-a-b": [("a-b", 0, 2), ("a-b", 2, 3)],
    "O O": [],
}


@pytest.mark.parametrize("tags", KNOWN)
def test_entities_are_those_of_seqeval(tags):
    assert entities(tags.split()) == [Entity(*entity) for entity in KNOWN[tags]]


def random_tags(number: int) -> list[list[str]]:
    """Sequences of one to twelve tags, the same ever after."""
    draw = random.Random(0)
    tags = ["O", *(f"{letter}-{kind}" for letter in "BIES" for kind in "AB")]
    return [[tags[int(draw.random() * len(tags))] for _ in range(1 + int(draw.random() * 12))] for _ in range(number)]


def test_entities_of_20_000_random_sequences_are_those_of_seqeval():
    """The digest is of [[kind, begin, end], …] for each sequence, as get_entities of seqeval 1.2.2 gives them."""
    found = [entities(tags) for tags in random_tags(20_000)]
    assert sum(map(len, found)) == 104_489
    assert hashlib.sha256(json.dumps(found).encode()).hexdigest() == (
        "f331655c5d0e3f3242839698f73280654cd11bb6c86716c237e3fdf92606003a"
    )


def test_scores_of_10_000_random_sequences_are_those_of_seqeval():
    """The second half, cut or filled up with O to the lengths of the first, held against it by seqeval 1.2.2."""
    sequences = random_tags(20_000)
    true = sequences[:10_000]
    predicted = [(tags + ["O"] * 12)[: len(others)] for others, tags in zip(true, sequences[10_000:])]
    assert entity_scores(true, predicted) == pytest.approx(
        {"f1": 0.28015247316449676, "precision": 0.3397996981753327, "recall": 0.23831883611731197}
    )


ENDS = {"EB", "EI", "EE", "ES", "EO", "SB", "SI", "SE", "SS", "SO", "BB", "BS", "BO", "IB", "IS", "IO"}
STARTS = {"EE", "EI", "SE", "SI", "OE", "OI"}


def entities_by_rules(tags: list[str]) -> list[tuple[str, int, int]]:
    """The rules of seqeval 1.2.2 in its default mode, one by one, for tags of IOB1, IOB2, IOE and BIOES.

    An entity ends between two letters of ENDS or if the kind changes. It begins at B and S, between two letters of STARTS,
    or if the kind changes. A tag without a kind has the kind _.
    """
    found = []
    before, kind_before, begin = "O", "", 0
    for place, tag in enumerate([*tags, "O"]):
        letter, kind = tag[0], tag[1:].split("-", maxsplit=1)[-1] or "_"
        if before + letter in ENDS or (before != "O" and kind_before != kind):
            found.append((kind_before, begin, place))
        if letter in "BS" or before + letter in STARTS or (letter != "O" and kind_before != kind):
            begin = place
        before, kind_before = letter, kind
    return found


SCHEMES = {"IOB1": "IB", "IOB2": "BI", "IOE": "IE", "BIOES": "BIES", "BMES": "BMES", "BILOU": "BILU"}
BIOES = str.maketrans("MLU", "IES")


@st.composite
def tagged(draw):
    """Tags of one scheme in any order, as a model may predict them, with kinds or without, also kinds with hyphens."""
    kinds = draw(st.sampled_from([[""], ["-PER", "-LOC"], ["-a-b", "-a", "-O"]]))
    tags = ["O", *(letter + kind for letter in SCHEMES[draw(st.sampled_from(list(SCHEMES)))] for kind in kinds)]
    return draw(st.lists(st.sampled_from(tags), max_size=12))


@given(tagged())
def test_entities_of_any_tags_are_those_of_the_rules_of_seqeval(tags):
    """seqeval has no BMES and has BILOU only in its strict mode: their letters are those of BIOES by other names."""
    assert entities(tags) == entities_by_rules([tag[0].translate(BIOES) + tag[1:] for tag in tags])


TWO_PERSONS_AND_A_CITY = [("PER", 0, 2), ("PER", 2, 3), ("LOC", 4, 7)]


@pytest.mark.parametrize(
    "tags",
    [
        "I-PER I-PER B-PER O I-LOC I-LOC I-LOC",
        "B-PER I-PER B-PER O B-LOC I-LOC I-LOC",
        "B-PER E-PER S-PER O B-LOC I-LOC E-LOC",
        "B-PER E-PER S-PER O B-LOC M-LOC E-LOC",
        "B-PER L-PER U-PER O B-LOC I-LOC L-LOC",
    ],
)
def test_every_scheme_has_the_same_entities(tags):
    assert entities(tags.split()) == TWO_PERSONS_AND_A_CITY and has_entities(tags.split())


def test_tags_without_kinds_are_entities_too():
    """As in biomedical sets (B, I, O) and in sets for word segmentation (B, M, E, S)."""
    assert entities(["B", "I", "O", "B", "B"]) == [("_", 0, 2), ("_", 3, 4), ("_", 4, 5)]
    assert entities(["B", "M", "E", "S", "B", "E"]) == [("_", 0, 3), ("_", 3, 4), ("_", 4, 6)]
    assert has_entities(["B", "I", "O"]) and has_entities(["B", "E", "M", "S"]) and not has_entities(["O", "S", "L"])


def test_bilou_is_bioes_by_other_letters():
    assert entities("U-A B-B L-B O".split()) == entities("S-A B-B E-B O".split()) == [("A", 0, 1), ("B", 1, 3)]


def test_bmes_is_bioes_by_another_letter():
    assert has_entities(["B-PER", "M-PER", "E-PER", "S-LOC", "O"])
    assert (
        entities("B-A M-A E-A S-A M-B O".split())
        == entities("B-A I-A E-A S-A I-B O".split())
        == [
            ("A", 0, 3),
            ("A", 3, 4),
            ("B", 4, 5),
        ]
    )


def test_scores_are_those_of_seqeval():
    true = [["B-PER", "I-PER", "O", "I-LOC", "B-LOC"], ["O", "S-X", "E-X", "I-Y"]]
    predicted = [["B-PER", "I-PER", "O", "I-LOC", "I-LOC"], ["O", "S-X", "B-X", "I-Y"]]
    scores = entity_scores(true, predicted)
    assert scores == pytest.approx({"f1": 8 / 11, "precision": 0.8, "recall": 2 / 3})
    assert entity_scores([["O"]], [["O"]]) == {"f1": 0, "precision": 0, "recall": 0}


def test_tags_of_words_are_no_entities():
    assert has_entities(["O", "B-PER", "I-PER"])
    assert not has_entities(["NOUN", "VERB"]) and not has_entities(["O"]) and not has_entities(["O", "PER"])
