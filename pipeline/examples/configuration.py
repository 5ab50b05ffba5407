"""Which examples are made of a bucket's sentences: the options, and the kernels that they choose."""

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.examples.masking.tokens import Masking, default_max_predictions, mask_counts
from pipeline.examples.objectives import google
from pipeline.examples.objectives import nsp as pairs
from pipeline.examples.objectives import segments as runs
from pipeline.examples.objectives.nsp import Pairs, Sentences, split_sentences
from pipeline.tokens import TokenBlock
from pipeline.vocabulary import Vocabulary

MIN_SEQ_LENGTH, MAX_SEQ_LENGTH = 8, 65_535
WHOLE_WORD_ROOM = 8  # masks that a last whole word may add by default


@dataclass(frozen=True, kw_only=True)
class ExamplesConfig:
    """What decides the examples made of tokens. All of it may change without tokenizing again."""

    max_seq_length: tuple[int, ...] = (128,)
    """Tokens of the longest example, specials counted. Several make a set of shards each: BERT's two phases, 128 512."""
    dupe_factor: int = 5
    """Copies: passes over the corpus with pairs and masks of their own. Training epoch e reads copy e mod this."""
    masked_lm_prob: float = 0.15
    """Share of an example's tokens to predict."""
    max_predictions_per_seq: tuple[int, ...] | None = None
    """Most predictions of an example, one number for each length; None: floor(length * masked_lm_prob + 0.5) + 1."""
    short_seq_prob: float = 0.1
    """Share of examples with a target length drawn from 2 up to the full one, instead of the full one."""
    pairs: Literal["nsp", "sop", "none"] = "nsp"
    """nsp: is B the next segment or a random one (BERT)? sop: are A and B swapped (ALBERT)? none: single segments, as
    long as they may be (RoBERTa, with --short-seq-prob 0)."""
    do_whole_word_mask: bool = False
    """Mask all pieces of a word or none. Chinese words are characters, unless --chinese-words found them."""
    mask_spans: bool = False
    """Mask spans of whole words, of geometric length (SpanBERT); with --do-whole-word-mask or without."""
    mask_token_prob: float = 0.8
    """Share of the masked tokens that become [MASK] ..."""
    random_token_prob: float = 0.1
    """... and that become a random word; the rest stays as it is."""
    compat: Literal["google"] | None = None
    """google: pairs and masks distributed as google-research/bert makes them, faults included, to compare with it."""
    validation_fraction: float = 0.01
    """Share of documents held out, chosen by a hash of their text."""
    near_duplicates: float | None = None
    """Leave out documents that are so alike to another one: the Jaccard similarity of their runs of five tokens, such as
    0.8. None: only equal documents are left out."""
    seed: int = 1
    """Decides every draw. The same texts, configuration and seed give the same shards, byte for byte."""

    def __post_init__(self):
        lengths = self.max_seq_length
        for length in lengths:
            if not MIN_SEQ_LENGTH <= length <= MAX_SEQ_LENGTH:
                raise ValueError(
                    f"--max-seq-length {length}: expected {MIN_SEQ_LENGTH} to {MAX_SEQ_LENGTH}; BERT's are 128 512"
                )
        if len(set(lengths)) != len(lengths) or not lengths:
            raise ValueError(f"--max-seq-length {' '.join(map(str, lengths))}: expected one or more different lengths")
        if self.dupe_factor < 1:
            raise ValueError(f"--dupe-factor {self.dupe_factor}: expected 1 or more copies")
        for name, low, high in (
            ("masked_lm_prob", 0.0, 1.0),
            ("short_seq_prob", 0.0, 1.0),
            ("mask_token_prob", 0.0, 1.0),
            ("random_token_prob", 0.0, 1.0),
            ("validation_fraction", 0.0, 0.5),
        ):
            value = getattr(self, name)
            if not low <= value <= high or (name == "masked_lm_prob" and value == 0):
                raise ValueError(f"--{name.replace('_', '-')} {value}: expected a share from {low} to {high}")
        if self.near_duplicates is not None and not 0.5 <= self.near_duplicates < 1:
            raise ValueError(
                f"--near-duplicates {self.near_duplicates}: expected 0.5 to 0.99, such as 0.8; equal documents are left out "
                f"without it"
            )
        most = self.max_predictions_per_seq
        if most is not None and (len(most) != len(lengths) or min(most) < 1):
            raise ValueError(
                f"--max-predictions-per-seq {' '.join(map(str, most))}: expected one number above 0 for each of the "
                f"{len(lengths)} lengths {' '.join(map(str, lengths))}"
            )
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"--seed {self.seed}: expected 0 to 2^63 - 1")
        if Fraction(str(self.mask_token_prob)) + Fraction(str(self.random_token_prob)) > 1:
            raise ValueError(
                f"--mask-token-prob {self.mask_token_prob} and --random-token-prob {self.random_token_prob}: expected no "
                f"more than 1 together; BERT has 0.8 and 0.1"
            )
        if self.compat == "google" and self.pairs != "nsp":
            raise ValueError(f"--compat google makes next sentence pairs alone: --pairs {self.pairs} needs it left out")
        if self.compat == "google" and self.mask_spans:
            raise ValueError(
                "--compat google masks tokens or whole words, as Google's script: --mask-spans needs it left out"
            )

    def max_predictions(self, max_seq_length: int) -> int:
        """Most masks of an example. Where a last whole word may go beyond the number wanted, there is room for it."""
        if self.max_predictions_per_seq is not None:
            return self.max_predictions_per_seq[self.max_seq_length.index(max_seq_length)]
        beyond = WHOLE_WORD_ROOM if self.masks_words and self.compat is None else 0
        return default_max_predictions(max_seq_length, self.masked_lm_prob) + beyond

    @property
    def masks_words(self) -> bool:
        """Are all pieces of a word masked, or none?"""
        return self.do_whole_word_mask or self.mask_spans

    @property
    def min_sources(self) -> int:
        """Sources that a bucket must have: a random B comes from another one."""
        return 2 if self.pairs == "nsp" else 1

    def masking(self, max_seq_length: int, vocabulary: Vocabulary) -> Masking:
        max_predictions = self.max_predictions(max_seq_length)
        count = google.mask_counts if self.compat == "google" else mask_counts
        return Masking(
            counts=count(max_seq_length, self.masked_lm_prob, max_predictions),
            max_predictions=max_predictions,
            whole_words=self.masks_words,
            spans=self.mask_spans,
            mask_token_prob=self.mask_token_prob,
            random_token_prob=self.random_token_prob,
            google=self.compat == "google",
            vocabulary=vocabulary,
        )

    def sentences(self, tokens: TokenBlock, continuation: NDArray[np.bool_], max_seq_length: int) -> Sentences:
        """The sentences of a bucket as these examples need them."""
        return split_sentences(tokens, continuation, max_seq_length, self.compat or self.pairs)

    def make_pairs(self, sentences: Sentences, max_seq_length: int, copy: int) -> tuple[Pairs, dict[str, int]]:
        """The examples of one copy of a bucket, before masking, and what was counted on the way."""
        kinds = {"nsp": pairs.make_pairs, "sop": runs.make_swapped, "none": runs.make_runs, "google": google.make_pairs}
        return kinds[self.compat or self.pairs](sentences, max_seq_length, copy, self.seed, self.short_seq_prob)
