"""Checkpoints: whole or not there, and found by what is in them.

    RUN/checkpoints/step-00001000/model.safetensors       weights, under our names
                                  optimizer.safetensors   first and second moments, and the count of updates
                                  state.json              where training stands; size and sha256 of the other two

A checkpoint is written under a temporary name in the same folder, every file is synced to disk, then the folder is
renamed and its parent synced: a kill at any moment leaves the old ones and perhaps a temporary folder. Loading reads
safetensors and JSON only; no pickle, so a checkpoint from a stranger runs no code.
"""

import hashlib
import json
import logging
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from bertloom.whole_files import remove_folder, whole_folder
from model.distributed import Ranks
from model.encoders import config_from
from model.heads import PretrainingModel
from model.optimizer import moment_names

FORMAT_VERSION = 1
NAME = re.compile(r"step-(\d{8,})")

logger = logging.getLogger("bertloom")


@dataclass(frozen=True, kw_only=True)
class CheckpointState:
    """Where a training stands. With the weights and the moments, all that is needed to go on."""

    FORMAT: ClassVar[str]
    """Tells checkpoints of one kind of training from those of another."""
    step: int
    """Updates done."""


State = TypeVar("State", bound=CheckpointState)


@dataclass(frozen=True, kw_only=True)
class TrainingState(CheckpointState):
    """Where pretraining stands."""

    FORMAT = "bertloom-checkpoint"
    items: int
    """Examples of this length consumed: the next one is item `items` of its order."""
    tokens: int
    """Real tokens consumed, of all lengths."""
    seconds: float
    """Wall-clock time of training so far, that of its restarts left out; what a budget is counted in."""
    loss_mean: float | None
    """Running mean of the training loss, which a spike is measured against; None before the first step."""
    stream: str
    """The stream digest behind the last update, see `model/loading/stream.py`."""
    legs: list[dict[str, Any]]
    """What was read from which step on, each a `model.loading.stream.Leg`."""
    epoch: int
    """Epoch of the next item; follows from `items`, for people."""
    epoch_items: int
    """Its place in that epoch."""
    seed: int
    """Of the order, of the initial weights, of dropout."""
    order_version: int
    """Of `model.loading.order`."""
    max_seq_length: int
    """Of the examples."""
    shards_digest: str
    """sha256 of the data set's shards.parquet."""
    vocabulary_sha256: str
    """Of the data set's vocab.txt."""
    encoder: str
    """Name of the encoder in `model.encoders`."""
    model: dict[str, Any]
    """Its shape and vocabulary size: `EncoderConfig.values`."""
    schedule: dict[str, Any]
    """What else decides the numbers: batch size, steps, learning rate …"""
    changes: list[dict[str, Any]]
    """What was changed on the way, each `{"step", "name", "before", "after"}`; see `model/runs/resume.py`."""


def checkpoint_path(folder: Path, step: int) -> Path:
    """Where the checkpoint of a step lies."""
    return folder / f"step-{step:08d}"


def save_checkpoint(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, state: CheckpointState, keep: int
) -> Path:
    """Writes a checkpoint, and returns when it is on disk; see `write_checkpoint`."""
    return write_checkpoint(folder, *snapshot(model, optimizer), state, keep)


def snapshot(model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Copies of the weights and of the optimizer's tensors in the CPU's memory."""
    return _copies(model.state_dict()), _copies(optimizer_tensors(model, optimizer))


def write_checkpoint(
    folder: Path,
    weights: dict[str, Tensor],
    moments: dict[str, Tensor],
    state: CheckpointState,
    keep: int,
    keep_every: int | None = None,
) -> Path:
    """Writes a checkpoint and removes older ones.

    Args:
        folder: RUN/checkpoints; made if it does not exist.
        weights, moments: what `snapshot` gives.
        keep: how many of the last ones up to this stay; at least 1.
        keep_every: those of steps that are a multiple of it stay for good.

    Returns:
        Its path.
    """
    path = checkpoint_path(folder, state.step)
    folder.mkdir(parents=True, exist_ok=True)
    with whole_folder(path, replace=True) as temporary:  # a checkpoint of this step was found damaged
        save_file(weights, temporary / "model.safetensors")
        save_file(moments, temporary / "optimizer.safetensors")
        files = {}
        for name in ("model.safetensors", "optimizer.safetensors"):
            files[name] = {"bytes": (temporary / name).stat().st_size, "sha256": _sha256(temporary / name)}
        content = {"format": state.FORMAT, "format_version": FORMAT_VERSION, "state": asdict(state), "files": files}
        (temporary / "state.json").write_text(json.dumps(content | {"sha256": _digest(content)}, indent=2) + "\n")
    older = sorted(other for other in _checkpoints(folder) if other[0] <= state.step)
    for step, other in older[:-keep]:
        if not keep_every or step % keep_every:
            remove_folder(other)
    return path


def latest_checkpoint(folder: Path) -> tuple[Path, TrainingState] | None:
    """`latest_of` pretraining."""
    return latest_of(TrainingState, folder)


def latest_of(kind: type[State], folder: Path) -> tuple[Path, State] | None:
    """The checkpoint with the most steps that is whole, and its state; None if there is no checkpoint at all.

    A damaged one is named in a warning and skipped.

    Raises:
        ValueError: there are checkpoints, but none is whole.
    """
    found = []
    damaged = 0
    for _, path in _checkpoints(folder):
        try:
            found.append((state_of(kind, path), path))
        except ValueError as error:
            damaged += 1
            logger.warning("skipping a damaged checkpoint: %s", error)
    for state, path in sorted(found, key=lambda item: item[0].step, reverse=True):
        try:
            check_files(path)
            return path, state
        except ValueError as error:
            damaged += 1
            logger.warning("skipping a damaged checkpoint: %s", error)
    if damaged:
        raise ValueError(
            f"{folder} holds {damaged} checkpoints and none is whole: bring one back from a copy, or remove the folder "
            f"to begin again from the first step"
        )
    return None


def read_state(path: Path) -> TrainingState:
    """`state_of` pretraining."""
    return state_of(TrainingState, path)


def state_of(kind: type[State], path: Path) -> State:
    """What a checkpoint's state.json says; ValueError if it is missing, damaged, or of another kind or version."""
    content = _read_content(path)
    if content["format"] != kind.FORMAT:
        raise ValueError(f"{path}/state.json: its format is {content['format']!r}, expected {kind.FORMAT!r}")
    try:
        return kind(**content["state"])
    except TypeError as error:
        raise ValueError(f"{path}/state.json: {error}") from None


def check_files(path: Path) -> None:
    """Raises ValueError unless the checkpoint's files have the size and sha256 that its state.json says."""
    for name, expected in _read_content(path)["files"].items():
        file = path / name
        if not file.exists():
            raise ValueError(f"{file} is missing")
        if file.stat().st_size != expected["bytes"]:
            raise ValueError(f"{file} has {file.stat().st_size} bytes, state.json says {expected['bytes']}")
        if _sha256(file) != expected["sha256"]:
            raise ValueError(f"{file} has another sha256 than state.json says")


def load_model(path: Path) -> PretrainingModel:
    """The model of a checkpoint, on the CPU."""
    state = read_state(path)
    model = PretrainingModel(config_from(state.encoder, state.model))
    model.load_state_dict(load_file(path / "model.safetensors"))
    return model


def load_checkpoint(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Puts a checkpoint's weights and moments into a model of the same shape and its optimizer, on their device."""
    model.load_state_dict(load_file(path / "model.safetensors"))
    tensors = load_file(path / "optimizer.safetensors")
    kept = moment_names(optimizer)
    for name, parameter in model.named_parameters():
        labels = {key: f"{key}.{name}" for key in kept.get(parameter, ())}
        if labels and tensors.keys() >= set(labels.values()):  # else the optimizer was changed on the way
            moments = {key: tensors[label].to(parameter.device, copy=True) for key, label in labels.items()}
            optimizer.state[parameter] = moments


def share_checkpoint(ranks: Ranks, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Gives all ranks the weights that rank 0 has, and its moments if it has any: only rank 0 need see the files."""
    ranks.share_tensors(model.state_dict().values())
    parameters = dict(model.named_parameters())
    for label in ranks.share_json(list(optimizer_tensors(model, optimizer))) if ranks.size > 1 else ():
        key, _, name = label.partition(".")
        parameter = parameters[name]
        if not ranks.is_first:
            shape = () if key == "step" else parameter.shape
            optimizer.state[parameter][key] = torch.zeros(shape, device=parameter.device)
        ranks.share_tensors([optimizer.state[parameter][key]])


def optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's state by parameter name: `step.NAME`, `exp_avg.NAME`, `exp_avg_sq.NAME`; Muon's
    `momentum_buffer.NAME`."""
    return {
        f"{key}.{name}": tensor
        for name, parameter in model.named_parameters()
        for key, tensor in optimizer.state[parameter].items()
    }


def _checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """Number in the name and path of everything that is named like a checkpoint."""
    if not folder.is_dir():
        return []
    return [(int(match[1]), path) for path in folder.iterdir() if (match := NAME.fullmatch(path.name))]


def _read_content(path: Path) -> dict[str, Any]:
    file = path / "state.json"
    try:
        content = json.loads(file.read_bytes())
        checksum = content.pop("sha256")
        name, version = content["format"], content["format_version"]
        whole = checksum == _digest(content)
    except FileNotFoundError:
        raise ValueError(f"{file} is missing") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(f"{file} is damaged: it is not the JSON that was written") from None
    if version != FORMAT_VERSION:
        raise ValueError(f"{file}: format {name!r} version {version!r}, this program reads {FORMAT_VERSION}")
    if not whole:
        raise ValueError(f"{file} is damaged: its sha256 is not the one it holds")
    return content


def _copies(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
