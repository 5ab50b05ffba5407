"""The models of tokenizers by name. A new one is a file here, and a line in `MODELS`."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from bertloom.shapes import shown
from pipeline.options import REGISTERED
from pipeline.tokenizer_models.bpe import BPE
from pipeline.tokenizer_models.tokenizer_model import TokenizerModel
from pipeline.tokenizer_models.unigram import UNIGRAM
from pipeline.tokenizer_models.wordpiece import WORDPIECE

MODELS = {model.name: model for model in (WORDPIECE, BPE, UNIGRAM)}
"""The registry."""

if TYPE_CHECKING:
    ModelName = str
else:  # the choices that --help shows
    ModelName = Annotated[Literal[tuple(MODELS)], REGISTERED]


def model_of(content: Mapping[str, Any], where: str) -> TokenizerModel:
    """Return the model of a tokenizer.json; ValueError if it cannot get new words."""
    name = content["model"].get("type")
    found = next((model for model in MODELS.values() if model.type == name), None)
    if found is None:
        known = ", ".join(model.type for model in MODELS.values())
        raise ValueError(f"{where}: a tokenizer of the kind {shown(name)} cannot get new words: expected {known}")
    return found
