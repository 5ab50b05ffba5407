import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.text.sentences import sentence_starts, unit_marks
from pipeline.text.wordpiece import WordPiece
from pipeline.vocabulary import make_tokenizer
from tests.pipeline import twins
from tests.pipeline.small_text import ODD_TEXT, VOCABULARY

# what the rule looks at, more often than chance would have it
PIECES = [
    *twins.ABBREVIATIONS[:12],
    *twins.BEFORE_NUMBERS[:4],
    *twins.STARTERS[:6],
    *twins.CLOSERS,
    "I",
    "J",
    "a",
    "U",
    "The",
    "cat",
    "5",
    "1999",
    "café",
    "café.",
    "é.”",
    "中",
    "文。",
    "。",
    "！",
    "？",
    "｡",
    "…",
    "…”",
    "，",
    "．",
    "．",
    "三",
    "ですか",
    "ト",
    "）",
    "５",
    "\0",
    "é",
    "\U00020000",
    "；",
    ".",
    ".",
    ".",
    "!",
    "?",
    ",",
    ";",
    ":",
    "(",
    "“",
    "「",
    " ",
    " ",
    " ",
    " ",
    "\t",
    "\n",
    "\r",
    "\u3000",
]
TRICKY = st.lists(st.sampled_from(PIECES), max_size=30).map("".join)


class Kernel:
    """The rule on a text: the units and their marks as DocumentTokenizer puts them together."""

    def __init__(self, do_lower_case: bool):
        tokenizer = make_tokenizer(VOCABULARY, do_lower_case, None)
        self.wordpiece = WordPiece(tokenizer, do_lower_case, len(VOCABULARY.words))
        self.marks: list[int] = []

    def __call__(self, text: str) -> tuple[list[int], list[bool]]:
        """(first byte of every unit, does a sentence begin there)."""
        data = text.encode()
        units, new = self.wordpiece.units(data)
        self.marks += map(unit_marks, new)
        marks = np.array(self.marks, np.uint8)[units.codes]
        begins = sentence_starts(np.frombuffer(data, np.uint8), units.starts, units.lengths, marks)
        return units.starts.tolist(), begins.tolist()


@pytest.fixture(scope="module", params=[True, False], ids=["uncased", "cased"])
def kernel(request) -> Kernel:
    return Kernel(request.param)


def sentences_of(kernel: Kernel, text: str) -> list[str]:
    starts, begins = kernel(text)
    edges = [start for start, begin in zip(starts, begins) if begin]
    return [text.encode()[a:b].decode().strip() for a, b in zip(edges, [*edges[1:], None])]


@settings(max_examples=400)
@given(text=TRICKY)
def test_sentence_starts_equal_their_twin(kernel, text):
    units = twins.cut_units(text, kernel.wordpiece.tokenizer)
    assert kernel(text)[1] == twins.sentence_starts(units)


@given(text=ODD_TEXT)
def test_any_text_has_sentences_and_the_first_begins_it(kernel, text):
    assert kernel(text)[1][:1] in ([], [True])


@pytest.mark.parametrize(
    "text",
    [
        "One ends. | Two begins.",
        "Really? | Yes! | Good.",
        "Mr. Smith met Dr. Jones at St. Paul's.",
        "J. R. R. Tolkien wrote it. | He did.",
        "The U.S. Army came. | It left.",
        "He lives in the U.S. and works.",
        "So did I. | We left.",
        "It is No. 5 on the list.",
        "He said no. | She agreed.",
        "See fig. 3 and pp. 10-12, vol. 2.",
        "On Jan. 5 it rained. | It was in Jan. | On Monday.",
        '"Why?" he asked.',
        '"Why?" | He asked.',
        "“Stop.” | He stopped.",
        "(It was late.) | They went home.",
        "He said (b. 1950) nothing.",
        "Wait... what?",
        "Wait... | What?",
        "It was 3.5 percent. | Not 4.",
        "It rained, etc., and so on.",
        "Look! | it moved! | cats do not.",
        "'I see!' she said. | 'you do?' he said.",
        "e.g. this one, i.e. that one.",
        "She came at 5 p.m. on Monday.",
        "This is it . | It is untidy .",
        "i am here. | it is late. | they know.",
        "Visit example.com. | It works.",
        "He didn't. | She did.",
        "An ellipsis… | And on.",
        "A café. | Next one.",
        "“A ‘B.’” | C.",
    ],
)
def test_english_sentences_end_where_a_reader_would_end_them(kernel, text):
    assert sentences_of(kernel, text.replace(" | ", " ")) == text.split(" | ")


@pytest.mark.parametrize(
    "text",
    [
        "他走了。|她来了。",
        "你好吗？|我很好！|再见。",
        "他说：“走吧。”|然后离开了。",
        "「好。」|他说。",
        "（见下文。）|下一句。",
        "真的吗？！|是的。",
        "他等……然后走了。",
        "版本3.5发布了。|很好。",
        "他说：“‘好。’”|她点头。",
        "句子，分句；都不断：对。",
        "他来了。 |她走了。",
        "真的嗎？！」|她問。|「不！」|他說。",
        "他说：“我不知道……”|然后离开了。",
        "他笑了……|\n她也笑了。",
        "（真的很酷！），但它很难。|好。",
        "「好！」，他說；然後走了。",
        "这是什么?|我不知道!|她说“对!”|他走了。",
        "用Python写的!|很好,对吧?|是的｡|好。",
        "ＡＢＣ公司来了！|１２．５％。|完",
        "你好．|我来了．|好",
        "面积为三．五米，宽２．５米，长十．5米．|完",
        "他问（见下文）．|「好」．|下一句",
        "これは本です．|コード．|終わり",
        "他想．．．不如走了．”|她说。",
        "C++．下载．|A．Ｌ．纳戴 ．好",
        "见Inc.(美国)等.)他的(etc.)文字。",
    ],
)
def test_chinese_sentences_end_at_their_marks_in_any_position(kernel, text):
    assert sentences_of(kernel, text.replace("|", "")) == [part.strip() for part in text.split("|")]


@pytest.mark.parametrize("break_", ["\n", "\n\n", " \n ", "\r\n"])
def test_a_line_feed_always_ends_a_sentence(kernel, break_):
    assert sentences_of(kernel, f"no stop here{break_}and none here") == ["no stop here", "and none here"]


def test_a_text_without_units_has_no_sentences(kernel):
    assert kernel(" \n") == ([], [])


def test_the_words_of_the_rule_equal_those_of_its_twin():
    for unit in [*twins.ABBREVIATIONS, *twins.BEFORE_NUMBERS, *twins.STARTERS, *twins.CLOSERS, *"。！？．.!?…xX5"]:
        assert unit_marks(unit) == unit_marks(unit.upper())
    assert unit_marks("") == 0
