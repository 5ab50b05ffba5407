"""Which language is a text in? By py3langid, whose model lies in its wheel.

It decides by sums of floating-point numbers: where two languages are as likely to the last digit, another processor may
decide otherwise.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

LOOKED_AT = 2000  # characters: the rest of a text would rarely change what they say


def check_languages(languages: Sequence[str]) -> None:
    """ValueError where one of them is not known, or the package, which is an extra, is not installed."""
    known = _identifier().labels
    for language in languages:
        if language not in known:
            raise ValueError(f"--languages {language}: not known; expected codes among {' '.join(sorted(known))}")


def language_of(text: str) -> tuple[str, float]:
    """(ISO 639 code, how sure it is) of a text, by its beginning."""
    return _identifier().classify(text[:LOOKED_AT])


@cache
def _identifier() -> Any:
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ModuleNotFoundError:
        raise ValueError("--languages needs py3langid: pip install -e '.[langid]'") from None
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
