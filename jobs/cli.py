"""`bertloom COMMAND ...`: imports the command's module, calls its `main(argv)`, turns errors into one line and a status.

    bertloom --help
    bertloom preprocess --help

Only the chosen command is imported, so `bertloom pretrain` runs where Beam is not installed. A command whose packages are
not installed names the extra of bertloom that installs them.

Exit status: 0 success; 1 a check failed (`verify`, or the gates of `preprocess` and `report`); 2 wrong use or input;
70 a bug in bertloom, or a worker process or a rank that died; 130 interrupted; 141 the reader of the output ended;
143 terminated.
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
from typing import TextIO

from bertloom.extras import require
from jobs.support.errors import describe

COMMANDS = {
    "demo": ("jobs.demo", "Run every step on the sample texts, in a few minutes"),
    "preview": ("jobs.preview", "Show what a job would read, and what looks wrong"),
    "corpora": ("jobs.corpora", "List the well-known corpora that --like reads"),
    "build-vocab": ("jobs.build_vocab", "Build a vocabulary or a tokenizer from text"),
    "adapt-vocab": ("jobs.adapt_vocab", "Give a model's vocabulary the words that a text needs"),
    "plan": ("jobs.plan", "Estimate what a job will make and need, before it runs"),
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
    text, status = describe(name, error)
    _say(f"{name}: error: {text}")
    return status


def _has_no_reader(output: TextIO) -> bool:
    """Return whether the other end of our output is closed, as in `bertloom inspect ... | head`."""
    poll = select.poll()
    poll.register(output, 0)
    return bool(poll.poll(0))


def _say(text: str) -> None:
    with suppress(OSError):  # the reader of our messages has closed them
        print(text, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
