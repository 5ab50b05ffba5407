"""Where the tokens of a text are, however it is cut on the way."""

import json
import random

import numpy as np
import pytest

from bertloom.tokenizer_files import parse_tokenizer
from pipeline.text.offsets import token_offsets
from pipeline.text.records import Document
from pipeline.tokenizer import TokenizeConfig, make_document_tokenizer
from pipeline.tokenizer_vocabulary import TokenizerVocabulary
from pipeline.vocabulary import Vocabulary
from tests.bertloom.tokenizer_kinds import CONTENTS, NAMES, TEXT
from tests.jobs.corpus import vocabulary_words

PARTS = [
    *"abcz .!\n-_。，？上海京é1 ",
    "the ",
    " quick",
    "。上",
    " 。",
    "e\u0301",
    "\u3000",
    "  ",
    "🙂",
    "[MASK]",
    "\u200b",
]


def vocabulary_of(kind):
    if kind == "vocab.txt":
        return Vocabulary(tuple(vocabulary_words()))
    return TokenizerVocabulary.of(parse_tokenizer(json.dumps(CONTENTS[kind]).encode(), kind, NAMES.get(kind)))


@pytest.mark.parametrize("kind", ["vocab.txt", *sorted(CONTENTS.keys() - {"bert"})])
def test_the_places_of_tokens_do_not_depend_on_the_cuts(kind):
    draw, vocabulary, config = random.Random(kind), vocabulary_of(kind), TokenizeConfig()
    encode, tokenizer = vocabulary.encoder(config.casing), make_document_tokenizer(config, vocabulary)
    for _ in range(60):
        words = [*PARTS, *TEXT[0].split()]
        text = "".join(draw.choices(words, k=draw.randint(1, 60))).strip() or "a"
        ids, whole = encode(text)
        assert np.array_equal(tokenizer([Document(text.encode(), 0)]).ids, ids)
        found = token_offsets(text, np.array(ids), encode, draw.randint(1, 20))
        for (begin, end), place in zip(whole, found.tolist(), strict=True):
            if word := text[begin:end].strip():  # the place of a space that is a token may be the next letter
                assert place[1] == end and text[slice(*place)].strip() == word, (text, whole, found)


def test_a_long_text_is_encoded_in_parts():
    lengths = []

    def encode(text):
        lengths.append(len(text))
        places = [(i, i + 1) for i, character in enumerate(text) if character == "a"]
        return [7] * len(places), places

    text = "aaaa " * 100
    assert token_offsets(text, np.full(400, 7), encode, 50).tolist() == [
        [i, i + 1] for i, character in enumerate(text) if character == "a"
    ]
    assert max(lengths) < 60 and sum(lengths) == len(text)
