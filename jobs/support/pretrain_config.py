"""What can be chosen about a training run; `jobs/pretrain.py` runs it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from model.bert import BertShape
from model.loading.cache import DEFAULT_CACHE_GB
from model.loading.order import parse_shuffle
from model.optimizer import Name
from model.runs.resume import CHANGEABLE
from model.runs.sinks import SinkName
from model.schedule import Schedule, Shape, parse_budget, parse_phases


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """Trains a BERT on a data set; started again, it resumes. Presets: tiny, mini, small, base, large."""

    data: str
    """The data set, as `bertloom preprocess` wrote it: a folder, or s3://…, gs://…, https://…"""
    out: Path
    """The run folder: a new one, or one to go on with."""
    init_from: Path | None = None
    """A model whose weights to begin with, instead of random ones: a run, or a directory in transformers' form. Its shape
    has to be that of model: give the config.toml of its run folder as a preset; `bertloom import` writes one too."""
    num_steps: int | None = None
    """Updates of the weights in all."""
    num_tokens: int | None = None
    """Real tokens to train on in all, instead of num_steps: the schedule then counts in tokens."""
    budget: str | None = None
    """Wall-clock time to train for in all, as 1h30m, instead of num_steps. The one schedule that cannot be exact: what
    is read and learnt by the end depends on the machine."""
    batch_size: int = 256
    """Examples in an update (the global batch). BERT had 256."""
    micro_batch_size: int = 32
    """Examples in memory at once on each device, at most; of longer phases as many fewer as they are longer. Changes no
    result beyond rounding, and what dropout draws."""
    max_seq_length: int | None = None
    """Which of the data set's lengths to train on, in tokens; the shortest if none is given."""
    phases: tuple[str, ...] = ()
    """Several lengths one after the other, as LENGTH:SHARE or LENGTH:SHARE:BATCH_SIZE. BERT: 128:0.9 512:0.1."""
    remask: bool = False
    """Draw new masks for an example in every epoch that reads it, instead of those of the data set's copies. For data with
    masks of single tokens; evaluation keeps the masks that are there."""
    learning_rate: float = 1e-4
    """At its peak. BERT: 1e-4 at a batch of 256; smaller models and larger batches take more."""
    warmup_ratio: float = 0.06
    """Share of the training in which the learning rate rises. BERT: 0.01, RoBERTa: 0.06."""
    decay: Shape = "linear"
    """How the learning rate falls: linear or cosine behind the warm-up; wsd stays, and falls in a line at the end."""
    decay_ratio: float = 0.2
    """Share of the training in which wsd falls."""
    optimizer: Name = "adamw"
    """lamb is for batches above about 8,000 examples (You et al. 2020). muon takes the matrices of the layers and leaves
    the rest to adamw, at the same learning rate (Jordan et al. 2024); see docs/experiments.md."""
    weight_decay: float = 0.01
    """Decay of matrices and embeddings. BERT: 0.01."""
    max_gradient_norm: float = 1.0
    """The gradient of the global batch is scaled down to this norm where it is larger. BERT: 1.0."""
    cache_dir: Path | None = None
    """Of data behind a URL: the folder on a local disk for what is fetched, shared by the ranks of a machine and by
    runs; ~/.cache/bertloom if none is given."""
    cache_gb: float = DEFAULT_CACHE_GB
    """How much of it to keep, in 10^9 bytes; what was not used for longest makes room."""
    seed: int = 1
    """Of the order of examples, the initial weights and dropout."""
    shuffle: str = "global"
    """Order of the examples of an epoch: global, any after any; or window:16, from 16 members of shards (16,384
    examples) at a time, for data behind a URL that does not fit into the cache."""
    model: BertShape = BertShape()
    """The shape of the model."""
    device: str = "auto"
    """cuda, cuda:1, cpu …; auto takes cuda where there is one."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """bf16: matrix products in 16 bits, weights in 32. auto takes it on CUDA. A run keeps what it began with."""
    num_threads: int | None = None
    """Threads of the CPU's matrix products; torch's choice if none is given. Another number rounds differently."""
    eval_every: int = 1000
    """Steps between evaluations on the validation split; the start and the end are always evaluated."""
    num_eval_examples: int = 2048
    """Validation examples in an evaluation, at most."""
    save_every: int = 1000
    """Steps between checkpoints; the end is always saved."""
    keep_checkpoints: int = 2
    """How many checkpoints to keep; older ones are removed."""
    keep_every: int | None = None
    """Checkpoints of steps that are a multiple of this are kept for good."""
    allow_change: tuple[str, ...] = ()
    """What may differ from what the run began with, by name: batch_size num_steps learning_rate data …; recorded."""
    log_every: int = 1
    """Steps between lines in metrics.jsonl."""
    sinks: tuple[SinkName, ...] = ()
    """Where else metrics go: tensorboard, wandb. Neither is installed with bertloom."""
    peak_tflops: float | None = None
    """What one device could do in this precision, in TFLOP/s, for the share of it that is reached (MFU). Known NVIDIA
    devices have their maker's bf16 figure; elsewhere, with none given, there is no MFU."""
    on_bad_step: Literal["stop", "skip"] = "stop"
    """What to do where the loss is no number or a spike: save a checkpoint and stop, or leave the update out. Either way
    the examples of the step are written to bad_steps.jsonl."""
    spike_factor: float | None = None
    """A loss above so many times its running mean is a spike; none is looked for by default."""
    compile: bool = False
    """torch.compile for all but attention, on micro-batches padded to one size. The first step takes longer. Changes no
    result beyond rounding, and what dropout draws."""
    recompute_activations: bool = False
    """Compute each layer again in the backward pass instead of keeping what is in it: less memory, a third more time."""

    def __post_init__(self) -> None:
        sizes = ("num_steps", "num_tokens", "batch_size", "micro_batch_size", "num_eval_examples", "keep_checkpoints")
        for name in (*sizes, "num_threads", "keep_every", "eval_every", "save_every", "log_every"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        if self.learning_rate <= 0 or self.max_gradient_norm <= 0:
            raise ValueError(
                f"learning_rate={self.learning_rate:g} and max_gradient_norm={self.max_gradient_norm:g} must be above 0"
            )
        if not 0 <= self.warmup_ratio < 1:
            raise ValueError(f"warmup_ratio={self.warmup_ratio:g} must be at least 0 and below 1: a share of training")
        if not 0 < self.decay_ratio <= 1 - self.warmup_ratio:
            raise ValueError(
                f"decay_ratio={self.decay_ratio:g} must be above 0 and at most 1 - warmup_ratio = {1 - self.warmup_ratio:g}"
            )
        if self.weight_decay < 0:
            raise ValueError(f"weight_decay={self.weight_decay:g} must not be below 0")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed={self.seed} must be at least 0 and below 2^63")
        if self.max_seq_length is not None and self.phases:
            raise ValueError(f"max_seq_length={self.max_seq_length} and phases: give one, the phases have lengths too")
        lengths = [phase.max_seq_length for phase in parse_phases(self.phases, self.batch_size)] if self.phases else []
        longest = max([*lengths, self.max_seq_length or 0])
        if longest > self.model.max_position_embeddings:
            raise ValueError(too_long(longest, self.model.max_position_embeddings))
        self.length_of_training()
        parse_shuffle(self.shuffle)
        if self.cache_gb <= 0:
            raise ValueError(f"cache_gb={self.cache_gb:g} must be above 0")
        if self.peak_tflops is not None and self.peak_tflops <= 0:
            raise ValueError(f"peak_tflops={self.peak_tflops:g} must be above 0")
        if self.spike_factor is not None and self.spike_factor <= 1:
            raise ValueError(f"spike_factor={self.spike_factor:g} must be above 1: it multiplies the mean of the loss")
        for name in self.allow_change:
            if name not in CHANGEABLE:
                raise ValueError(
                    f"allow_change: {name!r} cannot be changed on the way; expected {', '.join(CHANGEABLE)}"
                )

    def length_of_training(self) -> tuple[Literal["steps", "tokens", "seconds"], float]:
        """What training is counted in, and how long it is: a budget goes before tokens, and tokens before steps."""
        if self.budget is not None:
            return "seconds", parse_budget(self.budget)
        if self.num_tokens is not None:
            return "tokens", self.num_tokens
        if self.num_steps is not None:
            return "steps", self.num_steps
        raise ValueError("how long should it train? Give --num-steps, --num-tokens or --budget, or a preset")

    def schedule(self, shortest: int) -> Schedule:
        """The schedule, for a data set with this shortest length."""
        unit, total = self.length_of_training()
        length = self.max_seq_length or shortest
        phases = parse_phases(self.phases or [f"{length}:1"], self.batch_size)
        return Schedule(
            unit=unit,
            total=total,
            peak=self.learning_rate,
            warmup_ratio=self.warmup_ratio,
            shape=self.decay,
            decay_ratio=self.decay_ratio,
            phases=phases,
        )

    def deciding(self) -> dict[str, Any]:
        """What decides the numbers of a run, beside the model, the data and the seed: kept in checkpoints."""
        values = {name: getattr(self, name) for name in DECIDING}
        values["init_from"] = None if self.init_from is None else str(self.init_from)
        unit, _ = self.length_of_training()
        lengths = {"seconds": "budget", "tokens": "num_tokens", "steps": "num_steps"}
        values |= {name: getattr(self, name) if kind == unit else None for kind, name in lengths.items()}
        return values | {"phases": list(self.phases)}


DECIDING = (
    "num_steps",
    "num_tokens",
    "budget",
    "batch_size",
    "phases",
    "learning_rate",
    "warmup_ratio",
    "decay",
    "decay_ratio",
    "optimizer",
    "weight_decay",
    "max_gradient_norm",
    "remask",
    "shuffle",
    "spike_factor",
)
"""Fields that decide the numbers, beside those that TrainingState names itself; `precision` is added as it was chosen."""


def too_long(max_seq_length: int, max_position_embeddings: int) -> str:
    """The words of that error."""
    return (
        f"max_seq_length={max_seq_length} is above model.max_position_embeddings={max_position_embeddings}: "
        f"raise that to {max_seq_length}, or train on a shorter length of the data set"
    )
