"""Which examples are made of a bucket's sentences: the options, and the objective and masking scheme that they choose."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from fractions import Fraction
from typing import TYPE_CHECKING, Annotated, Any, Literal

from typing_extensions import Doc

from bertloom.limits import MAX_SEQ_LENGTH, MAX_SHARDS, MIN_SEQ_LENGTH
from bertloom.mask_counts import default_max_predictions
from pipeline.examples.masking.masks import Masking
from pipeline.examples.masking.registry import find_scheme
from pipeline.examples.masking.scheme import MaskingScheme
from pipeline.examples.objectives.objective import Objective
from pipeline.examples.objectives.registry import OBJECTIVES, find_objective
from pipeline.examples.pairs import Pairs
from pipeline.examples.sentences import Sentences
from pipeline.options import REGISTERED, check_types
from pipeline.tokens import TokenBlock
from pipeline.vocabulary import Vocabulary, WordKinds

SHARES = {
    "masked_lm_prob": 1.0,
    "short_seq_prob": 1.0,
    "mask_token_prob": 1.0,
    "random_token_prob": 1.0,
    "validation_fraction": 0.5,
}
"""Options that are shares, with the greatest value of each."""

if TYPE_CHECKING:
    ObjectiveName = str
    CompatName = str
else:  # the choices that --help shows
    ObjectiveName = Annotated[Literal[tuple(o.name for o in OBJECTIVES if o.compat is None)], REGISTERED]
    CompatName = Annotated[Literal[tuple(o.compat for o in OBJECTIVES if o.compat is not None)], REGISTERED]


@dataclass(frozen=True, kw_only=True)
class ExamplesConfig:
    """Options that affect the examples. They may change without tokenizing again (see --work-dir)."""

    max_seq_length: tuple[int, ...] = (128,)
    """Longest example in tokens, [CLS] and [SEP] included. Several lengths make a set of shards each; BERT's two phases
    are 128 512."""
    dupe_factor: int = 5
    """Number of copies: passes over the corpus, each with its own pairs and masks. Training epoch e reads copy e modulo
    this number."""
    masked_lm_prob: float = 0.15
    """Share of an example's tokens to predict."""
    max_predictions_per_seq: tuple[int, ...] | None = None
    """Most predictions in an example, one number per length. None: floor(length * masked_lm_prob + 0.5) + 1."""
    short_seq_prob: float = 0.1
    """Share of examples whose target length is drawn from 2 up to the full one, instead of being the full one."""
    pairs: Annotated[
        ObjectiveName,
        Doc(
            "Pair objective. "
            + " ".join(f"{o.name}: {o.summary}" for o in OBJECTIVES if o.compat is None)
            + " BERT was trained with nsp, ModernBERT with none."
        ),
    ] = "nsp"
    do_whole_word_mask: bool = False
    """Mask all pieces of a word or none. Chinese words are single characters, unless --chinese-words finds them."""
    mask_spans: bool = False
    """Mask spans of whole words, of geometric length (SpanBERT), with or without --do-whole-word-mask."""
    mask_token_prob: float = 0.8
    """Share of the masked tokens that become [MASK]."""
    random_token_prob: float = 0.1
    """Share of the masked tokens that become a random word. The rest stays as it is."""
    compat: CompatName | None = None
    """google: pairs and masks as google-research/bert makes them, including its faults, for comparison."""
    validation_fraction: float = 0.01
    """Share of documents in the validation split, chosen by a hash of their text."""
    min_shards: int = 1
    """Smallest number of shards of each copy in the train split, for trainers in which every GPU and worker reads its own
    shards. By default a shard is made of about 8 million tokens of text. No two shards share a text."""
    near_duplicates: float | None = None
    """Leave out documents whose similarity to another one is at least this, such as 0.8: the Jaccard similarity of their
    runs of five tokens. None: only equal documents are left out."""
    seed: int = 1
    """Seed of every draw. The same texts, configuration and seed give the same shards, byte for byte."""

    def __post_init__(self) -> None:
        lengths = self.max_seq_length
        for length in lengths:
            if not MIN_SEQ_LENGTH <= length <= MAX_SEQ_LENGTH:
                raise ValueError(
                    f"--max-seq-length {length}: expected {MIN_SEQ_LENGTH} to {MAX_SEQ_LENGTH}; BERT used 128 and 512"
                )
        if len(set(lengths)) != len(lengths) or not lengths:
            raise ValueError(f"--max-seq-length {' '.join(map(str, lengths))}: expected one or more different lengths")
        if self.dupe_factor < 1:
            raise ValueError(f"--dupe-factor {self.dupe_factor}: expected 1 or more copies")
        for name, most in SHARES.items():
            value = getattr(self, name)
            if not 0 <= value <= most or (name == "masked_lm_prob" and value == 0):
                raise ValueError(f"--{name.replace('_', '-')} {value}: expected a share from 0.0 to {most}")
        if not 1 <= self.min_shards <= MAX_SHARDS:
            raise ValueError(f"--min-shards {self.min_shards}: expected 1 to {MAX_SHARDS:,}")
        if self.near_duplicates is not None and not 0.5 <= self.near_duplicates < 1:
            raise ValueError(
                f"--near-duplicates {self.near_duplicates}: expected 0.5 to 0.99, such as 0.8; "
                f"equal documents are left out without it"
            )
        predictions = self.max_predictions_per_seq
        if predictions is not None and (len(predictions) != len(lengths) or min(predictions) < 1):
            raise ValueError(
                f"--max-predictions-per-seq {' '.join(map(str, predictions))}: expected one number above 0 for each of "
                f"the {len(lengths)} lengths {' '.join(map(str, lengths))}"
            )
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"--seed {self.seed}: expected 0 to 2^63 - 1")
        if Fraction(str(self.mask_token_prob)) + Fraction(str(self.random_token_prob)) > 1:
            raise ValueError(
                f"--mask-token-prob {self.mask_token_prob} and --random-token-prob {self.random_token_prob}: "
                f"expected a sum of at most 1; BERT has 0.8 and 0.1"
            )
        _ = self.objective, self.scheme  # raise ValueError where there is none

    @classmethod
    def of(cls, configuration: Mapping[str, Any]) -> "ExamplesConfig":
        """Return the part of a manifest's `configuration` that is about examples."""
        check_types(cls, configuration, "the configuration in manifest.json")
        values: dict[str, Any] = {}
        for field in fields(cls):
            if field.name in configuration:
                value = configuration[field.name]
                values[field.name] = tuple(value) if isinstance(value, list) else value
        return cls(**values)

    @property
    def objective(self) -> Objective:
        """The pair objective."""
        return find_objective(self.pairs, self.compat)

    @property
    def scheme(self) -> MaskingScheme:
        """The masking scheme."""
        return find_scheme(self, self.compat)

    @property
    def min_sources(self) -> int:
        """Source texts that every bucket needs."""
        return self.objective.min_sources

    def max_predictions(self, max_seq_length: int) -> int:
        """Return the most masks that an example of this length may have."""
        if self.max_predictions_per_seq is not None:
            return self.max_predictions_per_seq[self.max_seq_length.index(max_seq_length)]
        return default_max_predictions(max_seq_length, self.masked_lm_prob) + self.scheme.extra_predictions

    def masking(self, max_seq_length: int, vocabulary: Vocabulary) -> Masking:
        """Return how the examples of this length are masked."""
        scheme, most = self.scheme, self.max_predictions(max_seq_length)
        counts = scheme.count_masks(max_seq_length, self.masked_lm_prob, most)
        return Masking(scheme, counts, most, vocabulary, self.mask_token_prob, self.random_token_prob)

    def sentences(self, tokens: TokenBlock, words: WordKinds, max_seq_length: int) -> Sentences:
        """Return the sentences of a bucket, cut as the objective needs them."""
        return self.objective.cut_sentences(tokens, words, max_seq_length)

    def make_pairs(self, sentences: Sentences, max_seq_length: int, copy: int) -> tuple[Pairs, dict[str, int]]:
        """Return the examples of one copy of a bucket before masking, and counters."""
        return self.objective.make_pairs(sentences, max_seq_length, copy, self.seed, self.short_seq_prob)
