"""The state of a checkpoint, in its state.json: how far the run is, and what a resumed run must match.

Nothing here needs torch, so that pages about runs open at once. `checkpoint.py` writes the file and loads the tensors.
"""

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

from bertloom.json_files import Damaged, read_json, read_toml
from bertloom.shapes import shaped, shown
from model.encoders import config_from
from model.runs.best import Best
from model.runs.progress import Progress

FORMAT_VERSION = 1
NAME = re.compile(r"step-(\d{8,})")
NOT_OURS = "it was damaged or written by something else"


@dataclass(frozen=True, kw_only=True)
class CheckpointState:
    """What a checkpoint holds besides tensors: the progress, and what a resumed run must match."""

    FORMAT: ClassVar[str]
    """Name of the kind of training, in state.json."""
    progress: Progress

    @property
    def step(self) -> int:
        """Number of updates."""
        return self.progress.step

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """Return the state that `dataclasses.asdict` and JSON made these values of.

        Raises:
            ValueError: a value has another type, or is impossible.
        """
        state: Self = shaped(values, cls, "state")
        state.check()
        return state

    def check(self) -> None:
        """Raise ValueError if a value is impossible."""
        self.progress.check()


State = TypeVar("State", bound=CheckpointState)


@dataclass(frozen=True, kw_only=True)
class TrainingState(CheckpointState):
    """The state of a pretraining run."""

    FORMAT = "bertloom-checkpoint"
    seed: int
    """Seed for the example order, initial weights and dropout."""
    order_version: int
    """Version of the training order, `model.loading.order.ORDER_VERSION`."""
    shards_digest: str
    """sha256 of the data set's shards.parquet."""
    vocabulary_sha256: str
    """sha256 of the vocabulary in the data set's manifest."""
    model: dict[str, Any]
    """The kind of encoder, its shape and the vocabulary size: `EncoderConfig.values`."""
    schedule: dict[str, Any]
    """The other settings that decide the numbers: batch size, steps, learning rate, ..."""
    changes: list[dict[str, Any]]
    """Settings changed on resuming, each `{"step", "name", "before", "after"}`; see `model/runs/resume.py`."""
    best: Best = Best()
    """The best evaluation so far; its value is minus the MLM loss."""
    is_finished: bool = False
    """Whether no step of the schedule is left."""
    evaluation_seconds: float = 0.0
    """Duration of the longest evaluation so far, which a budget reserves for the last one."""

    def check(self) -> None:
        super().check()
        if not self.progress.legs:
            raise ValueError("state.progress.legs is empty")
        config_from(self.model)
        shaped(self.schedule.get("init_from"), str | None, "state.schedule.init_from")
        for number, change in enumerate(self.changes):
            if change.keys() != {"step", "name", "before", "after"}:
                raise ValueError(f"state.changes[{number}] has the keys {shown(', '.join(change))}")
            shaped(change["step"], int, f"state.changes[{number}].step")

    @property
    def max_seq_length(self) -> int:
        """The longest examples trained on, in tokens."""
        return max(leg.max_seq_length for leg in self.progress.legs)


def checkpoint_path(folder: Path, step: int) -> Path:
    """Return the folder of a step's checkpoint."""
    return folder / f"step-{step:08d}"


def checkpoints_in(folder: Path) -> list[tuple[int, Path]]:
    """Return the step in the name and the path of every folder named like a checkpoint; it may be a link to one."""
    paths = folder.iterdir() if folder.is_dir() else ()
    return [(int(match[1]), path) for path in paths if (match := NAME.fullmatch(path.name)) and path.is_dir()]


def read_state(path: Path, kind: type[State]) -> State:
    """Return the state in a checkpoint's state.json; ValueError if it is missing, damaged, or of another kind."""
    content = read_content(path)
    if content["format"] != kind.FORMAT:
        raise ValueError(f"{path}/state.json: format is {shown(content['format'])}, expected {kind.FORMAT!r}")
    try:
        return kind.from_json(content.get("state", {}))
    except ValueError as error:
        raise Damaged(f"{path}/state.json: {error}: {NOT_OURS}") from None


def read_content(path: Path) -> dict[str, Any]:
    """Return what a checkpoint's state.json holds; ValueError if it is missing or damaged."""
    file = path / "state.json"
    try:
        content = read_json(file)
        checksum = content.pop("sha256")
        name, version = content["format"], content["format_version"]
    except FileNotFoundError:
        raise ValueError(f"{file} is missing") from None
    except (Damaged, KeyError):
        raise Damaged(f"{file} is damaged: expected the JSON of a checkpoint") from None
    if version != FORMAT_VERSION:
        raise ValueError(
            f"{file}: {shown(name)} has version {shown(version)}, expected {FORMAT_VERSION}: use the version of bertloom "
            f"that wrote it; `bertloom export` of that version makes a directory that this version imports"
        )
    if checksum != digest_of(content):
        raise Damaged(f"{file} is damaged: its content does not match its sha256")
    return content


def digest_of(content: dict[str, Any]) -> str:
    """Return the sha256 of what a state.json holds besides it."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def run_settings(run: Path) -> dict[str, Any]:
    """Return the values in a run's config.toml; none if it is missing or damaged."""
    try:
        return read_toml(run / "config.toml")
    except (OSError, ValueError):
        return {}
