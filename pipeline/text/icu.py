"""Sentence boundaries for other languages, by ICU: `--sentences icu:LOCALE`.

The rules are Unicode's (UAX 29), as in the package icu4py, which the extra `icu` installs. Two are added: no
sentence ends after an abbreviation (`abbreviations`), and an opening bracket after a stop begins the next sentence
(「はい。」「いいえ。」). By Unicode's rules it would end the previous one.
"""

import re
from collections.abc import Callable

import numpy as np

from bertloom.arrays import I64
from bertloom.extras import needed_by
from pipeline.text.abbreviations import load_abbreviation_finder

RULE, ICU = "rule", "icu:"
_LOCALE = re.compile(r"([a-z]{2})([-_][A-Za-z0-9]{2,8})*")
_LANGUAGES = frozenset(  # ISO 639-1. ICU accepts any name and silently uses default rules for an unknown one
    "aa ab ae af ak am an ar as av ay az ba be bg bi bm bn bo br bs ca ce ch co cr cs cu cv cy da de dv dz ee el "
    "en eo es et eu fa ff fi fj fo fr fy ga gd gl gn gu gv ha he hi ho hr ht hu hy hz ia id ie ig ii ik io is it "
    "iu ja jv ka kg ki kj kk kl km kn ko kr ks ku kv kw ky la lb lg li ln lo lt lu lv mg mh mi mk ml mn mr ms mt "
    "my na nb nd ne ng nl nn no nr nv ny oc oj om or os pa pi pl ps pt qu rm rn ro ru rw sa sc sd se sg si sk sl "
    "sm sn so sq sr ss st su sv sw ta te tg th ti tk tl tn to tr ts tt tw ty ug uk ur uz ve vi vo wa wo xh yi yo "
    "za zh zu".split()
)
_OPENERS = "「『（〈《【〔［｛"
_OPENER_BYTES = 3  # of each

FindSentences = Callable[[bytes], I64]


def check_sentences(sentences: str) -> None:
    """Raise ValueError for an invalid value of `--sentences`."""
    locale = _LOCALE.fullmatch(sentences.removeprefix(ICU)) if sentences.startswith(ICU) else None
    if sentences != RULE and (locale is None or locale[1] not in _LANGUAGES):
        raise ValueError(
            f"--sentences {sentences}: expected {RULE}, for English and Chinese, or {ICU}LOCALE, such as "
            f"{ICU}ja or {ICU}de-AT: the two letters of a language (ISO 639-1), then a script or region"
        )


def load_sentence_finder(sentences: str) -> FindSentences | None:
    """Return a function block -> first byte of each sentence, or None for the built-in rule."""
    if sentences == RULE:
        return None
    with needed_by(f"--sentences {sentences}"):
        from icu4py.breakers import SentenceBreaker
    locale = sentences.removeprefix(ICU)
    is_abbreviated = load_abbreviation_finder(locale)

    def find(block: bytes) -> I64:
        # measures the sentences themselves, because ICU's offsets count UTF-16 units
        pieces = list(map(str, SentenceBreaker(block.decode(), locale)))
        ends = np.cumsum([0, *(len(piece.encode()) for piece in pieces)])
        assert ends[-1] == len(block), "ICU lost text"
        openers = [len(piece) - len(piece.rstrip(_OPENERS)) for piece in pieces]
        starts = ends[:-1] - _OPENER_BYTES * np.array([0, *openers[:-1]])
        if is_abbreviated is None:
            return starts
        is_inside = [is_abbreviated(piece.rstrip(" \t\xa0")) for piece in pieces[:-1]]
        return np.delete(starts, np.flatnonzero(is_inside) + 1)

    return find
