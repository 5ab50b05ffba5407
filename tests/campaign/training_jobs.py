"""Runs of `bertloom pretrain` that are killed: in one process and in two ranks."""

import re
from collections.abc import Callable
from pathlib import Path

from jobs import cli
from jobs.verify import verify_run
from tests.campaign.corpora import chinese, english, write_jsonl
from tests.jobs.small_run import learnt, numbers

SHAPE = {"hidden-size": 32, "num-hidden-layers": 2, "num-attention-heads": 2, "intermediate-size": 64}
FLAGS = ["--num-steps", "40", "--batch-size", "16", "--micro-batch-size", "8", "--learning-rate", "3e-3"]
FLAGS += [
    "--device",
    "cpu",
    "--num-threads",
    "1",
    "--eval-every",
    "20",
    "--num-eval-examples",
    "40",
    "--save-every",
    "7",
]
FLAGS += [word for name, value in SHAPE.items() for word in (f"--model.{name}", str(value))]
PHASES = """
[[phase]]
share = 0.5
max_seq_length = 32
masked_lm_prob = 0.3
decay = "constant"

[[phase]]
share = 0.25
max_seq_length = 32
data = ["en=EN:0.5", "zh=ZH:0.5"]

[[phase]]
share = 0.25
max_seq_length = 64
data = ["zh=ZH"]
decay = "sqrt"
"""


def data_sets(folder: Path) -> tuple[Path, Path]:
    """Make an English and a Chinese data set, unless they are there."""
    for name, texts in (("en", english()[:30]), ("zh", chinese()[:30])):
        if not (folder / name).exists():
            write_jsonl(folder / f"texts/{name}.jsonl", texts)
            flags = ["--max-seq-length", "32", "64", "--dupe-factor", "2", "--validation-fraction", "0.4"]
            places = ["--input", f"{folder}/texts/{name}.jsonl", "--vocab", f"{folder.parent}/vocab.txt"]
            assert cli.main(["preprocess", *places, *flags, "--gates.no-fail", "--out", f"{folder}/{name}"]) == 0
    return folder / "en", folder / "zh"


def plain(folder: Path) -> list[str]:
    return ["--data", str(data_sets(folder)[0]), "--phases", "32:0.7", "64:0.3:8", "--model.hidden-dropout-prob", "0.1"]


def mixture(folder: Path) -> list[str]:
    english, chinese = data_sets(folder)
    return ["--data", f"en={english}:0.6", f"zh={chinese}:0.4", "--optimizer", "muon", "--keep-every", "10"]


def phases(folder: Path) -> list[str]:
    english, chinese = data_sets(folder)
    (folder / "phases.toml").write_text(PHASES.replace("EN", str(english)).replace("ZH", str(chinese)))
    return ["--data", f"en={english}", "--phases", f"{folder}/phases.toml", "--remask"]


def sharded(folder: Path) -> list[str]:
    return [*phases(folder), "--shard-model"]


KINDS: dict[str, tuple[int, Callable[[Path], list[str]]]] = {
    "--phases": (1, plain),
    "--data of a mixture, --optimizer muon": (1, mixture),
    "--phases with a mixture, --remask, 2 ranks": (2, phases),
    "--data of a mixture, --optimizer muon, 2 ranks": (2, mixture),
    "--shard-model --phases, 2 ranks": (2, sharded),
}
"""Options -> number of ranks, and function that makes the data sets and returns the options."""


def words(options: list[str], folder: Path) -> list[str]:
    """Return the command line whose run is in `folder`."""
    return ["pretrain", *options, *FLAGS, "--out", f"{folder}/out"]


def contents(folder: Path) -> dict[str, object]:
    """Return losses, weights and moments, and the names of all files: those that each checkpoint has, and all others.

    A signal adds a checkpoint, so which ones are kept differs.
    """
    run = folder / "out"
    config = (run / "config.toml").read_text().replace(str(folder), "")
    checkpoints = {
        tuple(sorted(path.relative_to(step).as_posix() for path in step.rglob("*")))
        for step in (run / "checkpoints").glob("step-*")
    }
    found: dict[str, object] = {
        re.sub(r"/step-\d{8}(?=/|$)", "/STEP", path.relative_to(folder).as_posix()): "" for path in folder.rglob("*")
    }
    return found | {
        "files of a checkpoint": checkpoints,
        "losses": numbers(run),
        "config.toml": config,
        "weights": learnt(run),
    }


def faults(folder: Path) -> list[str]:
    """Return what `bertloom verify` finds in a run."""
    return verify_run(folder / "out")[0]
