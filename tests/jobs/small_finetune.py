"""The configuration of a small fine-tuning run, and what to compare of runs."""

from pathlib import Path

from jobs.finetune import FinetuneConfig
from model.runs.metrics import TIMING_KEYS, read_metrics


def config(encoder: Path, task_files, out: Path, task: str = "classify", **changes) -> FinetuneConfig:
    train, dev = task_files[task]
    values = {"num_epochs": 2.0, "batch_size": 16, "learning_rate": 3e-3, "device": "cpu", "num_threads": 1}
    return FinetuneConfig(**{"task": task, "model": encoder, "train": train, "dev": dev, "out": out} | values | changes)


def lines(out: Path) -> list[dict]:
    """The metrics without what depends on the clock."""
    return [{k: v for k, v in line.items() if k not in TIMING_KEYS} for line in read_metrics(out / "metrics.jsonl")]


def weights(out: Path) -> bytes:
    return (out / "model" / "model.safetensors").read_bytes()
