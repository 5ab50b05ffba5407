"""Pretraining that begins with the weights of a model on disk: does it fit, and how it is put in."""

import json
from dataclasses import fields
from typing import Any

from model.bert import BertConfig
from model.heads import BertForPreTraining
from model.hub.pretrained import Pretrained
from model.hub.tokenizer import tokenizer_configuration
from model.hub.weights import HEADS, from_hugging_face, load_weights
from model.loading.data import DataSet, parse_json

FREE = ("hidden_dropout_prob", "attention_probs_dropout_prob", "initializer_range", "vocab_size")
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
    made = reading_of(parse_json(data_set.folder.read("tokenizer.json"), f"{data_set.folder}/tokenizer.json"))
    reads = reading_of(json.loads(pretrained.tokenizer.tokenizer.to_str()))
    for name, value in made.items():
        if value != reads[name]:
            raise ValueError(
                f"{data_set.folder} was made with {name}={value}, the tokenizer of {pretrained.path} has {reads[name]}: "
                f"preprocess as the model reads; or mend its tokenizer_config.json, if that is what is wrong"
            )


def check_shape(pretrained: Pretrained, config: BertConfig) -> None:
    """Raises ValueError unless a model of this configuration can take the weights of the one on disk."""
    for field in fields(BertConfig):
        asked, found = getattr(config, field.name), getattr(pretrained.config, field.name)
        if field.name not in FREE and asked != found:
            raise ValueError(
                f"model.{field.name} is {asked}, but {pretrained.path} has {found}: give the config.toml that its run "
                f"folder has as a preset; for a directory of transformers, `bertloom import` writes one"
            )
    if config.vocab_size != pretrained.config.vocab_size:
        raise ValueError(
            f"{pretrained.path} has vectors for {pretrained.config.vocab_size:,} words, its vocabulary has "
            f"{config.vocab_size:,}: load it in transformers, model.resize_token_embeddings({config.vocab_size}), save it"
        )


def begin_with(model: BertForPreTraining, pretrained: Pretrained) -> list[str]:
    """Puts the weights of a model on disk into one of its shape.

    Returns:
        The names of the heads that it has no weights for; they stay as they are.

    Raises:
        ValueError: a part of the encoder is missing, or something has not the shape that its config.json says.
    """
    layers, weights = model.config.num_hidden_layers, pretrained.weights
    missing = [] if "cls.predictions.bias" in weights else ["mlm"]
    state = from_hugging_face(weights, layers, "BertModel" if missing else "BertForMaskedLM")
    for head in ("nsp.pooler", "nsp.classifier"):
        names = {f"{head}.{kind}": f"{HEADS['BertForPreTraining'][head]}.{kind}" for kind in ("weight", "bias")}
        if weights.keys() >= set(names.values()):
            state |= {ours: weights[theirs] for ours, theirs in names.items()}
        else:
            missing.append(head)
    load_weights(model, model.state_dict() | state, str(pretrained.path))
    return missing


def reading_of(tokenizer: dict[str, Any]) -> dict[str, Any]:
    """How a tokenizer.json reads texts before it looks for words."""
    reading = tokenizer_configuration(tokenizer, max_length=0)
    if reading["strip_accents"] is None:
        reading["strip_accents"] = reading["do_lower_case"]
    return reading
