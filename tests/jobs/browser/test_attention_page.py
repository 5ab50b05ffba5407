"""Where attention goes, as drawn on a page: the weights of the model, as lines, as a matrix and as a table."""

import re
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest

from jobs.browser import models
from jobs.browser.data_set import BrowsedDataSet
from jobs.browser.run_pages.attention import Line, lines_of, numbers_around, shades_of, shortened, strongest_of
from model.hub.pretrained import open_pretrained
from model.inference.attention_weights import attention_weights
from model.inference.embed import Embedder
from model.modern_bert_config import ModernBertShape
from model.packing import pack_sequences
from tests.jobs.browser.page_reader import Page, Reader
from tests.jobs.small_run import TINY, make_data, make_run

PAIR = "text=w1+w2+w3&second=w4+w5"
MODERN = ModernBertShape(
    hidden_size=32,
    num_hidden_layers=4,
    num_attention_heads=2,
    intermediate_size=24,
    max_position_embeddings=64,
    local_attention=4,
)


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """Pages wait for the model."""
    monkeypatch.setattr(models, "PATIENCE_SECONDS", 600)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return make_data(tmp_path_factory.mktemp("data") / "set")


@pytest.fixture(scope="module", params=[TINY, MODERN], ids=["bert", "modernbert"])
def run(request, data, tmp_path_factory) -> Path:
    return make_run(data, tmp_path_factory.mktemp("runs") / "run", model=request.param, num_steps=2)


@pytest.fixture(scope="module")
def reader(run, data) -> Reader:
    return Reader(run, data)


def weights_of(run: Path, ids: list[int], segment_b_start: int) -> np.ndarray:
    """(layers, heads, tokens, tokens)"""
    batch = pack_sequences(np.array(ids), np.array([len(ids)]), np.array([segment_b_start]))
    return attention_weights(Embedder(open_pretrained(run), device="cpu").encoder, batch).numpy()


def ids_of_pair(run: Path) -> list[int]:
    words = (run / "vocab.txt").read_text().split("\n")
    return [words.index(word) for word in "[CLS] w1 w2 w3 [SEP] w4 w5 [SEP]".split()]


def proportions(weights: list[float]) -> list[str]:
    return [f"{weight / max(weights):.3f}" for weight in weights]


def opacities(page: Page) -> list[str]:
    return re.findall(r'stroke-opacity="([\d.]+)"', page.source)


def shown(weight: float) -> str:
    return "< 0.1 %" if weight < 0.0005 else f"{100 * weight:.1f} %"


def test_the_lines_and_the_table_of_a_token_have_the_weights_of_its_layer_and_head(reader, run):
    weights = weights_of(run, ids_of_pair(run), 5)
    for layer, head, own in [(1, 1, weights[0][0]), (2, 2, weights[1][1]), (2, 0, weights[1].mean(0))]:
        page = reader.get(f"r0/attention?{PAIR}&layer={layer}&head={head}&token=2")
        words = "[CLS] w1 w2 w3 [SEP] w4 w5 [SEP]".split()
        rows = [[str(place), word, shown(weight)] for place, (word, weight) in enumerate(zip(words, own[2]))]
        assert page.rows[1:] == rows
        assert opacities(page) == proportions([weight for weight in own[2] if weight >= 0.005])
        assert f"The darkest cell is {shown(own.max())}" in page.text


def test_without_a_chosen_token_all_lines_are_there_but_the_weak_ones(reader, run):
    own = weights_of(run, ids_of_pair(run), 5)[0][0]
    page = reader.get(f"r0/attention?{PAIR}&layer=1&head=1")
    strongest = np.argsort(-own, axis=1, kind="stable")[:, :3]
    expected = [own[i, j] for i, j in np.ndindex(8, 8) if own[i, j] >= 0.04 or j in strongest[i]]
    assert opacities(page) == proportions(expected)
    listed = [[int(key) for key in re.findall(r"\((\d+)\)", row[2])] for row in page.rows[1:]]
    assert listed == strongest.tolist()


def test_links_choose_a_token_a_layer_and_a_head_and_keep_the_rest(reader):
    page = reader.get(f"r0/attention?{PAIR}&layer=1&head=2&token=3")
    text = "?text=w1+w2+w3&second=w4+w5&"
    assert {f"{text}layer=2&head=2&token=3", f"{text}layer=1&head=0&token=3", f"{text}layer=1&head=2&token=5"} <= {
        *page.links
    }
    assert f"{text}layer=1&head=2" in page.links  # the chosen token's takes the choice away
    for link in page.links:
        if link.startswith("?"):
            reader.get(f"r0/attention{link}")


def test_segments_have_their_colours_and_a_text_alone_has_one(reader):
    page = reader.get(f"r0/attention?{PAIR}")
    assert re.findall(r'<rect class="([ab])" y=', page.source) == [*"aaaaabbb"]
    assert re.findall(r'<rect class="([ab])" y=', reader.get("r0/attention?text=w1").source) == [*"aaa"]


def test_an_example_is_drawn_as_training_reads_it_and_cut_if_it_is_long(reader, data, monkeypatch):
    row = BrowsedDataSet(str(data), None, 1.0).example(5)
    page = reader.get("r0/attention?example=d0:5")
    assert len(page.rows) == len(row["input_ids"]) + 1 and "Example d0:5" in page.text
    assert "left out" not in page.text and "?example=d0%3A5&layer=1" in "".join(page.links)
    monkeypatch.setattr("jobs.browser.run_pages.attention.MAX_TOKENS", 9)
    page = reader.get("r0/attention?example=d0:5")
    words = [word[1] for word in page.rows[1:]]
    assert (
        len(words) == 9 and f"{len(row['input_ids']) - 9} tokens at the ends of the segments were left out" in page.text
    )
    assert words[0] == "[CLS]" and words[-1] == "[SEP]" and words.count("[SEP]") == 2


@pytest.mark.parametrize(
    ("query", "error"),
    [
        ("text=", "the text is empty: type a sentence"),
        ("text=" + "w1+" * 63, "the text has 65 tokens, this page shows up to 64: give a shorter one"),
        (f"{PAIR}&layer=0", "layer=0: expected a whole number from 1 to"),
        (f"{PAIR}&layer=9", "layer=9: expected a whole number from 1 to"),
        (f"{PAIR}&head=3", "head=3: expected a whole number from 0 to 2"),
        (f"{PAIR}&token=8", "token=8: expected a whole number from 0 to 7"),
        ("example=1", "example=1: expected a data set of this page and a number, such as d0:17"),
    ],
)
def test_what_cannot_be_drawn_is_named_above_the_form(reader, query, error):
    page = reader.get(f"r0/attention?{query}", 400)
    assert error in page.text and "<textarea" in page.source


def test_a_text_is_text_in_the_drawing(reader):
    page = reader.get("r0/attention?text=" + quote("<script>alert(1)</script>"))
    assert "<script>" not in page.source


def test_a_fine_tuned_model_shows_its_attention_and_the_page_is_chinese_where_the_browser_is(finetuned):
    page = Reader(finetuned).get("r0/attention", language="zh-CN")
    assert "注意力" in page.text and "BertForSequenceClassification" in page.text and opacities(page)


def test_a_model_that_reads_no_pairs_has_one_field(data, tmp_path):
    shape = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = type(TINY)(**shape, max_position_embeddings=64, type_vocab_size=1)
    single = make_data(tmp_path / "data", pairs=False)
    reader = Reader(make_run(single, tmp_path / "run", model=config, num_steps=1), single, data)
    page = reader.get("r0/attention")
    assert 'name="second"' not in page.source and opacities(page)
    assert "has one token type and reads no pairs" in reader.get("r0/attention?example=d1:1", 400).text
    assert opacities(reader.get("r0/attention?example=d0:1"))


def test_the_cells_of_all_shades_are_the_cells_of_the_matrix():
    weights = np.random.default_rng(1).random((7, 7)).astype(np.float32)
    seen = {}
    for shade in shades_of(weights):
        for key, query in re.findall(r"M(\d+) (\d+)h1v1h-1z", shade.path):
            seen[int(query), int(key)] = shade.opacity
    expected = np.rint(weights / weights.max() * 20) / 20
    assert seen == {place: expected[place] for place in np.ndindex(7, 7) if expected[place] > 0}
    assert max(seen.values()) == 1


def test_the_parts_of_a_drawing_are_small_whatever_the_model_is():
    weights = np.array(
        [[0.93, 0.03, 0.02, 0.02], [0.25, 0.25, 0.25, 0.25], [0, 0.5, 0.5, 0], [0, 0, 0, 1]], dtype=np.float32
    )
    found = [(line.query, line.key) for line in lines_of(weights, -1)]
    assert found == [
        *((0, i) for i in (0, 1, 2)),
        *((1, i) for i in range(4)),
        *((2, i) for i in range(3)),
        *((3, i) for i in (0, 1, 3)),
    ]
    assert lines_of(weights, 2) == [Line(2, 1, 1.0), Line(2, 2, 1.0)]
    assert [[key for key, _ in row] for row in strongest_of(weights)] == [[0, 1, 2], [0, 1, 2], [1, 2, 0], [3, 0, 1]]
    assert numbers_around(1, 2) == range(1, 3)
    for count in (1, 23, 24, 25, 1000):
        for chosen in {1, 2, 13, count - 1, count} & {*range(1, count + 1)}:
            numbers = numbers_around(chosen, count)
            assert chosen in numbers and len(numbers) == min(count, 24) and 1 <= numbers[0] <= numbers[-1] <= count
    assert [shortened(word, 5) for word in ("", "12345", "123456", "北京大学", "北京")] == [
        "",
        "12345",
        "1234…",
        "北京…",
        "北京",
    ]
