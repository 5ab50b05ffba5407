"""Whole jobs for every kind of example: sentence order, single segments, Google's way, whole words, Chinese words."""

import json
import sys

import numpy as np
import pytest

from bertloom.members import read_shard
from jobs.preprocess import PreprocessConfig
from jobs.verify import verify
from model.loading.data import DataSet
from pipeline.options import compose
from tests.jobs.corpus import CHINESE, digests, documents, run_job, vocabulary_words, write

TEXTS = documents(120)
KINDS = {
    "sop": {"pairs": "sop"},
    "none": {"pairs": "none", "short_seq_prob": 0.0},
    "google": {"compat": "google"},
    "words": {"do_whole_word_mask": True},
    "google-words": {"compat": "google", "do_whole_word_mask": True},
    "chinese": {"do_whole_word_mask": True, "chinese_words": True, "pairs": "none"},
    "icu": {"sentences": "icu:en"},
    "spans": {"mask_spans": True},
    "chinese-spans": {"mask_spans": True, "chinese_words": True, "pairs": "sop"},
    "split": {"mask_token_prob": 1.0, "random_token_prob": 0.0, "masked_lm_prob": 0.2},
}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write(tmp_path_factory.mktemp("text") / "texts.txt", TEXTS)


@pytest.fixture(scope="module", params=KINDS)
def made(request, source, vocab, tmp_path_factory):
    """(options, finished data set, its manifest)."""
    options, out = KINDS[request.param], tmp_path_factory.mktemp("kind") / "out"
    return options, out, run_job(source, out, vocab, **options)


def test_verify_finds_no_fault_and_the_manifest_records_the_options(made):
    options, out, manifest = made
    assert verify(str(out))[0] == []
    chosen = {name: manifest["configuration"][name] for name in options}
    assert chosen == options
    defaults = {"pairs": "nsp", "compat": None, "do_whole_word_mask": False, "chinese_words": False}
    defaults |= {"mask_token_prob": 0.8, "random_token_prob": 0.1}
    for name, value in defaults.items():
        assert manifest["configuration"][name] == options.get(name, value)
    assert json.loads((out / "manifest.json").read_text())["configuration"] == manifest["configuration"]


def test_the_trainer_reads_it(made):
    options, out, manifest = made
    data = DataSet(out)
    for split in ("train", "validation"):
        for length in (32, 64):
            examples = data.examples(split, length)
            tables = [read_shard(str(path)) for path in sorted((out / split / f"seq{length}").rglob("*.tar"))]
            for copy, table in enumerate(tables):
                rows = np.arange(table.num_rows)
                batch = examples.gather(np.full(len(rows), copy), rows)
                assert batch.input_ids.tolist() == [i for ids in table["input_ids"].to_pylist() for i in ids]
                assert batch.next_sentence_label.tolist() == table["next_sentence_label"].to_pylist()
                assert batch.masked_ids.tolist() == [i for ids in table["masked_lm_ids"].to_pylist() for i in ids]
    labels = set(table["next_sentence_label"].to_pylist())
    assert labels == ({-1} if options.get("pairs") == "none" else {0, 1})


def test_the_data_set_does_not_depend_on_splits_and_workers(made, source, vocab, tmp_path):
    options, out, _ = made
    run_job(source, tmp_path / "out", vocab, split_mb=0.02, **options)
    assert digests(tmp_path / "out") == digests(out)


@pytest.mark.parametrize("kind", ["sop", "chinese"])
def test_two_workers_make_the_same_kind(kind, source, vocab, tmp_path):
    one = run_job(source, tmp_path / "one", vocab, **KINDS[kind])
    two = run_job(source, tmp_path / "two", vocab, num_workers=2, split_mb=0.02, **KINDS[kind])
    assert one["shards_digest"] == two["shards_digest"]


def test_every_masked_token_becomes_mask_with_these_options(source, vocab, tmp_path):
    run_job(source, tmp_path / "out", vocab, **KINDS["split"])
    mask = vocabulary_words().index("[MASK]")
    table = read_shard(str(tmp_path / "out/train/seq64/copy0/00000.tar"))
    for ids, positions in zip(table["input_ids"].to_pylist(), table["masked_lm_positions"].to_pylist()):
        assert {ids[at] for at in positions} == {mask}
        assert len(positions) == max(1, (len(ids) * 2 + 5) // 10)


# ---- what may not be


@pytest.mark.parametrize(
    "options, message",
    [
        (
            {"compat": "google", "pairs": "sop"},
            "--compat google makes --pairs nsp only, not --pairs sop: leave one of the two out",
        ),
        ({"compat": "google", "pairs": "none"}, "--compat google makes --pairs nsp only, not --pairs none"),
        (
            {"compat": "google", "mask_spans": True},
            "--compat google masks whole words or single tokens, and --mask-spans asks for another",
        ),
        (
            {"mask_token_prob": 0.9, "random_token_prob": 0.2},
            "--mask-token-prob 0.9 and --random-token-prob 0.2: expected a sum of at most 1",
        ),
        ({"mask_token_prob": 1.1}, "--mask-token-prob 1.1: expected a share from 0.0 to 1.0"),
        ({"random_token_prob": -0.1}, "--random-token-prob -0.1: expected a share from 0.0 to 1.0"),
        ({"masked_lm_prob": 0.0}, "--masked-lm-prob 0.0: expected a share"),
        ({"short_seq_prob": 1.5}, "--short-seq-prob 1.5: expected a share"),
    ],
)
def test_options_that_exclude_each_other_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        compose(PreprocessConfig, input=("a",), vocab="v", out="o", **options)


def test_a_data_set_with_spans_has_another_configuration_than_one_without(source, vocab, tmp_path):
    for number, options in enumerate([{"mask_spans": True}, {}]):
        manifest = run_job(source, tmp_path / str(number), vocab, **options)
        assert manifest["configuration"]["mask_spans"] == bool(options)
        with pytest.raises(ValueError, match=r"another configuration .*mask_spans differ\): choose another --out"):
            run_job(source, tmp_path / str(number), vocab, mask_spans=not options)


def test_spans_are_of_whole_words_with_the_option_for_them_or_without(source, vocab, tmp_path):
    one = run_job(source, tmp_path / "one", vocab, mask_spans=True)
    two = run_job(source, tmp_path / "two", vocab, mask_spans=True, do_whole_word_mask=True)
    assert one["shards_digest"] == two["shards_digest"]


def test_shares_that_add_up_to_exactly_one_are_accepted():
    """As decimals: 0.7 + 0.2 + 0.1 is a little more than 1 in binary, and so might 0.9 + 0.1 be elsewhere."""
    for mask, other in ((0.9, 0.1), (0.7, 0.3), (1.0, 0.0), (0.0, 1.0)):
        compose(PreprocessConfig, input=("a",), vocab="v", out="o", mask_token_prob=mask, random_token_prob=other)


def test_chinese_words_without_the_segmenter_name_the_package_to_install(source, vocab, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "rjieba", None)
    with pytest.raises(ValueError, match='--chinese-words needs the extra "chinese"'):
        run_job(source, tmp_path / "out", vocab, chinese_words=True)


def test_whole_words_of_a_vocabulary_without_pieces_are_its_words(tmp_path):
    words = [word for word in vocabulary_words() if not word.startswith("##")]
    vocab = tmp_path / "vocab.txt"
    vocab.write_text("".join(f"{word}\n" for word in words), encoding="utf-8")
    source = write(tmp_path / "texts.txt", documents(60, chinese=1.0))
    run_job(source, tmp_path / "out", vocab, do_whole_word_mask=True)
    assert verify(str(tmp_path / "out"))[0] == []


# ---- single segments, of any corpus


@pytest.mark.parametrize(
    "texts",
    [
        [["bada kile. mono dina."]],
        [["bada kile mono."]],
        [[f"bada kile {i}."] for i in range(30)],
        [[" ".join(["bada"] * 300)]],
        [["".join(CHINESE * 20)]],
    ],
    ids=["one document", "one sentence", "of one sentence each", "one long sentence", "without an end"],
)
@pytest.mark.parametrize("options", [{}, {"do_whole_word_mask": True, "chinese_words": True}], ids=["tokens", "words"])
def test_single_segments_hold_every_token_of_any_corpus(texts, options, vocab, tmp_path):
    source = write(tmp_path / "texts.txt", texts)
    manifest = run_job(source, tmp_path / "out", vocab, pairs="none", validation_fraction=0.0, dupe_factor=1, **options)
    assert verify(str(tmp_path / "out"))[0] == []
    assert manifest["counters"]["documents_used"] == len(texts)
    for length in (32, 64):
        table = read_shard(str(tmp_path / f"out/train/seq{length}/copy0/00000.tar"))
        lengths = [len(ids) for ids in table["input_ids"].to_pylist()]
        assert sum(lengths) - 2 * len(lengths) == manifest["counters"]["tokens"] and max(lengths) <= length
        assert table["segment_b_start"].to_pylist() == lengths


@pytest.mark.parametrize(
    "pairs, message",
    [
        ("sop", "the documents give no example"),
        ("nsp", "60 of 60 pairs are parts of one sentence, because too many documents have a single sentence"),
    ],
)
def test_documents_of_one_sentence_make_no_data_set_of_pairs(pairs, message, vocab, tmp_path):
    source = write(tmp_path / "texts.txt", [[f"bada kile {i}."] for i in range(30)])
    with pytest.raises(ValueError, match=message):
        run_job(source, tmp_path / "out", vocab, pairs=pairs, validation_fraction=0.0)
