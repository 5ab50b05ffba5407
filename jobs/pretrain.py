"""Trains a BERT on a data set that `bertloom preprocess` made.

    bertloom pretrain tiny --data DATASET --out RUN
    bertloom pretrain small --data DATASET --out RUN --num-steps 20000 --learning-rate 3e-4
    bertloom pretrain base --data DATASET --out RUN --phases 128:0.9 512:0.1
    bertloom pretrain IMPORTED/config.toml --data DATASET --out RUN --num-steps 20000
    torchrun --no-python --nproc-per-node 8 bertloom pretrain base --data DATASET --out RUN

Presets: tiny, mini, small, base, large. Writes

    RUN/config.toml                  all that was chosen; can be given back as a preset
    RUN/metrics.jsonl                a line a step, and one an evaluation
    RUN/checkpoints/step-00001000/   the last few; the last one is the trained model
    RUN/vocab.txt, tokenizer.json    the data set's: a run can be used without it

Started again with the same flags, it goes on from the last whole checkpoint, and on a CPU with the same number of
threads gets the numbers, bit for bit, that it would have got without the stop. What decides those numbers (model, data,
batch size, schedule, seed, precision) cannot be changed on the way, unless --allow-change names it; micro-batch size,
ranks, device, threads and how often to save can.

Exit status: 0 when the run is finished; when SIGTERM or SIGINT (Ctrl-C) ends it, the step is finished, a checkpoint is
saved and the status is 128 + the signal's number: 143 or 130. A second Ctrl-C does not wait.
"""

import json
import logging
import math
import os
import re
import signal
import sys
import time
import tomllib
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

# Threads that wait for each other sleep, not spin. On idle cores it costs nothing; where other work shares them, a step
# of the tiny model became 2 to 15 times faster. Read when torch is loaded, so it stands before that.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch
from tqdm import tqdm

from bertloom.whole_files import sweep_temporary, write_text
from jobs.support.config import dump, parse
from jobs.support.pretrain_config import PretrainConfig, too_long
from model.compiling import compile_model
from model.devices import peak_flops
from model.distributed import Ranks, join_ranks
from model.encoder import EncoderConfig, initialize_weights
from model.encoders import encoder_name
from model.heads import PretrainingModel
from model.loading.batches import BatchReader
from model.loading.data import DataSet
from model.loading.order import ORDER_VERSION
from model.loading.remask import remasking_of
from model.loading.stream import START, Leg, continue_legs, extend
from model.optimizer import build_optimizer
from model.runs.checkpoint import (
    TrainingState,
    checkpoint_path,
    latest_checkpoint,
    load_checkpoint,
    share_checkpoint,
)
from model.runs.checkpoint_writer import CheckpointWriter
from model.runs.folder import only_trainer, stop_signals
from model.runs.heap import Heap
from model.runs.meter import Meter
from model.runs.metrics import MetricsWriter, read_metrics
from model.runs.resume import changes_between
from model.runs.sinks import open_sinks
from model.schedule import Schedule
from model.step import Evaluation, StepResult, choose_device, choose_precision, evaluate, train_step

logger = logging.getLogger("bertloom")


@dataclass(frozen=True, kw_only=True)
class PretrainResult:
    """How a run, or its part up to a signal, ended."""

    out: Path
    """The run folder."""
    checkpoint: Path
    """The last checkpoint."""
    step: int
    """Updates done."""
    validation: dict[str, float]
    """The last evaluation's losses and accuracies; empty if the data set has no validation split."""
    tokens_per_second: float
    """Real tokens trained on per second of this call, without evaluation; 0 if there was nothing left to do."""
    signal_number: int = 0
    """The signal that ended it early, or 0."""

    @property
    def exit_status(self) -> int:
        """0, or 128 + the signal's number."""
        return 128 + self.signal_number if self.signal_number else 0


def main(argv: Sequence[str]) -> int:
    """The exit status of `bertloom pretrain` with these words."""
    return pretrain(parse(PretrainConfig, argv, prog="bertloom pretrain")).exit_status


def pretrain(config: PretrainConfig) -> PretrainResult:
    """Trains, or goes on training, until the end of the schedule or a signal; see the top of this file."""
    with join_ranks(choose_device(config.device)) as ranks:
        return train(config, ranks)


def train(config: PretrainConfig, ranks: Ranks) -> PretrainResult:
    """`pretrain` on one rank."""
    precision = choose_precision(config.precision, ranks.device)
    if config.num_threads is not None:
        torch.set_num_threads(config.num_threads)
    data_set = DataSet(config.data, config.cache_dir, config.cache_gb)
    schedule = config.schedule(data_set.examples("train").max_seq_length)
    lengths = {phase.max_seq_length for phase in schedule.phases}
    remasking = remasking_of(data_set) if config.remask else None
    reader = BatchReader(data_set, lengths, config.seed, config.micro_batch_size, ranks, config.shuffle, remasking)
    for examples in reader.examples.values():
        if ranks.is_first and (note := examples.note_on_cache(config.shuffle)):
            logger.warning(note)
    if max(lengths) > config.model.max_position_embeddings:
        raise ValueError(too_long(max(lengths), config.model.max_position_embeddings))
    held_out = set(data_set.max_seq_lengths("validation"))
    validation = {length: data_set.examples("validation", length) for length in lengths & held_out}
    if lengths - held_out and ranks.is_first:
        logger.warning("%s has no validation split of this length: nothing will be evaluated", config.data)
    model = PretrainingModel(EncoderConfig(shape=config.model, vocab_size=data_set.vocabulary_size))
    if model.encoder.needs_whole_batches:
        if config.compile:
            raise ValueError("compile pads batches, but batch normalisation must not count padding: leave one out")
        reader.check_whole(schedule.phases)
    if not reader.has_pairs():
        model.nsp.requires_grad_(False)  # and it is not run: see PretrainingModel

    changes: list[dict[str, Any]] = []

    def state_at(
        step: int, tokens: int, seconds: float, loss_mean: float | None, stream: str, legs: list[Leg]
    ) -> TrainingState:
        items, order = legs[-1].item_at(step), reader.orders[legs[-1].max_seq_length]
        return TrainingState(
            step=step,
            items=items,
            tokens=tokens,
            seconds=seconds,
            loss_mean=loss_mean,
            stream=stream,
            legs=[asdict(leg) for leg in legs],
            epoch=order.epoch_of(items),
            epoch_items=items - order.epoch_start(order.epoch_of(items)),
            seed=config.seed,
            order_version=ORDER_VERSION,
            max_seq_length=legs[-1].max_seq_length,
            shards_digest=data_set.shards_digest,
            vocabulary_sha256=data_set.vocabulary_sha256,
            encoder=encoder_name(model.config),
            model=model.config.values(),
            changes=changes,
            schedule=config.deciding() | {"max_seq_length": schedule.phases[0].max_seq_length, "precision": precision},
        )

    def legs_from(legs: list[Leg], step: int, progress: float) -> list[Leg]:
        phase = schedule.phase_at(progress)
        return continue_legs(
            legs,
            step,
            max_seq_length=phase.max_seq_length,
            batch_size=phase.batch_size,
            seed=config.seed,
            shuffle=config.shuffle,
            shards_digest=data_set.shards_digest,
        )

    if (config.out / "model").exists():
        raise ValueError(
            f"{config.out} holds a model that was imported or fine-tuned: give a new --out, and --init-from {config.out}"
        )
    with only_trainer(config.out) if ranks.is_first else nullcontext():
        checkpoints = config.out / "checkpoints"
        found = latest_checkpoint(checkpoints) if ranks.is_first else None
        saved = ranks.share_json(asdict(found[1]) if found else None)
        step, tokens, seconds, loss_mean, stream, legs = 0, 0, 0.0, None, START, legs_from([], 0, 0)
        if saved:
            step, tokens, seconds, stream = saved["step"], saved["tokens"], saved["seconds"], saved["stream"]
            loss_mean = saved["loss_mean"]
            data_set.check_vocabulary(saved["vocabulary_sha256"])
            found_changes = changes_between(
                TrainingState(**saved), state_at(0, 0, 0.0, None, START, legs), config.allow_change
            )
            changes += saved["changes"] + found_changes
            for change in found_changes if ranks.is_first else ():
                print("changed at step {step:,}: {name} from {before} to {after}".format(**change))
            legs = [Leg(**leg) for leg in saved["legs"]]
        progress = {"steps": step, "tokens": tokens, "seconds": seconds}[schedule.unit]
        if ranks.is_first:
            sweep_temporary(checkpoints)
        if schedule.is_over(progress):
            where = checkpoint_path(checkpoints, step)
            if ranks.is_first:
                print(f"{config.out} is finished: {step:,} steps; its model is {where}")
            return PretrainResult(
                out=config.out,
                checkpoint=where,
                step=step,
                tokens_per_second=0.0,
                validation=last_evaluation(config.out),
            )
        if not saved:
            initialize_weights(model, config.model.initializer_range, config.seed)
            if config.init_from and ranks.is_first:
                start_from(model, config.init_from, data_set)
        if ranks.is_first:
            for name in ("vocab.txt", "tokenizer.json"):
                write_text(config.out / name, data_set.folder.read(name).decode())
            write_text(config.out / "config.toml", dump(config))

        model.to(ranks.device)
        optimizer = build_optimizer(model, config.weight_decay, config.optimizer)
        if found:
            load_checkpoint(found[0], model, optimizer)
        share_checkpoint(ranks, model, optimizer)
        saved_at = step
        if ranks.is_first:
            print_start(config, model, reader, ranks, step, precision)
        model.encoder.recompute_activations = config.recompute_activations
        if config.compile:
            shapes = reader.pad_batches(schedule.phases)
            compile_model(model, shapes)
            for shape in shapes if ranks.is_first else ():
                print(f"length {shape.max_seq_length}: compiled for micro-batches of {shape.num_tokens:,} tokens")
        peak = peak_flops(ranks.device, config.peak_tflops)
        meter = Meter(model=model, device=ranks.device, peak=peak and peak * ranks.size)
        sinks = open_sinks(config.sinks, config.out, step, tomllib.loads(dump(config))) if ranks.is_first else []
        # How long the first update will take is a guess, the same on all ranks: 0 would be its learning rate as well.
        begin, last_seconds, heap = time.monotonic() - seconds, schedule.total / 1000, Heap()
        if ranks.is_first:
            cut_back(config.out / "bad_steps.jsonl", step)
        stopping = 0  # a signal's number

        with (
            stop_signals() as signals,
            reader,
            MetricsWriter(config.out / "metrics.jsonl", step, ranks.is_first, sinks) as metrics,
            CheckpointWriter(checkpoints, config.keep_checkpoints, config.keep_every) as writer,
            progress_bar(schedule, progress, ranks.is_first) as bar,
        ):
            evaluated = step if ranks.share_json(metrics.is_evaluated(step)) else -1
            while True:
                done = schedule.is_over(progress)
                held = validation.get(legs[-1].max_seq_length)
                # Who is told to stop has little time: what is not evaluated now is when training goes on.
                due = done or (step % config.eval_every == 0 and not stopping)
                if held and due and step != evaluated:
                    batches = held.in_order(
                        reader.micro_batch_sizes[held.max_seq_length], config.num_eval_examples, ranks.rank, ranks.size
                    )
                    evaluation = evaluate(model, batches, precision=precision, ranks=ranks)
                    metrics.write(step, "validation", **asdict(evaluation), seconds=time.monotonic() - begin)
                    if ranks.is_first:  # a bar that is turned off writes all the same
                        bar.write(describe(step, evaluation), file=sys.stderr)

                save = done or stopping or (step % config.save_every == 0 and step > 0)
                if save and step != saved_at and ranks.is_first:
                    state = state_at(step, tokens, seconds, loss_mean, stream, legs)
                    writer.save(model, optimizer, state, before=metrics.sync)
                    saved_at = step
                if done or stopping:
                    break

                started = time.monotonic()
                legs = legs_from(legs, step, progress)
                batch = reader.read(legs[-1], step)
                wait_seconds = time.monotonic() - started
                size = {"steps": 1, "tokens": batch.num_tokens, "seconds": last_seconds}[schedule.unit]
                if not schedule.is_over(progress + size):
                    reader.prefetch(legs_from(legs, step + 1, progress + size)[-1], step + 1)
                learning_rate = schedule.learning_rate(progress, size)
                highest = config.spike_factor * loss_mean if config.spike_factor and loss_mean else math.inf
                result = train_step(
                    model,
                    optimizer,
                    batch,
                    learning_rate=learning_rate,
                    max_gradient_norm=config.max_gradient_norm,
                    seed=config.seed,
                    step=step,
                    precision=precision,
                    ranks=ranks,
                    highest_loss=highest,
                )
                is_bad = not result.is_finite or result.loss > highest
                if is_bad:
                    what = bad_step(config, step, result, reader.indices(legs[-1], step), ranks)
                    if config.on_bad_step == "stop":
                        if ranks.is_first and step != saved_at:  # there was no update: all is as it was behind `step`
                            state = state_at(step, tokens, seconds, loss_mean, stream, legs)
                            writer.save(model, optimizer, state, before=metrics.sync)
                            writer.wait()
                        ranks.sum_numbers([0])  # torchrun ends the first rank 30 s after another one has ended
                        raise ValueError(
                            f"{what}: look at them; or take a learning_rate below {learning_rate:g} or a longer warm-up "
                            f"from a new run folder on; or go on with --on-bad-step skip"
                        )
                    if ranks.is_first:
                        bar.write(f"{what}: the update is left out", file=sys.stderr)
                else:
                    loss_mean = result.loss if loss_mean is None else 0.98 * loss_mean + 0.02 * result.loss
                step += 1
                tokens += batch.num_tokens
                stream = extend(stream, ranks.sum_integer(batch.stream_sum))
                # What the ranks must agree on: that one was told to stop, and the first one's clock.
                elapsed = time.monotonic() - begin if ranks.is_first else 0.0
                num_told, now = ranks.sum_numbers([len(signals), elapsed])
                stopping = max(signals, default=signal.SIGTERM) if num_told else 0
                seconds, last_seconds = now, now - seconds
                spent = time.monotonic() - started
                timings = meter.add(result, batch, legs[-1].max_seq_length, spent, wait_seconds)
                progress = {"steps": step, "tokens": tokens, "seconds": seconds}[schedule.unit]

                if step % config.log_every == 0 or schedule.is_over(progress):
                    metrics.write(
                        step,
                        "train",
                        **asdict(result),
                        learning_rate=learning_rate,
                        tokens=tokens,
                        stream=stream,
                        max_seq_length=legs[-1].max_seq_length,
                        seconds=seconds,
                        **timings,
                        **({"skipped": True} if is_bad else {}),
                    )
                bar.set_postfix_str(meter.describe(), refresh=False)
                bar.update(min(progress, schedule.total) - bar.n)
                heap.tick()

    speed = meter.tokens_per_second
    where = checkpoint_path(checkpoints, step)
    if ranks.is_first and stopping:
        name = signal.Signals(stopping).name
        print(f"stopped by {name} at step {step:,}, saved as {where}: to go on, start it again")
    elif ranks.is_first:
        print(f"finished {step:,} steps at {speed:,.0f} real tokens/s; the model is {where}")
    return PretrainResult(
        out=config.out,
        checkpoint=where,
        step=step,
        tokens_per_second=speed,
        validation=last_evaluation(config.out),
        signal_number=stopping,
    )


def start_from(model: PretrainingModel, init_from: Path, data_set: DataSet) -> None:
    """Puts the weights of another model into this one, and says so; ValueError if they or the words do not fit."""
    # They need tokenizers, which training does not.
    from model.hub.initial_weights import begin_with, check_shape, check_vocabulary
    from model.hub.pretrained import open_pretrained

    pretrained = open_pretrained(init_from)
    check_vocabulary(pretrained, data_set)
    check_shape(pretrained, model.config)
    missing = begin_with(model, pretrained)
    print(f"begins with the weights of {pretrained.path}{'; new ones for ' + ', '.join(missing) if missing else ''}")


def cut_back(path: Path, step: int) -> None:
    """Takes from bad_steps.jsonl what is about later steps than this, which are done again, and what a kill cut short."""
    if path.exists():
        lines = re.finditer(r'^{"step": (\d+), .*\n', path.read_text(errors="replace"), re.MULTILINE)
        write_text(path, "".join(line[0] for line in lines if int(line[1]) <= step))


def bad_step(config: PretrainConfig, step: int, result: StepResult, indices: list[int], ranks: Ranks) -> str:
    """Writes down which examples a step had whose loss is no number or a spike, and gives words about it."""
    path = config.out / "bad_steps.jsonl"
    if ranks.is_first:
        line = {"step": step + 1, "loss": str(result.loss), "gradient_norm": str(result.gradient_norm)}
        with open(path, "a") as file:
            file.write(json.dumps(line | {"action": config.on_bad_step, "examples": indices}) + "\n")
    return (
        f"at step {step + 1} the loss is {result.loss:g} and the norm of its gradient {result.gradient_norm:g}; "
        f"its examples are {', '.join(map(str, indices[:3]))} … of {config.data}, all of them in {path}"
    )


def last_evaluation(out: Path) -> dict[str, float]:
    """The losses and accuracies of the last validation line of a run's metrics."""
    lines = [line for line in read_metrics(out / "metrics.jsonl") if line["split"] == "validation"]
    names = [field.name for field in fields(Evaluation)]
    return {name: lines[-1][name] for name in names if name in lines[-1]} if lines else {}


def describe(step: int, evaluation: Evaluation) -> str:
    """An evaluation in a line."""
    return (
        f"step {step:,}, validation: MLM loss {evaluation.mlm_loss:.3f}, accuracy {evaluation.mlm_accuracy:.1%}; "
        f"NSP loss {evaluation.nsp_loss:.3f}, accuracy {evaluation.nsp_accuracy:.1%}"
    )


def print_start(
    config: PretrainConfig, model: PretrainingModel, reader: BatchReader, ranks: Ranks, step: int, precision: str
) -> None:
    """Says what is about to be trained."""
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    where = f"{ranks.device}" if ranks.size == 1 else f"{ranks.size} ranks of {ranks.device.type}"
    threads = f", {torch.get_num_threads()} threads" if ranks.device.type == "cpu" else ""
    print(f"{num_parameters:,} parameters on {where} in {precision}{threads}")
    for length, examples in reader.examples.items():
        rows = examples.rows_per_copy
        epochs = ""
        if config.num_steps and config.length_of_training()[0] == "steps":
            phases = config.schedule(length).phases
            items = sum(p.share * config.num_steps * p.batch_size for p in phases if p.max_seq_length == length)
            epochs = f", to be read for {items / (sum(rows) / len(rows)):.1f} epochs of one copy each"
        print(f"length {length}: {sum(rows):,} examples in {len(rows)} copies{epochs}")
    if not model.nsp.classifier.weight.requires_grad:
        print("the examples are no pairs: next sentence prediction is not trained")
    if step:
        print(f"going on from step {step:,}", flush=True)  # also where the output is a file


def progress_bar(schedule: Schedule, progress: float, is_first: bool) -> "tqdm[Any]":
    """A bar on stderr; where that is a file, a line every half minute."""
    seconds = 0.1 if sys.stderr.isatty() else 30.0
    return tqdm(
        total=schedule.total,
        initial=progress,
        unit=" " + schedule.unit,
        unit_scale=schedule.unit == "tokens",
        dynamic_ncols=True,
        mininterval=seconds,
        maxinterval=max(seconds, 10.0),
        disable=not is_first,
    )
