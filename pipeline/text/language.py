"""Language identification with py3langid, whose wheel includes its model.

It compares sums of floating-point numbers. When two languages are equally likely to the last digit, another processor may
choose the other one.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

from bertloom.extras import needed_by

LOOKED_AT = 2000  # characters at the beginning of a text: the rest rarely changes the result


def check_languages(languages: Sequence[str]) -> None:
    """Raise ValueError for an unknown language, or when py3langid is not installed."""
    known = load_identifier().labels
    for language in languages:
        if language not in known:
            raise ValueError(f"--languages {language}: unknown. Expected some of the codes {' '.join(sorted(known))}")


def language_of(text: str) -> tuple[str, float]:
    """Return (ISO 639-1 code, probability) for a text, judging by its beginning."""
    return load_identifier().classify(text[:LOOKED_AT])


@cache
def load_identifier() -> Any:
    """Return py3langid's identifier with its model. Raises ValueError when py3langid is not installed."""
    with needed_by("--languages"):
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
