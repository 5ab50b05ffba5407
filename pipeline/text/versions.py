"""Versions of the software that decides a text.

A data set's manifest records them. The names of token parts depend on them, so a part that another version made is not
used again.
"""

import unicodedata
from functools import cache
from importlib.metadata import PackageNotFoundError, version

from pipeline.text.cleaning import CleanConfig

NOT_INSTALLED = "not installed"


@cache
def version_of(package: str) -> str:
    """Return a package's version. Cached, because the name of every part needs it."""
    try:
        return version(package)
    except PackageNotFoundError:
        return NOT_INSTALLED


def unicode_version() -> str:
    """Return the version of Unicode of this Python's tables."""
    return unicodedata.unidata_version


def cleaning_versions(config: CleanConfig) -> dict[str, str]:
    """Return name -> version of what these cleaning steps use."""
    used = {"ftfy": config.fix_text, "py3langid": bool(config.languages)}
    found = {name: version_of(name) for name, is_used in used.items() if is_used}
    if config.fix_text or config.unicode_normalization or config.remove_control_characters or config.quality_filter:
        found["unicode"] = unicode_version()
    return found
