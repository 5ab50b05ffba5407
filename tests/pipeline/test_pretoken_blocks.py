"""The sentence and the word of each token, for any tokenizer, against slow twins that look at one text and one token."""

import json
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertloom.tokenizer_files import parse_tokenizer
from pipeline.text.pretokens import PreTokens
from pipeline.text.records import Document
from pipeline.tokenizer import TokenizeConfig, make_document_tokenizer
from pipeline.tokenizer_vocabulary import TokenizerVocabulary
from pipeline.vocabulary import SPECIAL_WORDS, Vocabulary
from tests.bertloom.tokenizer_kinds import CONTENTS, NAMES

KINDS = ("roberta", "llama3", "xlm_roberta", "albert", "mpnet", "gemma")
VOCABULARIES = {
    kind: TokenizerVocabulary.of(parse_tokenizer(json.dumps(CONTENTS[kind]).encode(), kind, NAMES.get(kind)))
    for kind in KINDS
}
BERT = Vocabulary((*SPECIAL_WORDS, "a"))
TOKENIZERS = {kind: make_document_tokenizer(TokenizeConfig(), VOCABULARIES[kind]) for kind in KINDS}
ALONE = {kind: PreTokens(of.tokenizer.load(), len(of.words)) for kind, of in VOCABULARIES.items()}
CUT_AS_BERT = make_document_tokenizer(TokenizeConfig(), BERT)
CHINESE = re.compile("[\u3400-\u9fff\uf900-\ufaff，。！？：；、《》（）]")
PARTS = st.sampled_from(
    [
        "the cat",
        " sat",
        ". ",
        "! ",
        "? The",
        "\n",
        "He said “no.” ",
        "我们在北京",
        "学习。",
        "！",
        "语言",
        "abc",
        " ",
        "é",
        "don't",
    ]
    + ["Dr. ", "12", "囍", "，", "  ", "\u3000", "x", "中"]
)
TEXTS = st.lists(PARTS, min_size=1, max_size=8).map(lambda parts: "".join(parts).strip()).filter(bool)


def tokens_of(kind, text):
    """(ids, (first byte, whether it continues a pre-token) of each token) of one text alone."""
    found = ALONE[kind]([text.encode()])
    return found.ids.tolist(), list(zip(found.starts.tolist(), found.inside.tolist(), strict=True))


def borders_of(text):
    """The first byte of each sentence of a text: where BERT's tokens say it."""
    return CUT_AS_BERT._cut([text.encode()]).borders.tolist()


@given(texts=st.lists(TEXTS, min_size=1, max_size=4), kind=st.sampled_from(KINDS))
@settings(max_examples=150, deadline=None)
def test_sentences_are_those_of_bert_and_ids_those_of_the_library(texts, kind):
    block = TOKENIZERS[kind]([Document(text.encode(), 0) for text in texts])
    edges = np.cumsum([0, *block.sentence_lengths])
    first_sentence = first_token = 0
    for text, row in zip(texts, block.documents, strict=True):
        ids, tokens = tokens_of(kind, text)
        assert block.ids[first_token : first_token + len(ids)].tolist() == ids
        assert row["num_tokens"] == len(ids)
        begins = edges[first_sentence : first_sentence + row["num_sentences"]] - first_token
        sentence = np.searchsorted(borders_of(text), [start for start, _ in tokens], side="right")
        assert begins.tolist() == [i for i in range(len(ids)) if i == 0 or sentence[i] != sentence[i - 1]]
        first_sentence, first_token = first_sentence + row["num_sentences"], first_token + len(ids)
    assert first_token == len(block.ids) and first_sentence == len(block.sentence_lengths)


@given(text=TEXTS, kind=st.sampled_from(KINDS))
@settings(max_examples=150, deadline=None)
def test_a_chinese_character_and_what_follows_it_begin_words(text, kind):
    block = TOKENIZERS[kind]([Document(text.encode(), 0)])
    _, tokens = tokens_of(kind, text)
    raw = text.encode()
    before = -1
    for inside, (start, is_in_piece) in zip(block.inside_words, tokens, strict=True):
        here, previous = (part.decode()[at : at + 1 or None] for part, at in ((raw[start:], 0), (raw[:start], -1)))
        begins = start != before and (CHINESE.match(here) or (CHINESE.match(previous) and not here.isspace()))
        assert inside == (is_in_piece and not begins), (text, start)
        before = start


def words(kind, text, **options):
    """The tokens of a text with a space before each word."""
    vocabulary = VOCABULARIES[kind]
    block = make_document_tokenizer(TokenizeConfig(**options), vocabulary)([Document(text.encode(), 0)])
    names = [(vocabulary.readable.texts[i] or ".") for i in block.ids]
    return "".join(name if inside else f" {name}" for name, inside in zip(names, block.inside_words)).split()


def test_chinese_words_join_the_tokens_that_begin_inside_them():
    assert words("mpnet", "我们在北京学习") == ["我", "们", "在", "北", "京", "学", "习"]
    assert words("mpnet", "我们在北京学习", chinese_words=True) == ["我们", "在", "北京", "学习"]


def test_a_token_of_several_chinese_words_begins_a_word():
    content = json.loads(json.dumps(CONTENTS["xlm_roberta"]))
    content["model"]["vocab"] += [["我们在", -1.0], ["京学", -1.0], ["习x", -1.0]]
    vocabulary = TokenizerVocabulary.of(parse_tokenizer(json.dumps(content).encode(), "x"))
    block = make_document_tokenizer(TokenizeConfig(chinese_words=True), vocabulary)(
        [Document("我们在北京学习x".encode(), 0)]
    )
    assert [vocabulary.words[i] for i in block.ids] == ["▁", "我们在", "北", "京学", "习x"]
    assert block.inside_words.tolist() == [False, True, False, True, True]  # "▁" begins the word of its text


@pytest.mark.parametrize("kind", KINDS)
def test_sentences_of_icu_are_found_with_any_tokenizer(kind):
    text = "The cat sat. The dog ran. 我们在。"
    config = TokenizeConfig(sentences="icu:ja")
    counts = [
        make_document_tokenizer(config, vocabulary)([Document(text.encode(), 0)]).documents["num_sentences"].tolist()
        for vocabulary in (BERT, VOCABULARIES[kind])
    ]
    assert counts[0] == counts[1] == [3]


def test_a_token_that_crosses_the_end_of_a_sentence_belongs_to_the_earlier_one():
    content = json.loads(json.dumps(CONTENTS["xlm_roberta"]))
    content["pre_tokenizer"] = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": False}
    content["model"]["vocab"] += [["▁He", -1.0], ["▁ran", -1.0], [".▁He", -1.0], [".", -1.0]]
    vocabulary = TokenizerVocabulary.of(parse_tokenizer(json.dumps(content).encode(), "x"))
    block = make_document_tokenizer(TokenizeConfig(), vocabulary)([Document(b"He ran. He ran.", 0)])
    assert [vocabulary.words[i] for i in block.ids] == ["▁He", "▁ran", ".▁He", "▁ran", "."]
    assert block.sentence_lengths.tolist() == [3, 2]
