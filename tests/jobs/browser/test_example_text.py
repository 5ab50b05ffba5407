"""The text of an example on a page: segments, marks, and the true tokens for readers with and without a mouse."""

import json
import random
from html.parser import HTMLParser

import pytest

from bertloom.tokenizer_files import parse_tokenizer
from jobs.browser.pages import Pages
from jobs.support.example_text import example_text, runs
from pipeline.examples.decoding import Span, segments
from pipeline.tokenizer_vocabulary import TokenizerVocabulary
from pipeline.vocabulary import SPECIAL_WORDS, Vocabulary
from tests.bertloom.tokenizer_kinds import CONTENTS, NAMES

WORDS = (*SPECIAL_WORDS, "<", "script", ">", "we", "know", "##s", "上", "海", "。", "שלום", "עולם")
VOCABULARY = Vocabulary(WORDS)


def row_of(a, b, masks=()):
    """A row of a shard. a, b: ids. masks: (position in the example, the id there now)."""
    ids = [VOCABULARY.cls, *a, VOCABULARY.sep, *b, *([VOCABULARY.sep] if b else [])]
    true = [ids[at] for at, _ in masks]
    for at, instead in masks:
        ids[at] = instead
    return {
        "input_ids": ids,
        "segment_b_start": len(a) + 2,
        "masked_lm_positions": [at for at, _ in masks],
        "masked_lm_ids": true,
    }


def ids_of(*words):
    return [WORDS.index(word) for word in words]


class Drawn(HTMLParser):
    """What a page shows: `text` as one sees it, and `marks` with the kind, the word and the true token of each."""

    def __init__(self, html):
        super().__init__()
        self.open, self.text, self.marks, self.directions = [], "", [], []
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        if tag != "input":
            self.open.append((tag, values.get("class", "")))
        if tag == "mark":
            self.marks.append([values["class"], "", ""])
        if "dir" in values:
            self.directions.append(values["dir"])

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        inside = [name for _, name in self.open]
        if "truth" in inside:
            if "what" not in inside:
                self.marks[-1][2] += data
        else:
            self.text += data
            if "mark" in (tag for tag, _ in self.open):
                self.marks[-1][1] += data


def drawn(row, vocabulary=VOCABULARY, language="en", **options):
    template = (
        Pages("token")
        .environments[language]
        .from_string('{% from "example_text.html.j2" import example_text, mask_legend %}{{ example_text(text) }}')
    )
    return template.render(text=example_text(row, vocabulary, **options))


def seen(html):
    """The lines of a page as one sees them."""
    return [" ".join(line.split()) for line in Drawn(html).text.split("\n") if line.strip()]


def test_each_mask_shows_what_the_model_reads_and_has_its_true_token():
    a, b = ids_of("we", "know", "##s", "上", "海", "。"), ids_of("we", "know")
    masks = [(1, VOCABULARY.mask), (3, WORDS.index("海")), (4, WORDS.index("上")), (9, VOCABULARY.mask)]
    html = drawn(row_of(a, b, masks))
    assert seen(html) == ["A", "[MASK] know海 上海。", "B", "we [MASK]"]
    assert Drawn(html).marks == [
        ["mask", "[MASK]", "we"],
        ["random", "海", "s"],
        ["kept", "上", "上"],
        ["mask", "[MASK]", "know"],
    ]


def test_an_example_without_b_has_one_segment():
    assert seen(drawn(row_of(ids_of("we", "know"), []))) == ["A", "we know"]


def test_a_text_in_html_is_shown_as_text_and_has_the_direction_of_its_script():
    html = drawn(
        row_of(ids_of("<", "script", ">"), ids_of("שלום", "עולם"), [(2, VOCABULARY.mask), (5, WORDS.index("<"))])
    )
    assert "<script" not in html
    assert seen(html) == ["A", "< [MASK] >", "B", "< עולם"]
    assert Drawn(html).directions == ["auto", "ltr", "auto", "ltr"]  # of a segment, and of what is said about its mask
    assert Drawn(html).marks == [["mask", "[MASK]", "script"], ["random", "<", "שלום"]]


def test_what_is_left_out_of_a_long_segment_is_counted():
    html = drawn(row_of(ids_of(*["we"] * 1500), ids_of("know")), most=2)
    assert seen(html) == ["A", "we we … 1,498 more tokens", "B", "know"]


def test_a_chinese_page_says_in_chinese_what_happened_to_a_token():
    html = drawn(row_of(ids_of("上", "海"), [], [(1, VOCABULARY.mask)]), language="zh")
    assert "已掩码，原词元：" in html and "true token" not in html


def test_runs_have_the_same_text_as_their_tokens():
    draw = random.Random(1)
    for _ in range(300):
        spans = [
            Span(draw.choice(["", " "]), draw.choice("ab"), "c", draw.choice(["", "", "mask", "random", "kept"]))
            for _ in range(draw.randint(0, 8))
        ]
        found = runs(spans)
        assert "".join(map(str, found)) == "".join(map(str, spans))
        assert [span for span in found if span.kind] == [span for span in spans if span.kind]
        assert not any(not one.kind and not other.kind for one, other in zip(found, found[1:]))


@pytest.mark.parametrize("kind", sorted(CONTENTS.keys() - {"bert"}))
def test_the_tokens_of_any_tokenizer_are_shown_as_text(kind):
    tokenizer = parse_tokenizer(json.dumps(CONTENTS[kind]).encode(), f"{kind}.json", NAMES.get(kind))
    vocabulary = TokenizerVocabulary.of(tokenizer)
    ids = tokenizer.load().encode("The quick fox 上海 knows.", add_special_tokens=False).ids
    row = row_of([], [])
    row |= {"input_ids": [vocabulary.cls, *ids, vocabulary.sep], "segment_b_start": len(ids) + 2}
    row |= {"masked_lm_positions": [2], "masked_lm_ids": [ids[1]]}
    row["input_ids"][2] = vocabulary.mask
    html = drawn(row, vocabulary)
    (mark,) = Drawn(html).marks
    assert mark[:2] == ["mask", vocabulary.words[vocabulary.mask]]
    (a, b) = segments(row, vocabulary)
    assert b == [] and mark[2] == a[1].truth
    shown = seen(html)[1].replace(mark[1], f"⟦MASK→{mark[2]}⟧")
    assert shown == " ".join("".join(map(str, a)).split())
