"""Byte-level BPE and Unigram: training from counts, and new words. test_vocabulary_training.py tests WordPiece."""

import json
import os
import subprocess
import sys
import unicodedata
from functools import lru_cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from bertloom.tokenizer_files import TokenizerFile, parse_tokenizer
from pipeline.stages import word_cuts
from pipeline.stages.word_cuts import PreTokenCounter, cut_of
from pipeline.tokenizer_models.growth import GrowthConfig, count_tokens
from pipeline.tokenizer_models.registry import MODELS, model_of
from pipeline.tokenizer_models.training import TrainingConfig, digest, limited, measure_coverage, scaled
from pipeline.tokenizer_models.unigram import spelled
from pipeline.vocabulary import SPECIAL_WORDS
from tests.pipeline.small_text import ODD_TEXT

ROOT = Path(__file__).parent.parent.parent
SAMPLE = ROOT / "jobs" / "sample"
ENGLISH = (SAMPLE / "en.jsonl").read_text("utf-8")[:60_000]
CHINESE = (SAMPLE / "zh.txt").read_text("utf-8")[:20_000]
OTHERS = [name for name, model in MODELS.items() if model.file == "tokenizer.json"]


def count(name, texts, **options):
    """The words of texts and their counts, and the options of the training."""
    config = TrainingConfig(**{"vocab_size": 600, "do_lower_case": False} | options)
    counter = cut_of(MODELS[name].parts(config)).counter()
    for text in texts:
        counter.add(text.encode())
    return dict(counter.take()), config


@lru_cache
def trained(name) -> TokenizerFile:
    """A tokenizer of two languages."""
    return MODELS[name].train(*count(name, [ENGLISH, CHINESE], vocab_size=1500))


# ---- training


@pytest.mark.parametrize("name", OTHERS)
def test_the_same_counts_give_the_same_tokenizer_in_every_process_and_in_any_order(name):
    code = (
        "import sys, hashlib, random; from tests.pipeline.test_tokenizer_models import *;"
        "counts, config = count(sys.argv[1], [ENGLISH, CHINESE], vocab_size=900);"
        "items = sorted(counts.items()); random.Random(sys.argv[2]).shuffle(items);"
        "content = MODELS[sys.argv[1]].content(MODELS[sys.argv[1]].train(dict(items), config));"
        "print(hashlib.sha256(content).hexdigest())"
    )
    found = set()
    for seed, threads in (("0", "1"), ("1", "2"), ("2", "7"), ("3", "1")):
        environment = os.environ | {"PYTHONHASHSEED": seed, "RAYON_NUM_THREADS": threads, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-c", code, name, seed]
        found.add(subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True).stdout)
    assert len(found) == 1


@pytest.mark.parametrize("name", OTHERS)
def test_the_special_words_come_first_and_the_file_says_all(name):
    content = MODELS[name].content(trained(name))
    read = parse_tokenizer(content, "tokenizer.json")
    assert read.tokens[:5] == SPECIAL_WORDS and len(read.tokens) == 1500 and None not in read.tokens
    special = read.special
    assert (special.pad, special.unk, special.cls, special.sep, special.mask) == (0, 1, 2, 3, 4)
    assert Tokenizer.from_str(content.decode()).encode("a", "b").tokens[:1] == ["[CLS]"]
    assert read.files()["tokenizer.json"] == content
    assert model_of(read.content, "") is MODELS[name]


@pytest.mark.parametrize("name", OTHERS)
@given(text=ODD_TEXT)
def test_transformers_gives_the_same_ids_and_names_of_special_words_are_text(name, text):
    ids = load(name).encode(text, add_special_tokens=False).ids
    assert not {0, 2, 3, 4} & {*ids}
    for word in SPECIAL_WORDS:
        text = text.replace(word, "")  # special words for transformers
    ids = load(name).encode(text, add_special_tokens=False).ids
    assert in_transformers(name)(text, add_special_tokens=False)["input_ids"] == ids


@lru_cache
def load(name):
    return trained(name).load()


@lru_cache
def in_transformers(name):
    transformers = pytest.importorskip("transformers")
    return transformers.PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(trained(name).content)))


@given(ODD_TEXT)
def test_byte_level_bpe_spells_every_text(text):
    tokenizer = load("bpe")
    assert tokenizer.decode(tokenizer.encode(text).ids) == unicodedata.normalize("NFC", text)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(
    ("lower", "strip", "expected"),
    [
        (False, None, "École"),
        (True, None, "ecole"),
        (True, False, "école"),
        (False, True, "Ecole"),
    ],
)
def test_case_and_accents_are_what_the_flags_say_for_every_model(name, lower, strip, expected):
    config = TrainingConfig(vocab_size=600, do_lower_case=lower, strip_accents=strip)
    model = {"type": "WordLevel", "vocab": {}, "unk_token": ""}
    tokenizer = Tokenizer.from_str(json.dumps(MODELS[name].parts(config) | {"model": model, "added_tokens": []}))
    for text in ("École", "E\u0301cole"):
        assert unicodedata.normalize("NFC", tokenizer.normalizer.normalize_str(text)) == expected


def test_rare_characters_are_unknown_to_unigram_and_frequent_chinese_ones_are_kept():
    texts = ["the cat sat on the mat " * 200, "中 中 文 ☃ ☃ ☃ ☃"]
    plain = MODELS["unigram"].train(*count("unigram", texts, vocab_size=40, character_coverage=0.995))
    assert not {"中", "文", "☃"} & {*plain.tokens}
    kept = MODELS["unigram"].train(
        *count("unigram", texts, vocab_size=40, character_coverage=0.995, chinese_frequency=2)
    )
    assert "中" in kept.tokens and not {"文", "☃"} & {*kept.tokens}
    counts, _ = count("unigram", texts)
    scripts = measure_coverage(kept, counts, MODELS["unigram"].readable)
    assert scripts["Chinese characters"].num_unknown == 1 and scripts["Latin"].num_unknown == 0


def test_words_are_cut_where_a_character_is_not_kept():
    assert spelled({"▁a-b": 2, "▁b": 1, "▅a": 4}, ["▁", "a", "b", "▅"]) == {"▁a": 2, "b": 2, "▁b": 1, "a": 4}


def test_a_small_text_gives_fewer_words():
    for name in OTHERS:
        assert 5 < len(MODELS[name].train(*count(name, ["the cat the cat"])).tokens) < 600


def test_a_vocabulary_that_is_smaller_than_the_alphabet_keeps_the_most_frequent_characters():
    texts = ["".join(chr(0x4E00 + i) * (100 - i) for i in range(90))]
    tokens = MODELS["unigram"].train(*count("unigram", texts, vocab_size=25, character_coverage=1.0)).tokens
    assert len(tokens) <= 25 and {*map(chr, range(0x4E00, 0x4E00 + 19))} <= {*tokens}


# ---- bounds


@given(st.dictionaries(st.text(min_size=1), st.integers(1, 50)), st.integers(0, 60))
def test_limits_keep_the_most_frequent_words_whatever_their_order(counts, most):
    kept = limited(counts, most)
    assert kept == limited(dict(reversed(counts.items())), most) and sum(map(len, kept)) <= most
    left_out = {word: n for word, n in counts.items() if word not in kept}
    assert not left_out or not kept or min(kept.values()) >= max(left_out.values())


def test_of_words_that_occur_equally_often_hashes_choose():
    counts = {chr(0x4E00 + i) * 4: 1 for i in range(1000)}
    kept = limited(counts, 400)
    assert len(kept) == 100 and len({word for word in kept if word > max(counts, key=str)[:1]}) < 100
    assert max(map(digest, kept)) < min(digest(word) for word in counts if word not in kept)


@given(st.dictionaries(st.text(min_size=1), st.integers(1, 1000)), st.integers(1, 5000))
def test_scaled_counts_are_within_one_of_their_share(counts, most):
    total = sum(len(word) * n for word, n in counts.items())
    for word, n in scaled(counts, most):
        share = counts[word] * min(1, most / max(total, 1))
        assert abs(n - share) < 1.001


@pytest.mark.parametrize("name", OTHERS)
@given(texts=st.lists(st.lists(ODD_TEXT | st.just("字" * 30)).map(" ".join)))
def test_counts_do_not_depend_on_blocks_and_long_words_are_cut(name, texts):
    counts, config = count(name, texts)
    assert all(len(word) <= word_cuts.LONGEST for word in counts)
    parts = MODELS[name].parts(config) | {"model": {"type": "WordLevel", "vocab": {}, "unk_token": ""}}
    tokenizer = Tokenizer.from_str(json.dumps(parts | {"added_tokens": []}))
    expected = {}
    for text in texts:
        text = tokenizer.normalizer.normalize_str(text.replace("\n", " "))
        for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(text):
            for start in range(0, len(word), word_cuts.LONGEST):
                part = word[start : start + word_cuts.LONGEST]
                expected[part] = expected.get(part, 0) + 1
    assert counts == expected


@pytest.mark.parametrize("name", OTHERS)
def test_a_long_text_is_read_in_blocks_that_cut_no_word(name, monkeypatch):
    whole, config = count(name, [ENGLISH, "  a   b  " * 500])
    monkeypatch.setattr(word_cuts, "BLOCK_CHARACTERS", 500)
    assert count(name, [ENGLISH, "  a   b  " * 500])[0] == whole
    monkeypatch.setattr(word_cuts, "MAX_COUNTED_CHARACTERS", 20)
    counter = cut_of(MODELS[name].parts(config)).counter()
    assert isinstance(counter, PreTokenCounter) and not counter.is_full
    counter.add(b"one two three four five six")
    assert counter.is_full and sum(counter.take().values()) == 6 and not counter.is_full


# ---- new words

DOMAIN = [
    "Kubernetes pods, the kubernetes scheduler and cpython. " * 8,
    "The cpython interpreter; cpython's bytecode. Deprecated annotations 2024 2024 2024 2024 2024 2024. " * 6,
    "人工智能的模型，人工智能；训练人工智能模型。" * 6,
]


@lru_cache
def grown(name, number=50):
    counts, _ = count(name, DOMAIN)
    return MODELS[name].grow(trained(name).content, counts, GrowthConfig(num_words=number, min_frequency=3))


@lru_cache
def load_grown(name):
    return parse_tokenizer(json.dumps(grown(name).content).encode(), "grown", trained(name).special.names)


@pytest.mark.parametrize("name", OTHERS)
def test_each_new_word_is_one_token_of_its_old_pieces(name):
    growth, old = grown(name), trained(name)
    new = load_grown(name)
    assert new.tokens[:1500] == old.tokens and len(new.tokens) == 1550 and [*growth.words] == [*range(1500, 1550)]
    alone = Tokenizer.from_str(json.dumps({**new.content, "normalizer": None, "pre_tokenizer": None}))
    alone.encode_special_tokens = True
    for number, word in growth.words.items():
        assert new.tokens[number] == word.word == "".join(old.tokens[piece] for piece in word.pieces)
        assert alone.encode(word.word, add_special_tokens=False).ids == [number]
    shown = {MODELS[name].readable(word.word).strip() for word in growth.words.values()}
    assert {"kubernetes", "cpython"} <= shown and any("人" in word for word in shown)
    assert not any("2" in word for word in shown)


@pytest.mark.parametrize("name", OTHERS)
def test_what_the_words_save_is_what_the_text_loses(name):
    counts, _ = count(name, DOMAIN)
    growth, unk = grown(name), trained(name).special.unk
    before, after = (count_tokens(content, counts, unk) for content in (trained(name).content, growth.content))
    assert before.num_tokens - after.num_tokens == sum(word.saved for word in growth.words.values())
    assert growth == MODELS[name].grow(
        trained(name).content, dict(sorted(counts.items())), GrowthConfig(num_words=50, min_frequency=3)
    )


DOMAIN_TEXT = ODD_TEXT | st.lists(
    st.sampled_from([*" ".join(DOMAIN).split(), " ", "kuber", "人工", "智能", "py", "☃", "[MASK]"])
).map("".join)


@given(DOMAIN_TEXT)
def test_tokens_of_bpe_are_the_old_ones_some_of_which_are_joined(text):
    old = load("bpe").encode(text, add_special_tokens=False).ids
    new = load_new("bpe").encode(text, add_special_tokens=False).ids
    words = grown("bpe").words
    assert [piece for number in new for piece in (words[number].pieces if number in words else [number])] == old


@given(DOMAIN_TEXT)
def test_tokens_of_unigram_change_only_in_words_with_a_new_piece(text):
    tokenizer, new = load("unigram"), [word.word for word in grown("unigram").words.values()]
    for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(tokenizer.normalizer.normalize_str(text)):
        if not any(piece in word for piece in new):
            before, after = (one.model.tokenize(word) for one in (tokenizer, load_new("unigram")))
            assert [token.id for token in before] == [token.id for token in after]


@lru_cache
def load_new(name):
    return load_grown(name).load()


@pytest.mark.parametrize("name", OTHERS)
def test_unused_words_are_replaced_unless_they_are_kept(name):
    old = json.loads(json.dumps(trained(name).content))
    unused = {"id": 1500, "content": "[unused0]", "single_word": False, "lstrip": False, "rstrip": False}
    old["added_tokens"].append(unused | {"normalized": False, "special": False})
    counts, _ = count(name, DOMAIN)
    growth = MODELS[name].grow(old, counts, GrowthConfig(num_words=2, min_frequency=3))
    assert growth.replaced == ("[unused0]",) and [*growth.words] == [1500, 1501]
    tokens = parse_tokenizer(json.dumps(growth.content).encode(), "new").tokens
    assert len(tokens) == 1502 and "[unused0]" not in tokens
    kept = MODELS[name].grow(old, counts, GrowthConfig(num_words=2, min_frequency=3, keep_unused=True))
    assert not kept.replaced and [*kept.words] == [1501, 1502]
    assert parse_tokenizer(json.dumps(kept.content).encode(), "new").tokens[1500] == "[unused0]"


@pytest.mark.parametrize("name", OTHERS)
def test_too_many_words_are_refused_with_the_number_that_there_is(name):
    counts, _ = count(name, DOMAIN)
    with pytest.raises(
        ValueError, match=r"num_words=5,000: the text has [\d,]+ words that occur 3 times .* or --num-words"
    ):
        MODELS[name].grow(trained(name).content, counts, GrowthConfig(num_words=5000, min_frequency=3))


def test_other_kinds_cannot_get_new_words():
    with pytest.raises(
        ValueError, match="v: a tokenizer of the kind 'WordLevel' cannot get new words: expected WordPiece"
    ):
        model_of({"model": {"type": "WordLevel"}}, "v")
    content = {**trained("bpe").content, "model": {**trained("bpe").content["model"], "end_of_word_suffix": "</w>"}}
    with pytest.raises(ValueError, match="the tokenizer has a end_of_word_suffix: expected byte-level BPE"):
        MODELS["bpe"].grow(content, {"a": 1}, GrowthConfig(num_words=1))
