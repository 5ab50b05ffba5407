"""`bertloom COMMAND ...`: imports the command's module, calls its `main(argv)`, turns errors into one line and a status.

    bertloom --help
    bertloom preprocess --help

Only the chosen command is imported, so `bertloom pretrain` runs where Beam is not installed. A command whose packages are
not installed names the extra of bertloom that installs them.

Exit status: 0 success; 1 a check failed (`verify`, or the gates of `preprocess` and `report`); 2 wrong use or input;
70 a bug in bertloom, or a worker process that died; 130 interrupted; 141 the reader of the output ended; 143 terminated.
"""

import difflib
import importlib
import importlib.util
import io
import os
import re
import select
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from types import FrameType
from typing import Any, TextIO

from bertloom.extras import extra_of, needs, require

COMMANDS = {
    "demo": ("jobs.demo", "Run every step on the sample texts, in a few minutes"),
    "preview": ("jobs.preview", "Show what a job would read, and what looks wrong"),
    "corpora": ("jobs.corpora", "List the well-known corpora that --like reads"),
    "build-vocab": ("jobs.build_vocab", "Build a vocabulary or a tokenizer from text"),
    "adapt-vocab": ("jobs.adapt_vocab", "Give a model's vocabulary the words that a text needs"),
    "preprocess": ("jobs.preprocess", "Turn text into shards of training examples"),
    "worker-pool": ("jobs.worker_pool", "Start workers on this machine for a job on Flink or Spark"),
    "inspect": ("jobs.inspect_shards", "Show what a data set or a shard contains, decoded"),
    "browse": ("jobs.browse", "Open data sets and runs in a web browser, on this machine"),
    "explain": ("jobs.explain", "Trace one example back to the bytes of its source files"),
    "report": ("jobs.report", "Measure a data set and check that it is fit for training"),
    "verify": ("jobs.verify", "Check a data set against its manifest, or what a run has read"),
    "export-data": ("jobs.export_data", "Write the examples of a data set as Parquet"),
    "pretrain": ("jobs.pretrain", "Train a BERT on shards, or resume a run"),
    "evaluate": ("jobs.evaluate", "Measure losses and accuracies of a model on held-out examples"),
    "finetune": ("jobs.finetune", "Train a model for a task: classes, pairs, numbers, tags or answers"),
    "predict": ("jobs.predict", "Apply a fine-tuned model to rows, or fill in [MASK]"),
    "score": ("jobs.score", "Score texts by their pseudo-log-likelihood"),
    "embed": ("jobs.embed", "Compute a vector for each text"),
    "bench-tasks": ("jobs.bench_tasks", "Compare models with each other and with simple baselines on several tasks"),
    "compare": ("jobs.compare", "Compare models on a held-out text and on tasks, with a verdict"),
    "export": ("jobs.export", "Write a model for Hugging Face transformers or ONNX"),
    "import": ("jobs.import_model", "Turn a Hugging Face BERT into a run that `pretrain` can continue"),
    "plot": ("jobs.plot", "Draw the curves of one or more runs"),
}
NEEDS = {
    "demo": ("apache_beam", "torch"),
    "build-vocab": ("apache_beam",),
    "adapt-vocab": ("apache_beam", "torch"),
    "preprocess": ("apache_beam",),
    "worker-pool": ("apache_beam",),
    **dict.fromkeys(("pretrain", "evaluate", "score", "embed", "export", "import"), ("torch",)),
    **dict.fromkeys(("finetune", "predict", "bench-tasks", "compare"), ("torch", "sklearn")),
    "plot": ("matplotlib",),
    "browse": ("starlette", "uvicorn"),
}
"""Modules that a command cannot do without and that an extra installs. The other commands need no extra."""
BUG = 70  # exit status, EX_SOFTWARE in sysexits.h
LONGEST_MESSAGE = 2000  # characters; a message may quote a value of any length from a file


def main(argv: Sequence[str] | None = None) -> int:
    """Run `bertloom` with these words (default: the process's arguments) and return its exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="replace")  # what a terminal cannot show becomes a question mark
    name = f"bertloom {words[0]}" if words and words[0] in COMMANDS else "bertloom"
    signals = Signals()
    try:
        try:
            signals.install()
            status = _run(words)
        finally:  # also before SystemExit, when tyro has printed the help
            if sys.stdout:
                sys.stdout.flush()
        return signals.received and _stopped(name, signals.received) or status
    except KeyboardInterrupt:
        return _stopped(name, signals.received or signal.SIGINT)
    except Exception as error:
        if signals.received:  # a library has caught the exception, and has raised another one
            return _stopped(name, signals.received)
        return _failed(name, error)
    finally:
        signals.restore()


def _run(words: list[str]) -> int:
    commands = available_commands()
    if words[0:1] == ["help"] and words[1:]:
        words = [words[1], "--help"]
    if not words or words[0] in ("-h", "--help", "help"):
        print(_overview(commands))
        return 0
    if words[0] in ("-V", "--version"):
        print(f"bertloom {_version()}")
        return 0
    name, arguments = words[0], words[1:]
    if name not in commands:
        near = difflib.get_close_matches(name, commands, n=1)
        advice = f"did you mean {near[0]!r}?" if near else f"the commands are {', '.join(commands)}"
        raise ValueError(f"unknown command {name!r}: {advice}")
    if not {"-h", "--help"} & {*arguments}:
        require(f"bertloom {name}", *NEEDS.get(name, ()))
    if "apache_beam" in NEEDS.get(name, ()) and _wants_workers(arguments):
        from pipeline.local import worker  # not at the top: `pretrain` runs where there is no pipeline

        worker.start()  # it imports what the workers need while the command imports the same
    importlib.import_module("bertloom")  # sets OMP_WAIT_POLICY, before the command loads torch
    return int(importlib.import_module(commands[name][0]).main(arguments) or 0)


def _wants_workers(arguments: list[str]) -> bool:
    """Guess, before anything is parsed, whether the command will use worker processes. A wrong guess costs only time."""
    if {"-h", "--help", "--"} & {*arguments}:
        return False
    return bool(re.search(r"--num[-_]workers[ =](?!1\b)\d", " ".join(arguments)))


def available_commands() -> dict[str, tuple[str, str]]:
    """Return the commands whose module is installed."""
    return {name: row for name, row in COMMANDS.items() if importlib.util.find_spec(row[0])}


def _overview(commands: dict[str, tuple[str, str]]) -> str:
    width = max(map(len, commands), default=0)
    return "\n".join(
        [
            "usage: bertloom COMMAND ...",
            "",
            "Pretrain BERT from raw text: text to shards, shards to a model, model to Hugging Face transformers.",
            "",
            *(f"  {name:{width}}  {what}" for name, (_, what) in commands.items()),
            "",
            "bertloom help COMMAND lists the flags of a command. bertloom --version prints the version.",
            "With BERTLOOM_DEBUG=1 in the environment, errors come with a traceback.",
        ]
    )


def _version() -> str:
    import importlib.metadata  # slow to import

    try:
        return importlib.metadata.version("bertloom")
    except importlib.metadata.PackageNotFoundError:
        return "(not installed: run pip install -e .)"


# ---- how a command ends


class Signals:
    """Makes SIGINT and SIGTERM raise KeyboardInterrupt, and records which of them was received."""

    def __init__(self) -> None:
        self.received = 0
        self.handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        self.unraisable = sys.unraisablehook

    def install(self) -> None:
        with suppress(ValueError):  # not in the main thread, the only one that signals can interrupt
            for number, handler in self.handlers.items():
                if handler is not signal.SIG_IGN:  # as in a shell's background job
                    signal.signal(number, self._raise)
            sys.unraisablehook = self._raise_again

    def restore(self) -> None:
        with suppress(ValueError):
            sys.unraisablehook = self.unraisable
            for number, handler in self.handlers.items():
                signal.signal(number, handler)

    def _raise(self, number: int, _: FrameType | None) -> None:
        self.received = number
        raise KeyboardInterrupt

    def _raise_again(self, lost: "sys.UnraisableHookArgs") -> None:
        """Send the signal again if Python dropped its exception, as it does while it frees an object."""
        if isinstance(lost.exc_value, KeyboardInterrupt):
            import threading

            threading.Timer(0.01, os.kill, (os.getpid(), self.received or signal.SIGINT)).start()
        else:
            self.unraisable(lost)


def _stopped(name: str, number: int) -> int:
    _say(f"{name}: {'interrupted' if number == signal.SIGINT else 'terminated'}")
    return 128 + number


def _failed(name: str, error: Exception) -> int:
    """Print what went wrong, in one line, and return the exit status."""
    if isinstance(error, BrokenPipeError) and _has_no_reader(sys.stdout):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains at exit
        return 141  # 128 + SIGPIPE, as for other tools
    if is_debugging := os.environ.get("BERTLOOM_DEBUG", "0") not in ("", "0"):
        _print_traceback()
    if isinstance(error, (ValueError, OSError)) or _is_of_a_store(error):
        _say(f"{name}: error: {one_line(_message(error))}")
        return 2
    if isinstance(error, ModuleNotFoundError) and (extra := extra_of(error)):
        _say(f"{name}: error: {needs(name, extra)}")
        return 2
    if _is_out_of_memory(error):
        _say(f"{name}: error: out of memory: {one_line(str(error).partition(chr(10))[0])}")
        return 2
    what = one_line(f"{type(error).__name__}: {str(error).strip().rpartition(chr(10))[2]}")
    advice = "This is a bug in bertloom, or a damaged file that it does not recognize. The traceback is"
    _say(f"{name}: error: {what}. {advice} {'above' if is_debugging else _write_traceback()}")
    return BUG


def _has_no_reader(output: TextIO) -> bool:
    """Return whether the other end of our output is closed, as in `bertloom inspect ... | head`."""
    poll = select.poll()
    poll.register(output, 0)
    return bool(poll.poll(0))


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


def _print_traceback(file: Any = None) -> None:
    import traceback  # slow to import

    traceback.print_exc(file=file)


def _write_traceback() -> str:
    """Write the traceback of the current exception to a file, or to standard error if that fails. Return where it is."""
    import tempfile

    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="bertloom-", suffix=".txt", delete=False, encoding="utf-8"
        ) as file:
            _print_traceback(file)
    except OSError:
        _print_traceback()
        return "above"
    return f"in {file.name}"


def _say(text: str) -> None:
    with suppress(OSError):  # the reader of our messages has closed them
        print(text, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
