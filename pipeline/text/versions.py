"""The versions of what decides a text. They are in the manifest, and in the names of what a --work-dir keeps: so what an old
version made is not taken for the work of a new one."""

import unicodedata
from functools import cache
from importlib.metadata import PackageNotFoundError, version

from pipeline.inputs.documents import TextConfig


@cache
def version_of(package: str) -> str:
    """Looked up once: every name of a part asks for it."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def text_versions(config: TextConfig, form: str) -> dict[str, str]:
    """Name -> version of what decides the texts of a file of this format: a library is there only where it is used."""
    used = {
        "mwparserfromhell": form == "mediawiki",
        "resiliparse": form == "warc",
        "warcio": form == "warc",
        "ftfy": config.fix_text,
        "py3langid": bool(config.languages),
    }
    found = {name: version_of(name) for name, is_used in used.items() if is_used}
    if config.fix_text or config.unicode_normalization or config.remove_control_characters or config.quality_filter:
        found["unicode"] = unicodedata.unidata_version  # of Python
    return found
