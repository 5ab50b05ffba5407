"""Words to search for, as the tokens that the data set's tokenizer makes of them.

A text has the words if it has their tokens one after the other, and no token before or after them belongs to the same word:
"play" is not found in "playing". In Chinese each character is a word, so any part of a sentence is found.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bertloom.arrays import Bools
from pipeline.vocabulary import Casing, Vocabulary

if TYPE_CHECKING:
    from pipeline.text.offsets import Encode

MAX_CHARACTERS = 200
"""Characters of the longest text to search for."""
BEFORE = ("", " ", "。")
"""A tokenizer may give a word other tokens at the beginning of a text, after a space, and after a word without a space."""


class Words:
    """Words to search for."""

    def __init__(self, text: str, vocabulary: Vocabulary, casing: Casing) -> None:
        """
        Raises:
            ValueError: the text is too long, or the tokenizer makes no tokens of it.
        """
        if len(text) > MAX_CHARACTERS:
            raise ValueError(f"word={text:.40}…: {len(text)} characters, expected at most {MAX_CHARACTERS}")
        encode = vocabulary.encoder(casing)
        found = dict.fromkeys(_tokens_of(encode, before, text) for before in BEFORE)
        self.forms = [form for form in found if form]
        """Token ids, in each form that the words may have in a text."""
        if not self.forms:
            raise ValueError(f"word={text!r}: the tokenizer makes no tokens of it")
        self.tokens = [vocabulary.readable.names[token] for token in self.forms[0]]
        self.has_unknown = vocabulary.unk is not None and vocabulary.unk in self.forms[0]
        """Whether the vocabulary does not know them: [UNK] is found, whatever word it replaced."""
        self._vocabulary = vocabulary

    def may_be_in(self, *ids: NDArray[Any]) -> bool:
        """Return whether all tokens of a form of the words are among ids, in any order."""
        return any(all(any((some == token).any() for some in ids) for token in form) for form in self.forms)

    def places(self, ids: NDArray[Any]) -> Iterator[tuple[NDArray[np.intp], int]]:
        """Yield (index of the first token of each place, number of tokens) for each form of the words."""
        for form in self.forms:
            first = np.flatnonzero(ids[: max(0, len(ids) - len(form) + 1)] == form[0])
            for i, token in enumerate(form[1:], 1):
                first = first[ids[first + i] == token]
            yield first[~(self._continues(ids, first) | self._continues(ids, first + len(form)))], len(form)

    def _continues(self, ids: NDArray[Any], at: NDArray[np.intp]) -> Bools:
        """Return whether the token at each index continues the word before it. An index may be that after the last token."""
        before, here = ids[np.maximum(at - 1, 0)], ids[np.minimum(at, len(ids) - 1)]
        found: Bools = self._vocabulary.continuation[here] & self._vocabulary.goes_on[before]
        return found & (at > 0) & (at < len(ids))


def _tokens_of(encode: Encode, before: str, text: str) -> tuple[int, ...]:
    """Return the tokens of a text after another one; none if a token has something of both."""
    found = [(token, first) for token, (first, end) in zip(*encode(before + text), strict=True) if end > len(before)]
    if before.strip() and any(first < len(before) for _, first in found):
        return ()
    return tuple(token for token, _ in found)
