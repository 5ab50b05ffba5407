"""The models of presets, and the same models in transformers."""

import tomllib
from importlib.resources import files
from inspect import signature
from typing import Any

from torch import Tensor

from model.encoders import shape_class
from model.heads import PretrainingModel
from model.hub.config import class_name, write_config
from model.hub.weights import to_hugging_face
from model.shape import EncoderConfig


def config_of(preset: str, vocab_size: int, **changes: Any) -> EncoderConfig:
    """Return the configuration of a preset's model, with changes of its shape."""
    values = tomllib.loads((files("jobs") / "presets" / f"{preset}.toml").read_text()).get("model", {}) | changes
    return EncoderConfig(shape=shape_class(values.get("encoder"))(**values), vocab_size=vocab_size)


def new_model(config: EncoderConfig, seed: int = 1) -> PretrainingModel:
    """Return a model with the initial weights of the trainer. It trains pairs if transformers' class does."""
    model = PretrainingModel(config)
    model.encoder.initialize_weights(model, seed)
    model.nsp.requires_grad_(class_name(config, model.form).endswith(model.form))
    return model.train()


def in_transformers(model: PretrainingModel, attention: str) -> Any:
    """Return the same model as transformers computes it, with this implementation of attention."""
    import transformers

    values = write_config(model.config, model.form)
    config = transformers.AutoConfig.for_model(**values | {"attn_implementation": attention})
    theirs = getattr(transformers, class_name(model.config, model.form))(config)
    theirs.load_state_dict(to_hugging_face(model.state_dict(), model.config, model.form), strict=False)
    return theirs.train()


def taken_by(model: Any, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the inputs that a model of transformers takes: some have no token types and no pairs."""
    taken = signature(model.forward).parameters
    return {name: value for name, value in inputs.items() if name in taken}
