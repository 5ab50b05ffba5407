"""Pretrain a BERT or a ModernBERT on a data set that `bertloom preprocess` wrote.

    bertloom pretrain tiny --data DATASET --out RUN
    bertloom pretrain small --data DATASET --out RUN --num-steps 20000 --learning-rate 3e-4
    bertloom pretrain base --data DATASET --out RUN --phases 128:0.9 512:0.1
    bertloom pretrain base --data DATASET --out RUN --phases annealing --remask
    bertloom pretrain IMPORTED/config.toml --data DATASET --out RUN --num-steps 20000
    torchrun --no-python --nproc-per-node 8 bertloom pretrain base --data DATASET --out RUN

Presets: tiny, mini, small, base, large, and modern-tiny, modern-mini, modern-small, modern-base. Writes

    RUN/config.toml                  the complete configuration, which can be used as a preset
    RUN/metrics.jsonl                one line per step and per evaluation
    RUN/checkpoints/step-00001000/   the latest checkpoints; the last one is the trained model
    RUN/vocab.txt, tokenizer.json    copies of the data set's tokenizer, so that the model can be used without it; with one
                                     that is not BERT's, tokenizer.json and special_tokens_map.json
    RUN/bad_steps.jsonl              the examples of steps without a finite or plausible loss, if there were any

The same command resumes a stopped run from its last intact checkpoint. On a CPU with the same number of threads it then
gives the same numbers, bit for bit, as an uninterrupted run. Settings that decide these numbers (model, data, batch size,
schedule, seed, precision) can change only if --allow-change names them. Micro-batch size, ranks, device, threads and
intervals may change freely.

Exit status: 0 when the run is finished. SIGTERM and SIGINT (Ctrl-C) finish the current step, save a checkpoint and give
128 + the number of the signal: 143 or 130; 0 if that was the last step. A second Ctrl-C stops immediately.
"""

from __future__ import annotations

import signal
import time
import tomllib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from bertloom.counts import counted
from jobs.support.config import dump, parse
from jobs.support.phase_tables import describe_phases
from jobs.support.pretrain_config import PretrainConfig, too_long

if TYPE_CHECKING:
    from jobs.support.planned_legs import PlannedLeg
    from jobs.support.pretraining import Pretraining
    from model.batch import StaticShape
    from model.distributed import Ranks
    from model.loading.data import Examples
    from model.loading.data_sets import DataSets
    from model.runs.progress import Progress
    from model.runs.recorder import NullRecorder
    from model.runs.state import TrainingState
    from model.schedule import Schedule


@dataclass(frozen=True, kw_only=True)
class PretrainResult:
    """The end of a run, or of its part up to a signal."""

    out: Path
    """The run folder."""
    checkpoint: Path
    """The last checkpoint."""
    step: int
    """Number of updates."""
    validation: dict[str, float]
    """Losses and accuracies of the last evaluation; empty if the data set has no validation split."""
    tokens_per_second: float
    """Real tokens per second of this call, without evaluations; 0 if the run was finished already."""
    signal_number: int = 0
    """Number of the signal that stopped the run, or 0."""

    @property
    def exit_status(self) -> int:
        """0, or 128 + the number of the signal."""
        return 128 + self.signal_number if self.signal_number else 0


def main(argv: Sequence[str]) -> int:
    """Run `bertloom pretrain` and return its exit status."""
    return pretrain(parse(PretrainConfig, argv, prog="bertloom pretrain")).exit_status


def pretrain(config: PretrainConfig) -> PretrainResult:
    """Train until the end of the schedule or a signal, from the last checkpoint if there is one."""
    begun = time.monotonic()
    from model.distributed import join_ranks
    from model.runs.recorder import make_recorder
    from model.step import choose_device

    with join_ranks(choose_device(config.device)) as ranks:
        return pretrain_rank(config, make_recorder(config.out, ranks), ranks, begun)


def pretrain_rank(config: PretrainConfig, recorder: NullRecorder, ranks: Ranks, begun: float) -> PretrainResult:
    """Train as one of the ranks. `begun` is the `time.monotonic()` of the command's start, which a budget counts from."""
    from jobs.support.planned_legs import check_limits, planned_legs
    from model.distributed import backend_errors
    from model.runs.loop import train
    from model.runs.recorder import RecorderOptions
    from model.runs.signals import stop_signals

    training = prepare(config, recorder, ranks)
    with recorder.lock():
        progress = resume(training)
        if training.finished:
            steps = counted(progress.step, "step")
            recorder.print(f"{config.out} is finished after {steps}; the model is {training.finished}")
            recorder.check_metrics(config.out, progress.step, config.log_every)
            return result_of(training, progress)
        training.computing.encoder.recompute_activations = config.recompute_activations
        shapes = accelerate(training) if config.compile or config.cuda_graphs else ()  # may refuse: before writing
        planned = planned_legs(config, training.data_sets, training.schedule, progress)
        check_limits(planned, training.schedule)
        write_inputs(training)
        print_start(training, progress, planned)
        for shape in shapes:
            recorder.print(f"length {shape.max_seq_length}: micro-batches are padded to {shape.num_tokens:,} tokens")
        options = RecorderOptions(
            total=training.schedule.total,
            unit=training.schedule.unit,
            keep_checkpoints=config.keep_checkpoints,
            keep_every=config.keep_every,
            log_every=config.log_every,
            sinks=config.sinks,
            configuration=tomllib.loads(dump(config)),
        )
        with stop_signals() as signals, training.reader, recorder.open(progress, options), backend_errors():
            if ranks.share_json(recorder.is_evaluated(progress.step)):
                training.evaluated_step = progress.step
            is_timed = training.schedule.unit == "seconds"
            progress, stop_signal = train(training, progress, signals, begun if is_timed else None)
    result = result_of(training, progress, stop_signal)
    if stop_signal:
        name = signal.Signals(stop_signal).name
        recorder.print(
            f"stopped by {name} at step {result.step:,}, saved as {result.checkpoint}; start again to resume"
        )
    else:
        speed = f"{result.tokens_per_second:,.0f} real tokens/s"
        recorder.print(f"finished {counted(result.step, 'step')} at {speed}; the model is {result.checkpoint}")
    return result


def prepare(config: PretrainConfig, recorder: NullRecorder, ranks: Ranks) -> Pretraining:
    """Open the data set and build schedule, reader and model; ValueError if they do not fit together."""
    import torch

    from jobs.support.pretraining import Pretraining
    from model.devices import peak_flops
    from model.heads import PretrainingModel
    from model.loading.batches import BatchReader
    from model.loading.remask import remasking_of, remasking_of_all
    from model.loading.stream import continue_legs
    from model.runs.bad_steps import BadStepPolicy
    from model.runs.heap import limit_kernels
    from model.runs.meter import PretrainingMeter
    from model.shape import EncoderConfig
    from model.step import choose_precision

    if (config.out / "model").exists():
        raise ValueError(
            f"{config.out} holds an imported or fine-tuned model: give a new --out, and --init-from {config.out}"
        )
    if config.num_threads is not None:
        torch.set_num_threads(config.num_threads)
    dropout = config.model.attention_dropout_prob
    precision = choose_precision(config.precision, ranks.device, config.model, dropout, recorder.warn)
    limit_kernels(precision)
    data_sets = config.open_data_sets()
    schedule = config.schedule(data_sets)
    lengths = {phase.max_seq_length for phase in schedule.phases}
    for phase in schedule.phases:
        names = [source.name for source in config.sources(phase)]
        data_sets.check_size(names, phase.max_seq_length, phase.batch_size)
    legs = [continue_legs([], 0, **config.leg_settings(data_sets, phase))[0] for phase in schedule.phases]
    if all(phase.data for phase in schedule.phases):
        recorder.warn("--data is not read, because each phase of --phases names its own data sets")
    remasking = None
    if not config.remask:
        check_rates(config, schedule, data_sets)
    else:
        by_name = {name: remasking_of(found) for name, found in data_sets.by_name.items()}
        remasking = remasking_of_all(by_name, all(phase.masked_lm_prob for phase in schedule.phases))
    reader = BatchReader(data_sets, legs, config.micro_batch_size, ranks, remasking)
    for examples in {found for leg in legs for found in data_sets.examples_of(leg)}:
        if note := examples.note_on_cache(config.shuffle):
            recorder.warn(note)
    if max(lengths) > config.model.max_position_embeddings:
        raise ValueError(too_long(max(lengths), config.model.max_position_embeddings))
    if reader.has_pairs() and not config.model.reads_pairs:
        raise ValueError(
            f"model.type_vocab_size=1: {data_sets.first.folder} has pairs, whose segment B needs a token "
            f"type of its own: give 2, or preprocess with --pairs none"
        )
    validation = validation_of(config, schedule, data_sets, recorder)
    with torch.device("meta" if config.shard_model and not ranks.is_first else "cpu"):  # the others need no whole model
        model = PretrainingModel(EncoderConfig(shape=config.model, vocab_size=data_sets.vocabulary_size))
    if config.shard_model and ranks.size == 1:
        recorder.warn(
            "--shard-model has no effect on one device, which holds the whole model: start several ranks with torchrun"
        )
    if model.encoder.needs_whole_batches:
        if config.shard_model:
            raise ValueError("--shard-model has no batch normalisation: omit it, or take --model.normalization layer")
        if config.compile or config.cuda_graphs:
            raise ValueError(
                f"{'--compile' if config.compile else '--cuda-graphs'} pads batches, but batch normalisation must not count "
                f"padding: omit one of them"
            )
        reader.check_whole()
    if not reader.has_pairs():
        model.nsp.requires_grad_(False)  # nor is it run, see PretrainingModel
    peak = peak_flops(ranks.device, config.peak_tflops, precision)
    return Pretraining(
        config=config,
        ranks=ranks,
        recorder=recorder,
        bad_steps=BadStepPolicy(action=config.on_bad_step, spike_factor=config.spike_factor),
        data_sets=data_sets,
        schedule=schedule,
        reader=reader,
        validation=validation,
        model=model,
        precision=precision,
        meter=PretrainingMeter(model=model, device=ranks.device, peak=peak and peak * ranks.size),
    )


def check_rates(config: PretrainConfig, schedule: Schedule, data_sets: DataSets) -> None:
    """Raise ValueError if a phase has another masking rate than its data sets, whose own masks are used."""
    for number, phase in enumerate(schedule.phases, 1):
        for data_set in data_sets.of(config.sources(phase)):
            own = data_set.manifest["configuration"]["masked_lm_prob"]
            if phase.masked_lm_prob not in (None, own):
                raise ValueError(
                    f"phase {number} has masked_lm_prob={phase.masked_lm_prob:g}, but the masks of {data_set.folder} were "
                    f"drawn with {own:g}: add --remask, which draws new masks at the rate of each phase, or train this "
                    f"phase on a data set made with `bertloom preprocess --masked-lm-prob {phase.masked_lm_prob:g}`"
                )


def validation_of(
    config: PretrainConfig, schedule: Schedule, data_sets: DataSets, recorder: NullRecorder
) -> dict[int, dict[str, Examples]]:
    """Return the validation examples by length and data set, and warn about those that are missing."""
    wanted: dict[str, set[int]] = {}
    for phase in schedule.phases:
        for source in config.sources(phase):
            wanted.setdefault(source.name, set()).add(phase.max_seq_length)
    found: dict[int, dict[str, Examples]] = {}
    for name, lengths in wanted.items():
        data_set = data_sets.by_name[name]
        held_out = lengths & set(data_set.max_seq_lengths("validation"))
        for length in held_out:
            found.setdefault(length, {})[name] = data_set.examples("validation", length)
        if held_out < lengths:
            missing = ", ".join(map(str, sorted(lengths - held_out)))
            where = "this length is" if len(lengths - held_out) == 1 else "these lengths are"
            of = f"{where} not evaluated" + (f" on {name}" if data_sets.is_mixture else "")
            recorder.warn(f"{data_set.folder} has no validation examples of length {missing}: {of}")
    return found


def resume(training: Pretraining) -> Progress:
    """Load the latest checkpoint, or else initial weights, and return the progress. A finished run is not loaded.

    Raises:
        ValueError: settings that decide the numbers have changed without permission.
    """
    from model.mixed_precision import compute_copy
    from model.optimizer import AdamConstants, build_optimizer
    from model.runs.checkpoint import load_weights, read_moments, share_moments
    from model.runs.progress import Progress
    from model.runs.resume import changes_between, settings_of
    from model.runs.state import TrainingState

    config, recorder, ranks = training.config, training.recorder, training.ranks
    found = recorder.find_checkpoint(TrainingState)
    if not found and config.resume_from and ranks.is_first:
        found = open_checkpoint_of_other_run(training)
    saved = ranks.share_json((str(found[0]), asdict(found[1])) if found else None)
    start = Progress()
    progress = Progress(legs=tuple(training.legs_at(start)))
    if saved:
        state = TrainingState.from_json(saved[1])
        progress = state.progress
        training.best = state.best
        training.reserve(state.evaluation_seconds)
        training.data_sets.first.check_vocabulary(state.vocabulary_sha256)
        before, now = settings_of(state), settings_of(training.state(progress))
        changes = changes_between(before, now, progress.step, config.allow_change)
        training.changes += state.changes + changes
        for change in changes:
            recorder.print("changed at step {step:,}: {name} from {before} to {after}".format(**change))
        if training.is_over(progress) and state.is_finished:
            training.finished = Path(saved[0])
            return progress
    if found:
        load_weights(found[0], training.model)
    elif ranks.is_first:
        training.model.encoder.initialize_weights(training.model, config.seed)
        if config.init_from:
            load_initial_weights(training, config.init_from)
    progress = progress.in_precision(training.precision)
    place_model(training)
    training.optimizer = build_optimizer(
        training.model,
        config.weight_decay,
        config.optimizer,
        AdamConstants(beta1=config.adam_beta1, beta2=config.adam_beta2, epsilon=config.adam_epsilon),
        ranks,
    )
    moments = read_moments(found[0], training.model, training.optimizer) if found else {}
    share_moments(moments, training.model, training.optimizer, ranks)
    training.copy = None if training.sharding else compute_copy(training.model, training.precision)
    recorder.check_space(
        training.model, training.optimizer, min(config.keep_checkpoints + 1, training.num_saves(progress))
    )
    return progress


def place_model(training: Pretraining) -> None:
    """Give all ranks rank 0's weights, on their devices: the whole model, or a part of it with --shard-model."""
    from model.sharding import shard_model

    ranks, model = training.ranks, training.model
    if training.config.shard_model and ranks.size > 1:
        training.sharding = shard_model(model, ranks, training.precision)
    else:
        model.to(ranks.device)
        ranks.share_tensors(model.state_dict().values())


def open_checkpoint_of_other_run(training: Pretraining) -> tuple[Path, TrainingState]:
    """Return the checkpoint that --resume-from names and its state, and copy the other run's metrics up to its step."""
    from model.runs.checkpoint import check_files
    from model.runs.state import TrainingState, read_state

    config, path = training.config, training.config.resume_from
    assert path is not None
    if not (path / "state.json").exists():
        raise ValueError(
            f"resume_from={path} is not a checkpoint: expected a folder such as RUN/checkpoints/step-00002000"
        )
    state = read_state(path, TrainingState)
    check_files(path)
    training.best = state.best
    if training.is_over(state.progress):
        is_early = not training.schedule.is_over(state.progress.count(training.schedule.unit))
        lengths = ("patience",) if is_early else config.ALTERNATIVES[0]
        name = next(name for name in lengths if getattr(config, name) is not None)
        raise ValueError(
            f"resume_from={path} is at step {state.step:,}, where this training has ended: give a larger "
            f"--{name.replace('_', '-')}, and --allow-change {name}"
        )
    training.recorder.copy_metrics(path.parent.parent, state.step)
    training.recorder.print(f"continues {path} in {config.out}")
    return path, state


def load_initial_weights(training: Pretraining, init_from: Path) -> None:
    """Load the weights of another model; ValueError if its shape or vocabulary does not fit."""
    # These import tokenizers, which training does not need.
    from model.hub.initial_weights import check_shape, check_vocabulary, copy_weights
    from model.hub.pretrained import open_pretrained

    pretrained = open_pretrained(init_from)
    check_vocabulary(pretrained, training.data_sets.first)
    check_shape(pretrained, training.model.config)
    missing = copy_weights(training.model, pretrained)
    new = f"; new ones for {', '.join(missing)}" if missing else ""
    training.recorder.print(f"begins with the weights of {pretrained.path}{new}")


def write_inputs(training: Pretraining) -> None:
    """Write the vocabulary and the configuration into the run folder."""
    for name in training.data_sets.first.tokenizer_files:
        training.recorder.write_text(name, training.data_sets.first.read(name).decode())
    training.recorder.write_text("config.toml", dump(training.config))


def accelerate(training: Pretraining) -> list[StaticShape]:
    """Pad micro-batches to one size per length, compile the model or record CUDA graphs for these sizes, and return them.

    Raises:
        ValueError: the model cannot run so on this device.
    """
    from model.compiling import compile_model
    from model.cuda_graphs import StepGraphs

    shapes = training.reader.pad_batches()
    if training.config.cuda_graphs:
        training.graphs = StepGraphs(training.computing, training.model, shapes)
    if training.config.compile:
        compile_model(training.computing, shapes)
    return shapes


def print_start(training: Pretraining, progress: Progress, planned: Sequence[PlannedLeg]) -> None:
    """Print what will be trained, on what data, and where."""
    import torch

    from jobs.support.planned_legs import described_data

    ranks, model, recorder = training.ranks, training.model, training.recorder
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    where = f"{ranks.device}" if ranks.size == 1 else f"{ranks.size} ranks of {ranks.device.type}"
    threads = f", {counted(torch.get_num_threads(), 'thread')}" if ranks.device.type == "cpu" else ""
    how = ", sharded over" if training.sharding else " on"
    recorder.print(f"{num_parameters:,} parameters{how} {where} in {training.precision}{threads}")
    for line in described_data(training.data_sets, training.schedule, training.reader.legs, planned):
        recorder.print(line)
    if training.config.phase or len(training.schedule.phases) > 1:
        for line in describe_phases(training.schedule):
            recorder.print(line)
    if not model.nsp.classifier.weight.requires_grad:
        recorder.print("the examples are not pairs: next sentence prediction is not trained")
    if progress.step:
        recorder.print(f"resuming at step {progress.step:,}")


def result_of(training: Pretraining, progress: Progress, signal_number: int = 0) -> PretrainResult:
    """Return the result of a run that has got this far."""
    from model.runs.metrics import read_metrics
    from model.runs.state import checkpoint_path
    from model.step import Evaluation

    out = training.config.out
    names = [field.name for field in fields(Evaluation)]
    lines = [line for line in read_metrics(out / "metrics.jsonl") if line["split"] == "validation"]
    lines = [line for line in lines if line.keys() >= {*names}]  # a damaged line may lack some
    return PretrainResult(
        out=out,
        checkpoint=training.finished or checkpoint_path(out / "checkpoints", progress.step),
        step=progress.step,
        validation={name: lines[-1][name] for name in names} if lines else {},
        tokens_per_second=training.meter.tokens_per_second,
        signal_number=signal_number,
    )
