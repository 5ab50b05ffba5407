"""Pretraining from the weights of a model on disk: checks that it fits, and copies the weights."""

import json
from typing import Any

from bertloom.tokenizer_files import TokenizerFile
from model.heads import PretrainingModel
from model.hub.pretrained import Pretrained
from model.hub.tokenizer import text_options
from model.hub.weights import from_hugging_face, load_weights, name_table
from model.loading.data import DataSet
from model.shape import EncoderConfig


def check_vocabulary(pretrained: Pretrained, data_set: DataSet) -> None:
    """Raise ValueError unless a data set has the model's vocabulary and was tokenized as the model's tokenizer does."""
    theirs, ours = data_set.tokenizer(), pretrained.tokenizer.file
    name = "vocab.txt" if ours.is_bert else "tokenizer.json"
    if theirs.tokens != ours.tokens:
        pairs = enumerate(zip(theirs.tokens, ours.tokens))
        first = next((i for i, (a, b) in pairs if a != b), min(len(theirs.tokens), len(ours.tokens)))
        said = " and ".join(repr(f.tokens[first]) if first < len(f.tokens) else "none" for f in (theirs, ours))
        raise ValueError(
            f"the vocabulary of {data_set.folder} ({len(theirs.tokens):,} words) is not that of {pretrained.path} "
            f"({len(ours.tokens):,}): word {first} is {said}; preprocess with the model's {name}"
        )
    if theirs.is_bert and ours.is_bert:
        made, reads = (text_options(file) for file in (theirs, ours))
        for option, value in made.items():
            if value != reads[option]:
                raise ValueError(
                    f"{data_set.folder} was made with {option}={value}, the tokenizer of {pretrained.path} has "
                    f"{reads[option]}: preprocess with the same options, or correct tokenizer_config.json if that is wrong"
                )
        return
    for part, value in parts(theirs).items():
        if value != parts(ours)[part]:
            raise ValueError(
                f"{data_set.folder} was made with another {part} than the tokenizer of {pretrained.path} has: preprocess "
                f"with the model's {name}"
            )


def parts(file: TokenizerFile) -> dict[str, Any]:
    """Return what decides the tokens of a text, in the form in which the library writes it."""
    content = json.loads(file.load().to_str())
    names = ("normalizer", "pre_tokenizer", "model", "added_tokens")
    return {name: content[name] for name in names} | {"set of special tokens": dict(file.special.names)}


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
