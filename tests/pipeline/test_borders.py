"""Labels that lengths and ends of segments give away are found, and nothing is found where they do not."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bertloom.members import read_shard
from bertloom.shards import ShardName
from pipeline.checks.borders import guess_from_borders
from pipeline.checks.report import Examples, Guess, flatten
from pipeline.examples.configuration import ExamplesConfig
from pipeline.examples.shards import write_shard
from pipeline.tokens import DOCUMENT, TokenBlock
from pipeline.vocabulary import Vocabulary

WORDS = "[PAD] [UNK] [CLS] [SEP] [MASK] we know ##ing ##s paris is . 上 海 。 ” , “".split()
VOCABULARY = Vocabulary(tuple(WORDS))
WE, IS, STOP, ROUND, CLOSE = (WORDS.index(word) for word in ("we", "is", ".", "。", "”"))


def examples(rows: list[tuple[list[int], list[int], int]]) -> Examples:
    """Examples without masks, from (A, B, label)."""
    tokens = [[VOCABULARY.cls, *a, VOCABULARY.sep, *b, VOCABULARY.sep] for a, b, _ in rows]
    lengths = np.array([len(each) for each in tokens])
    ids = np.concatenate(tokens).astype(np.uint16)
    none, documents = np.zeros(0, np.int64), np.zeros(len(rows), np.uint64)
    return Examples(
        ids,
        ids,
        np.cumsum(lengths) - lengths,
        lengths,
        np.array([len(a) + 2 for a, _, _ in rows]),
        none,
        np.zeros(len(rows), np.int64),
        np.array([label for _, _, label in rows], np.int8),
        documents,
        documents,
        64,
    )


def guess(make, number: int = 3000) -> Guess:
    """make: (random numbers, label) -> (A, B)."""
    r, rows = random.Random(1), []
    for _ in range(number):
        label = r.randrange(2)
        rows.append((*make(r, label), label))
    found = guess_from_borders(examples(rows), VOCABULARY)
    assert found is not None and found.error == pytest.approx(0.5 / number**0.5, rel=0.01)
    return found


def segment(r: random.Random, size: int, *end: int) -> list[int]:
    return [WE, *r.choices((IS, WE, WORDS.index("paris"), WORDS.index("##ing")), k=size), *end]


def any_end(r: random.Random) -> tuple[int, ...]:
    return r.choice(((STOP,), (ROUND, CLOSE), ()))


def test_labels_that_do_not_depend_on_the_borders_are_guessed_half_right():
    found = guess(lambda r, _: [segment(r, r.randrange(1, 28), *any_end(r)) for _ in "ab"])
    assert abs(found.accuracy - 0.5) < 4 * found.error


@pytest.mark.parametrize("end", [(STOP,), (ROUND,), (ROUND, CLOSE)])
def test_an_end_inside_a_sentence_is_found_where_only_one_label_has_it(end):
    def make(r, label):
        return segment(r, 20, *end), segment(r, 20, *(() if label and r.random() < 0.5 else end))

    assert guess(make).accuracy == pytest.approx(0.75, abs=0.03)


def test_a_beginning_inside_a_sentence_is_found():
    def make(r, label):
        b = segment(r, 20, STOP)
        return segment(r, 20, STOP), [WORDS.index("##s"), *b] if label and r.random() < 0.5 else b

    assert guess(make).accuracy == pytest.approx(0.75, abs=0.03)


def test_a_room_that_is_filled_by_one_label_alone_is_found():
    def make(r, label):
        a = r.randrange(5, 40)
        return segment(r, a), segment(r, 59 - a - (r.randrange(1, 6) if label else 0))

    assert guess(make).accuracy > 0.9


def test_which_ends_and_beginnings_go_together_is_not_used():
    """It is language: a title without a mark is followed by a title more often than by a sentence."""

    def make(r, label):
        end = r.choice((STOP, IS))
        return segment(r, 20, end), segment(r, 20, STOP + IS - end if label else end)

    found = guess(make)
    assert abs(found.accuracy - 0.5) < 4 * found.error


def test_there_is_no_guess_when_one_half_has_a_single_label():
    rows = [([WE], [IS], 1)] * 4
    assert guess_from_borders(examples(rows), VOCABULARY) is None
    assert guess_from_borders(examples([([WE], [], -1)] * 9), VOCABULARY) is None


def short_documents(number: int, sentences: int, tokens: int, of_first: int) -> TokenBlock:
    """Documents of up to `sentences` long sentences, the first one of up to `of_first` tokens; every fifth ends without a
    mark."""
    r, bodies = random.Random(3), []
    for _ in range(number):
        bodies.append(
            [segment(r, r.randrange(tokens if i else of_first), STOP) for i in range(r.randrange(1, sentences + 1))]
        )
        if r.random() < 0.2:
            bodies[-1][-1][-1] = IS
    rows = np.zeros(number, DOCUMENT)
    rows["id"] = rows["source_key"] = np.arange(number)
    rows["num_sentences"], rows["num_tokens"] = list(map(len, bodies)), [sum(map(len, body)) for body in bodies]
    sizes = np.array([len(sentence) for body in bodies for sentence in body], np.uint32)
    ids = np.array([word for body in bodies for sentence in body for word in sentence], np.uint16)
    return TokenBlock(ids, sizes, rows)


@pytest.mark.parametrize("length", [128, 512])
@pytest.mark.parametrize("pairs", ["nsp", "sop"])
@pytest.mark.parametrize("of_first", [120, 60])
def test_the_gate_passes_short_documents_of_long_sentences(tmp_path, pairs, length, of_first):
    """Also where the first sentence of each is shorter than the others."""
    found = guess_of_pairs(tmp_path, of_first, max_seq_length=(length,), pairs=pairs)
    assert found.accuracy < 0.52 + 4 * found.error


def test_pairs_as_googles_script_makes_them_exceed_the_limit(tmp_path):
    """So the gate is not applied to them."""
    found = guess_of_pairs(tmp_path, max_seq_length=(512,), compat="google")
    assert found.accuracy > 0.52 + 4 * found.error


def guess_of_pairs(folder: Path, of_first: int = 120, **options: Any) -> Guess:
    config = ExamplesConfig(**options)
    (length,) = config.max_seq_length
    s = config.sentences(short_documents(4000, 4, 120, of_first), VOCABULARY.kinds, length)
    name = ShardName(split="train", max_seq_length=length, copy=0, number=0)
    pairs, _ = config.make_pairs(s, length, 0)
    row = write_shard(str(folder), name, s, pairs, 1, config.masking(length, VOCABULARY))
    found = guess_from_borders(flatten(read_shard(str(folder / row["path"]))), VOCABULARY)
    assert found is not None
    return found
