"""Writes checkpoints in the background: training waits for a copy in memory, not for the disk."""

import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from bertloom.counts import counted
from model.optimizer import moment_names
from model.runs.checkpoint import snapshot, write_checkpoint
from model.runs.state import CheckpointState, checkpoints_in

FILES_OF_CHECKPOINT = 10
"""Files and folders of a checkpoint or a model, and some of the run folder's own."""


def weights_bytes(model: nn.Module) -> int:
    """Return the size of a model's weights."""
    return sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())


def checkpoint_bytes(model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Return the size of a checkpoint, also before the first update has made the moments."""
    moments: int = sum(
        sum(key != "step" for key in keys) * parameter.numel() * parameter.element_size()
        for parameter, keys in moment_names(optimizer).items()
    )
    return weights_bytes(model) + moments


def check_space(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, number: int, num_models: int = 0
) -> None:
    """Raise ValueError unless the disk has room for the checkpoints of a run.

    Args:
        folder: RUN/checkpoints, which need not exist, and may be a link to another disk; the run folder does exist.
        number: largest number of them at a time, those on disk and the one being written included.
        num_models: number of exported models to come, without moments.
    """
    size = checkpoint_bytes(model, optimizer)
    num_more = max(number - len(checkpoints_in(folder)), 1)
    needed = num_more * size + num_models * weights_bytes(model)
    disk = folder if folder.exists() else folder.parent
    free = shutil.disk_usage(disk).free
    models = f" and {counted(num_models, 'model')}" if num_models else ""
    if free < needed:
        raise ValueError(
            f"{folder} needs {needed / 1e6:,.1f} MB for {counted(num_more, 'more checkpoint')} of {size / 1e6:,.1f} MB"
            f"{models}, but its disk has {free / 1e6:,.1f} MB free: make room, keep fewer, or give an --out on another disk"
        )
    inodes = os.statvfs(disk)
    if inodes.f_files and inodes.f_favail < FILES_OF_CHECKPOINT * (num_more + num_models):  # some systems count none
        raise ValueError(
            f"{folder}: its disk can hold {inodes.f_favail:,} more files (inodes), too few for a checkpoint: remove files "
            f"there, or give an --out on another disk"
        )


class CheckpointWriter:
    """Copies weights and moments to CPU memory and writes them in a thread, one checkpoint at a time.

    `write_checkpoint` does the writing: a kill leaves the existing checkpoints. The copy takes as much memory as the
    weights and moments themselves. An error in the thread, such as a full disk, is raised by the next call.
    """

    def __init__(self, folder: Path, keep: int, keep_every: int | None = None) -> None:
        """The arguments are those of `write_checkpoint`."""
        self._where = (folder, keep, keep_every)
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def save(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        state: CheckpointState,
        before: Callable[[], None] = lambda: None,
    ) -> None:
        """Start to write a checkpoint after the previous one is on disk.

        Args:
            before: called in the thread before anything is written, to sync data that must precede the checkpoint.
        """
        self.wait()
        weights, moments = snapshot(model, optimizer)
        folder, keep, keep_every = self._where

        def write() -> None:
            try:
                before()
                write_checkpoint(folder, weights, moments, state, keep, keep_every)
            except BaseException as error:
                self._error = error

        # Not a daemon, so that the process does not exit before the checkpoint is complete.
        self._thread = threading.Thread(target=write, name="checkpoint")
        self._thread.start()

    def check(self) -> None:
        """Raise the error of a checkpoint that could not be written, if there is one; do not wait for a writing thread."""
        if self._error:
            self.wait()

    def wait(self) -> None:
        """Wait until the last checkpoint is on disk."""
        if self._thread:
            self._thread.join()
            self._thread = None
        if self._error:
            error, self._error = self._error, None
            raise error

    def __enter__(self) -> "CheckpointWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if kind is None:
            self.wait()
        elif self._thread:
            self._thread.join()  # without `wait`: the error under way matters more than the thread's
