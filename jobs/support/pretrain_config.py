"""The configuration of pretraining, which `jobs/pretrain.py` runs."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import tyro

from jobs.support.config import ChosenBy
from jobs.support.phase_tables import PhaseTable, phases_of, read_table
from model.bert_config import BertShape
from model.encoders import shape_class
from model.loading.cache import DEFAULT_CACHE_GB
from model.loading.order import TrainingOrder, parse_shuffle
from model.loading.sources import Source, parse_sources
from model.optimizers import OptimizerName
from model.precision import Precision
from model.runs.resume import CHANGEABLE, DECIDING
from model.runs.sinks import SinkName
from model.schedule import Decay, Phase, Schedule, check_learning_rate, parse_budget, parse_phases
from model.shape import Shape

if TYPE_CHECKING:
    from model.loading.data_sets import DataSets


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """Pretrain a BERT on a data set, or resume a run.

    A preset comes first: `bertloom pretrain tiny --data DATASET --out RUN`. Presets are tiny, mini, small, base and large,
    modern-tiny, modern-mini, modern-small and modern-base for ModernBERT, and TOML files such as the config.toml of a run.
    Later presets and flags override earlier ones.
    """

    ALTERNATIVES: ClassVar = (
        ("num_steps", "num_epochs", "num_tokens", "budget"),
        ("warmup_ratio", "warmup_steps"),
        ("max_seq_length", "phases", "phase"),
    )

    data: Annotated[str | tuple[str, ...], tyro.conf.arg(metavar="DATASET ...")]
    """Data set written by `bertloom preprocess`: a folder, or s3://…, gs://…, https://… Several are read as a mixture, each
    as [NAME=]PATH:SHARE[:epochs=N], such as web=WEB:0.7 BOOKS:0.3:epochs=2. SHARE is the share of the tokens. A data set is
    read for at most N epochs; then its share goes to the others."""
    out: Path
    """Run folder: a new one, or one to resume."""
    temperature: float | None = None
    """Exponent of the sizes of several data sets, from 0 (equal shares) to 1 (shares as the sizes), instead of their
    shares. The multilingual BERT used 0.7, XLM-R 0.3."""
    init_from: Path | None = None
    """Model whose weights to start from, instead of random ones: a run, or a directory in transformers' format. The
    shapes must be equal: give the config.toml of its run folder as the preset. `bertloom import` writes one, too."""
    resume_from: Path | None = None
    """Checkpoint of another run to continue in this run folder, such as OTHER/checkpoints/step-00002000, with its moments
    and its place in the data. The other run stays as it is. Give its config.toml as the preset."""
    num_steps: int | None = None
    """Number of updates (steps) to train."""
    num_epochs: float | None = None
    """Passes over the examples, instead of --num-steps. A pass reads one of the data set's copies."""
    num_tokens: int | None = None
    """Number of real tokens to train on, instead of --num-steps. The schedule then counts in tokens."""
    budget: str | None = None
    """Wall-clock time to train, such as 1h30m, instead of --num-steps. It includes the set-up, the evaluations
    and the last checkpoint. Unlike the other schedules it is not reproducible: the number of steps depends on the speed of
    the machine."""
    batch_size: int = 256
    """Examples per update, over all devices (the global batch). BERT used 256."""
    micro_batch_size: int = 32
    """Largest number of examples in memory on each device. Longer phases use proportionally fewer. Changes results only
    by rounding, and by the dropout that is drawn."""
    max_seq_length: int | None = None
    """Length of the examples to train on, in tokens. The default is the shortest length of the data set."""
    phases: tuple[str, ...] = ()
    """Phases of training, as LENGTH:SHARE or LENGTH:SHARE:BATCH_SIZE: BERT used 128:0.9 512:0.1. Or a .toml file, which also
    has the data, masking rate and learning rate of each phase (docs/training.md), or annealing: 30, 15, then 5 % masks, and
    a decay at the end."""
    phase: Annotated[tuple[PhaseTable, ...], tyro.conf.Fixed, tyro.conf.Suppress] = ()
    """The phases of the table that --phases has named, so that a run's config.toml is complete."""
    remask: bool = False
    """Draw new masks in every epoch, at the rate of the phase, instead of using those in the data set. Only for masks of
    single tokens. Evaluation keeps the masks of the data set."""
    learning_rate: float = 1e-4
    """Peak learning rate. BERT used 1e-4 with batches of 256; use more for smaller models and larger batches."""
    warmup_ratio: float = 0.06
    """Share of training that is learning-rate warm-up. BERT used 0.01, RoBERTa 0.06."""
    warmup_steps: int | None = None
    """Number of steps of the learning-rate warm-up, instead of --warmup-ratio. BERT used 10,000."""
    decay: Decay = "linear"
    """Learning-rate decay after the warm-up: linear or cosine to 0; wsd keeps the peak and decays linearly at the end."""
    decay_ratio: float = 0.2
    """Share of training that is the decay of wsd."""
    optimizer: OptimizerName = "adamw"
    """Optimizer. lamb is for batches above about 8,000 examples (You et al. 2020). muon updates the matrices of the layers
    and leaves the rest to adamw, with the same learning rate (Jordan et al. 2024; see docs/experiments.md)."""
    weight_decay: float = 0.01
    """Weight decay of matrices and embeddings. BERT used 0.01."""
    adam_beta1: float | None = None
    """Adam's decay rate of the mean of the gradients. The default is 0.9."""
    adam_beta2: float | None = None
    """Adam's decay rate of the mean of the squared gradients. The default is 0.98, as in RoBERTa; with lamb 0.999. BERT
    used 0.999."""
    adam_epsilon: float | None = None
    """Addend of Adam's denominator. The default is 1e-6, as in BERT."""
    max_gradient_norm: float = 1.0
    """Norm for gradient clipping, applied to the gradient of the global batch. BERT used 1.0."""
    cache_dir: Path | None = None
    """Local folder that caches data from a URL, shared by the ranks of a machine and by runs. The default is
    ~/.cache/bertloom."""
    cache_gb: float = DEFAULT_CACHE_GB
    """Size limit of the cache, in 10^9 bytes. The least recently used data is removed first."""
    seed: int = 1
    """Seed for the example order, initial weights and dropout."""
    shuffle: str = "global"
    """Order of examples. global shuffles the whole epoch. window:16 shuffles 16 members of shards (16,384 examples) at a
    time, for data from a URL that does not fit into the cache."""
    model: Annotated[Shape, ChosenBy("encoder", shape_class)] = BertShape()
    """Shape of the model."""
    device: str = "auto"
    """Device: cpu, cuda, cuda:1, … auto is cuda if available, otherwise cpu."""
    precision: Precision = "auto"
    """Precision of forward and backward pass; the optimizer and checkpoints always have 32 bits. auto is bf16 on CUDA
    (fp16 on GPUs before Ampere), otherwise fp32. A resumed run keeps its precision."""
    num_threads: int | None = None
    """CPU threads. The default is torch's choice. Results differ in rounding between numbers of threads."""
    eval_every: int = 1000
    """Steps between evaluations on the validation split. The start and the end are always evaluated."""
    num_eval_examples: int = 2048
    """Largest number of validation examples per evaluation."""
    patience: int | None = None
    """Number of evaluations in a row without a lower validation MLM loss after which training ends. By default it does not
    end early."""
    save_every: int = 1000
    """Steps between checkpoints. The end is always saved."""
    keep_checkpoints: int = 2
    """Number of checkpoints to keep. Older ones are removed."""
    keep_every: int | None = None
    """Keep every checkpoint whose step is a multiple of this."""
    allow_change: tuple[str, ...] = ()
    """Names of settings that may change when the run is resumed: batch_size, num_steps, learning_rate, data, … Changes are
    recorded in the checkpoints."""
    log_every: int = 1
    """Steps between training lines in metrics.jsonl."""
    sinks: tuple[SinkName, ...] = ()
    """Where metrics go besides metrics.jsonl: tensorboard, wandb. Neither is installed with bertloom."""
    peak_tflops: float | None = None
    """Peak speed of one device in this precision, in TFLOP/s, to compute its utilisation (MFU). The default is NVIDIA's
    figure for dense 16-bit products, for known devices; for others, and in fp32, no MFU is reported."""
    on_bad_step: Literal["stop", "skip"] = "stop"
    """What to do if the loss is not finite or is a spike: stop, after saving a checkpoint, or skip the update. In both cases
    the examples of the step are recorded in bad_steps.jsonl."""
    spike_factor: float | None = None
    """A loss above this multiple of its running mean is a spike. The default is not to look for spikes."""
    compile: bool = False
    """Use torch.compile for the layers and the losses, on micro-batches padded to one size. The first step takes longer.
    Changes results only by rounding, and by the dropout that is drawn."""
    cuda_graphs: bool = False
    """Run the forward and backward pass of each micro-batch as one CUDA graph, on micro-batches padded to one size. For
    small models on a GPU, where starting the kernels takes longer than running them. May be used with --compile."""
    shard_model: bool = False
    """Divide weights, gradients and moments among the devices (FSDP), for models that do not fit one. Needs several
    devices. Communicates more, so it is slower for models that fit. Changes results only by rounding."""
    recompute_activations: bool = False
    """Compute each layer again in the backward pass instead of storing its activations: less memory, a third more time."""

    def __post_init__(self) -> None:
        if table := read_table(self.phases):
            object.__setattr__(self, "phase", table)
            object.__setattr__(self, "phases", ())
        sizes = ("num_steps", "num_tokens", "batch_size", "micro_batch_size", "num_eval_examples", "keep_checkpoints")
        for name in (*sizes, "patience", "num_threads", "keep_every", "eval_every", "save_every", "log_every"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        check_learning_rate(self.learning_rate, usual_exponent=-4)
        for name in ("max_gradient_norm", "num_epochs", "adam_epsilon"):
            if getattr(self, name) is not None and getattr(self, name) <= 0:
                raise ValueError(f"{name}={getattr(self, name):g} must be above 0")
        for name in ("adam_beta1", "adam_beta2"):
            if getattr(self, name) is not None and not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name):g} must be at least 0 and below 1")
        if not 0 <= self.warmup_ratio < 1:
            raise ValueError(
                f"warmup_ratio={self.warmup_ratio:g} must be at least 0 and below 1: it is a share of training"
            )
        if not 0 < self.decay_ratio <= 1 - self.warmup_ratio:
            raise ValueError(
                f"decay_ratio={self.decay_ratio:g} must be above 0 and at most 1 - warmup_ratio = {1 - self.warmup_ratio:g}"
            )
        if self.weight_decay < 0:
            raise ValueError(f"weight_decay={self.weight_decay:g} must be at least 0")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed={self.seed} must be at least 0 and below 2^63")
        phases = self._checked_phases()
        longest = max(phase.max_seq_length for phase in phases)
        if longest > self.model.max_position_embeddings:
            raise ValueError(too_long(longest, self.model.max_position_embeddings))
        unit, total = self.length_of_training()
        if self.warmup_steps is not None and unit in ("tokens", "seconds"):
            raise ValueError(
                f"warmup_steps={self.warmup_steps} cannot be used with a length in {unit}: give --warmup-ratio, or "
                f"--num-steps"
            )
        if self.warmup_steps is not None and not 0 <= self.warmup_steps < (total if unit == "steps" else math.inf):
            raise ValueError(f"warmup_steps={self.warmup_steps} must be at least 0 and below num_steps={total:g}")
        if self.resume_from is not None and self.init_from is not None and self.resume_from == self.init_from:
            raise ValueError(
                f"resume_from and init_from are both {self.init_from}: give --resume-from to continue its training, or "
                f"--init-from to start a new training from its weights"
            )
        for name in ("recompute_activations", "shard_model"):
            if self.cuda_graphs and getattr(self, name):
                raise ValueError(
                    f"--cuda-graphs is for small models and --{name.replace('_', '-')} for large ones: omit one of them"
                )
        self._check_data()
        if self.peak_tflops is not None and self.peak_tflops <= 0:
            raise ValueError(f"peak_tflops={self.peak_tflops:g} must be above 0")
        if self.spike_factor is not None and self.spike_factor <= 1:
            raise ValueError(f"spike_factor={self.spike_factor:g} must be above 1: it is a multiple of the mean loss")
        for name in self.allow_change:
            if name not in CHANGEABLE:
                raise ValueError(
                    f"allow_change: {name!r} cannot change when a run is resumed: expected {', '.join(CHANGEABLE)}"
                )

    @property
    def data_words(self) -> tuple[str, ...]:
        """The data sets, each as on the command line."""
        return self.data if isinstance(self.data, tuple) else (str(self.data),)

    def sources(self, phase: Phase) -> tuple[Source, ...]:
        """Return the data sets of a phase."""
        return parse_sources(phase.data or self.data_words, self.temperature_of(phase))

    def temperature_of(self, phase: Phase) -> float | None:
        """Return the temperature that gives the shares of a phase's data sets; None if they are given."""
        return self.temperature if phase.temperature is None and not phase.data else phase.temperature

    def all_sources(self) -> tuple[Source, ...]:
        """Return the data sets of all phases, each once, in the order in which they first appear."""
        sources = {}
        for number, phase in enumerate(self.all_phases(), 1):
            try:
                found = self.sources(phase)
            except ValueError as error:
                raise ValueError(f"phase {number}: {error}" if self.phase else str(error)) from None
            sources.update({(source.name, source.path): source for source in found})
        return tuple(sources.values())

    def open_data_sets(self) -> DataSets:
        """Return the data sets of the run; ValueError if they cannot be opened or do not fit together."""
        from model.loading.data_sets import open_data_sets

        return open_data_sets(self.all_sources(), self.cache_dir, self.cache_gb)

    def leg_settings(self, data_sets: DataSets, phase: Phase) -> dict[str, Any]:
        """Return what decides which examples a phase reads, for `continue_legs`."""
        from model.loading.stream import digest_of_all

        temperature = self.temperature_of(phase)
        sources = data_sets.leg_sources(self.sources(phase), phase.max_seq_length, self.seed, temperature)
        digests = [source.shards_digest for source in sources] or [data_sets.shards_digest]
        return {
            "max_seq_length": phase.max_seq_length,
            "batch_size": phase.batch_size,
            "seed": self.seed,
            "shuffle": self.shuffle,
            "shards_digest": digest_of_all(digests),
            "sources": sources,
            "masked_lm_prob": self.new_rate(phase),
        }

    def _check_data(self) -> None:
        """Raise ValueError if the settings of the data are not possible."""
        parse_shuffle(self.shuffle)
        if len(self.all_sources()) > 1 and self.num_epochs is not None:
            raise ValueError(
                f"num_epochs={self.num_epochs:g} cannot be used with several data sets, whose epochs differ: give "
                f"--num-steps, and epochs=N to a data set to limit it"
            )
        if self.cache_gb <= 0:
            raise ValueError(f"cache_gb={self.cache_gb:g} must be above 0")

    def _checked_phases(self) -> tuple[Phase, ...]:
        """Return the phases, with length 0 where it is not known yet, or raise ValueError if they cannot be."""
        if self.max_seq_length is not None and (self.phases or self.phase):
            raise ValueError(
                f"max_seq_length={self.max_seq_length} and phases: give one of them, because phases include lengths"
            )
        if self.phases and self.phase:
            raise ValueError(
                f"phases: {' '.join(self.phases)} and a table of {len(self.phase)} phases: give one of them"
            )
        phases = self.all_phases()
        if phases[0].decay and (self.decay != "linear" or self.decay_ratio != 0.2):
            raise ValueError(
                f"decay={self.decay} with decay_ratio={self.decay_ratio:g}, and a table of phases with learning rates of "
                f"their own: omit --decay and --decay-ratio, or take decay, learning_rate and final_learning_rate out of "
                f"the table"
            )
        if self.num_epochs is not None and len({(p.max_seq_length, p.batch_size, p.data) for p in phases}) > 1:
            raise ValueError(
                f"num_epochs={self.num_epochs:g} cannot be used with {len(phases)} phases, which have different examples or "
                f"batch sizes: give --num-steps"
            )
        if self.patience is not None and len(phases) > 1:
            raise ValueError(
                f"patience={self.patience} cannot be used with {len(phases)} phases, which have different examples or "
                f"learning rates: omit --patience"
            )
        return phases

    def length_of_training(self) -> tuple[Literal["steps", "epochs", "tokens", "seconds"], float]:
        """Return the unit and the length of training."""
        given = {
            unit: value
            for unit, value in (
                ("steps", self.num_steps),
                ("epochs", self.num_epochs),
                ("tokens", self.num_tokens),
                ("seconds", None if self.budget is None else parse_budget(self.budget)),
            )
            if value is not None
        }
        if len(given) > 1:
            raise ValueError(
                f"the length of training is given in {' and in '.join(given)}: give only one of num_steps, num_epochs, "
                f"num_tokens, budget"
            )
        for unit, total in given.items():
            return unit, total  # type: ignore[return-value]
        raise ValueError(
            "the length of training is missing: give --num-steps, --num-epochs, --num-tokens, --budget, or a preset"
        )

    def schedule(self, data_sets: DataSets) -> Schedule:
        """Return the schedule for these data sets. Without other settings it is for their shortest length."""
        unit, total = self.length_of_training()
        phases = tuple(
            phase
            if phase.max_seq_length
            else replace(phase, max_seq_length=data_sets.shortest_length([s.name for s in self.sources(phase)]))
            for phase in self.all_phases()
        )
        if unit == "epochs":
            rows = data_sets.first.examples("train", phases[0].max_seq_length).rows_per_copy
            order = TrainingOrder(rows, self.seed, phases[0].max_seq_length)
            first, last = order.epoch_start(int(total)), order.epoch_start(int(total) + 1)
            unit, total = "steps", math.ceil((first + total % 1 * (last - first)) / phases[0].batch_size)
            if self.warmup_steps is not None and self.warmup_steps >= total:
                raise ValueError(f"warmup_steps={self.warmup_steps} must be below the {total:,} steps of the epochs")
        schedule = Schedule(
            unit=unit,
            total=total,
            peak=self.learning_rate,
            warmup_ratio=self.warmup_ratio,
            warmup_steps=self.warmup_steps,
            shape=self.decay,
            decay_ratio=self.decay_ratio,
            phases=phases,
        )
        schedule.check_phases()
        return schedule

    def all_phases(self) -> tuple[Phase, ...]:
        """Return the phases of training, one or more. The length is 0 if it is the shortest one of the data sets."""
        if self.phase:
            return phases_of(self.phase, self.batch_size)
        if self.phases:
            return parse_phases(self.phases, self.batch_size)
        return (Phase(max_seq_length=self.max_seq_length or 0, share=1.0, batch_size=self.batch_size),)

    def new_rate(self, phase: Phase) -> float | None:
        """Return the share of the tokens that new masks are drawn for in a phase; None for the data set's own share."""
        return phase.masked_lm_prob if self.remask else None

    def settings(self) -> dict[str, Any]:
        """Return the settings that decide the numbers, except model, data and seed; checkpoints hold them."""
        values = {name: getattr(self, name) for name in DECIDING}
        values["init_from"] = None if self.init_from is None else str(self.init_from)
        phases = [phase.describe() for phase in self.phase] or list(self.phases)
        return values | {"phases": phases} | self._mixture_settings()

    def _mixture_settings(self) -> dict[str, Any]:
        """Return the shares of several data sets, without their paths; nothing for one data set."""
        phases = [phase for phase in self.all_phases() if not phase.data]
        if len(self.all_sources()) == 1 or not phases:
            return {}
        shares = [source.described() for source in self.sources(phases[0])]
        return {"shares": shares} if self.temperature is None else {"shares": shares, "temperature": self.temperature}


def too_long(max_seq_length: int, max_position_embeddings: int) -> str:
    """Return the text of the error about a length that the model has no positions for."""
    return (
        f"max_seq_length={max_seq_length} is above model.max_position_embeddings={max_position_embeddings}: "
        f"raise that to {max_seq_length}, or train on a shorter length of the data set"
    )
