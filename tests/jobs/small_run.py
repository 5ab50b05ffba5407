"""A small data set with a real vocabulary, a finished pretraining run on it, and what to compare of runs."""

from pathlib import Path

from jobs.pretrain import PretrainConfig, pretrain
from model.bert_config import BertShape
from model.runs.metrics import TIMING_KEYS, read_metrics
from tests.model.synthetic import NUM_WORDS, SPECIAL, write_data_set

TINY = BertShape(
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=64,
    max_position_embeddings=64,
)
PIECES = [*"abcdefghijklmnopqrstuvwxyz0123456789,.!?", "the", "house", "北", "京", "é", "ж"]
WORDS = [*(f"w{number}" for number in range(NUM_WORDS)), *PIECES, *(f"##{piece}" for piece in PIECES)]
VOCABULARY = "".join(word + "\n" for word in [*SPECIAL, *WORDS]).encode()


CODE = "import sys; from jobs.pretrain import main; sys.exit(main(sys.argv[1:]))"
"""`bertloom pretrain`, for a process of its own."""


def make_data(directory: Path, **changes) -> Path:
    """A data set of two lengths."""
    values = {"rows": (300,), "num_validation": 60, "max_seq_lengths": (32, 64), "vocabulary": VOCABULARY}
    return write_data_set(directory, **values | changes)


def run_config(data: Path | str | tuple[str, ...], out: Path, **changes) -> PretrainConfig:
    values = {
        "num_steps": 6,
        "batch_size": 16,
        "micro_batch_size": 8,
        "learning_rate": 3e-3,
        "model": TINY,
        "device": "cpu",
        "eval_every": 100,
        "num_eval_examples": 40,
        "save_every": 4,
        "num_threads": 1,
    }
    if changes.keys() & {"num_epochs", "num_tokens", "budget"}:
        del values["num_steps"]
    return PretrainConfig(data=data if isinstance(data, tuple) else str(data), out=out, **values | changes)


def phases_config(data: Path | str | tuple[str, ...], out: Path, table: str, **changes) -> PretrainConfig:
    """Settings of a run over the phases of a table, with new masks."""
    values = {"num_steps": 16, "phases": (table,), "remask": True, "keep_checkpoints": 99, "warmup_ratio": 0.2}
    return run_config(data, out, **values | changes)


def make_run(data: Path, out: Path, **changes) -> Path:
    """A finished run of six steps, with the checkpoints of the fourth and the sixth."""
    pretrain(run_config(data, out, **changes))
    return out


def numbers(out: Path) -> list[dict]:
    """The metrics of a run without what depends on the clock."""
    return [{k: v for k, v in line.items() if k not in TIMING_KEYS} for line in read_metrics(out / "metrics.jsonl")]


def train_lines(out: Path) -> list[dict]:
    """The same, of its steps alone."""
    return [line for line in numbers(out) if line["split"] == "train"]


def learnt(out: Path) -> dict[str, bytes]:
    """The weights and moments of a run's last checkpoint."""
    last = max((out / "checkpoints").iterdir())
    return {name: (last / name).read_bytes() for name in ("model.safetensors", "optimizer.safetensors")}
