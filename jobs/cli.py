"""`bertloom COMMAND …`: finds the command's module, runs its `main(argv)` and turns errors into one line and a status.

    bertloom --help
    bertloom preprocess --help

A module is imported only when its command is called, so `bertloom pretrain` runs where Beam is not installed.
Exit status: 0 done, 1 something looked at is off (`verify`; the gates of `preprocess` and `report`), 2 wrong use or input,
130 interrupted.
"""

import difflib
import importlib
import importlib.metadata
import importlib.util
import logging
import os
import re
import sys
import traceback
from collections.abc import Sequence

COMMANDS = {
    "demo": ("jobs.demo", "the whole road on the shipped sample"),
    "build-vocab": ("jobs.build_vocab", "text to a WordPiece vocabulary"),
    "preprocess": ("jobs.preprocess", "text to shards"),
    "inspect": ("jobs.inspect_shards", "what is in a data set or a shard, decoded"),
    "explain": ("jobs.explain", "how one example came to be, back to the bytes of its source files"),
    "report": ("jobs.report", "what a data set looks like, and whether it is fit to train on"),
    "verify": ("jobs.verify", "checksums, counts and format of a data set; what a run has read"),
    "pretrain": ("jobs.pretrain", "shards to a trained model; started again, it resumes"),
    "evaluate": ("jobs.evaluate", "losses and accuracies of a pretrained model on held-out examples"),
    "finetune": ("jobs.finetune", "a pretrained model to one for a task: classes, pairs, numbers, tags, answers"),
    "predict": ("jobs.predict", "a model at work: answers to rows, or words for a [MASK]"),
    "score": ("jobs.score", "how likely a pretrained model finds texts"),
    "embed": ("jobs.embed", "vectors of texts"),
    "bench-tasks": ("jobs.bench_tasks", "models side by side on the tasks of a file, and next to simple baselines"),
    "export": ("jobs.export", "a trained model as a directory that Hugging Face transformers reads"),
    "import": ("jobs.import_model", "a BERT in Hugging Face's form as a run folder to go on from"),
    "plot": ("jobs.plot", "the curves of one or several runs"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """The exit status of `bertloom` with these words (default: those of this process)."""
    words = list(sys.argv[1:] if argv is None else argv)
    commands = _available()
    if not words or words[0] in ("-h", "--help", "help"):
        print(_overview(commands))
        return 0
    if words[0] == "--version":
        print(f"bertloom {_version()}")
        return 0
    name, arguments = words[0], words[1:]
    if name not in commands:
        near = difflib.get_close_matches(name, commands, n=1)
        advice = f"did you mean {near[0]!r}?" if near else f"the commands are {', '.join(commands)}"
        print(f"bertloom: error: no command {name!r}: {advice}", file=sys.stderr)
        return 2
    if name in ("preprocess", "build-vocab") and _asks_for_workers(arguments):
        from pipeline.local import worker  # `pretrain` runs where there is no pipeline

        worker.start()  # imports for the workers, while the command imports much the same
    # Beam says so at every import, and it concerns Google's storage alone.
    logging.getLogger().addFilter(lambda record: "apitools not found" not in record.getMessage())
    try:
        return int(importlib.import_module(commands[name][0]).main(arguments) or 0)
    except KeyboardInterrupt:
        print(f"bertloom {name}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output has left: `bertloom inspect … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python complains at exit
        return 141  # 128 + SIGPIPE, as for other tools
    except (ValueError, OSError) as error:
        if os.environ.get("BERTLOOM_DEBUG", "0") not in ("", "0"):
            traceback.print_exc()
        print(f"bertloom {name}: error: {_in_words(error)}", file=sys.stderr)
        return 2


def _asks_for_workers(arguments: list[str]) -> bool:
    """Whether worker processes will be wanted, at a glance: where it is wrong they start a little later, or in vain."""
    return "--" not in arguments and bool(re.search(r"--num[-_]workers[ =](?!1\b)\d", " ".join(arguments)))


def _available() -> dict[str, tuple[str, str]]:
    return {name: row for name, row in COMMANDS.items() if importlib.util.find_spec(row[0])}


def _overview(commands: dict[str, tuple[str, str]]) -> str:
    width = max(map(len, commands), default=0)
    return "\n".join(
        [
            "usage: bertloom COMMAND ...",
            "",
            *(f"  {name:{width}}  {what}" for name, (_, what) in commands.items()),
            "",
            "bertloom COMMAND --help shows the flags of one; bertloom --version the version.",
            "BERTLOOM_DEBUG=1 shows where in the code an error came from.",
        ]
    )


def _version() -> str:
    try:
        return importlib.metadata.version("bertloom")
    except importlib.metadata.PackageNotFoundError:
        return "(not installed: pip install -e .)"


def _in_words(error: Exception) -> str:
    """The message without Python's `[Errno 2]`, and never empty."""
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{os.fsdecode(error.filename) if not isinstance(error.filename, int) else ''}: {error.strerror}"
    return str(error) or type(error).__name__


if __name__ == "__main__":
    sys.exit(main())
