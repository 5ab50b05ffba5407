"""The interface of a quality filter: which lines of a text it removes, and which texts it rejects."""

from collections.abc import Callable
from dataclasses import dataclass


def _no_fault(text: str) -> str:
    return ""


@dataclass(frozen=True, kw_only=True)
class QualityFilter:
    """A filter that `--quality-filter` offers. Adding one takes a file with its functions and a line in `registry.py`.

    Both functions must depend on nothing but the text, because the same text has to give the same data set anywhere. In
    the text, a line feed ends a paragraph and a carriage return is a line break within one (`pipeline/text/lines.py`).
    """

    name: str
    """What `--quality-filter` calls it. Rejects have the reason `quality-NAME`."""
    summary: str
    """What it does, for `--help`: one sentence."""
    without_lines: Callable[[str], str] | None = None
    """Returns the text without the lines that the filter removes. None: it removes none."""
    find_fault: Callable[[str], str] = _no_fault
    """Returns why a text is rejected, in a few words, or "". Called with the text after all filters have removed lines."""

    @property
    def reason(self) -> str:
        """The reason of its rejects, and what `cleaned` in the manifest calls the removal of lines."""
        return f"quality-{self.name}"
