"""How vectors of tokens become the vector of a text, without torch."""

from dataclasses import dataclass
from typing import Literal, get_args

Pooling = Literal["mean", "cls"]
"""The mean over all tokens, including [CLS] and [SEP], as in sentence-transformers; or the vector of [CLS]."""


@dataclass(frozen=True, kw_only=True)
class VectorForm:
    """How a model that was trained for vectors makes one of a text."""

    pooling: Pooling
    """How the vectors of the tokens become one."""
    normalize: bool
    """Whether vectors are divided by their length, so that their scalar product is the cosine."""
    max_seq_length: int
    """Tokens of a text that are read, including [CLS] and [SEP]."""

    def __post_init__(self) -> None:
        if self.pooling not in get_args(Pooling):
            raise ValueError(f"pooling is {self.pooling!r:.40}, expected {' or '.join(get_args(Pooling))}")
