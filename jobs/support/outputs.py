"""Folders that one command owns. What is the user's own is never written over or deleted."""

import os
from pathlib import Path

from bertloom.whole_files import write_text

MARK = ".bertloom"
"""The file in such a folder that names its command."""


def own_folder(out: Path, command: str) -> None:
    """Make a folder for a command, unless an earlier start of the command made it.

    Raises:
        ValueError: there is a file, or a folder with other content.
    """
    mark, text = out / MARK, f"bertloom {command}\n"
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out} is a file: expected a new or empty folder")
    is_ours = mark.is_file() and mark.read_text(encoding="utf-8", errors="replace") == text
    if out.is_dir() and not is_ours and (names := sorted(os.listdir(out))):
        raise ValueError(
            f"--out {out} holds {', '.join(names[:5])}, which `{text.strip()}` has not written: give a new or empty folder"
        )
    out.mkdir(parents=True, exist_ok=True)
    write_text(mark, text)
