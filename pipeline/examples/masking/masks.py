"""Static masks for masked language modelling: a scheme chooses 15 % of an example's tokens, which are replaced 80/10/10.

An example of n tokens, specials counted, has min(max_predictions_per_seq, max(1, floor(n·p + 1/2))) masks among its
tokens but [CLS] and [SEP] (Devlin et al. 2018, 3.1 and A.2). Of these, 80 % become [MASK], 10 % a random word, and 10 %
stay. Unlike google-research/bert, halves are rounded up, not to even, and a random word is never special or unused.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bertloom.arrays import I64, U64, Bools
from bertloom.draws import GOLDEN, bounded_low, mix, threshold
from pipeline.examples.masking.scheme import MaskingScheme, Unmasked
from pipeline.vocabulary import Vocabulary


@dataclass(frozen=True)
class Masking:
    """How the examples of one length are masked. `ExamplesConfig` documents the options."""

    scheme: MaskingScheme
    counts: I64
    """Masks of an example by its length: (max_seq_length + 1,)."""
    max_predictions: int
    vocabulary: Vocabulary
    mask_token_prob: float = 0.8
    random_token_prob: float = 0.1

    @property
    def random_words(self) -> NDArray[np.unsignedinteger]:
        """The words that a random one is drawn from."""
        return self.vocabulary.present if self.scheme.draws_any_word else self.vocabulary.ordinary


def mask_examples(
    input_ids: NDArray[Any], heads: Bools, starts: I64, a_length: I64, b_length: I64, keys: U64, masking: Masking
) -> tuple[NDArray[np.uint16], NDArray[Any], I64]:
    """Mask a batch in place and return (masked_lm_positions (masks,), masked_lm_ids (masks,), masks of each (n,)).

    With P for max_predictions, mask r of an example, in the order of the text, takes draw P + r: its upper half decides
    between [MASK], a random word and the word itself, its lower half chooses the random word. A scheme may give a group of
    masks, such as a word, the decision of one of them.

    Args:
        input_ids: all examples end to end (tokens,).
        heads: whether a word begins at each token (tokens,); used by schemes with `whole_words`.
        starts: first token of each example (n,).
        a_length, b_length: tokens of the segments (n,).
        keys: of each example (n,).
    """
    size = a_length + b_length
    wanted = np.minimum(masking.counts[size + 2 + (b_length > 0)], size)
    most = masking.max_predictions
    chosen = masking.scheme.choose(
        Unmasked(
            heads=heads,
            starts=starts,
            a_length=a_length,
            b_length=b_length,
            keys=keys,
            counts=wanted,
            max_predictions=most,
        )
    )
    counts = chosen.counts
    positions = chosen.numbers + 1
    positions += chosen.numbers >= np.repeat(a_length, counts)
    flat = np.repeat(starts, counts)
    flat += positions
    originals = input_ids[flat]

    rank = np.arange(most + 1, most + 1 + len(flat))
    rank -= np.repeat(np.cumsum(counts) - counts, counts)
    draws = mix(np.repeat(keys, counts) + rank.view(np.uint64) * GOLDEN)
    share = draws >> np.uint64(32)
    if chosen.deciders is not None:
        share = share[chosen.deciders]
    mask_below = threshold(masking.mask_token_prob, 32)
    masked = share < np.uint64(mask_below)
    below = np.uint64(mask_below + threshold(masking.random_token_prob, 32))
    replaced, words = np.flatnonzero(~masked & (share < below)), masking.random_words
    new = np.where(masked, originals.dtype.type(masking.vocabulary.mask), originals)
    new[replaced] = words[bounded_low(draws[replaced], len(words))]
    input_ids[flat] = new
    return positions.astype(np.uint16), originals, counts
