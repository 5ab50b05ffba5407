"""The progress bar of `preprocess`. It reads the parts and records on disk, because Beam reports nothing while it runs."""

import os
import sys
import threading
import time
from types import TracebackType
from typing import Self

from tqdm import tqdm

from bertloom.counts import counted
from pipeline.places import Places
from pipeline.stages.plan import Plan, read_plan
from pipeline.tokens import PartRecord, read_finished

SECONDS = 0.5  # between updates


class JobProgress:
    """Shows documents, MB/s and time left, from a thread that reads what the workers have written."""

    def __init__(self, places: Places, total_bytes: int):
        """total_bytes: of all input files, on disk."""
        self.places, self.total_bytes = places, total_bytes
        self.done = threading.Event()
        self.parts: dict[str, tuple[int, int, int]] = {}  # name -> bytes read, text bytes, documents
        self.started = time.monotonic()

    def __enter__(self) -> Self:
        self.bar = self._bar("tokenize", self.total_bytes)
        self.plan: Plan | None = None  # exists from the weave stage on
        self.known = set(_names(self.places.parts, ".part"))  # of an earlier start: done, but not part of the speed
        self.thread = threading.Thread(target=self._watch, name="progress", daemon=True)
        self.thread.start()
        return self

    def _bar(self, stage: str, total: int) -> tqdm:
        line = stage + " {percentage:3.0f}% |{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"
        scale = stage == "tokenize"  # bytes; buckets are few
        return tqdm(total=total, unit_scale=scale, file=sys.stderr, disable=None, bar_format=line)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.done.set()
        self.thread.join()
        if kind is None:
            self._update(final=True)
        self.bar.close()

    def _watch(self) -> None:
        while not self.done.wait(SECONDS):
            self._update()

    def _update(self, final: bool = False) -> None:
        if self.plan is None and os.path.exists(self.places.plan):
            self.plan = read_plan(self.places.plan)
            self.bar.close()
            self.bar = self._bar("weave", len(self.plan.buckets))
        if plan := self.plan:
            self.bar.n = len(plan.buckets) if final else len(_names(self.places.records, ".json"))
            documents, text = plan.num_documents, sum(part.text_bytes for part in plan.parts)
        else:
            self._read_new_parts()
            self.bar.n = min(sum(read for read, _, _ in self.parts.values()), self.total_bytes)
            documents = sum(number for _, _, number in self.parts.values())
            text = sum(size for name, (_, size, _) in self.parts.items() if name not in self.known)
        seconds = time.monotonic() - self.started
        speed = text / 1e6 / max(seconds, 1e-9)
        self.bar.set_postfix_str(f"{counted(documents, 'document')}, {speed:.1f} MB/s", refresh=False)
        self.bar.refresh()

    def _read_new_parts(self) -> None:
        for name in _names(self.places.parts, ".part"):
            if name not in self.parts:
                part = read_finished(os.path.join(self.places.parts, name), PartRecord)
                if part:  # else it is damaged, and will be made again
                    self.parts[name] = (part.read_bytes, part.text_bytes, part.num_documents)


def _names(folder: str, ending: str) -> list[str]:
    return [name for name in os.listdir(folder) if name.endswith(ending) and not name.startswith(".")]
