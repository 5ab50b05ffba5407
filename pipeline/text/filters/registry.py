"""The quality filters that `--quality-filter` chooses from."""

from collections.abc import Iterable

from pipeline.text.filters.c4 import C4
from pipeline.text.filters.filter import QualityFilter
from pipeline.text.filters.gopher import GOPHER

FILTERS: list[QualityFilter] = [C4, GOPHER]


def find_filters(names: Iterable[str]) -> list[QualityFilter]:
    """Return the filters with these names, in the order of `FILTERS`.

    Raises:
        ValueError: a name is unknown, or two filters have it.
    """
    known = [quality_filter.name for quality_filter in FILTERS]
    for name in names:
        if known.count(name) > 1:
            raise ValueError(
                f"--quality-filter {name}: FILTERS holds {known.count(name)} filters of this name; expected one"
            )
        if name not in known:
            raise ValueError(f"--quality-filter {name} is unknown: expected {' or '.join(known)}")
    return [quality_filter for quality_filter in FILTERS if quality_filter.name in names]
