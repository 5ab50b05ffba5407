"""A guided tour on the sample texts: vocabulary, shards, a training run that is killed and resumed, an exported model.

    bertloom demo --out demo

It takes a few minutes on two cores. Each step runs the real command and shows how to do the same with your own texts.
"""

import json
import os
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from bertloom.processes import command_of
from jobs.support.config import parse
from jobs.support.outputs import own_folder

BARS = "▁▂▃▄▅▆▇█"
WIDTH = 92
OURS = ("vocab.txt", "dataset", "run", "hugging_face")


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """Run every step on the English and Chinese sample texts, in a few minutes."""

    out: Path = Path("demo")
    """Folder to write. Files of an earlier demo in it are replaced."""
    num_steps: int = 400
    """Training steps of the tiny model, at least 20."""
    num_workers: int = 2
    """Worker processes of `preprocess`."""

    def __post_init__(self) -> None:
        if self.num_steps < 20:
            raise ValueError(
                f"--num-steps {self.num_steps}: expected at least 20, because the run is interrupted half-way"
            )


def main(argv: Sequence[str]) -> None:
    demo(parse(DemoConfig, argv, prog="bertloom demo"))


def demo(config: DemoConfig) -> None:
    """Run the tour and print a summary."""
    began = time.monotonic()
    _clear(config.out)
    sample = [str(files("jobs") / "sample" / name) for name in ("en.jsonl", "zh.txt")]
    vocabulary, dataset, run, exported = (config.out / name for name in OURS)

    _step(
        "1. Build a vocabulary",
        "Count the words of two public-domain sample files, one English and one Chinese, and choose 8,000 word pieces.",
        "bertloom build-vocab --input 'texts/*.txt' --vocab-size 30000 --out vocab.txt",
    )
    _bertloom("build-vocab", "--input", *sample, "--vocab-size", 8000, "--out", vocabulary)

    _step(
        "2. Turn the texts into shards",
        "Find documents and sentences, pair sentences, mask words in 5 different ways, and write the examples to shards.",
        "bertloom preprocess --input 'texts/*.txt' --vocab vocab.txt --out dataset --num-workers 8",
    )
    lengths = ("--max-seq-length", 128, "--dupe-factor", 5, "--validation-fraction", 0.1)
    places = ("--input", *sample, "--vocab", vocabulary, "--out", dataset)
    _bertloom("preprocess", *places, *lengths, "--num-workers", config.num_workers)

    _step(
        "3. Check the shards and read two examples",
        f"Compare every file with its checksum, then decode two examples. {dataset / 'report.html'} has charts.",
        "bertloom verify dataset",
    )
    _bertloom("verify", dataset)
    _bertloom("inspect", dataset, "--examples", 2)

    _step(
        "4. Train, get killed, resume",
        f"Train a tiny model for {config.num_steps} steps. Half-way the process is killed with `kill -9`. The same command\n"
        "then resumes from the last checkpoint, and the losses are those of an uninterrupted run.",
        "bertloom pretrain tiny --data dataset --out run --budget 30m",
    )
    every = ("--num-steps", config.num_steps, "--save-every", 50)
    training = ("pretrain", "tiny", "--data", dataset, "--out", run, *every)
    _bertloom(*training, kill_at=(run / "metrics.jsonl", config.num_steps // 2))
    _bertloom(*training)

    _step(
        "5. Export the model and use it",
        "Write the model for Hugging Face transformers, and let it guess a masked word.",
        "bertloom export --checkpoint run --out my-bert",
    )
    _bertloom("export", "--checkpoint", run, "--out", exported)
    _bertloom("predict", "--model", exported, "--fill", "It was the [MASK] of the house.", "--top-k", 3)
    _summary(config, time.monotonic() - began)


def _clear(out: Path) -> None:
    """Make `out` a folder without files of an earlier demo. What no demo wrote is not deleted."""
    own_folder(out, "demo")
    for name in OURS:
        path = out / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _step(title: str, what: str, own_data: str) -> None:
    print(f"\n── {title} {'─' * max(0, WIDTH - 4 - len(title))}\n{what}\nWith your own data: {own_data}\n", flush=True)


def _bertloom(*words: object, kill_at: tuple[Path, int] | None = None) -> None:
    """Run a command in its own process. `kill_at`: kill it once this file of metrics has more lines than this."""
    print("$ bertloom " + shlex.join(str(word) for word in words), flush=True)
    process = subprocess.Popen(command_of("jobs.cli", *map(str, words)))
    if kill_at:
        metrics, lines = kill_at
        while process.poll() is None and not (metrics.exists() and len(metrics.read_bytes().splitlines()) > lines):
            time.sleep(0.05)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            process.wait()
            print(f"\nThe process was killed at about step {lines}. The same command again:\n", flush=True)
            return
    if process.wait() != 0:
        raise ValueError(f"bertloom {words[0]} ended with status {process.returncode}: its error message is above")


def _summary(config: DemoConfig, seconds: float) -> None:
    from model.runs.checkpoint import latest_checkpoint
    from model.runs.metrics import read_metrics
    from model.runs.state import TrainingState

    out = config.out
    manifest = json.loads((out / "dataset" / "manifest.json").read_text())
    lines = list(read_metrics(out / "run" / "metrics.jsonl"))
    train = [line for line in lines if line["split"] == "train"]
    validation = [line for line in lines if line["split"] == "validation"]
    first, last = validation[0], validation[-1]
    checkpoint = latest_checkpoint(out / "run" / "checkpoints", TrainingState)
    assert checkpoint is not None
    counters = manifest["counters"]
    size = sum(file.stat().st_size for file in (out / "dataset").rglob("*.tar"))
    speed = sorted(line["tokens_per_second"] for line in train)[len(train) // 2]
    title = f"Done in {seconds / 60:.1f} minutes"
    exported = str(out / "hugging_face")
    width = len(exported)
    print(f"""
── {title} {"─" * (WIDTH - 4 - len(title))}
{counters["documents_in"]:,} documents ({counters["text_bytes"] / 1e6:.1f} MB of English and Chinese text) became
{sum(counters["examples"].values()):,} examples ({size / 1e6:.1f} MB of shards). Half of them have a random second segment.
The model trained for {len(train):,} steps at {speed:,.0f} tokens per second, padding not counted.

  training loss            {_curve([line["loss"] for line in train])}  {train[0]["loss"]:.2f} → {train[-1]["loss"]:.2f}
  held out, masked words   {_change(first, last, "mlm")}
  held out, next sentence  {_change(first, last, "nsp")}

One minute on two cores is enough to learn which words are frequent. A useful model needs more text and more time.

Files
  {str(out / "vocab.txt"):{width}}   {manifest["vocabulary"]["size"]:,} word pieces
  {str(out / "dataset"):{width}}   shards (open them with pyarrow or webdataset), report.html, manifest.json
  {str(out / "run"):{width}}   config.toml, metrics.jsonl, and the model in checkpoints/{checkpoint[0].name}
  {exported}   the model for transformers: BertForPreTraining.from_pretrained("{exported}")

Look at the data set and the run in a browser
  bertloom browse {out / "dataset"} {out / "run"}

Next, with your own texts (.txt, .jsonl, .parquet and more; `bertloom preprocess --help` lists all)
  bertloom build-vocab --input 'texts/*.txt' --vocab-size 30000 --out vocab.txt
  bertloom preprocess --input 'texts/*.txt' --vocab vocab.txt --out dataset --num-workers {os.cpu_count()}
  bertloom pretrain tiny --data dataset --out run --budget 30m        presets: tiny, mini, small, base, large
  bertloom export --checkpoint run --out my-bert""")


def _change(first: dict[str, float], last: dict[str, float], task: str) -> str:
    """Return the change of a task's loss and accuracy as text."""
    loss, accuracy = f"{task}_loss", f"{task}_accuracy"
    return f"loss {first[loss]:.2f} → {last[loss]:.2f}   accuracy {first[accuracy]:.1%} → {last[accuracy]:.1%}"


def _curve(values: Sequence[float], width: int = 40) -> str:
    """Return a line of block characters that shows the values, averaged over `width` equal parts."""
    means = [
        sum(part) / len(part)
        for i in range(width)
        if (part := values[i * len(values) // width : (i + 1) * len(values) // width])
    ]
    low, high = min(means), max(means)
    return "".join(BARS[round((value - low) / max(high - low, 1e-9) * (len(BARS) - 1))] for value in means)
