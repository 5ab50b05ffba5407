"""To and from transformers' BertForPreTraining: a table of names, and the files of a model directory.

The only change of form is that our fused `qkv` is their `query`, `key` and `value`, one after the other; no number
changes. Their decoder's weight is the word embeddings, tied, and is not stored twice.
"""

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from model.bert import BertConfig
from model.data import read_json
from model.heads import BertForPreTraining

NAMES = {
    "bert.embeddings.word_embeddings.weight": "bert.embeddings.word_embeddings.weight",
    "bert.embeddings.position_embeddings.weight": "bert.embeddings.position_embeddings.weight",
    "bert.embeddings.token_type_embeddings.weight": "bert.embeddings.token_type_embeddings.weight",
    "bert.embeddings.norm": "bert.embeddings.LayerNorm",
    "bert.layers.{}.attention_output": "bert.encoder.layer.{}.attention.output.dense",
    "bert.layers.{}.attention_norm": "bert.encoder.layer.{}.attention.output.LayerNorm",
    "bert.layers.{}.intermediate": "bert.encoder.layer.{}.intermediate.dense",
    "bert.layers.{}.output": "bert.encoder.layer.{}.output.dense",
    "bert.layers.{}.output_norm": "bert.encoder.layer.{}.output.LayerNorm",
    "nsp.pooler": "bert.pooler.dense",
    "mlm.dense": "cls.predictions.transform.dense",
    "mlm.norm": "cls.predictions.transform.LayerNorm",
    "mlm.bias": "cls.predictions.bias",
    "nsp.classifier": "cls.seq_relationship",
}
"""Ours to theirs. A name without a parameter at its end stands for weight and bias; {} is the layer's number."""

FUSED = {"bert.layers.{}.qkv": [f"bert.encoder.layer.{{}}.attention.self.{part}" for part in ("query", "key", "value")]}
"""Ours to the three of theirs that follow each other in it."""

CONFIGURATION = {
    "architectures": ["BertForPreTraining"],
    "model_type": "bert",
    "hidden_act": "gelu",
    "tie_word_embeddings": True,
    "dtype": "float32",
}
"""What config.json says of every model of ours."""


def name_table(num_hidden_layers: int) -> dict[str, list[str]]:
    """Each of our parameters' names to theirs: one name, or the three that a fused one is split into."""
    table = {}
    for ours, theirs in [*((k, [v]) for k, v in NAMES.items()), *FUSED.items()]:
        for layer in range(num_hidden_layers) if "{}" in ours else [0]:
            for kind in [""] if ours.endswith((".weight", ".bias")) else [".weight", ".bias"]:
                table[ours.format(layer) + kind] = [name.format(layer) + kind for name in theirs]
    return table


def to_hugging_face(state: Mapping[str, Tensor], num_hidden_layers: int) -> dict[str, Tensor]:
    """The same tensors (weights, or gradients) under transformers' names."""
    converted: dict[str, Tensor] = {}
    for ours, theirs in name_table(num_hidden_layers).items():
        parts = state[ours].chunk(len(theirs))
        converted |= {name: part.contiguous() for name, part in zip(theirs, parts)}
    return converted


def from_hugging_face(state: Mapping[str, Tensor], num_hidden_layers: int) -> dict[str, Tensor]:
    """The same tensors under our names; what we have no name for (the tied decoder, buffers) is left out.

    Raises:
        ValueError: a tensor is missing, as the NSP head is in a checkpoint of BertForMaskedLM.
    """
    table = name_table(num_hidden_layers)
    missing = [name for theirs in table.values() for name in theirs if name not in state]
    if missing:
        raise ValueError(f"{len(missing)} tensors are missing, {missing[0]} first: this is not a BertForPreTraining")
    return {ours: torch.cat([state[name] for name in theirs]) for ours, theirs in table.items()}


def save_pretrained(
    model: BertForPreTraining, directory: str | os.PathLike[str], data_set: str | os.PathLike[str] | None = None
) -> None:
    """Writes a directory that `transformers.BertForPreTraining.from_pretrained` reads.

    Args:
        directory: made if it does not exist; gets config.json and model.safetensors.
        data_set: where vocab.txt and tokenizer.json are copied from, so that AutoTokenizer reads the directory too.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    configuration: dict[str, Any] = CONFIGURATION | asdict(model.config)
    if data_set is not None:
        words = (Path(data_set) / "vocab.txt").read_text(encoding="utf-8").split("\n")
        configuration["pad_token_id"] = words.index("[PAD]")
        for name in ("vocab.txt", "tokenizer.json"):
            shutil.copyfile(Path(data_set) / name, directory / name)
        tokenizer = read_json(directory / "tokenizer.json")
        tokenizer = tokenizer_configuration(tokenizer, model.config.max_position_embeddings)
        (directory / "tokenizer_config.json").write_text(json.dumps(tokenizer, indent=2) + "\n")
    state = to_hugging_face(model.state_dict(), model.config.num_hidden_layers)
    save_file({name: tensor.cpu() for name, tensor in state.items()}, directory / "model.safetensors", {"format": "pt"})
    (directory / "config.json").write_text(json.dumps(configuration, indent=2) + "\n")


def tokenizer_configuration(tokenizer: dict[str, Any], max_length: int) -> dict[str, Any]:
    """tokenizer_config.json for a tokenizer.json; without it, transformers takes any BERT for an uncased one."""
    normalizer = tokenizer.get("normalizer") or {}
    return {
        "tokenizer_class": "BertTokenizer",
        "do_lower_case": normalizer.get("lowercase", True),
        "strip_accents": normalizer.get("strip_accents"),
        "tokenize_chinese_chars": normalizer.get("handle_chinese_chars", True),
        "model_max_length": max_length,
    }


def load_pretrained(directory: str | os.PathLike[str]) -> BertForPreTraining:
    """The model in a directory that transformers or `save_pretrained` wrote.

    Raises:
        ValueError: it holds no BERT that is like ours, or not with both heads.
    """
    directory = Path(directory)
    configuration = read_json(directory / "config.json")
    ours = {"hidden_act": ("gelu",), "model_type": ("bert",), "position_embedding_type": ("absolute", None)}
    for name, known in ours.items():
        if (found := configuration.get(name)) not in known:
            raise ValueError(f"{directory}/config.json: {name} is {found!r}, only {known[0]!r} can be read")
    known_names = {field.name for field in fields(BertConfig)}
    model = BertForPreTraining(BertConfig(**{k: v for k, v in configuration.items() if k in known_names}))
    state = load_file(directory / "model.safetensors")
    model.load_state_dict(from_hugging_face(state, model.config.num_hidden_layers))
    return model
