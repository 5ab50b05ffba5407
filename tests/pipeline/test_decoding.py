"""Word pieces as text."""

import random

from pipeline.examples.decoding import plain_text, spans

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


def test_plain_text_is_the_text_of_the_spans():
    draw = random.Random(1)
    for _ in range(20_000):
        words = draw.choices(WORDS, k=draw.randint(0, 6))
        assert plain_text(words) == "".join(map(str, spans(words, words, [False] * len(words)))), words
