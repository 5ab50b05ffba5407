"""The masking schemes, and which of them the options of a data set ask for."""

from pipeline.examples.masking.google import GOOGLE_TOKENS, GOOGLE_WHOLE_WORDS
from pipeline.examples.masking.scheme import MaskingScheme
from pipeline.examples.masking.spans import SPANS
from pipeline.examples.masking.tokens import TOKENS
from pipeline.examples.masking.whole_words import WHOLE_WORDS

SCHEMES: list[MaskingScheme] = [SPANS, WHOLE_WORDS, TOKENS, GOOGLE_WHOLE_WORDS, GOOGLE_TOKENS]
"""The first one whose option is set is used."""


def find_scheme(options: object, compat: str | None) -> MaskingScheme:
    """Return the scheme for these options (attributes of the names in `MaskingScheme.option`) and value of --compat.

    Raises:
        ValueError: --compat has no scheme for one of the options.
    """
    wanted = {scheme.option for scheme in SCHEMES if scheme.option and getattr(options, scheme.option)} | {None}
    offered = [scheme for scheme in SCHEMES if scheme.compat == compat]
    for option in wanted - {scheme.option for scheme in offered}:
        summaries = " or ".join(scheme.summary for scheme in offered)
        flag = f"--{str(option).replace('_', '-')}"
        raise ValueError(f"--compat {compat} masks {summaries}, and {flag} asks for another: leave one of the two out")
    return next(scheme for scheme in offered if scheme.option in wanted)
