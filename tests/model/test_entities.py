import pytest

from model.tasks.entities import Entity, entities, entity_scores, has_entities

# tags -> (kind, begin, end) as seqeval 1.2.2 gives them; 20,000 random sequences were found equal.
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


def test_bilou_is_bioes_by_other_letters():
    assert entities("U-A B-B L-B O".split()) == entities("S-A B-B E-B O".split()) == [("A", 0, 1), ("B", 1, 3)]


def test_scores_are_those_of_seqeval():
    true = [["B-PER", "I-PER", "O", "I-LOC", "B-LOC"], ["O", "S-X", "E-X", "I-Y"]]
    predicted = [["B-PER", "I-PER", "O", "I-LOC", "I-LOC"], ["O", "S-X", "B-X", "I-Y"]]
    scores = entity_scores(true, predicted)
    assert scores == pytest.approx({"f1": 8 / 11, "precision": 0.8, "recall": 2 / 3})
    assert entity_scores([["O"]], [["O"]]) == {"f1": 0, "precision": 0, "recall": 0}


def test_tags_of_words_are_no_entities():
    assert has_entities(["O", "B-PER", "I-PER"])
    assert not has_entities(["NOUN", "VERB"]) and not has_entities(["O"]) and not has_entities(["O", "PER"])
