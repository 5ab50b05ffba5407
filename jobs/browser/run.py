"""A run folder as the pages need it: its configuration, the points of its curves, its checkpoints and its data set.

The folder may grow while it is shown, so only the points of its curves are kept.
"""

from pathlib import Path
from typing import Any

from jobs.browser.curve_points import CurvePoints
from model.loading.sources import Source, sources_of_run
from model.runs.state import TrainingState, checkpoints_in, read_state, run_settings


class BrowsedRun:
    """A run folder of `pretrain` or `finetune`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.location = str(path)
        self.name = path.resolve().name
        self.points = CurvePoints(path / "metrics.jsonl")
        self.data_set_faults: dict[str, str] = {}
        """Why data sets in its configuration could not be opened, by their paths."""

    @property
    def settings(self) -> dict[str, Any]:
        """The values in config.toml; none if it is damaged."""
        return run_settings(self.path)

    @property
    def sources(self) -> tuple[Source, ...]:
        """The data sets in config.toml; none if it is damaged."""
        try:
            return sources_of_run(self.settings)
        except ValueError:
            return ()

    @property
    def is_finetuning(self) -> bool:
        """Whether `finetune` made it. It then read the rows of files, and has no data set."""
        return "task" in self.settings

    def last_step(self) -> int | None:
        """Return the last step of a pretraining run, None if it is not known yet."""
        state, number = self.state(), self.settings.get("num_steps")
        if state and state.is_finished and number in (state.schedule.get("num_steps"), "None"):
            return state.step
        return number if type(number) is int else None

    def checkpoints(self) -> list[Path]:
        """Return the folders of its checkpoints, earliest step first."""
        return [path for _, path in sorted(checkpoints_in(self.path / "checkpoints"))]

    def state(self) -> TrainingState | None:
        """Return the state of the latest checkpoint of pretraining that can be read; None if there is none."""
        for path in reversed(self.checkpoints()):
            try:
                return read_state(path, TrainingState)
            except ValueError:  # damaged, being removed, or of fine-tuning
                continue
        return None


def run_folders(path: Path) -> list[Path]:
    """Return the run folders of a path: itself, or those of the seeds of `finetune --seeds`.

    They are in the order of the seeds.
    """
    seeds = [folder for folder in path.glob("seed-*") if (folder / "metrics.jsonl").exists()]
    if (path / "metrics.jsonl").exists() or not seeds:
        return [path]
    return sorted(seeds, key=lambda folder: (len(folder.name), folder.name))
