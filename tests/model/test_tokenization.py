import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import BertWordPieceTokenizer
from transformers import AutoTokenizer, BertTokenizer

from model.hub.tokenizer import load_tokenizer, save_tokenizer
from tests.model.small_task import VOCABULARY, small_tokenizer

TOKENIZER = small_tokenizer()


def words(ids) -> list[str]:
    return [VOCABULARY[number] for number in ids]


def pieces(tokenizer, text) -> list[str]:
    return [tokenizer.words[number] for number in tokenizer.ids([text])[0]]


def test_a_special_word_in_a_text_is_text():
    assert words(TOKENIZER.ids(["good [MASK]"])[0]) == ["good", "[UNK]", "m", "##a", "##s", "##k", "[UNK]"]


@given(st.text())
def test_offsets_count_code_points_of_the_original_text(text):
    [(ids, places)] = TOKENIZER.places([text])
    for token, (begin, end) in zip(words(ids), places.tolist()):
        assert 0 <= begin < end <= len(text)
        if token != "[UNK]":
            piece = token.removeprefix("##")
            again = pieces(TOKENIZER, text[begin:end])
            assert "".join(part.removeprefix("##") for part in again) == piece


def test_offsets_are_right_after_emoji_combining_accents_and_dropped_characters():
    text = "😀 \u200bp\u0301aris 北京"
    [(ids, places)] = TOKENIZER.places([text])
    assert [(token, text[begin:end]) for token, (begin, end) in zip(words(ids), places.tolist())] == [
        ("[UNK]", "😀"),
        ("paris", "p\u0301aris"),
        ("北", "北"),
        ("京", "京"),
    ]


@given(st.lists(st.text(max_size=6), max_size=8))
def test_each_word_of_a_text_in_words_has_a_first_token(texts):
    ids, begins = TOKENIZER.word_ids([texts])[0]
    assert len(begins) == len(texts)
    ends = [*begins.tolist()[1:], len(ids)]
    for word, begin, end in zip(texts, begins.tolist(), ends):
        alone = words(TOKENIZER.ids([word])[0]) or ["[UNK]"]
        assert words(ids[begin:end]) == alone


def test_transformers_reads_the_files_and_gives_the_same_ids(tmp_path):
    save_tokenizer(TOKENIZER, tmp_path, 64)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    for text in ("Anna lives in Páris!", "北京 is in 中国", "(good)"):
        assert theirs(text)["input_ids"] == [2, *TOKENIZER.ids([text])[0].tolist(), 3]
    assert theirs("where", "in paris")["token_type_ids"] == [0, 0, 0, 1, 1, 1]
    assert (theirs.model_max_length, theirs.mask_token, theirs.pad_token_id) == (64, "[MASK]", 0)
    assert load_tokenizer(tmp_path, len(VOCABULARY)).words == VOCABULARY


def test_a_folder_with_only_vocab_txt_is_read_with_the_configured_casing(tmp_path):
    (tmp_path / "vocab.txt").write_text("".join(word + "\n" for word in [*VOCABULARY, "Paris"]))
    size = len(VOCABULARY) + 1
    assert pieces(load_tokenizer(tmp_path, size), "Paris") == ["paris"]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": False}))
    assert pieces(load_tokenizer(tmp_path, size), "Paris") == ["Paris"]


@pytest.mark.parametrize("kind", ["BertTokenizer", "BertTokenizerFast", None, "PreTrainedTokenizerFast"])
@pytest.mark.parametrize(
    "given",
    [
        {},
        {"do_lower_case": False},
        {"do_lower_case": True},
        {"strip_accents": False},
        {"do_lower_case": False, "strip_accents": True},
        {"tokenize_chinese_chars": False},
    ],
)
@pytest.mark.parametrize("lowercase", [True, False])
def test_a_configuration_and_a_tokenizer_that_disagree_are_read_as_transformers_reads_them(
    tmp_path, lowercase, given, kind
):
    words = [*VOCABULARY, "Paris", "café", "cafe", "中国"]
    made = BertWordPieceTokenizer({word: number for number, word in enumerate(words)}, lowercase=lowercase)
    made.save(str(tmp_path / "tokenizer.json"))
    config = given | ({"tokenizer_class": kind} if kind else {})
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert", "vocab_size": len(words)}))
    text = "Paris café 中国"
    tokens = pieces(load_tokenizer(tmp_path, len(words)), text)
    assert tokens == AutoTokenizer.from_pretrained(tmp_path).tokenize(text)


def test_a_casing_that_is_neither_true_nor_false_is_refused(tmp_path):
    save_tokenizer(TOKENIZER, tmp_path, 64)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": None}))
    with pytest.raises(ValueError, match="tokenizer_config.json: do_lower_case is null, expected true or false"):
        load_tokenizer(tmp_path, len(VOCABULARY))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"strip_accents": "no"}))
    with pytest.raises(ValueError, match='strip_accents is "no", expected true, false or null'):
        load_tokenizer(tmp_path, len(VOCABULARY))


def test_a_vocabulary_that_is_not_the_models_is_refused(tmp_path):
    with pytest.raises(ValueError, match="has neither tokenizer.json nor vocab.txt"):
        load_tokenizer(tmp_path, 10)
    save_tokenizer(TOKENIZER, tmp_path, 64)
    size = len(VOCABULARY)
    with pytest.raises(ValueError, match=f"the vocabulary has {size} words, the model has vectors for 100"):
        load_tokenizer(tmp_path, 100)
    assert load_tokenizer(tmp_path, size + 128).vocab_size == size, "some models pad theirs"
    with pytest.raises(ValueError, match=f" {size + 129}: expected at least {size + 1} .*embeddings.{size}."):
        load_tokenizer(tmp_path, size + 129)
    (tmp_path / "vocab.txt").write_text("".join(word + "\n" for word in [*VOCABULARY[:-1], "other"]))
    with pytest.raises(ValueError, match="vocab.txt and tokenizer.json have different words"):
        load_tokenizer(tmp_path, size)
    (tmp_path / "vocab.txt").unlink()
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match="is not a tokenizer.json"):
        load_tokenizer(tmp_path, size)
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "vocab.txt").write_text("[UNK]\n[CLS]\na\n")
    with pytest.raises(ValueError, match=re.escape("the vocabulary has no [PAD], so it is not a BERT's")):
        load_tokenizer(tmp_path, size)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertJapaneseTokenizer"}))
    with pytest.raises(
        ValueError, match="tokenizer_class is 'BertJapaneseTokenizer': expected BertTokenizer, .* tokenizer.json"
    ):
        load_tokenizer(tmp_path, size)


def test_added_words_are_in_tokenizer_json_alone_as_transformers_saves_them(tmp_path):
    (tmp_path / "vocab.txt").write_text("".join(word + "\n" for word in VOCABULARY))
    theirs = BertTokenizer(str(tmp_path / "vocab.txt"))
    theirs.add_tokens(["New York", "<new>"])
    theirs.save_pretrained(tmp_path)
    assert (tmp_path / "vocab.txt").read_text().splitlines() == VOCABULARY
    ours = load_tokenizer(tmp_path, len(VOCABULARY) + 2)
    assert ours.words == [*VOCABULARY, "New York", "<new>"]
    text = "anna <new> lives in New York"
    assert ours.ids([text])[0].tolist() == theirs(text, add_special_tokens=False).input_ids
    save_tokenizer(ours, tmp_path, 64)  # and once more, all of them in vocab.txt
    assert load_tokenizer(tmp_path, len(VOCABULARY) + 2).words == ours.words
    (tmp_path / "vocab.txt").write_text("".join(word + "\n" for word in [*VOCABULARY[:-1], "other"]))
    with pytest.raises(ValueError, match=r"have different words \(125 and 127\)"):
        load_tokenizer(tmp_path, len(VOCABULARY) + 2)
