"""Checkpoints: written whole or not at all, found by their content.

    RUN/checkpoints/step-00001000/model.safetensors       weights, under our own names
                                  optimizer.safetensors   moments and update counts
                                  state.json              progress and settings; size and sha256 of the other two files

A checkpoint is written to a temporary folder. Every file is synced to disk, the folder is renamed, and its parent is
synced. A kill at any moment leaves the older checkpoints and at most a temporary folder. Loading reads safetensors and
JSON, never pickle, so a checkpoint of unknown origin cannot run code.
"""

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from bertloom.json_files import Damaged, check_regular
from bertloom.shapes import shown, values_of
from bertloom.whole_files import remove_folder, whole_folder
from model.distributed import ALONE, Ranks
from model.encoders import config_from
from model.heads import PretrainingModel, expected_tensors
from model.optimizer import moment_names
from model.runs.state import (
    FORMAT_VERSION,
    NAME,
    NOT_OURS,
    CheckpointState,
    State,
    TrainingState,
    checkpoint_path,
    checkpoints_in,
    digest_of,
    read_content,
    read_state,
)
from model.sharding import share_parts, whole
from model.tensor_files import read_tensors, write_tensors

FILES = ("model.safetensors", "optimizer.safetensors")
"""The files of tensors. Nothing else that state.json may name is opened."""
MAX_NAMED = 3
"""Number of unexpected files that a warning names."""

logger = logging.getLogger("bertloom")


def snapshot(model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return copies of the weights and of the optimizer's tensors in CPU memory.

    If the model is sharded, the other ranks call `take_part_in_snapshot`.
    """
    return _copies(model.state_dict()), _copies(optimizer_tensors(model, optimizer))


def take_part_in_snapshot(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Give rank 0 this rank's parts of a sharded model, one tensor after the other."""
    for tensor in (*model.state_dict().values(), *optimizer_tensors(model, optimizer).values()):
        whole(tensor)


def write_checkpoint(
    folder: Path,
    weights: dict[str, Tensor],
    moments: dict[str, Tensor],
    state: CheckpointState,
    keep: int,
    keep_every: int | None = None,
) -> Path:
    """Write a checkpoint, remove older ones, and return its path.

    Args:
        folder: RUN/checkpoints, created if necessary.
        weights, moments: from `snapshot`.
        keep: number of checkpoints to keep, this one included; at least 1. Later steps do not count.
        keep_every: also keep checkpoints whose step is a multiple of this.
    """
    path = checkpoint_path(folder, state.step)
    folder.mkdir(parents=True, exist_ok=True)
    with whole_folder(path, replace=True) as temporary:  # replaces a checkpoint that was found damaged
        files = {}
        for name, tensors in zip(FILES, (weights, moments)):
            write_tensors(tensors, temporary / name)
            files[name] = {"bytes": (temporary / name).stat().st_size, "sha256": file_sha256(temporary / name)}
        content = {"format": state.FORMAT, "format_version": FORMAT_VERSION, "state": values_of(state), "files": files}
        (temporary / "state.json").write_text(json.dumps(content | {"sha256": digest_of(content)}, indent=2) + "\n")
    older = sorted(other for other in checkpoints_in(folder) if other[0] <= state.step)
    for step, other in older[:-keep]:
        if (not keep_every or step % keep_every) and not other.is_symlink():
            remove_folder(other)
    return path


def latest_checkpoint(folder: Path, kind: type[State]) -> tuple[Path, State] | None:
    """Return the intact checkpoint with the most steps and its state; None if there is no checkpoint.

    Damaged checkpoints, and whatever else is in the folder, are skipped with a warning.

    Raises:
        ValueError: every checkpoint is damaged.
    """
    found = []
    damaged = 0
    if others := others_in(folder):
        shown_names = ", ".join(shown(path.name) for path in others[:MAX_NAMED])
        more = f" and {len(others) - MAX_NAMED:,} more" if len(others) > MAX_NAMED else ""
        logger.warning(
            "%s also holds %s%s: expected only folders of checkpoints; others are not read", folder, shown_names, more
        )
    for _, path in checkpoints_in(folder):
        try:
            found.append((read_state(path, kind), path))
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
            f"{folder} has no intact checkpoint ({damaged} damaged): restore one from a copy, or remove the folder to start "
            f"again from the first step"
        )
    return None


def check_files(path: Path) -> None:
    """Raise ValueError unless the checkpoint's files have the sizes and checksums in its state.json."""
    records = read_content(path).get("files")
    if not isinstance(records, dict) or records.keys() != set(FILES):
        raise Damaged(f"{path}/state.json: files is not a table of {' and '.join(FILES)}: {NOT_OURS}")
    for name, expected in records.items():
        if not isinstance(expected, dict) or expected.keys() != {"bytes", "sha256"}:
            raise Damaged(f"{path}/state.json: {name} has no bytes and sha256: {NOT_OURS}")
        file = path / name
        if not file.exists():
            raise ValueError(f"{file} is missing")
        check_regular(file)
        if file.stat().st_size != expected["bytes"]:
            raise ValueError(
                f"{file} has {file.stat().st_size} bytes, but state.json records {shown(expected['bytes'])}"
            )
        if file_sha256(file) != expected["sha256"]:
            raise ValueError(f"{file} does not match its sha256 in state.json")


def load_model(path: Path) -> PretrainingModel:
    """Return the model of a pretraining checkpoint, on the CPU."""
    config = config_from(read_state(path, TrainingState).model)
    weights = read_tensors(path / FILES[0], expected_tensors(config))
    model = PretrainingModel(config)
    model.load_state_dict(weights)
    return model


def load_checkpoint(
    path: Path | None, model: nn.Module, optimizer: torch.optim.Optimizer, ranks: Ranks = ALONE
) -> None:
    """Load a checkpoint's weights and moments into a model of the same shape and its optimizer, on all ranks.

    Args:
        path: of rank 0, None if there is no checkpoint: the others then get its weights as they are. Others need none.

    Raises:
        ValueError: its files hold tensors of other names or shapes.
    """
    if path:
        load_weights(path, model)
    ranks.share_tensors(model.state_dict().values())
    share_moments(read_moments(path, model, optimizer) if path else {}, model, optimizer, ranks)


def load_weights(path: Path, model: nn.Module) -> None:
    """Load a checkpoint's weights into a model of the same shape; ValueError if they have other names or shapes."""
    model.load_state_dict(read_tensors(path / FILES[0], model.state_dict()))


def read_moments(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return those of a checkpoint's moments that the optimizer of this model keeps.

    Raises:
        ValueError: the file holds tensors of other names or shapes.
    """
    tensors = read_tensors(path / FILES[1])
    check_moments(tensors, model, path / FILES[1])
    kept = moment_names(optimizer)
    found: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():
        labels = [f"{key}.{name}" for key in kept.get(parameter, ())]
        if tensors.keys() >= set(labels):  # else it was saved by another optimizer
            found |= {label: tensors[label] for label in labels}
    return found


def check_moments(tensors: Mapping[str, Tensor], model: nn.Module, path: Path) -> None:
    """Raise ValueError unless each tensor is a number, or has the shape of the parameter in its name."""
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    for label, tensor in tensors.items():
        key, _, name = label.partition(".")
        expected = torch.Size() if key == "step" else shapes.get(name)
        if name not in shapes or tensor.shape != expected or not tensor.is_floating_point():
            raise ValueError(f"{path}: {shown(label)} has the shape {tuple(tensor.shape)}: it belongs to another model")


def share_moments(
    moments: Mapping[str, Tensor], model: nn.Module, optimizer: torch.optim.Optimizer, ranks: Ranks
) -> None:
    """Copy rank 0's moments, from `read_moments`, to the optimizers of all ranks. Only rank 0 needs access to the file."""
    parameters = dict(model.named_parameters())
    for label in ranks.share_json(list(moments)):
        key, _, name = label.partition(".")
        parameter = parameters[name]
        moment = torch.zeros((), device=parameter.device) if key == "step" else torch.zeros_like(parameter.data)
        share_parts(moment, moments.get(label), ranks)
        optimizer.state[parameter][key] = moment


def optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the optimizer's state by parameter name: `step.NAME`, `exp_avg.NAME`, `exp_avg_sq.NAME`, and
    `momentum_buffer.NAME` for Muon."""
    return {
        f"{key}.{name}": tensor
        for name, parameter in model.named_parameters()
        for key, tensor in optimizer.state[parameter].items()
    }


def others_in(folder: Path) -> list[Path]:
    """Return what is in the folder except checkpoints and what writers leave when they are killed."""
    known = {path for _, path in checkpoints_in(folder)}
    paths = folder.iterdir() if folder.is_dir() else ()
    return sorted(path for path in paths if path not in known and not path.name.startswith(".tmp-"))


def check_names(folder: Path, step: int) -> None:
    """Raise ValueError if something else has the name of the folder, or of a checkpoint after this step."""
    if os.path.lexists(folder) and not folder.is_dir():
        raise ValueError(f"{folder} is not a folder, but checkpoints are written there: move it away")
    for path in others_in(folder):
        if (match := NAME.fullmatch(path.name)) and int(match[1]) > step:
            raise ValueError(f"{path} is not a folder, but a checkpoint may get that name: move it away")


def _copies(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: whole(tensor.detach()).to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
