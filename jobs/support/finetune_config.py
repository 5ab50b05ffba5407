"""The configuration of fine-tuning, which `jobs/finetune.py` runs."""

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from model.pooling import Pooling
from model.precision import Precision
from model.schedule import check_learning_rate
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
"""Fields that change the numbers of a run by rounding at most. Model and files count by their content."""
TASK_FLAGS = ("label_separator", "pooling", "normalize", "temperature", "symmetric")
"""Fields for some tasks only, see `Task.flags`."""


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """Fine-tune a pretrained BERT for a task, or resume it."""

    ALTERNATIVES: ClassVar = (("warmup_ratio", "warmup_steps"),)

    task: TaskName
    """classify: a class for a text. pair: a class for two texts. regress: a number for one text or two. tag: a class for
    each word. span: the answer to a question, as a part of its context. multilabel: any number of labels for one text or
    two. choice: the right one of several endings of a context. embed: vectors for search, from pairs of texts that belong
    together, or from texts alone. docs/finetuning.md shows rows for each."""
    model: Path
    """Pretrained model: a run folder of `bertloom pretrain`, or a directory in transformers' format."""
    train: Path
    """Training rows: .jsonl, .csv, .tsv, .parquet, .arrow, .json (a list, or SQuAD's format). For tag also .conll, .bio,
    .txt or .conllu, with a word in each line."""
    dev: Path
    """Dev rows, which choose the best model."""
    out: Path
    """Run folder: a new one, or one to resume."""
    columns: tuple[str, ...] = ()
    """Names of columns that are not found automatically: text=review label=stars. For .conll, their numbers from 0: tags=2.
    For multilabel and choice, several columns may be given: labels=toxic,insult,threat."""
    labels: tuple[str, ...] = ()
    """Classes in the order of their ids. The default is the sorted classes of the training rows."""
    label_separator: str | None = None
    """For multilabel: what separates the labels, if those of a text are one string: ";" for "drama; war". By default they
    are a list, or a column of 0 and 1 for each label."""
    pooling: Pooling | None = None
    """For tasks on whole texts: the vector of a text is the mean over all its tokens, or the vector of [CLS]. The default is
    the pooling that the model was trained with; if there is none, mean for embed, and for other tasks the one in its
    config.json. BERT's classifiers have only cls."""
    normalize: bool | None = None
    """For embed: whether the finished model makes vectors of length 1. Training always compares cosines. The
    default is yes."""
    temperature: float | None = None
    """For embed: divides the cosines in the loss. A lower one gives the most similar wrong texts more weight.
    The default is 0.05, as in SimCSE and sentence-transformers."""
    symmetric: bool | None = None
    """For embed: whether the second text of a pair must also find the first one. The default is no."""
    on_bad_row: Literal["stop", "skip"] = "stop"
    """What to do about unusable rows: stop and report them, or skip them and record them in bad_rows.jsonl."""
    max_seq_length: int | None = None
    """Longest sequence, in tokens. The default is the length that the model was pretrained on. Sequences are not padded, so
    a large value costs nothing if texts are short."""
    stride: int | None = None
    """Distance between the windows over a long text, in tokens. The default is half a window. Two texts are not read in
    windows."""
    max_windows: int | None = None
    """Largest number of windows of a text; 1 truncates long texts. The default is to read all of it."""
    num_epochs: float = 3.0
    """Passes over the training rows. BERT used 2 to 4."""
    batch_size: int = 32
    """Items per update: rows, or windows for tag and span. BERT used 16 or 32. For embed, all texts of a step are compared
    with each other, so more is better: 256 to 1,024."""
    micro_batch_size: int = 32
    """Largest number of sequences in memory. A text with several windows counts as several, and is not divided; for embed, a
    pair is two. Changes results only by rounding, and by the dropout that is drawn."""
    learning_rate: float | Literal["auto"] = "auto"
    """Peak learning rate, followed by a linear decay to 0. auto depends on the model's width: 5e-5 for a width of 768 as in
    BERT, and more for smaller models (docs/finetuning.md)."""
    warmup_ratio: float = 0.1
    """Share of training that is learning-rate warm-up. BERT used 0.1."""
    warmup_steps: int | None = None
    """Number of steps of the learning-rate warm-up, instead of --warmup-ratio."""
    layer_decay: float = 1.0
    """Factor of the learning rate from each layer to the one below. ELECTRA used 0.8 for base and 0.9 for large."""
    frozen_layers: int = 0
    """Number of the lowest layers to freeze, together with the embeddings."""
    weight_decay: float = 0.01
    """Weight decay of matrices and embeddings. BERT used 0.01."""
    max_gradient_norm: float = 1.0
    """Norm for gradient clipping. BERT used 1.0."""
    dropout: float = 0.1
    """Dropout of hidden states, and before the classifier. BERT used 0.1."""
    attention_dropout: float = 0.0
    """Dropout of attention weights. BERT used 0.1. Above 0, attention on CUDA reads padded sequences, which is slower."""
    class_weights: tuple[str, ...] = ()
    """Weights of the classes in the loss: positive=3 (others 1), or balanced, for the same total weight of each class. For
    multilabel they weight the texts that have the label."""
    metric: str | None = None
    """Metric that chooses the best model: accuracy, macro_f1, matthews; pearson, spearman; f1, exact_match; micro_f1;
    ndcg_at_10, … The default is the first one that is printed."""
    eval_every: int | None = None
    """Steps between evaluations on the dev rows. The default is the end of each epoch."""
    patience: int | None = None
    """Number of evaluations in a row without an improvement that ends training. The default is not to end it early."""
    seeds: tuple[int, ...] = (1,)
    """Seeds for the new weights, the order of rows and dropout. Several seeds give several runs, with mean and deviation."""
    random_weights: bool = False
    """Use random weights, and only the shape and vocabulary of the model, to measure the benefit of pretraining."""
    save_every: int = 500
    """Steps between checkpoints. Every evaluation saves one, too."""
    device: str = "auto"
    """Device: cpu, cuda, cuda:1, … auto is cuda if available, otherwise cpu."""
    precision: Precision = "auto"
    """Precision of forward and backward pass; the optimizer and checkpoints always have 32 bits. auto is bf16 on CUDA
    (fp16 on GPUs before Ampere), otherwise fp32."""
    num_threads: int | None = None
    """CPU threads. The default is torch's choice. Results differ in rounding between numbers of threads."""

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
        for name in ("num_epochs", "max_gradient_norm", "layer_decay"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}={getattr(self, name):g} must be above 0")
        if self.learning_rate != "auto":
            check_learning_rate(self.learning_rate, usual_exponent=-5)
        if self.warmup_steps is not None and self.warmup_steps < 0:
            raise ValueError(f"warmup_steps={self.warmup_steps} must be at least 0")
        for name in ("warmup_ratio", "dropout", "attention_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name):g} must be at least 0 and below 1")
        if self.max_seq_length is not None and self.max_seq_length < 8:
            raise ValueError(f"max_seq_length={self.max_seq_length} must be at least 8")
        if self.weight_decay < 0 or self.frozen_layers < 0:
            raise ValueError(
                f"weight_decay={self.weight_decay:g} and frozen_layers={self.frozen_layers} must be at least 0"
            )
        if (
            not self.seeds
            or len(set(self.seeds)) < len(self.seeds)
            or not all(0 <= seed < 2**63 for seed in self.seeds)
        ):
            raise ValueError(f"seeds={self.seeds} must be distinct numbers from 0 to 2^63 - 1, at least one")
        if len(set(self.labels)) < len(self.labels) or len(self.labels) == 1:
            raise ValueError(f"labels={' '.join(self.labels)} must be at least two distinct classes")
        if (self.labels or self.class_weights) and not task_class(self.task).has_classes:
            raise ValueError(f"{self.task} has no classes: omit --labels and --class-weights")
        for name in TASK_FLAGS:
            if getattr(self, name) is not None and name not in task_class(self.task).flags:
                raise ValueError(f"{name}={getattr(self, name)!r}: {self.task} does not use it: omit it")
        if self.temperature is not None and not 0 < self.temperature < math.inf:
            raise ValueError(f"temperature={self.temperature:g} must be above 0; 0.05 is usual")
        if self.label_separator == "":
            raise ValueError("label_separator is empty: give the sign between two labels, such as ';'")
        pairs("columns", self.columns)
        self.weights_by_label()

    def weights_by_label(self) -> dict[str, float]:
        """Return the class weights by label; none if they are balanced."""
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

    def task_flags(self) -> dict[str, Any]:
        """Return the values of the flags that only some tasks have, as far as they are given."""
        values = {name: getattr(self, name) for name in task_class(self.task).flags}
        return {name: value for name, value in values.items() if value is not None}

    def settings(self) -> dict[str, Any]:
        """Return the settings that decide the numbers, except model, files and seed."""
        return {name: value for name, value in asdict(self).items() if name not in NOT_DECIDING}


def pairs(name: str, words: tuple[str, ...]) -> dict[str, str]:
    """Return NAME=VALUE words as a table.

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
