"""The log of rejects, a page of one reason at a time.

The log is read from its beginning once, in slices of time. On the way, places are remembered where reading can go on: a copy
of the decoder, and the number of rejects of each reason before it. Earlier pages are then found from the nearest place.
There are at most MOST_PLACES places, however long the log is.
"""

from __future__ import annotations

import re
import threading
import time
import zlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, BinaryIO

from bertloom import storage
from bertloom.json_files import parse_json
from bertloom.manifest import DAMAGED
from bertloom.shapes import check_shape
from jobs.browser.lru import LruCache
from jobs.browser.pages import cut
from pipeline.dataset import MAX_REJECT_BYTES, REJECT, check_listed

PAGE = 50
"""Rejects on a page."""
PIECE = 1 << 12
"""Bytes of the log that are decoded at a time: at most 4 MB of text."""
MOST_PLACES = 128
"""Places that are remembered. Each takes about 50 KB, for the decoder."""
FIRST_STEP = 4096
"""Lines from one place to the next, before a long log doubles it."""
KEPT_PAGES = 16
MOST_CHARACTERS = 1000
"""Characters shown of a text of a reject, such as the name of its file. Its id may be any text."""
_REASON = re.compile(rb'"reason": "([^"\\]*)"')
_GZIP = 31  # wbits of zlib for a gzip member


def _inflater() -> Any:
    return zlib.decompressobj(_GZIP)


@dataclass
class _Place:
    """How far the log was read."""

    offset: int = 0
    """The next byte of the file."""
    inflater: Any = field(default_factory=_inflater)
    is_inside: bool = False
    """Whether a gzip member has begun and not ended."""
    rest: list[bytes] = field(default_factory=list)
    """The beginning of a line."""
    lines: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    """Rejects of each reason up to here."""

    def copy(self) -> _Place:
        return replace(self, inflater=self.inflater.copy(), rest=[*self.rest], counts=self.counts.copy())

    def read(self, file: BinaryIO, name: str) -> list[bytes] | None:
        """Return the lines that end in the next piece of the file, or None at its end."""
        piece = file.read(PIECE)
        if not piece:
            if self.is_inside or self.rest:
                raise ValueError(f"{name}: not a complete gzip file; {DAMAGED}")
            return None
        self.offset += len(piece)
        lines: list[bytes] = []
        while piece:
            try:
                text = self.inflater.decompress(piece)
            except zlib.error as error:
                raise ValueError(f"{name}: not a complete gzip file ({error}); {DAMAGED}") from None
            piece, self.is_inside = self.inflater.unused_data, not self.inflater.eof
            if self.inflater.eof:
                self.inflater = _inflater()
            lines += self._lines(text)
        if sum(map(len, self.rest)) > MAX_REJECT_BYTES:
            raise ValueError(f"{name}: line {self.lines + 1} has more than {MAX_REJECT_BYTES:,} bytes; {DAMAGED}")
        return lines

    def _lines(self, text: bytes) -> list[bytes]:
        *ended, rest = text.split(b"\n")
        if ended:
            ended[0] = b"".join([*self.rest, ended[0]])
            self.rest = []
        if rest:
            self.rest.append(rest)
        return ended


@dataclass
class RejectsPage:
    """A page of the rejects of one reason, as far as it was found."""

    reason: str
    first: int
    """Number of its first reject among those of the reason."""
    last: int
    """The number after its last reject."""
    place: _Place | None
    """Where the search goes on; None: all were found."""
    rejects: list[dict[str, Any]] = field(default_factory=list)

    @property
    def lines(self) -> int:
        """Lines of the log that were searched."""
        return self.place.lines if self.place else 0


class RejectLog:
    """The log of rejects of one data set."""

    def __init__(self, dataset: str, manifest: Mapping[str, Any]) -> None:
        self.dataset = dataset
        self.listed: Mapping[str, str] = manifest["files"]
        self.rejected: Mapping[str, int] = manifest["counters"]["rejected"]
        self._reasons = {reason.encode(): reason for reason in self.rejected}
        self.name = next((name for name in self.listed if name.startswith("rejects/")), None)
        self._is_checked = False
        self._lock = threading.Lock()
        self._pages = LruCache[RejectsPage](KEPT_PAGES)
        self._places = [_Place()]
        self._step = FIRST_STEP

    def page(self, reason: str, number: int, seconds: float) -> RejectsPage:
        """Return page `number`, from 0, after searching for at most about `seconds`.

        Raises:
            ValueError: the log is damaged or has no such page.
        """
        count = self.rejected.get(reason, 0)
        if not 0 <= number * PAGE < count:
            raise ValueError(f"page {number + 1} of the rejects with the reason {reason[:100]!r} does not exist")
        until = time.monotonic() + seconds
        with self._lock:
            first, last = number * PAGE, min(count, (number + 1) * PAGE)
            page = self._pages.get(
                (reason, number), lambda: RejectsPage(reason, first, last, place=self._nearest(reason, first))
            )
            if page.place:
                try:
                    self._search(page, page.place, until)
                except (OSError, ValueError):  # the next request starts again
                    page.rejects, page.place = [], self._nearest(reason, first)
                    raise
            return replace(page, rejects=[*page.rejects])  # another thread may go on

    def _nearest(self, reason: str, first: int) -> _Place:
        """Return the last known place before a reject. first: its number among those of the reason."""
        return next(place for place in reversed(self._places) if place.counts[reason] <= first).copy()

    def _search(self, page: RejectsPage, place: _Place, until: float) -> None:
        """Read on until the page is whole, or until this time."""
        if self.name is None:
            raise ValueError(f"manifest.json of {self.dataset} does not list the log of rejects; {DAMAGED}")
        if not self._is_checked:
            try:
                check_listed(self.dataset, self.name, self.listed[self.name])
            except ValueError as error:
                raise ValueError(f"{error}; {DAMAGED}") from None
            self._is_checked = True
        with storage.open_read(storage.file_below(self.dataset, self.name)) as file:
            file.seek(place.offset)
            while True:
                lines = place.read(file, self.name)
                if lines is None:
                    raise ValueError(
                        f"{self.name}: holds {dict(sorted(place.counts.items()))}, but manifest.json counts "
                        f"{dict(self.rejected)}; {DAMAGED}"
                    )
                for line in lines:
                    self._take(line, page, place)
                self._remember(place)
                if place.counts[page.reason] >= page.last:
                    page.place = None
                    return
                if time.monotonic() > until:
                    return

    def _take(self, line: bytes, page: RejectsPage, place: _Place) -> None:
        """Count a line, and keep its reject if it belongs on the page."""
        place.lines += 1
        found = _REASON.search(line)  # no other field can hold these bytes: its quotes would have backslashes
        reason = self._reasons.get(found[1]) if found else None
        if reason is None:
            reason = self._parsed(line, place)["reason"]
            if reason not in self.rejected:
                raise ValueError(
                    f"{self.name}: line {place.lines} has the reason {reason[:100]!r}, which manifest.json does not count; "
                    f"{DAMAGED}"
                )
        if reason == page.reason and page.first <= place.counts[reason] < page.last:
            page.rejects.append(_shown(self._parsed(line, place)))
        place.counts[reason] += 1

    def _parsed(self, line: bytes, place: _Place) -> dict[str, Any]:
        name = f"{self.name}: line {place.lines}"
        reject = parse_json(line, name)
        check_shape(reject, REJECT, name)
        return reject

    def _remember(self, place: _Place) -> None:
        if place.lines < self._places[-1].lines + self._step or sum(map(len, place.rest)) > 1 << 16:
            return
        self._places.append(place.copy())
        if len(self._places) > MOST_PLACES:
            del self._places[1::2]
            self._step *= 2


def _shown(reject: dict[str, Any]) -> dict[str, Any]:
    """Return what a page shows of a reject. Its id may be any value of JSON."""
    texts = {name: reject.get(name, "") for name in ("source", "detail", "text", "id")}
    shown: dict[str, Any] = {name: cut(str(value), MOST_CHARACTERS) for name, value in texts.items()}
    piece = reject.get("piece", 0)
    return shown | {"position": reject["position"], "piece": piece if type(piece) is int else 0}
