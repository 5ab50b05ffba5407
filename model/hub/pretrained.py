"""Open what `--model` names: a run of `bertloom pretrain` or `finetune`, or a directory in transformers' form.

    RUN                                a pretraining run: its last checkpoint, or one of them, RUN/checkpoints/step-00001000
    RUN                                a fine-tuned run: RUN/model
    DIRECTORY with config.json         any BERT that transformers or sentence-transformers wrote
    DIRECTORY with bert_config.json    a TensorFlow checkpoint of google-research/bert: bert_model.ckpt.index, …

The vocabulary is in the same folder, and it is checked that it belongs to the model.
"""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from bertloom.json_files import read_json, read_regular
from bertloom.shapes import shaped
from model.encoders import config_from, names_of
from model.heads import expected_tensors
from model.hub.config import class_name, read_config
from model.hub.tokenizer import TextTokenizer, load_tokenizer, longest_sequence
from model.hub.vector_files import read_vector_form
from model.hub.weights import read_weights, to_hugging_face, weights_files
from model.pooling import VectorForm
from model.runs.checkpoint import check_files, latest_checkpoint
from model.runs.state import TrainingState, read_state, run_settings
from model.shape import EncoderConfig
from model.tensor_files import read_tensors


@dataclass(frozen=True, kw_only=True)
class Pretrained:
    """A model on disk."""

    path: Path
    """The folder of its weights."""
    config: EncoderConfig
    """Its shape and the size of its vocabulary."""
    weights: dict[str, Tensor]
    """Its weights in fp32, under transformers' names."""
    tokenizer: TextTokenizer
    """Its tokenizer."""
    configuration: dict[str, Any]
    """The content of its config.json; for a pretraining run, what export would add to it."""
    max_seq_length: int
    """Length of the longest sequences it was trained on: of a directory, what its tokenizer_config.json says. If unknown:
    the longest it can read, up to 512."""
    vectors: VectorForm | None = None
    """How it makes vectors of texts, if it was trained for that."""

    @property
    def architecture(self) -> str:
        """Name of its class in transformers."""
        found = self.configuration.get("architectures") or [names_of(self.config).prefix + "Model"]
        return str(found[0])

    @property
    def form(self) -> str:
        """Second part of that name, such as "ForMaskedLM"."""
        return self.architecture.removeprefix(names_of(self.config).prefix)

    @property
    def predicts_words(self) -> bool:
        """Whether it has weights of a head for masked words."""
        return names_of(self.config).heads["ForMaskedLM"]["mlm.bias"] in self.weights

    def digest(self) -> str:
        """Return the sha256 of the file of its weights, or of its files, one after the other."""
        digest = hashlib.sha256()
        for path in weights_files(self.path):
            with open(path, "rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
        return digest.hexdigest()


def open_pretrained(path: str | os.PathLike[str]) -> Pretrained:
    """Open the model at a path; see the top of this file.

    Raises:
        ValueError: the path has no model, bertloom has no encoder for it, or its vocabulary is not the one of its training.
    """
    path = Path(path)
    if (path / "state.json").exists():
        return _open_checkpoint(path)
    for directory in (path, path / "model"):
        if configuration := configuration_file(directory):
            return _open_directory(directory, configuration)
    if (path / "checkpoints").is_dir():
        if "task" in run_settings(path):
            raise ValueError(f"{path}: its fine-tuning is not finished: start `bertloom finetune` again with its flags")
        found = latest_checkpoint(path / "checkpoints", TrainingState)
        if not found:
            raise ValueError(f"{path} has no checkpoint yet: `bertloom pretrain` saves one after --save-every steps")
        return _open_checkpoint(found[0])
    hint = "" if path.exists() else "; models are read from disk and not downloaded"
    if (path / "manifest.json").exists():
        hint = "; this is a data set"
    raise ValueError(
        f"{path} is no model: expected the folder of a run, or a directory with config.json and model.safetensors{hint}"
    )


def _open_checkpoint(path: Path) -> Pretrained:
    """A checkpoint of a pretraining run."""
    state, run = read_state(path, TrainingState), path.parent.parent
    check_files(path)
    found = [run / name for name in ("vocab.txt", "tokenizer.json") if (run / name).exists()]
    if not found:
        raise ValueError(
            f"{run} has no tokenizer: copy its data set's there, vocab.txt or special_tokens_map.json, and tokenizer.json"
        )
    if hashlib.sha256(read_regular(found[0])).hexdigest() != state.vocabulary_sha256:
        raise ValueError(
            f"{found[0]} is not the vocabulary that the model was trained with (sha256 {state.vocabulary_sha256[:12]}…): "
            f"copy the tokenizer of its data set to {run}: vocab.txt or special_tokens_map.json, and tokenizer.json"
        )
    config = config_from(state.model)
    return Pretrained(
        path=path,
        config=config,
        weights=to_hugging_face(read_tensors(path / "model.safetensors", expected_tensors(config)), config),
        tokenizer=load_tokenizer(run, config.vocab_size),
        configuration={"architectures": [class_name(config, "ForPreTraining")], **dropouts(config)},
        max_seq_length=state.max_seq_length,
    )


def dropouts(config: EncoderConfig) -> dict[str, float]:
    """Return the dropouts for the config.json of a model that was pretrained without: transformers fine-tunes with them."""
    return {name: value for name, value in names_of(config).finetuning.items() if getattr(config.shape, name) == 0}


def configuration_file(directory: Path) -> Path | None:
    """Return the configuration of the model in a directory: transformers' or google-research/bert's, or None."""
    found = (directory / name for name in ("config.json", "bert_config.json"))
    return next((path for path in found if path.exists()), None)


def _open_directory(directory: Path, path: Path) -> Pretrained:
    """A directory in transformers' form, or in that of google-research/bert, with its configuration."""
    configuration = read_json(path)
    config = read_config(configuration, str(path))
    shaped(configuration.get("architectures"), list[str] | None, f"{path}: architectures")
    tokenizer = load_tokenizer(directory, config.vocab_size)
    longest = min(longest_sequence(directory), config.shape.max_position_embeddings)
    vectors = read_vector_form(directory, longest)
    return Pretrained(
        path=directory,
        config=config,
        weights=read_weights(directory, config),
        tokenizer=tokenizer,
        configuration=configuration,
        max_seq_length=vectors.max_seq_length if vectors else longest,
        vectors=vectors,
    )
