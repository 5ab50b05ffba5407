"""Sentences of other languages by ICU: worked examples, exact offsets, and nothing that depends on the neighbours."""

import sys
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from icu4py.breakers import SentenceBreaker

from pipeline.examples.configuration import ExamplesConfig
from pipeline.inputs.sources import Source, Split, SplitGroup
from pipeline.job import JobConfig
from pipeline.stages.tokenization import part_names
from pipeline.text.abbreviations import abbreviations_of
from pipeline.text.icu import load_sentence_finder
from pipeline.text.records import Document
from pipeline.tokenizer import DocumentTokenizer, TokenizeConfig, make_document_tokenizer
from tests.pipeline.small_text import ODD_TEXT, VOCABULARY

# read by eye; "|" where a sentence ends
EXAMPLES = {
    "ja": [
        "今日は晴れです。|明日は雨でしょう！|本当ですか？|はい。",
        "「もう帰るの？」|「うん、また明日。」|と彼女は言った。",
        "価格は３．５％上がった。|（続く）",
        "😀今日は𠮷野家で食べた。|おいしかった。",
    ],
    "th": [
        "สวัสดีครับ|วันนี้อากาศดีมาก",
        "คุณจะไปไหน? |ผมจะไปตลาด! |แล้วเจอกันพรุ่งนี้",
        "ราคา 3.5 บาท",
    ],
    "hi": [
        "मैं घर जाता हूँ। |वह स्कूल जाती है। |क्या तुम आओगे? |हाँ!",
        "धर्मक्षेत्रे कुरुक्षेत्रे॥ |मूल्य 3.5 रुपये है।",
    ],
    "ar": [
        "ذهبت إلى السوق. |هل تأتي معي؟ |نعم، سآتي غدا!",
        "قال: «لا أعرف.» |ثم مضى.",
    ],
    "ru": [
        "Он ушёл. |Она осталась. |Что делать?",
        "«Куда ты идёшь?» — спросила она. |Никто не ответил…",
        "Пришли поэты и др. гости. |На ул. Ленина было тихо, т. е. пусто.",
    ],
    "es": ["Vimos al doctor. |Después vino el Sr. Gómez. |Vive en la Av. Norte, p.ej. Madrid. |¿Quién es? |Nadie."],
    "pt": ["Ele foi ao bar. |Depois voltou com a Dra. Silva. |Ela mora ali. |Fim."],
    "it": ["Vide il mare. |Poi arrivò, pag. Dieci, il dott. Rossi. |Era un nazional. |Che cosa?"],
    "fr": ["Il est dans l’air. |Puis M. Petit arriva. |Le film. |La fin ?"],
    "de": [
        "Das Haus ist alt. |Wer wohnt dort? |Niemand!",
        "Dr. Müller kam um acht. |„Guten Tag.“ |Er setzte sich, usw. und so fort.",
        "Das ist mein Vater. |Er gab die Stelle ab. |Gegen Abend, z. B. um acht, kam Dr. Bau.",
        "Es kostet 3.5 Mio. Euro. |Das ist viel 💶. |Zu viel.",
    ],
}
ENDS = st.sampled_from(
    [
        "!か",
        "?」か",
        "Vater. ",
        "ca. ",
        "n. Chr. ",
        "».",
        ". ",
        "? ",
        "! ",
        "。",
        "「",
        "」",
        "。」「",
        "।",
        "؟ ",
        "\n",
        " ",
        "Dr. ",
        "z. B. ",
        "\u2028",
        "…",
    ]
)
TEXTS = st.lists(ENDS | ODD_TEXT, max_size=12).map("".join)


def finder(locale: str):
    find = load_sentence_finder(f"icu:{locale}")
    assert find
    return find


@pytest.mark.parametrize("locale, text", [(locale, text) for locale, texts in EXAMPLES.items() for text in texts])
def test_sentences_end_where_a_reader_would_end_them(locale, text):
    data = text.replace("|", "\n" if text == EXAMPLES["th"][0] else "").encode()
    starts = finder(locale)(data).tolist()
    found = [data[a:b].decode().strip() for a, b in zip(starts, [*starts[1:], None])]
    assert found == [sentence.strip() for sentence in text.split("|")]


def slow_starts(text: str, locale: str) -> list[int]:
    """By ICU's own offsets, which count UTF-16 units."""
    wide, starts = text.encode("utf-16-le"), []
    for offset, _ in SentenceBreaker(text, locale).segments():
        start = len(wide[: 2 * offset].decode("utf-16-le"))
        before = text[:start].rstrip(" \t\xa0")
        if any(
            before.endswith(word) and not before[: -len(word)][-1:].isalnum()
            for word in sorted(abbreviations_of(locale))
        ):
            continue
        while start > max([0, *starts]) and text[start - 1] in "「『（〈《【〔［｛":
            start -= 1
        starts.append(start)
    return [len(text[:start].encode()) for start in starts]


@settings(max_examples=60)
@given(text=TEXTS, locale=st.sampled_from(sorted(EXAMPLES)))
def test_sentence_starts_equal_icu_in_bytes(text, locale):
    assert finder(locale)(text.encode()).tolist() == slow_starts(text, locale)


@pytest.fixture(scope="module")
def tokenizer():
    return make_document_tokenizer(TokenizeConfig(sentences="icu:de"), VOCABULARY)


@settings(max_examples=60)
@given(texts=st.lists(TEXTS, min_size=1, max_size=5))
def test_sentences_of_a_document_do_not_depend_on_its_neighbours(tokenizer, texts):
    documents = [Document(text.replace("\r", " ").encode(), i) for i, text in enumerate(texts)]
    alone = [tokenizer([document]) for document in documents]
    together = tokenizer(documents)
    assert together.sentence_lengths.tolist() == [n for block in alone for n in block.sentence_lengths.tolist()]
    assert together.sentence_lengths.sum() == len(together.ids) and together.sentence_lengths.all()
    assert together.documents.tobytes() == np.concatenate([b.documents for b in alone]).tobytes()


@pytest.mark.parametrize(
    "text, lengths",
    [
        ("the cat. Mr. he sat! I", [3, 6, 1]),
        ("he。went", [2, 1]),
        ("é?Ab the", [2, 3]),
        ("かな!かな?かな。かな", [2, 2, 2, 1]),
        ("か?」か!?か", [3, 3, 1]),
        ("да»?Он?Ab", [3, 2, 2]),
        ("é?\u0300Ab the", [4, 1]),  # not after a combining mark: the next unit begins the sentence
    ],
)
def test_sentences_begin_at_the_start_of_a_unit(tokenizer, text, lengths):
    """A border after a mark inside a word cuts the word."""
    assert tokenizer([Document(text.encode(), 0)]).sentence_lengths.tolist() == lengths


@settings(max_examples=100)
@given(texts=st.lists(TEXTS, min_size=1, max_size=3), lower=st.booleans(), accents=st.sampled_from([None, False]))
def test_the_tokens_are_those_of_the_rule(texts, lower, accents):
    documents = [Document(text.replace("\r", " ").encode(), i) for i, text in enumerate(texts)]
    by_rule, by_icu = (
        tokenizer_of(TokenizeConfig(sentences=sentences, do_lower_case=lower, strip_accents=accents))(documents)
        for sentences in ("rule", "icu:ja")
    )
    assert by_icu.ids.tolist() == by_rule.ids.tolist()
    assert by_icu.documents["num_tokens"].tolist() == by_rule.documents["num_tokens"].tolist()


@cache
def tokenizer_of(config: TokenizeConfig) -> DocumentTokenizer:
    return make_document_tokenizer(config, VOCABULARY)


@pytest.mark.parametrize(
    "value", ["icu", "icu:", "icu:xx", "icu:japanese", "icu:ja@x=y", "ICU:ja", "ja", "", "icu:zh_"]
)
def test_an_unknown_locale_is_refused(value):
    with pytest.raises(ValueError, match=f"--sentences {value}: expected rule, .*ISO 639-1"):
        TokenizeConfig(sentences=value)


@pytest.mark.parametrize("value", ["rule", "icu:ja", "icu:de-AT", "icu:zh_Hant_TW", "icu:sr-Latn"])
def test_a_known_locale_is_accepted(value):
    assert make_document_tokenizer(TokenizeConfig(sentences=value), VOCABULARY)([Document(b"a. b", 0)]).ids.tolist()


def test_the_error_for_a_missing_library_names_the_extra_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "icu4py.breakers", None)
    with pytest.raises(ValueError, match='--sentences icu:ja needs the extra "icu"'):
        load_sentence_finder("icu:ja")
    assert load_sentence_finder("rule") is None


def test_another_locale_makes_other_parts():
    split = Split(Source("/a", "a", "jsonl", None, None, 9, "f"), 0, None, 9)
    configs = [TokenizeConfig(sentences=value) for value in ("rule", "icu:ja", "icu:th")]
    assert (
        len({part_names(SplitGroup((split,)), JobConfig(config, ExamplesConfig(), "v"), 200)(0) for config in configs})
        == 3
    )
