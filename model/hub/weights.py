"""To and from the directories that transformers reads: a table of names, and the files.

The only change of form is that our fused `qkv` is their `query`, `key` and `value`, one after the other; no number
changes. Their decoder's weight is the word embeddings, tied, and is not stored twice.
"""

import json
import os
import pickle
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from model.bert import BertArchitecture, BertConfig
from model.heads import BertForPreTraining
from model.hub.tokenizer import TextTokenizer, save_tokenizer
from model.loading.data import read_json

ENCODER = {
    "bert.embeddings.word_embeddings.weight": "bert.embeddings.word_embeddings.weight",
    "bert.embeddings.position_embeddings.weight": "bert.embeddings.position_embeddings.weight",
    "bert.embeddings.token_type_embeddings.weight": "bert.embeddings.token_type_embeddings.weight",
    "bert.embeddings.norm": "bert.embeddings.LayerNorm",
    "bert.layers.{}.attention_output": "bert.encoder.layer.{}.attention.output.dense",
    "bert.layers.{}.attention_norm": "bert.encoder.layer.{}.attention.output.LayerNorm",
    "bert.layers.{}.intermediate": "bert.encoder.layer.{}.intermediate.dense",
    "bert.layers.{}.output": "bert.encoder.layer.{}.output.dense",
    "bert.layers.{}.output_norm": "bert.encoder.layer.{}.output.LayerNorm",
}
"""Ours to theirs. A name without a parameter at its end stands for weight and bias; {} is the layer's number."""

FUSED = {"bert.layers.{}.qkv": [f"bert.encoder.layer.{{}}.attention.self.{part}" for part in ("query", "key", "value")]}
"""Ours to the three of theirs that follow each other in it."""

MASKED_LM = {
    "mlm.dense": "cls.predictions.transform.dense",
    "mlm.norm": "cls.predictions.transform.LayerNorm",
    "mlm.bias": "cls.predictions.bias",
}
HEADS: dict[str, dict[str, str]] = {
    "BertModel": {},
    "BertForMaskedLM": MASKED_LM,
    "BertForPreTraining": MASKED_LM | {"nsp.pooler": "bert.pooler.dense", "nsp.classifier": "cls.seq_relationship"},
    "BertForSequenceClassification": {"pooler": "bert.pooler.dense", "classifier": "classifier"},
    "BertForTokenClassification": {"classifier": "classifier"},
    "BertForQuestionAnswering": {"classifier": "qa_outputs"},
}
"""What each of their classes has on top of the encoder; ours to theirs, as above."""

CONFIGURATION = {
    "model_type": "bert",
    "hidden_act": "gelu",
    "tie_word_embeddings": True,
    "dtype": "float32",
}
"""What config.json says of every model of ours."""


class HasForm(Protocol):
    """A model of ours that one of their classes reads."""

    architecture: str
    """The name of that class, one of HEADS."""
    config: BertConfig


def name_table(num_hidden_layers: int, architecture: str = "BertForPreTraining") -> dict[str, list[str]]:
    """Each of our parameters' names to theirs: one name, or the three that a fused one is split into."""
    table = {}
    singles = {ours: [theirs] for ours, theirs in (ENCODER | HEADS[architecture]).items()}
    for ours, theirs in (singles | FUSED).items():
        for layer in range(num_hidden_layers) if "{}" in ours else [0]:
            for kind in [""] if ours.endswith((".weight", ".bias")) else [".weight", ".bias"]:
                table[ours.format(layer) + kind] = [name.format(layer) + kind for name in theirs]
    return table


def to_hugging_face(
    state: Mapping[str, Tensor], num_hidden_layers: int, architecture: str = "BertForPreTraining"
) -> dict[str, Tensor]:
    """The same tensors (weights, or gradients) under transformers' names.

    Raises:
        ValueError: they are of a model with batch normalisation.
    """
    if "bert.embeddings.norm.running_mean" in state:
        raise ValueError(
            "the model has batch normalisation, and transformers' BERT none: train one with --model.normalization layer"
        )
    converted: dict[str, Tensor] = {}
    for ours, theirs in name_table(num_hidden_layers, architecture).items():
        parts = state[ours].chunk(len(theirs))
        converted |= {name: part.contiguous() for name, part in zip(theirs, parts)}
    return converted


def from_hugging_face(
    state: Mapping[str, Tensor], num_hidden_layers: int, architecture: str = "BertForPreTraining"
) -> dict[str, Tensor]:
    """The same tensors under our names; what we have no name for (the tied decoder, buffers) is left out.

    Raises:
        ValueError: a tensor is missing, as the NSP head is in a checkpoint of BertForMaskedLM; or the decoder is not
            the word embeddings.
    """
    table = name_table(num_hidden_layers, architecture)
    missing = [name for theirs in table.values() for name in theirs if name not in state]
    if missing:
        raise ValueError(f"{len(missing)} tensors are missing, {missing[0]} first: this is not a {architecture}")
    words = state["bert.embeddings.word_embeddings.weight"]
    if "mlm.bias" in table and not torch.equal(state.get("cls.predictions.decoder.weight", words), words):
        raise ValueError("cls.predictions.decoder.weight is not the word embeddings: only tied ones can be read")
    return {ours: torch.cat([state[name] for name in theirs]) for ours, theirs in table.items()}


def save_pretrained(
    model: HasForm, directory: str | os.PathLike[str], tokenizer: TextTokenizer | None = None, **configuration: Any
) -> None:
    """Writes a directory that `from_pretrained` of the model's class in transformers reads.

    Args:
        directory: made if it does not exist; gets config.json and model.safetensors.
        tokenizer: written too if it is given, so that AutoTokenizer reads the directory.
        configuration: more of config.json, such as id2label.
    """
    assert isinstance(model, nn.Module)
    state = to_hugging_face(model.state_dict(), model.config.num_hidden_layers, model.architecture)
    write_pretrained(state, model.config, model.architecture, directory, tokenizer, **configuration)


def write_pretrained(
    state: Mapping[str, Tensor],
    config: BertConfig,
    architecture: str,
    directory: str | os.PathLike[str],
    tokenizer: TextTokenizer | None = None,
    **configuration: Any,
) -> None:
    """`save_pretrained` of weights that have transformers' names already."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    shape = {name: value for name, value in asdict(config).items() if name != "normalization"}
    content = CONFIGURATION | {"architectures": [architecture]} | shape | configuration
    if tokenizer is not None:
        content["pad_token_id"] = tokenizer.pad_id
        save_tokenizer(tokenizer, directory, config.max_position_embeddings)
    save_file({name: tensor.cpu() for name, tensor in state.items()}, directory / "model.safetensors", {"format": "pt"})
    (directory / "config.json").write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    # safetensors makes files that only their owner may read.
    (directory / "model.safetensors").chmod((directory / "config.json").stat().st_mode)


def load_pretrained(directory: str | os.PathLike[str]) -> BertForPreTraining:
    """The model in a directory that transformers or `save_pretrained` wrote.

    Raises:
        ValueError: it holds no BERT that is like ours, or not with both heads.
    """
    model = BertForPreTraining(read_config(read_json(Path(directory) / "config.json"), f"{directory}/config.json"))
    state = read_weights(Path(directory))
    load_weights(model, from_hugging_face(state, model.config.num_hidden_layers), str(directory))
    return model


def read_config(configuration: Mapping[str, Any], where: str) -> BertConfig:
    """The shape of a model from the content of its config.json.

    Raises:
        ValueError: it is no BERT, or not like ours.
    """
    ours = {
        "hidden_act": ("gelu",),
        "model_type": ("bert", None),
        "position_embedding_type": ("absolute", None),
        "is_decoder": (False, None),
        "add_cross_attention": (False, None),
    }
    for name, known in ours.items():
        if (found := configuration.get(name)) not in known:
            raise ValueError(f"{where}: {name} is {found!r}, only {known[0]!r} can be read")
    kinds = {"vocab_size": int} | {name: type(value) for name, value in asdict(BertArchitecture()).items()}
    shape = {name: value for name, value in configuration.items() if name in kinds and name != "normalization"}
    for name, value in ({"vocab_size": None} | shape).items():
        if type(value) not in (kinds[name], int):
            raise ValueError(f"{where}: {name} is {value!r}, expected a number")
    return BertConfig(**shape)


def weights_file(directory: Path) -> Path:
    """The file in a model directory that holds the weights."""
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (directory / name).exists():
            return directory / name
    raise ValueError(f"{directory} has neither model.safetensors nor pytorch_model.bin: there are no weights to read")


def read_weights(directory: Path) -> dict[str, Tensor]:
    """The weights in a model directory in fp32, under the names that transformers gives them today.

    A bare BertModel's get their `bert.` in front, and the `gamma` and `beta` of old checkpoints become weight and bias.

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
    prefix = "bert." if "embeddings.word_embeddings.weight" in state else ""
    names = {name: prefix + name.replace(".gamma", ".weight").replace(".beta", ".bias") for name in state}
    return {names[name]: tensor.float() for name, tensor in state.items()}


def check_weights(state: object, path: Path) -> None:
    """Raises ValueError unless what a file holds is names and their tensors, as the checkpoint of a trainer is not."""
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
    """Puts weights into a model; ValueError if their shapes are not those of its configuration."""
    for name, parameter in model.state_dict().items():
        if parameter.shape != state[name].shape:
            raise ValueError(
                f"{where}: {name} has the shape {tuple(state[name].shape)}, config.json says {tuple(parameter.shape)}"
            )
    model.load_state_dict(state)
