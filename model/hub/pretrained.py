"""What `--model` names: a run of `bertloom pretrain` or `finetune`, or a directory in transformers' form.

    RUN                                a pretraining run: its last checkpoint, or one of them, RUN/checkpoints/step-00001000
    RUN                                a fine-tuned run: RUN/model
    DIRECTORY with config.json         any BERT that transformers wrote

All of them have their vocabulary beside them, and it is checked to be the model's.
"""

import hashlib
import os
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor, nn

from model.bert import BertConfig, initialize_weights
from model.hub.tokenizer import TextTokenizer, load_tokenizer
from model.hub.weights import (
    from_hugging_face,
    load_weights,
    read_config,
    read_weights,
    to_hugging_face,
    weights_file,
)
from model.loading.data import read_json
from model.runs.checkpoint import check_files, latest_checkpoint, read_state
from model.tasks.heads import TaskModel


@dataclass(frozen=True, kw_only=True)
class Pretrained:
    """A model as it lies on disk."""

    path: Path
    """The folder of its weights."""
    config: BertConfig
    """Its shape."""
    weights: dict[str, Tensor]
    """In fp32, under transformers' names."""
    tokenizer: TextTokenizer
    """Its own."""
    configuration: dict[str, Any]
    """What its config.json says; of a pretraining run what it would say."""
    max_seq_length: int
    """The longest sequences that it was trained on, as far as that is known; else the longest it can read, up to 512."""

    @property
    def architecture(self) -> str:
        """The class of transformers that it is of."""
        return (self.configuration.get("architectures") or ["BertModel"])[0]

    def digest(self) -> str:
        """sha256 of its weights."""
        with open(weights_file(self.path), "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


def open_pretrained(path: str | os.PathLike[str]) -> Pretrained:
    """The model at a path; see the top of this file.

    Raises:
        ValueError: there is none, it is not like ours, or its vocabulary is not the one it was trained with.
    """
    path = Path(path)
    if (path / "state.json").exists():
        return _open_checkpoint(path)
    for directory in (path, path / "model"):
        if (directory / "config.json").exists():
            return _open_directory(directory)
    if (path / "checkpoints").is_dir():
        if "task" in _run_config(path):
            raise ValueError(f"{path}: its fine-tuning is not finished: start `bertloom finetune` again with its flags")
        found = latest_checkpoint(path / "checkpoints")
        if not found:
            raise ValueError(f"{path} has no checkpoint yet: `bertloom pretrain` saves one after --save-every steps")
        return _open_checkpoint(found[0])
    hint = "" if path.exists() else "; models are read from disk and not fetched by their name"
    raise ValueError(
        f"{path} is no model: expected the folder of a run, or a directory with config.json and model.safetensors{hint}"
    )


def load_encoder(model: TaskModel, pretrained: Pretrained, seed: int, random_weights: bool = False) -> list[str]:
    """Puts a pretrained encoder, and the pooler if there is one, into a model for a task; draws the rest from the seed.

    Args:
        random_weights: draw all of it.

    Returns:
        The names of what was drawn.
    """
    if random_weights:
        initialize_weights(model, model.config.initializer_range, seed)
        return ["all"]
    layers = model.config.num_hidden_layers
    state = from_hugging_face(pretrained.weights, layers, "BertModel")
    new = ["classifier"]
    if hasattr(model, "pooler"):
        names = {f"pooler.{kind}": f"bert.pooler.dense.{kind}" for kind in ("weight", "bias")}
        if set(names.values()) <= set(pretrained.weights):
            state |= {ours: pretrained.weights[theirs] for ours, theirs in names.items()}
        else:
            new.append("pooler")
    drawn = nn.ModuleDict({name: model.get_submodule(name) for name in new})
    initialize_weights(drawn, model.config.initializer_range, seed)
    load_weights(model, drawn.state_dict() | state, str(pretrained.path))
    return new


def _open_checkpoint(path: Path) -> Pretrained:
    """A checkpoint of a pretraining run."""
    state, run = read_state(path), path.parent.parent
    check_files(path)
    words = run / "vocab.txt"
    if not words.exists():
        raise ValueError(f"{run} has no vocab.txt: copy vocab.txt and tokenizer.json of its data set there")
    if hashlib.sha256(words.read_bytes()).hexdigest() != state.vocabulary_sha256:
        raise ValueError(
            f"{words} is not the vocabulary that the model was trained with (sha256 {state.vocabulary_sha256[:12]}…): "
            f"copy vocab.txt and tokenizer.json of its data set to {run}"
        )
    config = BertConfig(**state.model)
    return Pretrained(
        path=path,
        config=config,
        weights=to_hugging_face(load_file(path / "model.safetensors"), config.num_hidden_layers),
        tokenizer=load_tokenizer(run, config.vocab_size),
        configuration={"architectures": ["BertForPreTraining"]},
        max_seq_length=max([state.max_seq_length, *(leg["max_seq_length"] for leg in state.legs)]),
    )


def _open_directory(directory: Path) -> Pretrained:
    """A directory in transformers' form."""
    configuration = read_json(directory / "config.json")
    config = read_config(configuration, f"{directory}/config.json")
    return Pretrained(
        path=directory,
        config=config,
        weights=read_weights(directory),
        tokenizer=load_tokenizer(directory, config.vocab_size),
        configuration=configuration,
        max_seq_length=min(512, config.max_position_embeddings),
    )


def _run_config(run: Path) -> dict[str, Any]:
    try:
        return tomllib.loads((run / "config.toml").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
