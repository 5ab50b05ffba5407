"""`bertloom COMMAND ...`: imports the command's module, calls its `main(argv)`, turns errors into one line and a status.

    bertloom --help
    bertloom preprocess --help

Only the chosen command is imported, so `bertloom pretrain` runs where Beam is not installed.

Exit status: 0 success; 1 a check failed (`verify`, or the gates of `preprocess` and `report`); 2 wrong use or input;
130 interrupted.
"""

import difflib
import importlib
import importlib.util
import os
import re
import sys
import traceback
from collections.abc import Sequence

COMMANDS = {
    "demo": ("jobs.demo", "Run every step on the sample texts, in a few minutes"),
    "build-vocab": ("jobs.build_vocab", "Build a WordPiece vocabulary from text"),
    "preprocess": ("jobs.preprocess", "Turn text into shards of training examples"),
    "inspect": ("jobs.inspect_shards", "Show what a data set or a shard contains, decoded"),
    "explain": ("jobs.explain", "Trace one example back to the bytes of its source files"),
    "report": ("jobs.report", "Measure a data set and check that it is fit for training"),
    "verify": ("jobs.verify", "Check a data set against its manifest, or what a run has read"),
    "pretrain": ("jobs.pretrain", "Train a BERT on shards, or resume a run"),
    "evaluate": ("jobs.evaluate", "Measure losses and accuracies of a model on held-out examples"),
    "finetune": ("jobs.finetune", "Train a model for a task: classes, pairs, numbers, tags or answers"),
    "predict": ("jobs.predict", "Apply a fine-tuned model to rows, or fill in [MASK]"),
    "score": ("jobs.score", "Score texts by their pseudo-log-likelihood"),
    "embed": ("jobs.embed", "Compute a vector for each text"),
    "bench-tasks": ("jobs.bench_tasks", "Compare models with each other and with simple baselines on several tasks"),
    "export": ("jobs.export", "Write a model for Hugging Face transformers or ONNX"),
    "import": ("jobs.import_model", "Turn a Hugging Face BERT into a run that `pretrain` can continue"),
    "plot": ("jobs.plot", "Draw the curves of one or more runs"),
}
BEAM_COMMANDS = ("build-vocab", "preprocess")


def main(argv: Sequence[str] | None = None) -> int:
    """Run `bertloom` with these words (default: the process's arguments) and return its exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    commands = available_commands()
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
        print(f"bertloom: error: unknown command {name!r}: {advice}", file=sys.stderr)
        return 2
    try:
        if name in BEAM_COMMANDS and _wants_workers(arguments):
            from pipeline.local import worker  # not at the top: `pretrain` runs where there is no pipeline

            worker.start()  # it imports what the workers need while the command imports the same
        importlib.import_module("bertloom")  # sets OMP_WAIT_POLICY, before the command loads torch
        return int(importlib.import_module(commands[name][0]).main(arguments) or 0)
    except KeyboardInterrupt:
        print(f"bertloom {name}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output has closed it, as in `bertloom inspect ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains at exit
        return 141  # 128 + SIGPIPE, as for other tools
    except (ValueError, OSError) as error:
        if os.environ.get("BERTLOOM_DEBUG", "0") not in ("", "0"):
            traceback.print_exc()
        print(f"bertloom {name}: error: {_message(error)}", file=sys.stderr)
        return 2


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
            "bertloom COMMAND --help lists the options of a command. bertloom --version prints the version.",
            "With BERTLOOM_DEBUG=1 in the environment, errors come with a traceback.",
        ]
    )


def _version() -> str:
    import importlib.metadata  # slow to import

    try:
        return importlib.metadata.version("bertloom")
    except importlib.metadata.PackageNotFoundError:
        return "(not installed: run pip install -e .)"


def _message(error: Exception) -> str:
    """Return the error's message without Python's `[Errno 2]`, and never an empty one."""
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{os.fsdecode(error.filename) if not isinstance(error.filename, int) else ''}: {error.strerror}"
    return str(error) or type(error).__name__


if __name__ == "__main__":
    sys.exit(main())
