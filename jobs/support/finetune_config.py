"""What can be chosen about fine-tuning; `jobs/finetune.py` does it."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from model.tasks.registry import TaskName, task_class

NOT_DECIDING = (
    "model",
    "train",
    "dev",
    "out",
    "seeds",
    "on_bad_row",
    "micro_batch_size",
    "save_every",
    "device",
    "precision",
    "num_threads",
)
"""Fields that do not decide the numbers of a run beyond rounding; model and files do so by their content."""


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """Trains a pretrained BERT for a task; started again, it resumes."""

    task: TaskName
    """classify: a text has a class. pair: two texts have one. regress: a text, or two, have a number. tag: each word has
    a class. span: a question is answered by a part of its context."""
    model: Path
    """A run folder of `bertloom pretrain`, or a directory in transformers' form."""
    train: Path
    """Rows to train on: .jsonl, .csv, .tsv, .parquet, or .json (SQuAD's form for span)."""
    dev: Path
    """Rows to measure on; the best model is chosen by them."""
    out: Path
    """The run folder: a new one, or one to go on with."""
    columns: tuple[str, ...] = ()
    """Names of columns that are not found by themselves: text=review label=stars."""
    labels: tuple[str, ...] = ()
    """The classes in the order of their ids; those of the training rows, sorted, if none are given."""
    on_bad_row: Literal["stop", "skip"] = "stop"
    """What to do about rows that cannot be used: stop and name them, or leave them out, counted, in bad_rows.jsonl."""
    max_seq_length: int | None = None
    """Tokens of a sequence, at most; what the model was pretrained on, if none is given. Nothing is padded, so a large
    one costs nothing where texts are short."""
    stride: int | None = None
    """Tokens from the beginning of one window over a long text to that of the next; half a window, if none is given. Two
    texts are not read in windows."""
    max_windows: int | None = None
    """Windows of a text, at most; 1 cuts long texts off. All of it is read, if none is given."""
    num_epochs: float = 3.0
    """Passes over the training rows. BERT: 2 to 4."""
    batch_size: int = 32
    """Items in an update: rows, for tag and span windows. BERT: 16 or 32."""
    micro_batch_size: int = 32
    """Sequences in memory at once, at most: a text that is read in several windows counts as so many, but stays whole.
    Changes no result beyond rounding, and what dropout draws."""
    learning_rate: float = 5e-5
    """At its peak; it rises, and falls in a line to 0. BERT: 2e-5 to 5e-5; smaller models take more."""
    warmup_ratio: float = 0.1
    """Share of the steps in which the learning rate rises. BERT: 0.1."""
    layer_decay: float = 1.0
    """Each layer learns with this share of the rate of what is above it. ELECTRA: 0.8 for base, 0.9 for large."""
    frozen_layers: int = 0
    """How many of the lowest layers, and with them the embeddings, stay as they are."""
    weight_decay: float = 0.01
    """Decay of matrices and embeddings. BERT: 0.01."""
    max_gradient_norm: float = 1.0
    """The gradient of a batch is scaled down to this norm where it is larger. BERT: 1.0."""
    dropout: float = 0.1
    """Of hidden states, and before the classifier. BERT: 0.1."""
    attention_dropout: float = 0.0
    """Of attention weights. BERT: 0.1. Above 0, CUDA takes a much slower way."""
    class_weights: tuple[str, ...] = ()
    """How much the classes count in the loss: positive=3 (others 1), or balanced, so that all count the same in sum."""
    metric: str | None = None
    """What the best model is chosen by: accuracy, macro_f1, matthews; pearson, spearman; f1, exact_match …; the first
    one that is printed, if none is given."""
    eval_every: int | None = None
    """Steps between measurements on the dev rows; the end of each epoch, if none is given."""
    patience: int | None = None
    """Measurements in a row without a better one after which training ends; none ends it, if none is given."""
    seeds: tuple[int, ...] = (1,)
    """Of the new weights, the order of rows and dropout; several make several runs, and a mean and deviation."""
    random_weights: bool = False
    """Draw all weights anew, and take only shape and vocabulary of the model: to see what its pretraining was worth."""
    save_every: int = 500
    """Steps between checkpoints; each measurement saves one too."""
    device: str = "auto"
    """cuda, cuda:1, cpu …; auto takes cuda where there is one."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """bf16: matrix products in 16 bits, weights in 32. auto takes it on CUDA."""
    num_threads: int | None = None
    """Threads of the CPU's matrix products; torch's choice if none is given. Another number rounds differently."""

    def __post_init__(self) -> None:
        for name in (
            "max_windows",
            "stride",
            "batch_size",
            "micro_batch_size",
            "eval_every",
            "patience",
            "save_every",
            "num_threads",
        ):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        for name in ("num_epochs", "learning_rate", "max_gradient_norm", "layer_decay"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}={getattr(self, name):g} must be above 0")
        for name in ("warmup_ratio", "dropout", "attention_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name):g} must be at least 0 and below 1")
        if self.max_seq_length is not None and self.max_seq_length < 8:
            raise ValueError(f"max_seq_length={self.max_seq_length} must be at least 8")
        if self.weight_decay < 0 or self.frozen_layers < 0:
            raise ValueError(
                f"weight_decay={self.weight_decay:g} and frozen_layers={self.frozen_layers} must not be below 0"
            )
        if (
            not self.seeds
            or len(set(self.seeds)) < len(self.seeds)
            or not all(0 <= seed < 2**63 for seed in self.seeds)
        ):
            raise ValueError(f"seeds={self.seeds} must be one or several numbers from 0 to 2^63 - 1, each once")
        if len(set(self.labels)) < len(self.labels) or len(self.labels) == 1:
            raise ValueError(f"labels={' '.join(self.labels)} must be at least two, each once")
        if (self.labels or self.class_weights) and not task_class(self.task).has_classes:
            raise ValueError(f"{self.task} has no classes: leave --labels and --class-weights out")
        pairs("columns", self.columns)
        self.weights_by_label()

    def weights_by_label(self) -> dict[str, float]:
        """The class weights that are given by label; none if they are to be balanced."""
        if self.class_weights == ("balanced",):
            return {}
        weights = {}
        for label, text in pairs("class_weights", self.class_weights).items():
            try:
                weights[label] = float(text)
            except ValueError:
                weights[label] = -1.0
            if not 0 < weights[label] < float("inf"):
                raise ValueError(f"class_weights: {label}={text}: expected a number above 0")
        return weights

    def deciding(self) -> dict[str, Any]:
        """What decides the numbers of a run, beside its model, its files and its seed."""
        return {name: value for name, value in asdict(self).items() if name not in NOT_DECIDING}


def pairs(name: str, words: tuple[str, ...]) -> dict[str, str]:
    """NAME=VALUE words as a table.

    >>> pairs("columns", ("text=review",))
    {'text': 'review'}
    """
    table = {}
    for word in words:
        key, equals, value = word.rpartition("=")
        if not key or not value:
            raise ValueError(f"{name}: {word!r} is not of the form NAME=VALUE")
        if key in table:
            raise ValueError(f"{name}: {key!r} is given twice")
        table[key] = value
    return table
