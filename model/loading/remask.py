"""New masks for an example in every epoch that reads it (`--remask`), where a data set's copies have fixed ones.

The masks that an example came with are taken off (its true ids are stored), and as many new ones are drawn by the rule of
docs/pairs-and-masks.md: any of its tokens but [CLS] and [SEP], most to become [MASK], some a random word that is never a
special or an unused one, the rest to stay. Each draw is keyed by the seed of training, the length, the epoch and the row:
neither the ranks, nor the micro-batches, nor a stop change a mask. `docs/training.md`, section "New masks", is the
definition. The stream digest is of the rows as they were read, before this.

Dimensions in the comments: T real tokens, N examples, M masked positions.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from model.loading.data import DataSet
from model.loading.order import GOLDEN, mix_array
from model.loading.stream import fold_arrays

NEW_MASKS = 1002
"""Purpose of these draws. Far from those of docs/shard-format.md: they decide no byte of any data set."""
SPECIAL = re.compile(r"\[(PAD|UNK|CLS|SEP|MASK|unused\d+)\]")
"""Words that no random word is."""


@dataclass(frozen=True, kw_only=True)
class Remasking:
    """How tokens are masked, as the data set's manifest says."""

    mask_id: int
    """Of [MASK]."""
    words: np.ndarray
    """Ids that a random word is drawn from."""
    mask_below: int
    """A mask becomes [MASK] where the upper half of its draw is below this …"""
    random_below: int
    """… and else a random word below this."""


def remasking_of(data_set: DataSet) -> Remasking:
    """How the data set's tokens are masked.

    Raises:
        ValueError: its masks are of another kind.
    """
    configuration = data_set.manifest["configuration"]
    kinds = {"do_whole_word_mask": True, "mask_spans": True, "compat": "google"}
    for name, value in kinds.items():
        if configuration.get(name) == value:
            raise ValueError(
                f"remask: {data_set.folder} was made with {name}, and only masks of single tokens can be drawn anew: leave "
                f"--remask out, its copies ({data_set.num_copies}) have masks of their own"
            )
    words = data_set.folder.read("vocab.txt").decode().removesuffix("\n").split("\n")
    below = threshold(configuration.get("mask_token_prob", 0.8))
    return Remasking(
        mask_id=words.index("[MASK]"),
        words=np.array([index for index, word in enumerate(words) if not SPECIAL.fullmatch(word)]),
        mask_below=below,
        random_below=below + threshold(configuration.get("random_token_prob", 0.1)),
    )


def threshold(probability: float) -> int:
    """floor(p * 2^32) of the decimal that a person wrote."""
    return int(Fraction(str(probability)) * 2**32)


def example_keys(seed: int, max_seq_length: int, epochs: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The keys of examples, uint64 (N,): of the rows that are read in these epochs, int64 (N,) each."""
    same = (np.full(len(rows), value) for value in (seed, NEW_MASKS, max_seq_length))
    return fold_arrays(*same, epochs, rows)


@dataclass(frozen=True, kw_only=True)
class EpochMasks:
    """The masks that the examples of a global batch get in their epoch."""

    keys: np.ndarray
    """Of each example of the batch, uint64."""
    max_seq_length: int
    """Of the examples."""
    remasking: Remasking
    """What a masked token becomes."""

    def put_on(self, columns: Mapping[str, np.ndarray], places: np.ndarray) -> dict[str, np.ndarray]:
        """What `Examples.read` gave for the examples at these places, with new masks: as many in each as it had.

        Draws 0, 1, … of an example's key choose its masks; draw max_seq_length + r decides what becomes of the r-th of
        them in the order of the text: its upper half which of the three, its lower half which random word.
        """
        keys, b_start = self.keys[places], columns["segment_b_start"]
        lengths, num_masks = columns["lengths"], columns["num_masks"]
        pairs = b_start < lengths
        sizes = lengths - 2 - pairs
        if (num_masks > sizes).any():
            raise ValueError("there is an example with more masks than tokens: run `bertloom verify` on the data set")
        starts = np.repeat(np.cumsum(lengths) - lengths, num_masks)
        ids = columns["input_ids"].copy()
        ids[starts + columns["positions"]] = columns["masked_ids"]

        examples, numbers = choose(keys, sizes, num_masks)
        # Number i is the i-th token that is no special one: [CLS] stands before all, [SEP] before those of segment B.
        positions = numbers + 1 + (numbers >= np.where(pairs, b_start - 2, sizes)[examples])
        chosen = starts + positions
        masked_ids = ids[chosen]
        ranks = np.arange(len(examples)) - np.repeat(np.cumsum(num_masks) - num_masks, num_masks)
        draws = draw(keys[examples], self.max_seq_length + ranks)
        upper, lower = draws >> np.uint64(32), draws & np.uint64(0xFFFFFFFF)
        words = self.remasking.words
        random = words[(lower * np.uint64(len(words)) >> np.uint64(32)).astype(np.int64)]
        new = np.where(upper < np.uint64(self.remasking.random_below), random, masked_ids)
        ids[chosen] = np.where(upper < np.uint64(self.remasking.mask_below), self.remasking.mask_id, new)
        return {**columns, "input_ids": ids, "positions": positions.astype(np.uint16), "masked_ids": masked_ids}


def choose(keys: np.ndarray, sizes: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Draws counts[i] of the numbers 0 … sizes[i] - 1 without replacement: (i, number), int64 (M,) each, sorted.

    Floyd's algorithm (Bentley and Floyd 1987), a step of all examples at a time: step j draws from the first
    sizes - counts + j + 1 numbers, and takes the last of those where the one drawn is taken already.
    """
    bits = max(1, int(sizes.max(initial=1)) - 1).bit_length()
    taken = np.zeros(len(keys) << bits, dtype=bool)
    for step in range(int(counts.max(initial=0))):
        active = np.flatnonzero(counts > step)
        last = sizes[active] - counts[active] + step
        upper = draw(keys[active], np.full(len(active), step)) >> np.uint64(32)
        numbers = (upper * (last + 1).astype(np.uint64) >> np.uint64(32)).astype(np.int64)
        base = active << bits
        taken[base + np.where(taken[base + numbers], last, numbers)] = True
    flat = np.flatnonzero(taken)
    return flat >> bits, flat & (1 << bits) - 1


def draw(keys: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Draw number j of each key, uint64."""
    return mix_array(keys + (numbers + 1).astype(np.uint64) * np.uint64(GOLDEN))
