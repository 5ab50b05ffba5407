"""The interface of a tokenizer model."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bertloom.tokenizer_files import TokenizerFile
from pipeline.tokenizer_models.growth import Growth, GrowthConfig
from pipeline.tokenizer_models.training import TrainingConfig

Counts = Mapping[str, int]
"""The words of a text, as the tokenizer's normalizer and pre-tokenizer give them, and how often the text has each."""


@dataclass(frozen=True, kw_only=True)
class TokenizerModel:
    """A model of tokenizers: how it is trained, and how it gets more words. Adding one takes a file with its functions, a
    line in `registry.py`, and a test."""

    name: str
    """Its name in `--model`."""
    type: str
    """Its name in a tokenizer.json."""
    summary: str
    """What it is, for --help."""
    file: str
    """The name of the file that holds a new tokenizer. Its ending is required where it is not .txt."""
    is_cased: bool
    """Whether a new tokenizer keeps capitals by default."""
    fewest: int
    """Smallest number of words."""
    why_fewer: str
    """Why a new tokenizer may have fewer words than were asked for; {} stands for the minimum frequency."""
    not_for_it: Mapping[str, str] = field(default_factory=dict)
    """Options of the training that have no meaning for it, and why."""
    packages: tuple[str, ...] = ()
    """Modules that its training needs and that an extra of bertloom installs."""
    parts: Callable[[TrainingConfig], dict[str, Any]]
    """Return how a new tokenizer reads texts: the normalizer and the pre_tokenizer of its tokenizer.json."""
    train: Callable[[Counts, TrainingConfig], TokenizerFile]
    """Return a new tokenizer."""
    content: Callable[[TokenizerFile], bytes]
    """Return the content of its file."""
    readable: Callable[[str], str] = str
    """Return a word as people read it."""
    grow: Callable[[Mapping[str, Any], Counts, GrowthConfig], Growth]
    """Return a tokenizer with the words that a text needs most. Takes its tokenizer.json."""
