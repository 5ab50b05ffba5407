"""The warning about removed accents is measured on the text, whatever the language is called."""

import pytest

from pipeline.accents import accent_warning
from pipeline.inputs.discovery import find_sources
from pipeline.inputs.splitting import split_source

LOSE = {
    "Japanese": ("がっこうへいきました。カキがすきです。", "がっこうへいきました becomes かっこうへいきました"),
    "Korean": ("오늘은 날씨가 좋아요.", "오늘은 becomes the"),
    "Hindi": ("यह किताब अच्छी है। मैं घर जा रहा हूँ।", "अच्छी becomes अचछी"),
    "Vietnamese": ("Tất cả mọi người sinh ra đều được tự do.", "người becomes nguoi"),
    "Hungarian": ("Az őszi eső után a fű zöld.", "eső becomes eso"),
}
KEEP = {
    "English": "The café is closed. It was the best of times, it was the worst of times.",
    "Chinese": "话说天下大势，分久必合，合久必分。",
    "Russian": "Все люди рождаются свободными и равными.",
    "German": "Alle Menschen sind frei und gleich an Würde und Rechten geboren.",
    "French": "Tous les êtres humains naissent libres et égaux en droits, et ils sont doués de raison et de bon sens.",
}


def warning(folder, text, do_lower_case=True, strip_accents=None):
    (folder / "a.txt").write_text(f"{text}\n\n" * 30, encoding="utf-8")
    [source] = find_sources([str(folder)])
    return accent_warning(split_source(source, 100), do_lower_case, strip_accents)


@pytest.mark.parametrize("language", LOSE)
def test_a_text_that_loses_much_is_named_with_examples_and_the_flag(tmp_path, language):
    text, says = LOSE[language]
    said = warning(tmp_path, text)
    assert "give --strip-accents False to build-vocab and to preprocess" in said
    assert says in said
    for decided in ({"strip_accents": False}, {"strip_accents": True}, {"do_lower_case": False}):
        assert warning(tmp_path, text, **decided) == ""


@pytest.mark.parametrize("language", KEEP)
def test_a_text_that_loses_little_is_not_warned_about(tmp_path, language):
    assert warning(tmp_path, KEEP[language]) == ""
