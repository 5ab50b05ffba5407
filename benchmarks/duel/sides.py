"""The two sides of the duel as processes on a core each, and what their logs record."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from setting import ROOT

HERE = Path(__file__).parent
SHAPE = (
    "--model.hidden-size 256 --model.num-hidden-layers 4 --model.num-attention-heads 4 --model.intermediate-size 1024"
)
MATCHING_DATA = "--max-seq-length 128 --dupe-factor 1 --pairs none --short-seq-prob 0 --validation-fraction 0"
MATCHING_TRAINING = (
    "--remask --optimizer adamw --weight-decay 0 --adam-beta1 0.9 --adam-beta2 0.999 --adam-epsilon 1e-8 "
    "--max-gradient-norm 1 --decay linear --model.hidden-dropout-prob 0.1 --model.attention-probs-dropout-prob 0.1"
)
"""What TrainingArguments and BertConfig have by default, where bertloom's default is another one."""
OWN_TRAINING = (
    "--remask --optimizer muon --learning-rate 2e-3 --weight-decay 0.01 --decay linear --model.initializer-range 0.035"
)
"""bertloom's own recipe: Muon with the peak learning rate of docs/results.md, no dropout, and initial weights for the width
(docs/experiments.md)."""
POLL_SECONDS = 0.05


@dataclass
class Result:
    """What one side did."""

    name: str
    model: Path
    """The exported directory."""
    stages: dict[str, float] = field(default_factory=dict)
    """Seconds since the start at which each stage was over, in their order."""
    steps: int = 0
    tokens: int = 0
    """Real tokens trained on, without padding."""


@dataclass(frozen=True)
class Contest:
    """What both sides are given."""

    train: Path
    vocab: str
    seconds: float
    learning_rate: float
    rival_python: str


def start_on(core: int, words: Sequence[str], log: Path) -> subprocess.Popen:
    """Start a command on one core with one thread. Its output goes to a log."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TOKENIZERS_PARALLELISM": "false"}
    environment |= dict.fromkeys(["OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"], "1")
    pinned = ["taskset", "--cpu-list", str(core), *words]
    with log.open("ab") as file:
        return subprocess.Popen(pinned, env=environment, stdout=file, stderr=file)


def finish(process: subprocess.Popen, log: Path) -> None:
    if process.wait():
        tail = log.read_text(encoding="utf-8", errors="replace")[-2000:]
        raise RuntimeError(f"{process.args} ended with status {process.returncode}:\n{tail}")


def run_rival(contest: Contest, folder: Path, core: int) -> Result:
    """Run the Hugging Face way until the budget is over."""
    folder.mkdir()
    begun = time.monotonic()
    words = [contest.rival_python, str(HERE / "rival.py"), str(contest.train), contest.vocab, str(folder)]
    words += ["--seconds", str(contest.seconds), "--begun", repr(begun), "--learning-rate", str(contest.learning_rate)]
    finish(start_on(core, words, folder / "log"), folder / "log")
    stages, steps, tokens = read_events((folder / "events.jsonl").read_text(encoding="utf-8"))
    return Result("run_mlm", folder / "model", stages, steps, tokens)


def read_events(text: str) -> tuple[dict[str, float], int, int]:
    """Return the stages of the rival with their ends, its steps and its tokens."""
    lines = [json.loads(line) for line in text.splitlines()]
    stages = {line["event"]: line["seconds"] for line in lines}
    (trained,) = [line for line in lines if line["event"] == "trained"]
    return stages, trained["steps"], trained["tokens"]


def run_bertloom(contest: Contest, folder: Path, core: int, name: str, training: str) -> Result:
    """Run `bertloom preprocess`, `pretrain` until the budget is over, and `export`."""
    folder.mkdir()
    begun = time.monotonic()
    result = Result(name, folder / "model")
    log, run = folder / "log", folder / "run"

    def command(*words: str) -> subprocess.Popen:
        return start_on(core, [sys.executable, "-m", "jobs.cli", *words], log)

    given = ["--input", str(contest.train), "--vocab", contest.vocab, "--out", str(folder / "data")]
    finish(command("preprocess", *given, *MATCHING_DATA.split()), log)
    result.stages["preprocessed"] = time.monotonic() - begun
    left = contest.seconds - result.stages["preprocessed"]
    given = ["--data", str(folder / "data"), "--out", str(run), "--budget", f"{max(1.0, left):.1f}s"]
    given += ["--learning-rate", str(contest.learning_rate), "--batch-size", "32", "--micro-batch-size", "32"]
    given += "--warmup-ratio 0.06 --num-threads 1 --device cpu --precision fp32 --save-every 1000000".split()
    process = command("pretrain", *given, *SHAPE.split(), *training.split())
    metrics = run / "metrics.jsonl"
    while process.poll() is None and not read_steps(metrics):
        time.sleep(POLL_SECONDS)
    result.stages["step"] = time.monotonic() - begun
    finish(process, log)
    result.stages["trained"] = time.monotonic() - begun
    finish(command("export", "--checkpoint", str(run), "--out", str(result.model)), log)
    result.stages["saved"] = time.monotonic() - begun
    result.steps, result.tokens = read_steps(metrics) or (0, 0)
    return result


def read_steps(metrics: Path) -> tuple[int, int] | None:
    """Return the number of steps and of real tokens so far, from metrics.jsonl; None before the first step."""
    # The last line may still be incomplete.
    lines = metrics.read_text(encoding="utf-8").split("\n")[:-1] if metrics.exists() else []
    steps = [line for line in map(json.loads, lines) if line["split"] == "train"]
    return (steps[-1]["step"], steps[-1]["tokens"]) if steps else None


def side_by_side(*calls: Callable[[], Result]) -> list[Result]:
    """Run all sides at the same time and return their results; the first error of one of them is raised."""
    results: list[Result | BaseException] = [RuntimeError("did not run")] * len(calls)

    def run(number: int) -> None:
        try:
            results[number] = calls[number]()
        except BaseException as error:
            results[number] = error

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results
