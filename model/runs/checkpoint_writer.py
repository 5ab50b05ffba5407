"""Writes checkpoints in the background: training waits for a copy in memory, not for the disk."""

import threading
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from model.runs.checkpoint import CheckpointState, snapshot, write_checkpoint


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
