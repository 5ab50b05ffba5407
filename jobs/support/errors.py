"""What an error means for the user: one line, and the exit status of a command that ends with it."""

import os
import re
from typing import Any

from bertloom.extras import extra_of, needs
from bertloom.processes import PROCESS_LOST, LostProcess

WRONG_USE = 2  # exit status
BUG = 70  # exit status, EX_SOFTWARE in sysexits.h
LONGEST_MESSAGE = 2000  # characters; a message may quote a value of any length from a file


def describe(name: str, error: Exception) -> tuple[str, int]:
    """Return (one line about an error, the exit status of a command that ends with it). name: what failed.

    The traceback of a bug goes to a file, which the line names. With BERTLOOM_DEBUG=1 in the environment, every traceback
    goes to standard error.
    """
    if is_debugging := os.environ.get("BERTLOOM_DEBUG", "0") not in ("", "0"):
        _print_traceback(error)
    if isinstance(error, (ValueError, OSError)) or _is_of_a_store(error):
        return one_line(_message(error)), WRONG_USE
    if isinstance(error, LostProcess):
        return one_line(str(error)), PROCESS_LOST
    if isinstance(error, ModuleNotFoundError) and (extra := extra_of(error)):
        return needs(name, extra), WRONG_USE
    if _is_out_of_memory(error):
        return f"out of memory: {one_line(str(error).partition(chr(10))[0])}", WRONG_USE
    what = one_line(f"{type(error).__name__}: {str(error).strip().rpartition(chr(10))[2]}")
    advice = "This is a bug in bertloom, or a damaged file that it does not recognize. The traceback is"
    return f"{what}. {advice} {'above' if is_debugging else _write_traceback(error)}", BUG


def _is_of_a_store(error: Exception) -> bool:
    from bertloom.store_errors import StoreError  # not at the top: `bertloom --help` needs none of it

    return isinstance(error, StoreError)


def _message(error: Exception) -> str:
    """Return the error's message without Python's `[Errno 2]`, and never an empty one."""
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        from bertloom.whole_files import NO_ROOM  # not at the top: `bertloom --help` needs none of it

        advice = ": make room, then start the same command again" if error.errno in NO_ROOM else ""
        return f"{os.fsdecode(error.filename) if not isinstance(error.filename, int) else ''}: {error.strerror}{advice}"
    return str(error) or type(error).__name__


def _is_out_of_memory(error: Exception) -> bool:
    """Return whether Python, NumPy, pyarrow or torch could not allocate memory. This module does not import torch."""
    names = {kind.__name__ for kind in type(error).__mro__}
    texts = ("DefaultCPUAllocator: can't allocate", "failed to map segment from shared object")  # torch; any library
    return bool(names & {"MemoryError", "OutOfMemoryError"}) or any(text in str(error) for text in texts)


def one_line(text: str) -> str:
    """Return a text as one line that is safe to print, whatever name or value from a file it quotes."""
    text = re.sub(r"\s*\n\s*", " ", text.strip())
    text = re.sub(r"[\x00-\x1f\x7f-\x9f]", lambda found: repr(found[0])[1:-1], text)  # they would control the terminal
    half = LONGEST_MESSAGE // 2
    return text if len(text) <= LONGEST_MESSAGE else f"{text[:half]} … {text[-half:]}"


def _print_traceback(error: Exception, file: Any = None) -> None:
    import traceback  # slow to import

    traceback.print_exception(error, file=file)


def _write_traceback(error: Exception) -> str:
    """Write the traceback of an error to a file, or to standard error if that fails. Return where it is."""
    import tempfile  # slow to import

    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="bertloom-", suffix=".txt", delete=False, encoding="utf-8"
        ) as file:
            _print_traceback(error, file)
    except OSError:
        _print_traceback(error)
        return "above"
    return f"in {file.name}"
