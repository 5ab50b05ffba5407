"""The progress of a job over texts, on every runner: a bar on a terminal, a line now and then in a file."""

import sys
import threading
import time
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

from tqdm import tqdm

from bertloom import storage
from bertloom.counts import counted
from bertloom.messages import print_message
from pipeline.stages.work_log import BYTES, STAGES, STORE_SECONDS, StageWork, WorkLog

SECONDS = 0.5  # between updates of a bar
BACK_OFF = 4  # the wait after a reading of the log is at least this many times as long as the reading
LINE_SECONDS = 30.0  # between lines, where there is no terminal


@dataclass(frozen=True)
class Progress:
    """What a line or a bar shows of a stage."""

    amount: int
    total: int
    """0 if one worker does the stage in one piece."""
    words: list[str]
    """Documents and speed, as far as they are known."""
    left: str
    """Time left; "?" if it is unknown."""


class JobProgress:
    """Shows the stage, its share that is finished, documents, MB/s and time left, from a thread that reads the work log."""

    def __init__(self, command: str, folder: str, total_bytes: int):
        """folder: of the work log. total_bytes: of all input files, on disk."""
        self.command, self.folder, self.total_bytes = command, folder, total_bytes

    def __enter__(self) -> Self:
        self.log, self.stage = WorkLog(self.folder), ""
        self.bar = _bar("waiting for workers [{elapsed}]")
        self.began = self.line_at = self.read_at = time.monotonic()
        self.has_line = False  # of this stage
        self.before = StageWork()  # when the stage was first seen: not part of the speed
        self.done = threading.Event()
        self.thread = threading.Thread(target=self._watch, name="progress", daemon=True)
        self.thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.done.set()
        self.thread.join()
        if kind is None:
            self.update()
            self._end_stage(time.monotonic())
        self.bar.close()

    def _watch(self) -> None:
        least = 0.0 if storage.is_local(self.folder) else STORE_SECONDS
        due = 0.0
        while not self.done.wait(SECONDS):
            before = time.monotonic()
            if before < due:
                self.show(before)
                continue
            self.update()
            now = time.monotonic()
            due = now + max(least, BACK_OFF * (now - before))

    def update(self) -> None:
        """Read the log, and show what is finished of the last stage that has begun."""
        self.log.read()
        now = self.read_at = time.monotonic()
        if self.log.stages:
            stage = max(self.log.stages, key=list(STAGES).index)
            if stage != self.stage:
                if self.stage:
                    self._end_stage(now)
                    self.bar = _bar(stage)
                self.stage, self.has_line = stage, False
                self.began, self.before = now, replace(self.log.stages[stage])
        self.show(now)

    def show(self, now: float) -> None:
        """Show what the last reading of the log found. now: time, in the seconds of time.monotonic."""
        if not self.bar.disable:
            self._show_bar(now)
        elif now - self.line_at >= LINE_SECONDS:
            self.line_at, self.has_line = now, True
            print_message(self.command, self.line(now))

    def _end_stage(self, now: float) -> None:
        """Show the stage as finished. In a file, only a stage that has a line gets one, so a short job writes nothing."""
        if not self.stage:
            return
        work = self.log.stages[self.stage]
        work.amount = self.total_bytes if STAGES[self.stage] == BYTES else work.total
        if not self.bar.disable:
            self._show_bar(now)
            self.bar.close()
        elif self.has_line:
            print_message(self.command, self.line(now))

    def line(self, now: float) -> str:
        """Return the progress in words."""
        if (found := self._progress()) is None:
            return f"has waited {tqdm.format_interval(int(now - self.began))} for workers"
        unit = STAGES[self.stage]
        what = f"{found.total / 1e6:,.1f} MB" if unit == BYTES else counted(found.total, unit)
        share = f" {100 * found.amount // found.total} % of {what}" if found.total else ""
        seconds = tqdm.format_interval(int(now - self.began))
        left = [f"{found.left} left"] if found.amount < found.total else []
        return ", ".join([f"{self.stage}{share} in {seconds}", *found.words, *left])

    def _show_bar(self, now: float) -> None:
        if found := self._progress():
            self.bar.total, self.bar.n = found.total, found.amount
            self.bar.unit_scale = STAGES[self.stage] == BYTES  # other numbers are small
            share = " {percentage:3.0f}% |{bar}| {n_fmt}/{total_fmt}" if found.total else ""
            elapsed = tqdm.format_interval(int(now - self.began)) + (
                f"<{found.left}" if found.amount < found.total else ""
            )
            self.bar.bar_format = f"{self.stage}{share} [{', '.join([elapsed, *found.words])}]"
        self.bar.refresh()

    def _progress(self) -> Progress | None:
        """Return the progress of the stage. Speed and time left follow from what this start of the job has done."""
        if not self.stage:
            return None
        work, is_bytes = self.log.stages[self.stage], STAGES[self.stage] == BYTES
        total = self.total_bytes if is_bytes else work.total
        if not total:
            return Progress(0, 0, [], "?")
        seconds, new = self.read_at - self.began, work.new_amount - self.before.new_amount
        if is_bytes:
            text = work.new_text_bytes - self.before.new_text_bytes or new
        else:
            tokenized = self.log.stages.get("tokenize", StageWork()).text_bytes or self.total_bytes
            text = tokenized * new // total
        amount, left = min(work.amount, total), "?"
        words = [counted(work.documents, "document")] if work.documents else []
        if text and seconds:
            words.append(f"{text / 1e6 / seconds:.1f} MB/s")
        if new and seconds:
            left = tqdm.format_interval(int(seconds * (total - amount) / new))
        return Progress(amount, total, words, left)


def _bar(text: str) -> tqdm:
    return tqdm(file=sys.stderr, disable=not sys.stderr.isatty(), bar_format=text)
