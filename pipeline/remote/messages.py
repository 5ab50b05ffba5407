"""Words of messages about other runners and their workers."""

import sys

from pipeline.text.versions import version_of


def reason_of(error: Exception) -> str:
    """Return what an error of the operating system or of the network says, without its number, in one line."""
    reason = getattr(error, "reason", None) or error  # of a URLError
    return str(getattr(reason, "strerror", None) or reason).partition("\n")[0]


def software() -> str:
    """Return the versions that must be equal where a job starts and where it runs."""
    versions = " and ".join(f"{name} {version_of(name)}" for name in ("bertloom", "apache-beam"))
    return f"Python {sys.version_info[0]}.{sys.version_info[1]} with {versions}"
