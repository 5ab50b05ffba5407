"""The numbers of the report are those of the examples: each against a slow, obvious twin, and on examples made by hand."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertloom.shards import schema
from pipeline.checks.report import (
    BINS,
    MAX_PIECES,
    coverage,
    flatten,
    guess_from_length,
    lengths_of_b,
    mask_rate_by_pieces,
    mask_rate_by_position,
    repeated_lines,
    scripts,
    shape,
    spread,
    treatment,
    word_statistics,
    words_by_source,
)
from pipeline.vocabulary import Vocabulary

WORDS = "[PAD] [UNK] [CLS] [SEP] [MASK] we know ##ing ##s paris is . 上 海 。 7 é привет [unused0]".split()
VOCABULARY = Vocabulary(tuple(WORDS))
CLS, SEP, MASK = VOCABULARY.cls, VOCABULARY.sep, VOCABULARY.mask
CONTENT = [1, *range(5, len(WORDS) - 1)]
LENGTH = 32
LABELS = {0: "next", 1: "random", -1: "none"}


def table(rows):
    """Examples as a shard has them. rows: dicts with a, b (lists of true ids), masks (place in the example -> what is there
    instead), label, document_a, document_b, token_a, token_b; what is not given is empty."""
    made = []
    for row in rows:
        a, b = row["a"], row.get("b", [])
        ids = [CLS, *a, SEP, *([*b, SEP] if b else [])]
        masks = dict(sorted(row.get("masks", {}).items()))
        truths = [ids[at] for at in masks]
        for at, there in masks.items():
            ids[at] = there
        made.append(
            {
                "input_ids": ids,
                "segment_b_start": len(a) + 2,
                "masked_lm_positions": list(masks),
                "masked_lm_ids": truths,
                "next_sentence_label": row.get("label", -1),
                "document_a": row.get("document_a", 7),
                "token_a": row.get("token_a", 0),
                "document_b": row.get("document_b", 0),
                "token_b": row.get("token_b", 0),
            }
        )
    return pa.Table.from_pylist(made, schema=schema(np.dtype(np.uint16), {"max_seq_length": str(LENGTH)}))


def ids(text):
    return [WORDS.index(word) for word in text.split()]


@st.composite
def examples(draw):
    rows = []
    for _ in range(draw(st.integers(1, 12))):
        a = draw(st.lists(st.sampled_from(CONTENT), min_size=1, max_size=12))
        b = draw(st.lists(st.sampled_from(CONTENT), max_size=12))
        places = [*range(1, len(a) + 1), *range(len(a) + 2, len(a) + 2 + len(b))]
        masked = draw(st.sets(st.sampled_from(places), max_size=6))
        rows.append(
            {
                "a": a,
                "b": b,
                "label": draw(st.integers(0, 1)) if b else -1,
                "masks": {at: draw(st.sampled_from([MASK, *CONTENT])) for at in masked},
                "document_a": draw(st.integers(1, 4)),
                "document_b": draw(st.integers(1, 4)) if b else 0,
            }
        )
    return rows


def twin_of_rates(rows):
    """(by position, by pieces): a list of [masked, all] each, token by token."""
    by_position, by_pieces = [[0, 0] for _ in range(BINS)], [[0, 0] for _ in range(MAX_PIECES)]
    for row in rows:
        a, b = row["a"], row["b"]
        for first, segment in ((1, a), (len(a) + 2, b)):
            words = []
            for i, word in enumerate(segment):
                if WORDS[word].startswith("##") and words:
                    words[-1].append(first + i)
                else:
                    words.append([first + i])
            for word in words:
                for at in word:
                    for place in (by_position[at * BINS // LENGTH], by_pieces[min(len(word), MAX_PIECES) - 1]):
                        place[0] += at in row["masks"]
                        place[1] += 1
    return by_position, by_pieces


def share(pair):
    return round(pair[0] / pair[1], 5) if pair[1] else None


@settings(max_examples=60)
@given(examples())
def test_mask_rates_equal_a_count_token_by_token(rows):
    e = flatten(table(rows))
    by_position, by_pieces = twin_of_rates(rows)
    assert mask_rate_by_position(e) == [share(pair) for pair in by_position]
    assert mask_rate_by_pieces(e, VOCABULARY) == [share(pair) for pair in by_pieces]


@settings(max_examples=60)
@given(examples())
def test_words_shape_and_treatment_equal_a_count_row_by_row(rows):
    e = flatten(table(rows))
    words = [word for row in rows for word in [*row["a"], *row["b"]]]
    found = word_statistics(e, VOCABULARY)
    assert found["tokens"] == len(words)
    assert found["unknown"] == round(words.count(VOCABULARY.unk) / len(words), 6)
    assert found["vocabulary_used"] == len({*words} - {VOCABULARY.unk}) and found["vocabulary_ordinary"] == 13
    latin = sum(word in ids("we know ##ing ##s paris is é") for word in words)
    assert found["scripts"].get("Latin", 0) == round(latin / len(words), 5)
    kinds = {"mask": 0, "random": 0, "kept": 0}
    for row in rows:
        plain = [CLS, *row["a"], SEP, *row["b"]]
        for at, there in row["masks"].items():
            kinds["mask" if there == MASK else "kept" if there == plain[at] else "random"] += 1
    total = max(1, sum(kinds.values()))
    assert treatment(e, VOCABULARY) == {name: round(n / total, 4) for name, n in kinds.items()}
    assert shape(e, LABELS)["tokens"] == sum(len(row["a"]) + len(row["b"]) + 2 + bool(row["b"]) for row in rows)
    assert sum(map(sum, lengths_of_b(e, LABELS).values())) == sum(bool(row["b"]) for row in rows)


@settings(max_examples=60)
@given(examples())
def test_each_source_has_the_words_of_its_own_documents(rows):
    e = flatten(table(rows))
    source = e.document_a.astype(int) - 2  # documents 1 … 4 are of unknown source, 0, 1 and 2
    found = words_by_source(e, source, VOCABULARY)
    for number in (0, 1, 2):
        words = [word for row in rows if row["document_a"] == number + 2 for word in row["a"]]
        assert (number in found) == bool(words)
        if words:
            assert found[number]["unknown"] == round(words.count(VOCABULARY.unk) / len(words), 6)
    assert -1 not in found


def test_the_script_of_a_word_is_that_of_its_letters():
    names, index = scripts(VOCABULARY)
    of = dict(zip(WORDS, (names[i] for i in index), strict=True))
    assert [of[word] for word in ("##ing", "é", "上", "привет", "7", "。", "[UNK]")] == [
        "Latin",
        "Latin",
        "Chinese characters",
        "Cyrillic",
        "digits",
        "punctuation",
        "[UNK]",
    ]


# ---- does the length of B tell the label?


def test_a_table_of_lengths_finds_labels_that_a_threshold_cannot():
    label = np.repeat(np.array([0, 1], np.int8), 4000)
    length = np.where(label == 1, np.tile([3, 3, 90, 90], 2000), 40)  # random ones are short or long
    guess = guess_from_length(length, label)
    assert guess.accuracy == 1.0 and guess.error == pytest.approx(0.5 * (0.25 / 2000 * 2) ** 0.5)


def test_labels_that_do_not_depend_on_length_are_guessed_half_right_also_when_unbalanced():
    draw = np.random.default_rng(1)
    for share_of_random in (0.5, 0.7):
        label = (draw.random(20_000) < share_of_random).astype(np.int8)
        guess = guess_from_length(draw.integers(2, 120, 20_000), label)
        assert abs(guess.accuracy - 0.5) < 4 * guess.error < 0.03


def test_labels_are_guessed_better_when_length_gives_a_tenth_of_them_away():
    draw = np.random.default_rng(2)
    label = draw.integers(0, 2, 20_000).astype(np.int8)
    length = np.where((draw.random(20_000) < 0.2) & (label == 1), 9, draw.integers(2, 120, 20_000))
    guess = guess_from_length(length, label)
    assert 0.57 < guess.accuracy < 0.62


def test_there_is_no_guess_when_one_half_has_a_single_label():
    assert guess_from_length(np.array([3, 4, 5]), np.array([1, 1, 0], np.int8)) is None
    assert guess_from_length(np.array([0, 0]), np.array([-1, -1], np.int8)) is None


# ---- lines, documents, coverage


def test_a_line_in_many_documents_is_counted_once_per_document():
    line = "we know paris is we know paris ."
    rows = [
        {"a": ids("is . " + line + " we"), "b": ids(line), "label": 0, "document_a": d, "document_b": d}
        for d in (1, 2, 3)
    ]
    rows.append({"a": ids("is is is is . " + line), "document_a": 3})
    rows.append(
        {
            "a": ids("上 海 上 海 上 海 上 。 paris"),
            "b": ids("上 海 上 海 上 海 上 。"),
            "label": 1,
            "document_a": 3,
            "document_b": 4,
        }
    )
    assert repeated_lines(flatten(table(rows)), VOCABULARY) == [
        {"documents": 3, "line": line},
        {"documents": 2, "line": "上海上海上海上。"},
    ]


def test_short_lines_and_lines_without_an_end_mark_are_not_counted():
    rows = [{"a": ids("we know paris . we know paris is we know paris is"), "document_a": d} for d in (1, 2)]
    assert repeated_lines(flatten(table(rows)), VOCABULARY) == []


def test_the_histogram_of_documents_has_powers_of_two():
    assert spread(np.array([1, 2, 3, 4, 9])) == {
        "quartiles": [1, 2, 3, 4, 9],
        "histogram": [[1, 1, 1], [2, 3, 2], [4, 7, 1], [8, 15, 1]],
    }


def test_coverage_counts_the_tokens_that_some_segment_holds():
    """Two documents of 10 tokens: one shard holds 0-3 and 5-6 of the first, another one 2-4, and 0-1 of the second."""
    first = table(
        [{"a": [5] * 4, "b": [5] * 2, "document_a": 3, "token_a": 0, "document_b": 3, "token_b": 5, "label": 0}]
    )
    second = table([{"a": [5] * 3, "document_a": 3, "token_a": 2}, {"a": [5] * 2, "document_a": 8, "token_a": 0}])
    ids_of_documents, tokens = np.array([3, 8], np.uint64), np.array([10, 10])
    found = coverage(ids_of_documents, tokens, [first.to_batches(), second.to_batches()])
    assert found == {"all": 9 / 20, "one_copy": (6 + 5) / 40}
