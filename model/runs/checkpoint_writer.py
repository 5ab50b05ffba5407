"""Checkpoints written beside the training: the step waits for a copy in memory, not for the disk."""

import threading
from collections.abc import Callable
from pathlib import Path

import torch

from model.heads import PretrainingModel
from model.runs.checkpoint import TrainingState, snapshot, write_checkpoint


class CheckpointWriter:
    """Copies weights and moments to the CPU's memory, and writes them in a thread; at most one write is under way.

    What is written, and how, is `write_checkpoint`: a kill in the middle leaves the checkpoints that were there. It
    takes the memory of one more set of weights and moments while it writes. An error of the thread, such as a full disk,
    is raised by the next call.
    """

    def __init__(self, folder: Path, keep: int, keep_every: int | None = None) -> None:
        """See `write_checkpoint`."""
        self._where = (folder, keep, keep_every)
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def save(
        self,
        model: PretrainingModel,
        optimizer: torch.optim.Optimizer,
        state: TrainingState,
        before: Callable[[], None] = lambda: None,
    ) -> None:
        """Begins to write a checkpoint, when the last one is on disk.

        Args:
            before: called in the thread, before anything is written; what must be on disk before the checkpoint is.
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

        # Not a daemon: a program that ends first lets the checkpoint be finished.
        self._thread = threading.Thread(target=write, name="checkpoint")
        self._thread.start()

    def wait(self) -> None:
        """Returns when the last checkpoint is on disk."""
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
            self._thread.join()  # the error that brought us here is the one to tell
