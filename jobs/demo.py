"""The whole road on the shipped sample: vocabulary, shards, a training that is killed and goes on, a model for others.

    bertloom demo --out demo

About two minutes on two cores. Every step is the real command; the summary says how to repeat each on texts of your own.
"""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from jobs.support.config import parse

BARS = "▁▂▃▄▅▆▇█"
OURS = ("vocab.txt", "dataset", "run", "hugging_face")


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """The whole road on the shipped sample, English and Chinese."""

    out: Path = Path("demo")
    """The folder to write. What an earlier demo left there is replaced."""
    num_steps: int = 400
    """Training steps of the tiny model."""
    num_workers: int = 2
    """Processes that preprocess."""

    def __post_init__(self):
        if self.num_steps < 20:
            raise ValueError(
                f"--num-steps {self.num_steps}: expected 20 or more, so that there is something to interrupt"
            )


def main(argv: Sequence[str]) -> None:
    demo(parse(DemoConfig, argv, prog="bertloom demo"))


def demo(config: DemoConfig) -> None:
    began = time.monotonic()
    out = config.out
    _make_room(out)
    sample = [str(files("jobs") / "sample" / name) for name in ("en.jsonl", "zh.txt")]
    vocabulary, dataset, run, exported = (out / name for name in OURS)

    _title("1. A vocabulary from the texts")
    _bertloom("build-vocab", "--input", *sample, "--vocab-size", "8000", "--out", vocabulary)
    _title("2. Texts to shards: documents, sentences, pairs, masks")
    _bertloom(
        "preprocess",
        "--input",
        *sample,
        "--vocab",
        vocabulary,
        "--out",
        dataset,
        "--max-seq-length",
        "128",
        "--dupe-factor",
        "5",
        "--validation-fraction",
        "0.1",
        "--num-workers",
        config.num_workers,
    )
    _title("3. Are they whole, and what is in them?")
    _bertloom("verify", dataset)
    _bertloom("inspect", dataset, "--examples", "2")
    _title("4. Training, killed half-way (kill -9) and started again")
    training = (
        "pretrain",
        "tiny",
        "--data",
        dataset,
        "--out",
        run,
        "--num-steps",
        config.num_steps,
        "--save-every",
        "50",
    )
    _bertloom(*training, kill_at=(run / "metrics.jsonl", config.num_steps // 2))
    _bertloom(*training)
    _title("5. The model for Hugging Face transformers, and a word that it finds")
    _bertloom("export", "--checkpoint", run, "--out", exported)
    _bertloom("predict", "--model", exported, "--fill", "It was the [MASK] of the house.", "--top-k", "3")
    _summary(config, time.monotonic() - began)


def _make_room(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out}: is a file; expected a folder, or nothing there")
    others = sorted(path.name for path in out.iterdir() if path.name not in OURS) if out.exists() else []
    if others:
        raise ValueError(
            f"--out {out}: holds {', '.join(others[:5])}, which no demo wrote; expected an empty or new folder"
        )
    for name in OURS:
        path = out / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    out.mkdir(parents=True, exist_ok=True)


def _bertloom(*words: object, kill_at: tuple[Path, int] | None = None) -> None:
    """Runs one command as a person would, in a process of its own; kills it once its metrics have so many lines."""
    print("$ bertloom " + shlex.join(str(word) for word in words), flush=True)
    process = subprocess.Popen([sys.executable, "-m", "jobs.cli", *(str(word) for word in words)])
    if kill_at:
        metrics, lines = kill_at
        while process.poll() is None and not (metrics.exists() and len(metrics.read_bytes().splitlines()) > lines):
            time.sleep(0.05)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            process.wait()
            print(f"\n… killed at about step {lines}; the same command again:", flush=True)
            return
    if process.wait() != 0:
        raise ValueError(f"bertloom {words[0]} ended with status {process.returncode}: see its message above")


def _summary(config: DemoConfig, seconds: float) -> None:
    from model.runs.checkpoint import latest_checkpoint
    from model.runs.metrics import read_metrics

    out = config.out
    manifest = json.loads((out / "dataset" / "manifest.json").read_text())
    lines = list(read_metrics(out / "run" / "metrics.jsonl"))
    train = [line for line in lines if line["split"] == "train"]
    validation = [line for line in lines if line["split"] == "validation"]
    first, last = validation[0], validation[-1]
    checkpoint = latest_checkpoint(out / "run" / "checkpoints")
    assert checkpoint is not None
    counters = manifest["counters"]
    size = sum(file.stat().st_size for file in (out / "dataset").rglob("*.tar"))
    speed = sorted(line["tokens_per_second"] for line in train)[len(train) // 2]
    _title(f"Done in {seconds / 60:.1f} minutes")
    print(f"""\
 {counters["documents_in"]:,} documents, {counters["text_bytes"] / 1e6:.1f} MB of English and Chinese
   became {sum(counters["examples"].values()):,} examples ({size / 1e6:.1f} MB of shards), half with a random next segment,
   and {len(train):,} steps of training ({speed:,.0f} real tokens a second), with a kill -9 in the middle that cost nothing.

 loss          {_curve([line["loss"] for line in train])}  {train[0]["loss"]:.2f} → {train[-1]["loss"]:.2f}
 held out      masked words   {_change(first, last, "mlm")}
               next sentence  {_change(first, last, "nsp")}
   A minute on two cores teaches a model which words are frequent, and a little of what goes with what; more does the rest.

 What was made
   {out / "vocab.txt"}   {manifest["vocabulary"]["size"]:,} word pieces
   {out / "dataset"}     shards, opened by pyarrow and webdataset alike; manifest.json says how they came to be
   {out / "run"}         metrics.jsonl, config.toml and the model, {checkpoint[0].name}
   {out / "hugging_face"}   BertForPreTraining.from_pretrained("{out / "hugging_face"}") in transformers

 What to try next
   bertloom inspect {out / "dataset"} --examples 10         read what the model reads
   bertloom build-vocab --input 'texts/*.txt' --vocab-size 30000 --out vocab.txt
   bertloom preprocess --input 'texts/*.txt' --vocab vocab.txt --out dataset --num-workers {os.cpu_count()}
   bertloom pretrain tiny --data dataset --out run --budget 30m    presets: tiny mini small base large""")


def _change(first: dict[str, float], last: dict[str, float], task: str) -> str:
    """How a task's loss and accuracy changed, in words."""
    loss, right = f"{task}_loss", f"{task}_accuracy"
    return f"loss {first[loss]:.2f} → {last[loss]:.2f}   right {first[right]:.1%} → {last[right]:.1%}"


def _curve(values: Sequence[float], width: int = 40) -> str:
    means = [
        sum(part) / len(part)
        for i in range(width)
        if (part := values[i * len(values) // width : (i + 1) * len(values) // width])
    ]
    low, high = min(means), max(means)
    return "".join(BARS[round((value - low) / max(high - low, 1e-9) * (len(BARS) - 1))] for value in means)


def _title(text: str) -> None:
    print(f"\n── {text} {'─' * max(0, 88 - len(text))}", flush=True)
