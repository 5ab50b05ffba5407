"""Pretraining from the weights of a model on disk: checks that it fits, and copies the weights."""

import json
from typing import Any

from bertloom.json_files import parse_json
from model.heads import PretrainingModel
from model.hub.pretrained import Pretrained
from model.hub.tokenizer import tokenizer_configuration
from model.hub.weights import from_hugging_face, load_weights, name_table
from model.loading.data import DataSet
from model.shape import EncoderConfig


def check_vocabulary(pretrained: Pretrained, data_set: DataSet) -> None:
    """Raise ValueError unless a data set has the model's vocabulary and was tokenized with its text options."""
    words = data_set.read("vocab.txt").decode().removesuffix("\n").split("\n")
    ours = pretrained.tokenizer.words
    if words != ours:
        first = next((i for i, (a, b) in enumerate(zip(words, ours)) if a != b), min(len(words), len(ours)))
        said = " and ".join(repr(known[first]) if first < len(known) else "none" for known in (words, ours))
        raise ValueError(
            f"the vocabulary of {data_set.folder} ({len(words):,} words) is not that of {pretrained.path} ({len(ours):,}): "
            f"word {first} is {said}; preprocess with the model's vocab.txt"
        )
    made = text_options(parse_json(data_set.read("tokenizer.json"), f"{data_set.folder}/tokenizer.json"))
    reads = text_options(json.loads(pretrained.tokenizer.tokenizer.to_str()))
    for name, value in made.items():
        if value != reads[name]:
            raise ValueError(
                f"{data_set.folder} was made with {name}={value}, the tokenizer of {pretrained.path} has {reads[name]}: "
                f"preprocess with the same options, or correct tokenizer_config.json if that is wrong"
            )


def check_shape(pretrained: Pretrained, config: EncoderConfig) -> None:
    """Raise ValueError unless a model of this configuration can take the weights of the one on disk."""
    theirs = pretrained.config.values()
    for name, asked in config.values().items():
        if name not in (*config.shape.training_fields, "vocab_size") and asked != theirs.get(name):
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
    """Copy the weights of a model on disk into a model of the same shape.

    Returns:
        The names of the heads without weights on disk; they are not changed.

    Raises:
        ValueError: a part of the encoder is missing, or a tensor does not have the shape that config.json gives.
    """
    weights = pretrained.weights
    missing = [] if pretrained.predicts_words else ["mlm"]
    state = from_hugging_face(weights, model.config, None if missing else "ForMaskedLM")
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
    """Return how a tokenizer.json treats case, accents and Chinese characters."""
    reading = tokenizer_configuration(tokenizer, max_length=0)
    if reading["strip_accents"] is None:
        reading["strip_accents"] = reading["do_lower_case"]
    return reading
