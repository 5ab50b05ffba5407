"""The pure parts of benchmarks/bench_duel.py: the held-out texts, the masks, and what the logs of both sides say."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from bench_duel import durations, table
from duel.held_out import make_pieces, read_texts, save_pieces, split_texts
from duel.rival import group_texts
from duel.sides import Result, read_events, read_steps, side_by_side

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{number}" for number in range(200))]
PAD, UNK, CLS, SEP, MASK = range(5)
TEXTS = [" ".join(f"w{(7 * text + number) % 200}" for number in range(40 + 90 * text)) for text in range(60)]


@pytest.fixture
def vocab(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    return str(path)


def test_a_held_out_document_is_not_trained_on_by_either_side_even_if_it_comes_twice(tmp_path):
    held_out = split_texts([*TEXTS, *TEXTS[:30]], 0.3, tmp_path / "train.jsonl")
    train = list(read_texts([str(tmp_path / "train.jsonl")]))
    assert held_out and len(set(held_out)) == len(held_out) and not set(held_out) & set(train)
    assert set(held_out) | set(train) == set(TEXTS) and len(train) > len(set(train))


def test_documents_are_chosen_by_their_text_and_not_by_their_place(tmp_path):
    first, second = (split_texts(texts, 0.3, tmp_path / "train.jsonl") for texts in (TEXTS, TEXTS[::-1]))
    assert sorted(first) == sorted(second)
    assert set(split_texts(TEXTS, 0.1, tmp_path / "train.jsonl")) < set(first)


@pytest.mark.parametrize("share", [0, 1])
def test_a_corpus_without_documents_on_one_side_is_refused(share, tmp_path):
    with pytest.raises(SystemExit, match="the duel needs both"):
        split_texts(TEXTS, share, tmp_path / "train.jsonl")


def test_a_file_that_is_not_json_lines_is_refused(tmp_path):
    with pytest.raises(SystemExit, match="reads JSON Lines"):
        list(read_texts([str(tmp_path / "text.txt")]))


def test_the_masks_are_the_same_in_every_run_and_for_every_model(vocab, tmp_path):
    for name in ("first.npz", "second.npz"):
        save_pieces(make_pieces(TEXTS, vocab, 50), tmp_path / name)
    assert (tmp_path / "first.npz").read_bytes() == (tmp_path / "second.npz").read_bytes()
    other = make_pieces(TEXTS, vocab, 50, seed=2)
    assert not np.array_equal(other["segments"]["labels"], make_pieces(TEXTS, vocab, 50)["segments"]["labels"])


def test_fifteen_percent_of_the_words_are_asked_and_eighty_percent_of_these_are_masked(vocab):
    for pieces in make_pieces(TEXTS, vocab, 1000).values():
        ids, attention, labels = (pieces[name] for name in ("input_ids", "attention_mask", "labels"))
        asked = labels != -100
        true = np.where(asked, labels, ids)
        is_word = (attention == 1) & ~np.isin(true, [CLS, SEP])
        assert ids.shape[1] == 128 and np.all(true[attention == 0] == PAD) and not asked[~is_word].any()
        assert np.all(labels[asked] > MASK) and np.all(ids[asked & (ids != MASK)] > MASK)
        assert asked.sum() / is_word.sum() == pytest.approx(0.15, abs=0.005)
        assert (ids[asked] == MASK).mean() == pytest.approx(0.8, abs=0.02)
        assert (ids[asked] == labels[asked]).mean() == pytest.approx(0.1, abs=0.02)


def test_each_form_holds_the_tokens_of_the_texts(vocab):
    forms = make_pieces(TEXTS[:3], vocab, 1000)
    true = {
        name: [
            row[row != PAD].tolist()
            for row in np.where(pieces["labels"] == -100, pieces["input_ids"], pieces["labels"])
        ]
        for name, pieces in forms.items()
    }
    documents = [[WORDS.index(word) for word in text.split()] for text in TEXTS[:3]]
    segments = [[CLS, *ids[at : at + 126], SEP] for ids in documents for at in range(0, len(ids), 126)]
    joined = [token for ids in documents for token in (CLS, *ids, SEP)]
    assert sorted(true["segments"]) == sorted(segments)
    assert sorted(true["running text"]) == sorted(joined[at : at + 128] for at in range(0, len(joined) - 127, 128))


def test_the_rival_cuts_running_text_into_chunks_and_drops_the_rest():
    rows = {"input_ids": [[1, 2, 3], [4, 5], [6, 7, 8, 9]], "attention_mask": [[1] * 3, [1] * 2, [1] * 4]}
    assert group_texts(rows, 4) == {"input_ids": [[1, 2, 3, 4], [5, 6, 7, 8]], "attention_mask": [[1] * 4] * 2}


def test_the_log_of_the_rival_gives_its_stages_steps_and_tokens():
    lines = [
        {"event": "imported", "seconds": 4.0},
        {"event": "step", "seconds": 90.5},
        {"event": "trained", "seconds": 120.0, "steps": 7, "tokens": 28672},
        {"event": "saved", "seconds": 120.4},
    ]
    stages, steps, tokens = read_events("\n".join(map(json.dumps, lines)))
    assert (steps, tokens) == (7, 28672)
    assert durations(stages) == pytest.approx({"imported": 4.0, "step": 86.5, "trained": 29.5, "saved": 0.4})


def test_the_metrics_of_a_run_give_its_steps_and_tokens(tmp_path):
    metrics = tmp_path / "metrics.jsonl"
    assert read_steps(metrics) is None
    metrics.write_text('{"step": 0, "split": "validation", "mlm_loss": 10.4}\n')
    assert read_steps(metrics) is None
    with metrics.open("a") as file:
        file.write('{"step": 1, "split": "train", "tokens": 3900}\n{"step": 2, "split": "train", "tokens": 7801}\n{"st')
    assert read_steps(metrics) == (2, 7801)


def test_a_table_has_a_column_for_each_side_and_a_row_for_each_form():
    pair = [
        Result("run_mlm", Path("a"), {"step": 90.5, "trained": 120.0}, 7, 28672),
        Result("bertloom", Path("b"), {"step": 20.25, "trained": 119.0}, 30, 110000),
    ]
    judged = {
        name: {form: {"loss": loss, "accuracy": 0.125, "masked": 1500} for form in ("segments", "running text")}
        for name, loss in [("a", 7.5), ("b", 7.25)]
    }
    assert table(pair, judged) == [
        "| | run_mlm | bertloom |",
        "|---|---|---|",
        "| seconds until the first step is done | 90.5 | 20.2 |",
        "| steps | 7 | 30 |",
        "| real tokens trained on | 28,672 | 110,000 |",
        "| seconds until training ended | 120.0 | 119.0 |",
        "| held out, segments: MLM loss, accuracy of 1,500 words | 7.500, 12.5% | 7.250, 12.5% |",
        "| held out, running text: MLM loss, accuracy of 1,500 words | 7.500, 12.5% | 7.250, 12.5% |",
    ]


def test_an_error_of_one_side_ends_the_duel():
    def fails():
        raise RuntimeError("no memory")

    with pytest.raises(RuntimeError, match="no memory"):
        side_by_side(lambda: Result("other", Path("x")), fails)
