"""The progress bar of training, as wide as its terminal."""

import sys
from collections.abc import Mapping
from typing import Any

from tqdm import tqdm

from model.runs.progress import Unit


class ProgressBar(tqdm):  # type: ignore[misc]  # tqdm has no types
    """A bar on stderr that counts steps, tokens or seconds; in a file, it writes a line every half minute."""

    def __init__(self, total: float, initial: float, unit: Unit):
        seconds = 0.1 if sys.stderr.isatty() else 30.0
        super().__init__(
            total=total,
            initial=initial,
            unit=f" {unit}",
            unit_scale=unit == "tokens",
            bar_format="{percentage:3.0f}% {done}{postfix}",
            dynamic_ncols=True,
            mininterval=seconds,
            maxinterval=max(seconds, 10.0),
        )

    @property
    def format_dict(self) -> Mapping[str, Any]:
        """What tqdm writes. Of the status, the first parts that fit."""
        values = dict(super().format_dict)
        values["done"] = _done(values)
        room = (values["ncols"] or sys.maxsize) - len(f"100% {values['done']}, ") - 1
        status = values["postfix"] or ""
        while len(status) > room:
            status = status.rpartition(", ")[0]
        values["postfix"] = status
        return values


def _done(values: Mapping[str, Any]) -> str:
    """Return how much is done, of how much, and when the rest will be.

    >>> _done({"n": 61.9, "total": 180, "unit": " seconds"})
    '01:01 of 03:00'
    >>> _done({"n": 300, "total": 1200, "unit": " steps", "unit_scale": False, "elapsed": 75, "initial": 0})
    '300 of 1,200 steps, 03:45 left'
    """
    done, total, unit = values["n"], values["total"], values["unit"]
    if unit.strip() == "seconds":
        return f"{tqdm.format_interval(done)} of {tqdm.format_interval(total)}"
    write = tqdm.format_sizeof if values["unit_scale"] else "{:,.0f}".format
    now = done - values["initial"]
    left = f", {tqdm.format_interval((total - done) * values['elapsed'] / now)} left" if now > 0 else ""
    return f"{write(done)} of {write(total)}{unit}{left}"
