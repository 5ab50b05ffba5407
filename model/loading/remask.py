"""New masks for an example in every epoch that reads it (`--remask`), where the copies of a data set have fixed ones.

The masks of an example are undone (its true ids are stored), and new ones are drawn by the rule of docs/pairs-and-masks.md
for single tokens: any token but [CLS] and [SEP] may be masked; most masks become [MASK], some a random word that is never
special or unused, the rest stays. Their number stays the same, unless a phase of training has a rate of its own. Each draw
is keyed by the seed of training, the length, the epoch and the row, so ranks, micro-batches and stops do
not change a mask. `docs/training.md`, section "Masks drawn again", is the definition. The stream digest is computed from the
rows before this.

Dimensions in the comments: N examples, M masks.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bertloom.arrays import I64, U64
from bertloom.draws import bounded_low, choose, draw, fold, threshold
from bertloom.mask_counts import default_max_predictions, mask_counts
from model.loading.data import DataSet

NEW_MASKS = 1002
"""Purpose of these draws. Far from the purposes of docs/shard-format.md, because they decide no byte of a data set."""


@dataclass(frozen=True, kw_only=True)
class Remasking:
    """What becomes of a masked token, from the data set's manifest."""

    mask_id: int
    """Id of [MASK]."""
    words: I64
    """Ids that a random word is drawn from."""
    mask_below: int
    """A masked token becomes [MASK] where the upper half of its draw is below this value."""
    random_below: int
    """Otherwise it becomes a random word where the upper half is below this value."""
    masked_lm_prob: float | None
    """Share of the tokens that the data set's own masks were drawn for; None for data sets with different ones."""
    max_predictions: Mapping[int, int]
    """Most masks of an example at this share, by max_seq_length."""

    def counts(self, max_seq_length: int, masked_lm_prob: float) -> I64:
        """Return the number of masks at this share by the length of an example: (max_seq_length + 1,).

        Unless the share is the data set's own, it is the number that `preprocess --masked-lm-prob` makes with the default
        of --max-predictions-per-seq.
        """
        most = default_max_predictions(max_seq_length, masked_lm_prob)
        if masked_lm_prob == self.masked_lm_prob:
            most = self.max_predictions.get(max_seq_length, most)
        return mask_counts(max_seq_length, masked_lm_prob, most)


def remasking_of(data_set: DataSet) -> Remasking:
    """Return what becomes of the data set's masked tokens.

    Raises:
        ValueError: the manifest does not say that its masks can be redrawn.
    """
    configuration, masking = data_set.manifest["configuration"], data_set.manifest["masking"]
    if not masking["can_be_redrawn"]:
        raise ValueError(
            f"remask: the masks of {data_set.folder} have the scheme {masking['scheme']!r}, and its manifest does not "
            f"say that they can be redrawn. Leave --remask out: the {data_set.num_copies} copies of the data set have "
            f"different masks"
        )
    tokenizer = data_set.tokenizer()
    below = threshold(configuration["mask_token_prob"], 32)
    return Remasking(
        mask_id=tokenizer.special.mask,
        words=np.array([number for number in range(len(tokenizer.tokens)) if number not in tokenizer.reserved]),
        mask_below=below,
        random_below=below + threshold(configuration["random_token_prob"], 32),
        masked_lm_prob=configuration["masked_lm_prob"],
        max_predictions=dict(zip(configuration["max_seq_length"], configuration["max_predictions_per_seq"])),
    )


def num_masks_of(columns: Mapping[str, NDArray[Any]], counts: I64 | None) -> I64:
    """Return the number of masks of each example: (N,).

    Args:
        columns: from `Examples.read`, with or without tokens.
        counts: from `Remasking.counts`; None: the number does not change.
    """
    lengths: I64 = columns["lengths"]
    if counts is None:
        return columns["num_masks"]
    return np.minimum(counts[lengths], lengths - 2 - (columns["segment_b_start"] < lengths))


def example_keys(seed: int, max_seq_length: int, epochs: I64, rows: I64, *apart: U64) -> U64:
    """Return the keys of the rows that are read in these epochs: (N,), from arrays (N,).

    Args:
        apart: with several data sets, the key of each row's data set.
    """
    return fold(seed, NEW_MASKS, max_seq_length, epochs, rows, *apart)


def remasking_of_all(by_name: Mapping[str, Remasking], has_rates: bool) -> Remasking:
    """Return what becomes of masked tokens in all of several data sets.

    Args:
        has_rates: whether each phase of the training has a masking rate, so that the rates of the data sets do not matter.

    Raises:
        ValueError: it is not the same in all of them.
    """
    (first, remasking), *others = by_name.items()
    rates = ("masked_lm_prob", "max_predictions")
    for name, other in others:
        for field in ("mask_below", "random_below", *(() if has_rates else rates)):
            if getattr(remasking, field) != getattr(other, field):
                advice = "give each phase a masked_lm_prob, " if field in rates else ""
                raise ValueError(
                    f"remask: {first} and {name} were masked with other settings ({field} is "
                    f"{getattr(remasking, field)} and {getattr(other, field)}): {advice}preprocess them with the same "
                    f"settings, or leave --remask out"
                )
    if any(getattr(remasking, field) != getattr(other, field) for field in rates for _, other in others):
        return replace(remasking, masked_lm_prob=None, max_predictions={})
    return remasking


@dataclass(frozen=True, kw_only=True)
class EpochMasks:
    """The masks of the examples of a global batch in their epoch."""

    keys: U64
    """Key of each example of the batch."""
    max_seq_length: int
    remasking: Remasking
    counts: I64 | None = None
    """Number of masks by the length of an example, from `Remasking.counts`; None keeps the number."""

    def put_on(self, columns: Mapping[str, NDArray[Any]], places: I64) -> dict[str, NDArray[Any]]:
        """Return what `Examples.read` returned for the examples at these places, with new masks.

        Draws 0, 1, … of an example's key choose its masks. Draw max_seq_length + r decides what becomes of mask r, in the
        order of the text: its upper half which of the three, its lower half which random word.
        """
        keys, b_start = self.keys[places], columns["segment_b_start"]
        lengths, old = columns["lengths"], columns["num_masks"]
        pairs = b_start < lengths
        sizes = lengths - 2 - pairs
        if (old > sizes).any():
            raise ValueError(
                "an example has more masks than tokens, so its shard is damaged: run `bertloom verify` on the data set"
            )
        starts = np.cumsum(lengths) - lengths
        ids = columns["input_ids"].copy()
        ids[np.repeat(starts, old) + columns["positions"]] = columns["masked_ids"]

        num_masks = num_masks_of(columns, self.counts)
        examples, numbers = choose(keys, sizes, num_masks)
        # Number i is the i-th token that is not special: [CLS] comes before all, [SEP] before those of segment B.
        positions = numbers + 1 + (numbers >= np.where(pairs, b_start - 2, sizes)[examples])
        chosen = starts[examples] + positions
        masked_ids = ids[chosen]
        ranks = np.arange(len(examples)) - np.repeat(np.cumsum(num_masks) - num_masks, num_masks)
        draws = draw(keys[examples], self.max_seq_length + ranks)
        upper, words = draws >> np.uint64(32), self.remasking.words
        random = words[bounded_low(draws, len(words))]
        new = np.where(upper < np.uint64(self.remasking.random_below), random, masked_ids)
        ids[chosen] = np.where(upper < np.uint64(self.remasking.mask_below), self.remasking.mask_id, new)
        new_columns = {"input_ids": ids, "positions": positions.astype(np.uint16), "masked_ids": masked_ids}
        return {**columns, **new_columns, "num_masks": num_masks}
