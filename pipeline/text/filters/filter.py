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

    def remove_lines(self, text: str) -> str:
        """Return the text without the lines that the filter removes. ValueError, which names the filter, if it fails."""
        return self._call("without_lines", self.without_lines, text) if self.without_lines else text

    def fault_of(self, text: str) -> str:
        """Return why a text is rejected, or "". ValueError, which names the filter, if it fails."""
        return self._call("find_fault", self.find_fault, text)

    def _call(self, function: str, call: Callable[[str], str], text: str) -> str:
        where = f"{function} of the quality filter {self.name!r}"
        try:
            found = call(text)
        except MemoryError:
            raise
        except Exception as error:
            raise ValueError(
                f"{where} failed on the text that begins with {text[:40]!r}: {type(error).__name__}: {error}. Mend the "
                f"filter; BERTLOOM_DEBUG=1 in the environment shows the line"
            ) from error
        if not isinstance(found, str):
            raise ValueError(
                f"{where} returned {found!r:.100} for the text that begins with {text[:40]!r}: expected a str; mend it"
            )
        return found
