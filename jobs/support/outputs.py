"""Outputs of commands. Only --overwrite lets a command replace a file of the user, and no command deletes one."""

import json
import os
import stat
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from bertloom.whole_files import output_file, write_text

MARK = ".bertloom"
"""The file in a folder of one command that names the command."""
STANDARD = "-"
"""The name of standard input and of standard output."""


def own_folder(out: Path, command: str) -> None:
    """Make a folder for a command, unless an earlier start of the command made it.

    Raises:
        ValueError: `out` is a file, or a folder with other files.
    """
    mark, text = out / MARK, f"bertloom {command}\n"
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out} is a file: expected a new or empty folder")
    is_ours = mark.is_file() and mark.read_text(encoding="utf-8", errors="replace") == text
    if out.is_dir() and not is_ours and (names := sorted(os.listdir(out))):
        raise ValueError(
            f"--out {out} holds {', '.join(names[:5])}, which `{text.strip()}` did not write: give a new or empty folder"
        )
    out.mkdir(parents=True, exist_ok=True)
    write_text(mark, text)


def check_output(
    out: str | Path,
    inputs: Iterable[str | Path],
    model: Path | None = None,
    *,
    overwrite: bool = True,
    flag: str = "--out",
) -> None:
    """Check the file that a command will write. A file is recognized under any name, also as standard input or output.

    Args:
        model: a file or folder that the command reads. Nothing is written into the folder.
        overwrite: whether an existing file may be replaced. Empty files, devices and pipes may be written always.
        flag: names the file.

    Raises:
        ValueError: the file is one of the inputs, in the folder of the model, a folder, or a file that may not be replaced.
    """
    written = _status(out, 1)
    if written is not None and stat.S_ISDIR(written.st_mode):
        raise ValueError(f"{flag} {out} is a folder: expected the name of a file")
    for path in inputs:
        read = _status(path, 0)
        if written is None or read is None:
            is_same = written is read and str(out) == str(path) != STANDARD  # as in an object store
        else:
            is_same = os.path.samestat(written, read) and not stat.S_ISCHR(written.st_mode)
        if is_same:
            name = "standard output" if str(out) == STANDARD else f"{flag} {out}"
            source = "standard input" if str(path) == STANDARD else path
            raise ValueError(f"{name} is one of the inputs, {source}, which it would overwrite: give another file")
    if str(out) == STANDARD:
        return
    is_file = written is not None and stat.S_ISREG(written.st_mode) and written.st_size > 0
    if model is not None:
        _check_not_in(Path(out), model)
    if is_file and not overwrite:
        raise ValueError(f"{flag} {out} exists: give another file, or --overwrite to replace it")


def _check_not_in(path: Path, model: Path) -> None:
    folder = Path(os.path.realpath(model))
    # Both where a link is and where it leads, because a file of a model may be a link to another folder.
    for place in (Path(os.path.realpath(path)), Path(os.path.realpath(path.parent), path.name)):
        if place.is_relative_to(folder):
            raise ValueError(f"--out {path} is in the folder of --model {model}: give a file outside of it")


def _status(path: str | Path, standard: int) -> os.stat_result | None:
    """Return the status of a file, or of the open file `standard` if the path is -; None if there is no such file."""
    try:
        return os.fstat(standard) if str(path) == STANDARD else os.stat(path)
    except (OSError, ValueError):
        return None


def write_rows(out: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a line of JSON for each row: to standard output at once, or to a file that appears when it is complete."""
    if str(out) == STANDARD:
        for row in rows:
            sys.stdout.write(json_line(row, sys.stdout.encoding))
            sys.stdout.flush()  # the reader may be waiting
        return
    with output_file(out, "w") as file:
        for row in rows:
            file.write(json_line(row, "utf-8"))


def write_parts(out: Path, parts: Iterable[bytes]) -> None:
    """Write the parts of a file: to standard output at once, or to a file that appears when it is complete."""
    if str(out) == STANDARD:
        for part in parts:
            sys.stdout.buffer.write(part)
            sys.stdout.buffer.flush()
        return
    with output_file(out) as file:
        file.writelines(parts)


def json_line(row: Mapping[str, Any], encoding: str, indent: int | None = None) -> str:
    """Return a line of JSON, with escapes if the encoding lacks one of its characters.

    >>> json_line({"text": "北京"}, "gbk"), json_line({"text": "北京"}, "latin-1")
    ('{"text": "北京"}\\n', '{"text": "\\\\u5317\\\\u4eac"}\\n')
    """
    # default=str: the `id` of a row in a Parquet file may be a time, for example.
    line = json.dumps(row, ensure_ascii=False, default=str, indent=indent) + "\n"
    try:
        line.encode(encoding)
    except UnicodeEncodeError:
        return json.dumps(row, default=str, indent=indent) + "\n"
    return line
