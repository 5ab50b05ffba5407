"""Pretraining that begins with the weights of a model on disk: does it fit, and how it is put in."""

import json
from typing import Any

from bertloom.json_files import parse_json
from model.encoder import EncoderConfig
from model.encoders import encoder_name
from model.heads import PretrainingModel
from model.hub.pretrained import Pretrained
from model.hub.tokenizer import tokenizer_configuration
from model.hub.weights import from_hugging_face, load_weights, name_table
from model.loading.data import DataSet

MAY_DIFFER = ("hidden_dropout_prob", "attention_probs_dropout_prob", "initializer_range", "vocab_size")
"""What of a configuration need not be the model's; the vocabulary has a check of its own."""


def check_vocabulary(pretrained: Pretrained, data_set: DataSet) -> None:
    """Raises ValueError unless the ids of a data set are the model's, and its texts were read as the model reads them."""
    words = data_set.folder.read("vocab.txt").decode().removesuffix("\n").split("\n")
    ours = pretrained.tokenizer.words
    if words != ours:
        first = next((i for i, (a, b) in enumerate(zip(words, ours)) if a != b), min(len(words), len(ours)))
        said = " and ".join(repr(known[first]) if first < len(known) else "none" for known in (words, ours))
        raise ValueError(
            f"the vocabulary of {data_set.folder} ({len(words):,} words) is not that of {pretrained.path} ({len(ours):,}): "
            f"word {first} is {said}; preprocess with the model's vocab.txt"
        )
    made = text_options(parse_json(data_set.folder.read("tokenizer.json"), f"{data_set.folder}/tokenizer.json"))
    reads = text_options(json.loads(pretrained.tokenizer.tokenizer.to_str()))
    for name, value in made.items():
        if value != reads[name]:
            raise ValueError(
                f"{data_set.folder} was made with {name}={value}, the tokenizer of {pretrained.path} has {reads[name]}: "
                f"preprocess as the model reads; or mend its tokenizer_config.json, if that is what is wrong"
            )


def check_shape(pretrained: Pretrained, config: EncoderConfig) -> None:
    """Raise ValueError unless a model of this configuration can take the weights of the one on disk."""
    ours, theirs = ({"encoder": encoder_name(c), **c.values()} for c in (config, pretrained.config))
    for name, asked in ours.items():
        if name not in MAY_DIFFER and asked != theirs.get(name):
            raise ValueError(
                f"model.{name} is {asked}, but {pretrained.path} has {theirs.get(name)}: give the config.toml that its "
                f"run folder has as a preset; for a directory of transformers, `bertloom import` writes one"
            )
    if config.vocab_size != pretrained.config.vocab_size:
        raise ValueError(
            f"{pretrained.path} has vectors for {pretrained.config.vocab_size:,} words, its vocabulary has "
            f"{config.vocab_size:,}: load it in transformers, model.resize_token_embeddings({config.vocab_size}), save it"
        )


def copy_weights(model: PretrainingModel, pretrained: Pretrained) -> list[str]:
    """Puts the weights of a model on disk into one of its shape.

    Returns:
        The names of the heads that it has no weights for; they stay as they are.

    Raises:
        ValueError: a part of the encoder is missing, or something has not the shape that its config.json says.
    """
    weights = pretrained.weights
    missing = [] if pretrained.predicts_words else ["mlm"]
    state = from_hugging_face(weights, model.config, "Model" if missing else "ForMaskedLM")
    table = name_table(model.config, "ForPreTraining")
    for head in ("nsp.pooler", "nsp.classifier"):
        names = {ours: theirs[0] for ours, theirs in table.items() if ours.startswith(f"{head}.")}
        if weights.keys() >= set(names.values()):
            state |= {ours: weights[theirs] for ours, theirs in names.items()}
        else:
            missing.append(head)
    load_weights(model, model.state_dict() | state, str(pretrained.path))
    return missing


def text_options(tokenizer: dict[str, Any]) -> dict[str, Any]:
    """How a tokenizer.json reads texts before it looks for words."""
    reading = tokenizer_configuration(tokenizer, max_length=0)
    if reading["strip_accents"] is None:
        reading["strip_accents"] = reading["do_lower_case"]
    return reading
