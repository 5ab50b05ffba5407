"""Weights, to and from the directories that transformers reads: names of tensors, and the files.

No number changes. Fused tensors are split, and the tied decoder is not stored twice; `HuggingFaceNames` has the tables.
"""

import json
import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from bertloom.json_files import read_json
from model.encoders import names_of
from model.heads import PretrainingModel
from model.hub.config import read_config, write_config
from model.hub.tokenizer import TextTokenizer, save_tokenizer
from model.shape import EncoderConfig


class HasForm(Protocol):
    """A model of ours that a class of transformers reads."""

    form: str
    """Second part of that class's name, such as "ForPreTraining"."""
    config: EncoderConfig


def name_table(config: EncoderConfig, form: str) -> dict[str, list[str]]:
    """Return the names in transformers of each of our tensors: one name, or those that a fused one is split into."""
    names = names_of(config)
    table = {}
    singles = {ours: [theirs] for ours, theirs in (dict(names.encoder) | dict(names.heads[form])).items()}
    for ours, theirs in (singles | dict(names.fused)).items():
        for layer in range(config.shape.num_hidden_layers) if "{}" in ours else [0]:
            for kind in [""] if ours.endswith((".weight", ".bias")) else [".weight", ".bias"]:
                table[ours.format(layer) + kind] = [name.format(layer) + kind for name in theirs]
    return table


def to_hugging_face(
    state: Mapping[str, Tensor], config: EncoderConfig, form: str = "ForPreTraining"
) -> dict[str, Tensor]:
    """Return the same tensors (weights, or gradients) under transformers' names.

    Raises:
        ValueError: transformers' class has no place for a tensor, as for those of batch normalisation.
    """
    table = name_table(config, form)
    if unknown := sorted(state.keys() - table.keys()):
        raise ValueError(
            f"the model has {unknown[0]}, which transformers' {names_of(config).prefix}{form} has no place for. "
            f"A model with batch normalisation cannot be exported: train one with --model.normalization layer"
        )
    converted: dict[str, Tensor] = {}
    for ours, theirs in table.items():
        parts = state[ours].chunk(len(theirs))
        converted |= {name: part.contiguous() for name, part in zip(theirs, parts)}
    return converted


def from_hugging_face(
    state: Mapping[str, Tensor], config: EncoderConfig, form: str = "ForPreTraining"
) -> dict[str, Tensor]:
    """Return the same tensors under our names, without those we have no name for (the tied decoder, buffers).

    Raises:
        ValueError: a tensor is missing, as the head for pairs is in a checkpoint of BertForMaskedLM; or the decoder is
            not the word embeddings.
    """
    names, table = names_of(config), name_table(config, form)
    missing = [name for theirs in table.values() for name in theirs if name not in state]
    if missing:
        raise ValueError(f"{len(missing)} tensors are missing, {missing[0]} first: this is not a {names.prefix}{form}")
    words = state[names.word_embeddings]
    if "mlm.bias" in table and not torch.equal(state.get(names.decoder, words), words):
        raise ValueError(f"{names.decoder} is not the word embeddings: only tied ones can be read")
    return {ours: torch.cat([state[name] for name in theirs]) for ours, theirs in table.items()}


def save_pretrained(
    model: HasForm, directory: str | os.PathLike[str], tokenizer: TextTokenizer | None = None, **configuration: Any
) -> None:
    """Write a directory that `from_pretrained` of the model's class in transformers reads.

    Args:
        directory: made if it does not exist; gets config.json and model.safetensors.
        tokenizer: written too if it is given, so that AutoTokenizer reads the directory.
        configuration: more of config.json, such as id2label.
    """
    assert isinstance(model, nn.Module)
    state = to_hugging_face(model.state_dict(), model.config, model.form)
    write_pretrained(state, model.config, model.form, directory, tokenizer, **configuration)


def write_pretrained(
    state: Mapping[str, Tensor],
    config: EncoderConfig,
    form: str,
    directory: str | os.PathLike[str],
    tokenizer: TextTokenizer | None = None,
    **configuration: Any,
) -> None:
    """Write the directory of `save_pretrained` from weights that already have transformers' names."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    content = write_config(config, form) | configuration
    if tokenizer is not None:
        content["pad_token_id"] = tokenizer.pad_id
        save_tokenizer(tokenizer, directory, config.shape.max_position_embeddings)
    save_file({name: tensor.cpu() for name, tensor in state.items()}, directory / "model.safetensors", {"format": "pt"})
    (directory / "config.json").write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    # safetensors makes files that only their owner may read.
    (directory / "model.safetensors").chmod((directory / "config.json").stat().st_mode)


def load_pretrained(directory: str | os.PathLike[str]) -> PretrainingModel:
    """Return the model in a directory that transformers or `save_pretrained` wrote.

    Raises:
        ValueError: no encoder of ours is like it, or it does not have both heads.
    """
    model = PretrainingModel(read_config(read_json(Path(directory) / "config.json"), f"{directory}/config.json"))
    state = read_weights(Path(directory), model.config)
    load_weights(model, from_hugging_face(state, model.config), str(directory))
    return model


def weights_file(directory: Path) -> Path:
    """Return the file in a model directory that holds the weights."""
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (directory / name).exists():
            return directory / name
    raise ValueError(f"{directory} has neither model.safetensors nor pytorch_model.bin: there are no weights to read")


def read_weights(directory: Path, config: EncoderConfig) -> dict[str, Tensor]:
    """Return the weights in a model directory in fp32, under the names that transformers gives them today.

    Those of a bare encoder get its name in front, such as `bert.`; `gamma` and `beta` of old checkpoints become weight
    and bias.

    Raises:
        ValueError: there are none, the file is damaged, or it holds something else too.
    """
    path = weights_file(directory)
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)  # refuses what would run code
    except (SafetensorError, pickle.UnpicklingError, EOFError, RuntimeError) as error:
        what = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path} cannot be read, it is damaged or holds more than weights: {what}") from None
    check_weights(state, path)
    names = names_of(config)
    base = f"{names.base}."
    prefix = base if names.word_embeddings.removeprefix(base) in state else ""
    today = {name: prefix + name.replace(".gamma", ".weight").replace(".beta", ".bias") for name in state}
    return {today[name]: tensor.float() for name, tensor in state.items()}


def check_weights(state: object, path: Path) -> None:
    """Raise ValueError unless a file holds a dict of names and tensors."""
    if isinstance(state, dict):
        others = [name for name, value in state.items() if not isinstance(value, Tensor)]
        if not others:
            return
        wrong = f"{path}: {others[0]!r} is a {type(state[others[0]]).__name__}"
    else:
        wrong = f"{path} holds a {type(state).__name__}"
    raise ValueError(
        f"{wrong}, expected a dict of names and their tensors: save the model's state_dict() there, and nothing else"
    )


def load_weights(model: nn.Module, state: Mapping[str, Tensor], where: str) -> None:
    """Copy weights into a model; ValueError if their shapes are not those of its configuration."""
    for name, parameter in model.state_dict().items():
        if parameter.shape != state[name].shape:
            raise ValueError(
                f"{where}: {name} has the shape {tuple(state[name].shape)}, config.json says {tuple(parameter.shape)}"
            )
    model.load_state_dict(state)
