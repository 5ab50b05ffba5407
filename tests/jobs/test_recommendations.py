"""What `bertloom plan --hours` recommends, and the measured runs that it rests on."""

from pathlib import Path

import pytest

from jobs.support.recommendation import measured_runs, of_data_sets, recommend
from tests.jobs.corpus import documents, write, write_vocabulary

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", measured_runs())
def test_every_rule_quotes_a_section_that_exists(name):
    rule = measured_runs()[name]
    page = (ROOT / rule["page"]).read_text("utf-8")
    assert f"\n## {rule['section']}\n" in page
    missing = [quote for quote in rule["quotes"] if quote not in page]
    assert rule["quotes"] and not missing


def values(*arguments):
    return {one.what: one for one in recommend(*arguments)}


def test_a_few_hours_on_a_core_give_what_was_measured():
    found = values(2.0, 2_700.0, "tiny", 14e6)
    assert found["preset"].value == "tiny --model.num-hidden-layers 4 --model.num-attention-heads 4"
    assert found["phases"].value == "64:0.7:64 128:0.3:32"
    assert found["learning rate"].value == "2e-3 --optimizer muon"
    assert all("docs/results.md" in found[what].why for what in ("preset", "vocabulary", "phases", "learning rate"))
    assert values(2.0, 2_700.0, "modern-tiny", 14e6)["preset"].value == "modern-tiny"


def test_the_steps_are_those_of_the_tokens_that_the_time_allows():
    found = values(2.0, 2_700.0, "modern-tiny", 14e6)
    per_step = (0.7 * 64 * 64 + 0.3 * 32 * 128) * 0.95
    tokens = 2.0 * 3600 * 2_700
    assert int(found["steps"].value.replace(",", "")) == pytest.approx(tokens / per_step, rel=0.01)
    assert found["passes"].value == f"{tokens / 14e6:,.1f}"


def test_what_is_not_measured_is_named():
    found = values(100.0, 500_000.0, "base", 3e9)
    assert found["preset"].value == "large" and "not measured there" in found["preset"].why
    assert found["vocabulary"].value == "30,522"
    for what in ("vocabulary", "phases", "batch size", "learning rate"):
        assert "Not measured in docs/results.md" in found[what].why


def test_a_small_text_is_not_given_a_large_model():
    found = values(100.0, 500_000.0, "base", 2e6)
    assert found["preset"].value.startswith("tiny") and "BERT made 40, too" in found["preset"].why
    assert found["passes"].value == "40.0"


def test_more_time_never_gives_a_smaller_model():
    sizes = ["tiny", "mini", "small", "base", "large"]
    chosen = [values(hours, 50_000.0, "tiny", 1e10)["preset"].value.split()[0] for hours in (0.1, 1, 10, 100, 1000)]
    assert chosen == sorted(chosen, key=sizes.index) and len(set(chosen)) > 2


def test_too_little_time_is_said():
    assert "This is little" in values(0.1, 2_700.0, "tiny", 14e6)["preset"].why


def test_the_recommendation_follows_the_plan_of_the_texts(tmp_path, capsys):
    from jobs import cli

    source, vocab = write(tmp_path / "in.txt", documents(100)), write_vocabulary(tmp_path / "vocab.txt")
    words = ["plan", "--input", str(source), "--vocab", str(vocab), "--hours", "2"]
    assert cli.main([*words, "--preset", "tiny", "--tokens-per-second", "2700"]) == 0
    out = capsys.readouterr().out
    assert "what to train in 2 hours\n  preset         tiny --model" in out and "(docs/results.md, Pretraining)" in out


def test_what_finished_data_sets_do_not_have_is_named():
    advice = recommend(2.0, 2_700.0, "tiny", 14e6)
    found = {one.what: one.why for one in of_data_sets(advice, 12_000, [128])}
    assert found["vocabulary"].endswith(". The data sets have 12,000 words: this needs preprocessing again")
    assert found["phases"].endswith(". The data sets have examples of 128 tokens: this needs preprocessing again")
    assert of_data_sets(advice, 8_000, [64, 128, 512]) == advice
