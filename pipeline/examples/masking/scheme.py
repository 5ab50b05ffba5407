"""The interface of a masking scheme: which tokens of an example are to be predicted."""

from collections.abc import Callable
from dataclasses import dataclass

from bertloom.arrays import I64, U64, Bools
from bertloom.mask_counts import mask_counts

SCHEME_DRAWS = 1 << 17
"""First draw of an example's key for schemes that need more than one draw per mask; `masks.py` uses the draws before it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Unmasked:
    """A batch of examples end to end, `[CLS] A [SEP] B [SEP]` or `[CLS] A [SEP]`, for a scheme to choose masks in."""

    heads: Bools
    """Whether a word begins at this token: (tokens,). Not filled in for a scheme without `whole_words`."""
    starts: I64
    """First token of each example: (n,)."""
    a_length: I64
    b_length: I64
    """Tokens of its segments; 0 where there is no B: (n,)."""
    keys: U64
    """Key of the draws of each example: (n,)."""
    counts: I64
    """Masks wanted in each example, at most its tokens: (n,)."""
    max_predictions: int
    """Most masks that an example may have."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Chosen:
    """The tokens that are masked, in the order of the text."""

    numbers: I64
    """Of each masked token, its number among the tokens of A and B of its example, [CLS] and [SEP] not counted: (masks,)."""
    counts: I64
    """Masks of each example: (n,)."""
    deciders: I64 | None = None
    """Of each masked token, the index of the mask whose draw decides what becomes of it; None: its own. (masks,)"""


@dataclass(frozen=True, kw_only=True)
class MaskingScheme:
    """A masking scheme. Adding one takes a file with its function, a line in `registry.py`, and a test."""

    name: str
    """Its name in manifest.json."""
    option: str | None
    """The option of `ExamplesConfig` that asks for it; None for the scheme that is used without one."""
    compat: str | None = None
    """Value of --compat, for a variant that reproduces another program; None for bertloom's own schemes."""
    summary: str
    """What is masked, for `bertloom explain`: "whole words"."""
    can_be_redrawn: bool
    """Whether the trainer can draw new masks (`--remask`), which it does for single tokens, chosen uniformly."""
    whole_words: bool
    """Whether all pieces of a word are masked or none. Needs where words begin. A short example may then have no mask."""
    extra_predictions: int
    """Masks beyond the number wanted for which max_predictions_per_seq leaves room by default."""
    draws_any_word: bool = False
    """Whether a random word may be a special or an unused one, as in Google's script."""
    count_masks: Callable[[int, float, int], I64] = mask_counts
    """(max_seq_length, masked_lm_prob, max_predictions) -> masks by the length of an example."""
    choose: Callable[[Unmasked], Chosen]
    """Chooses the tokens that are masked."""
