"""Predictions of masked words on a page: those of the model, for typed texts and for examples of a data set."""

import json
import re
import shutil
import threading
from pathlib import Path
from urllib.parse import quote

import pytest

from bertloom.tokenizer_files import parse_tokenizer
from jobs.browser import models
from jobs.browser.data_set import BrowsedDataSet
from jobs.browser.models import Models
from model.hub.pretrained import open_pretrained
from model.inference.predict import WordPredictor
from tests.bertloom.tokenizer_kinds import CONTENTS, NAMES
from tests.jobs.browser.page_reader import Page, Reader
from tests.jobs.small_run import make_data, make_run


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return make_data(tmp_path_factory.mktemp("data") / "set")


@pytest.fixture(scope="module")
def run(data, tmp_path_factory) -> Path:
    return make_run(data, tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """Pages wait for the model."""
    monkeypatch.setattr(models, "PATIENCE_SECONDS", 600)


@pytest.fixture(scope="module")
def reader(run, data) -> Reader:
    return Reader(run, data)


def guesses(page: Page) -> list[list[str]]:
    """The rows of the predictions, without their heads."""
    return [row for row in page.rows if row[0] != "Rank"]


def buttons(page: Page) -> list[tuple[str, str, str]]:
    """(place, whether it is pressed, word) of each token that can be chosen."""
    found = re.findall(
        r'name="mask" value="(\d+)" class="token ." aria-pressed="(\w+)"><bdi>([^<]*)</bdi>', page.source
    )
    return [(place, pressed, word) for place, pressed, word in found]


def test_the_words_are_those_that_the_model_finds_most_likely(reader, run):
    page = reader.get("r0/fill-mask?text=w1+[MASK]+w3+[MASK]")
    model = WordPredictor(open_pretrained(run), "cpu")
    expected = [guess for guesses in model.fill("w1 [MASK] w3 [MASK]", top_k=10) for guess in guesses]
    assert [row[1] for row in guesses(page)] == [word for word, _ in expected]
    assert [row[3] for row in guesses(page)] == [f"{100 * chance:.1f} %" for _, chance in expected]
    assert [row[0] for row in guesses(page)] == [str(rank) for rank in (*range(1, 11), *range(1, 11))]
    widths = [float(width) for width in re.findall(r'<rect width="([\d.]+)"', page.source)]
    assert widths == pytest.approx([100 * chance for _, chance in expected], abs=0.006)
    assert "Checkpoint of step 6" in page.text


def test_a_text_without_a_mask_offers_to_mask_each_token(reader):
    page = reader.get("r0/fill-mask?text=w1+w2+w3")
    assert "This text has no mask" in page.text and not guesses(page)
    assert buttons(page) == [("1", "false", "w1"), ("2", "false", "w2"), ("3", "false", "w3")]
    page = reader.get("r0/fill-mask?text=w1+w2+w3&mask=2")
    assert buttons(page)[1] == ("2", "true", "[MASK]")
    rows = guesses(page)
    assert [row[1] for row in rows].count("w2 true") == 1 and len(rows) in (10, 11)
    typed = reader.get("r0/fill-mask?text=w1+[MASK]+w3")
    assert [row[1] for row in guesses(typed)][:10] == [row[1].removesuffix(" true") for row in rows][:10]
    assert 'type="hidden" name="mask" value="2"' in page.source  # so the next button keeps it
    again = reader.get("r0/fill-mask?text=w1+w2+w3&mask=2&mask=2")
    assert buttons(again)[1] == ("2", "false", "w2")


def test_an_example_is_shown_with_its_masks_and_the_rank_of_each_true_token(reader, run, data):
    row = BrowsedDataSet(str(data), None, 1.0).example(3)
    page = reader.get("r0/fill-mask?example=d0:3")
    masked = [int(place) for place, pressed, _ in buttons(page) if pressed == "true"]
    assert masked == row["masked_lm_positions"]
    words = (run / "vocab.txt").read_text().split("\n")
    true = [row[1] for row in guesses(page) if row[1].endswith(" true")]
    assert true == [f"{words[number]} true" for number in row["masked_lm_ids"]]
    assert "/token/d0/examples/3" in page.links
    place = masked[0]
    page = reader.get(f"r0/fill-mask?example=d0:3&mask={place}")
    assert (str(place), "false", words[row["masked_lm_ids"][0]]) in buttons(page)


@pytest.mark.parametrize(
    ("query", "error"),
    [
        ("text=", "the text is empty: type a sentence"),
        ("text=+%0A", "the text is empty: type a sentence"),
        ("text=" + "w1+" * 70, "the text has 72 tokens, this page shows up to 64: give a shorter one"),
        ("text=" + "w" * 20001, "the text has 20,001 characters, at most 20,000 are read: give a shorter one"),
        ("text=w1&mask=0", "mask=0: expected the place of a token of the text, 1 to 1"),
        ("text=w1&mask=x", "mask=x: expected the place of a token of the text, 1 to 1"),
        ("example=d7:1", "example=d7:1: expected a data set of this page and a number, such as d0:17"),
        ("example=<i>", "example=<i>: expected a data set of this page and a number, such as d0:17"),
        ("example=d0:999999", "has no example 999999: expected 0 to"),
    ],
)
def test_what_cannot_be_read_is_named_above_the_form(reader, query, error):
    page = reader.get(f"r0/fill-mask?{query}", 400)
    assert error in page.text and "<textarea" in page.source


def test_an_example_of_a_data_set_with_another_vocabulary_is_refused(run, left_out):
    page = Reader(run, left_out).get("r0/fill-mask?example=d0:1", 400)
    assert "has another vocabulary than the model in" in page.text


def test_only_the_first_masks_of_many_are_predicted(reader):
    page = reader.get("r0/fill-mask?text=" + "[MASK]+" * 30)
    assert len(guesses(page)) == 200 and "The predictions of the first 20 of 30 masks are shown." in page.text


def test_a_text_is_text_on_the_page(reader):
    page = reader.get("r0/fill-mask?text=" + quote("<script>alert(1)</script> [MASK]"))
    assert "&lt;script&gt;" in page.source and "<script>" not in page.source


@pytest.mark.parametrize("kind", ["roberta", "xlm_roberta"])
def test_the_mask_has_the_name_that_the_tokenizer_gives_it(kind, tmp_path):
    file = parse_tokenizer(json.dumps(CONTENTS[kind]).encode(), kind, NAMES.get(kind))
    mask = file.special.names["mask_token"]
    run = make_run(make_data(tmp_path / "data", tokenizer=file), tmp_path / "run")
    reader = Reader(run)
    assert f"Write {mask} for each word" in reader.get("r0/fill-mask").text
    page = reader.get("r0/fill-mask?text=" + quote(f"the cat {mask} on the mat"))
    expected = WordPredictor(open_pretrained(run), "cpu").fill(f"the cat {mask} on the mat", top_k=10)[0]
    for row, (word, chance) in zip(guesses(page), expected, strict=True):
        assert row[3] == f"{100 * chance:.1f} %"
        assert row[1] == word.strip() or not word.strip() or "\ufffd" in word


def test_a_chinese_vocabulary_has_a_chinese_example_and_the_page_the_language_of_the_browser(tmp_path):
    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *"中国的首都是京，那里有很多大。",
        *(chr(0x4E00 + i) for i in range(60)),
    ]
    vocabulary = "".join(f"{word}\n" for word in dict.fromkeys(words)).encode()
    run = make_run(make_data(tmp_path / "data", vocabulary=vocabulary), tmp_path / "run")
    page = Reader(run).get("r0/fill-mask", language="zh-CN")
    assert "中国的首都是[MASK]京" in page.text and "第 6 步的检查点" in page.text and "名次" in page.text


def test_the_page_of_a_fine_tuned_run_says_why_it_has_no_predictions(finetuned):
    page = Reader(finetuned).get("r0/fill-mask")
    assert "This model (BertForSequenceClassification) does not predict masked words" in page.text


def test_a_run_without_a_checkpoint_is_a_clear_error(run, tmp_path):
    shutil.copytree(run, tmp_path / "new", ignore=shutil.ignore_patterns("step-*"))
    page = Reader(tmp_path / "new").get("r0/fill-mask", 400)
    assert "has no checkpoint yet" in page.text


def test_a_newer_checkpoint_is_loaded_and_a_damaged_one_is_passed_over(run, tmp_path):
    shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("step-00000006"))
    reader = Reader(tmp_path / "run")
    assert "Checkpoint of step 4 ·" in reader.get("r0/fill-mask").text
    newest = tmp_path / "run/checkpoints/step-00000006"
    shutil.copytree(run / "checkpoints/step-00000006", newest)
    assert "Checkpoint of step 6 ·" in reader.get("r0/fill-mask").text
    shutil.copytree(newest, newest.with_name("step-00000008"))
    (newest.with_name("step-00000008") / "model.safetensors").write_bytes(b"no")
    assert "Checkpoint of step 6 ·" in reader.get("r0/fill-mask").text


def test_while_a_model_is_loaded_the_page_says_so_and_an_older_one_answers(run, tmp_path, monkeypatch):
    shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("step-00000006"))
    reader, may_load, load = Reader(tmp_path / "run"), threading.Event(), models.load
    monkeypatch.setattr(models, "load", lambda *values: may_load.wait() and load(*values))
    monkeypatch.setattr(models, "PATIENCE_SECONDS", 0)
    page = reader.get("r0/fill-mask?text=w1")
    assert "The model is being loaded" in page.text and 'http-equiv="refresh"' in page.source
    may_load.set()
    monkeypatch.setattr(models, "PATIENCE_SECONDS", 600)
    assert "Checkpoint of step 4" in reader.get("r0/fill-mask").text
    may_load.clear()
    shutil.copytree(run / "checkpoints/step-00000006", tmp_path / "run/checkpoints/step-00000006")
    monkeypatch.setattr(models, "PATIENCE_SECONDS", 0)
    page = reader.get("r0/fill-mask?text=w1+[MASK]")
    assert "Checkpoint of step 4" in page.text and "A newer checkpoint is being loaded" in page.text
    assert len(guesses(page)) == 10
    may_load.set()


def test_few_models_stay_in_memory_and_many_threads_load_one_once(run, tmp_path, monkeypatch):
    loaded, load = [], models.load
    monkeypatch.setattr(models, "load", lambda path, checkpoint: loaded.append(path) or load(path, checkpoint))
    held = Models()
    threads = [threading.Thread(target=held.get, args=(run,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert loaded == [run]
    others = [Path(shutil.copytree(run, tmp_path / str(number))) for number in range(models.MAX_LOADED)]
    for path in others:
        held.get(path)
    held.get(others[0])
    assert loaded == [run, *others]
    held.get(run)
    assert loaded == [run, *others, run]


def test_a_model_without_a_run_has_these_pages(encoder, run, reader):
    """Exported or imported, or one checkpoint of a run."""
    checkpoint = run / "checkpoints/step-00000004"
    models_alone = Reader(encoder, checkpoint)
    page = models_alone.get("m0/fill-mask?text=good+[MASK]")
    assert "BertForPreTraining" in page.text and len(guesses(page)) == 10
    assert {f"/token/m0/{name}" for name in ("fill-mask", "attention")} == {
        link for link in page.links if "/m0/" in link
    }
    assert "Checkpoint of step 4" in models_alone.get("m1/fill-mask?text=w1").text
    assert "Layer" in models_alone.get("m0/attention").text
    models_alone.get("m0/examples", 404)
    models_alone.get("m7/fill-mask", 404)
    assert "/token/m0/fill-mask" in models_alone.get("").links
    assert "Masked words" in Reader(encoder).get("").text  # goes there


def test_the_page_of_an_example_leads_to_the_models_of_the_command(left_out, run, encoder):
    links = Reader(left_out, run, encoder).get("d0/examples/5").links
    for name in ("fill-mask", "attention"):
        assert f"/token/r0/{name}?example=d0:5" in links and f"/token/m0/{name}?example=d0:5" in links
    assert not [link for link in Reader(left_out).get("d0/examples/5").links if "fill-mask" in link]
