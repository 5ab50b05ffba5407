"""Masks of single tokens, drawn uniformly without replacement (Devlin et al. 2018)."""

from bertloom import draws
from pipeline.examples.masking.scheme import Chosen, MaskingScheme, Unmasked


def choose(examples: Unmasked) -> Chosen:
    """Choose single tokens. Draws 0 ... count - 1 of an example's key choose its masks."""
    _, numbers = draws.choose(examples.keys, examples.a_length + examples.b_length, examples.counts)
    return Chosen(numbers=numbers, counts=examples.counts)


TOKENS = MaskingScheme(
    name="token",
    option=None,
    summary="single tokens",
    can_be_redrawn=True,
    whole_words=False,
    extra_predictions=0,
    choose=choose,
)
