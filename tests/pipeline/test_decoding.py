"""Word pieces as text."""

import random

from pipeline.examples.decoding import spans
from pipeline.vocabulary import SPECIAL_WORDS, Vocabulary

WORDS = [
    "we",
    "##s",
    "##",
    "###",
    "#",
    ".",
    "é",
    "[MASK]",
    "上",
    "##京",
    "。",
    "\u3000",
    "，",
    "\uffef",
    "a上",
    "上a",
    "\u2028",
]


def test_the_text_of_word_pieces_is_that_of_the_spans():
    draw = random.Random(1)
    vocabulary = Vocabulary((*WORDS, *(word for word in SPECIAL_WORDS if word not in WORDS)))
    for _ in range(20_000):
        ids = draw.choices(range(len(WORDS)), k=draw.randint(0, 6))
        shown = "".join(map(str, spans(ids, ids, [False] * len(ids), vocabulary)))
        assert vocabulary.readable.text(ids) == shown, [WORDS[i] for i in ids]
