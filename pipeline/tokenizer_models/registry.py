"""The models of tokenizers by name. A new one is a file here, and a line in `MODELS`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from bertloom.shapes import shown
from pipeline.tokenizer_models import wordpiece
from pipeline.tokenizer_models.growth import Growth, GrowthConfig


@dataclass(frozen=True, kw_only=True)
class TokenizerModel:
    """A model of tokenizers."""

    name: str
    """Its `type` in a tokenizer.json."""
    grow: Callable[[Mapping[str, Any], Mapping[str, int], GrowthConfig], Growth]
    """Return a tokenizer with the words that a text needs most. Takes its tokenizer.json and the counts of the words."""


MODELS = {
    "wordpiece": TokenizerModel(name="WordPiece", grow=wordpiece.grow),
}
"""The registry. The key is the value of `--model`."""


def model_of(content: Mapping[str, Any], where: str) -> TokenizerModel:
    """Return the model of a tokenizer.json; ValueError if it cannot get new words."""
    name = content["model"].get("type")
    found = next((model for model in MODELS.values() if model.name == name), None)
    if found is None:
        known = ", ".join(model.name for model in MODELS.values())
        raise ValueError(f"{where}: a tokenizer of the kind {shown(name)} cannot get new words: expected {known}")
    return found
