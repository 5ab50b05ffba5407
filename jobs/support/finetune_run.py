"""Runs fine-tuning with one seed: resumes it, trains, and finishes with the best model and results.json."""

import json
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from signal import Signals
from typing import Any

from bertloom.whole_files import remove_folder, sweep_temporary, write_text
from jobs.support.config import dump
from jobs.support.finetune_results import read_results
from jobs.support.finetuning import (
    FinetuneJob,
    Finetuning,
    describe_metrics,
    digests_of,
    model_path,
    remove_other_models,
)
from model.mixed_precision import compute_copy
from model.runs.best import Best
from model.runs.checkpoint import load_checkpoint
from model.runs.loop import train
from model.runs.metrics import read_metrics
from model.runs.progress import Progress
from model.runs.recorder import RecorderOptions, make_recorder
from model.runs.resume import changes_between
from model.tasks.heads import TaskModel
from model.tasks.initial_weights import load_encoder
from model.tasks.training import FinetuneState, build_optimizer, freeze


@dataclass(frozen=True, kw_only=True)
class SeedResult:
    """The end of a run with one seed."""

    seed: int
    out: Path
    """The run folder, which holds the best model as `model`."""
    step: int
    """Number of updates."""
    best_step: int
    """Number of updates of the best model."""
    metrics: dict[str, float]
    """Metrics of the best model on the dev rows."""
    tokens_per_second: float
    """Real tokens per second of this call, without evaluations; 0 if the run was finished already."""


def train_seed(job: FinetuneJob, seed: int, out: Path, signals: Sequence[Signals]) -> SeedResult | int:
    """Train one run, from the last checkpoint if there is one. Return its end, or the number of a signal that stopped it."""
    ranks = job.ranks
    settings = json.loads(json.dumps(job.settings | {"seed": seed}))
    if finished := ranks.share_json(read_result(out, settings) if ranks.is_first else None):
        result = result_of(seed, out, finished)
        if ranks.is_first:
            print(f"{out} is finished: {describe_metrics(result.metrics)} at step {result.best_step:,}")
            remove_intermediate(out)  # in case that a kill came first
        return result
    training, progress = resume(job, seed, out, settings)
    options = RecorderOptions(total=job.num_steps, unit="steps", configuration={})
    with training.recorder.open(progress, options):
        progress, stop_signal = train(training, progress, signals)
    if not training.is_over(progress):
        name = Signals(stop_signal).name
        training.recorder.print(
            f"seed {seed}: stopped by {name} at step {progress.step:,}, saved in {out}; start again to resume"
        )
        return stop_signal
    finished = ranks.share_json(finish(training, progress) if ranks.is_first else None)
    return result_of(seed, out, finished, training.meter.tokens_per_second)


def resume(job: FinetuneJob, seed: int, out: Path, settings: dict[str, Any]) -> tuple[Finetuning, Progress]:
    """Load the latest checkpoint, or else the pretrained weights.

    Raises:
        ValueError: settings that decide the numbers have changed.
    """
    config, ranks = job.config, job.ranks
    recorder = make_recorder(out, ranks)
    found = recorder.find_checkpoint(FinetuneState)
    saved = ranks.share_json(asdict(found[1]) if found else None)
    state = FinetuneState(progress=Progress(), best=Best(), settings=settings)
    if saved:
        state = FinetuneState.from_json(saved)
    changes_between(state.settings, settings, state.step)
    if ranks.is_first:
        check_best(out, state.best, state.best_files)
        out.mkdir(parents=True, exist_ok=True)
        write_inputs(job)
        remove_other_models(out, state.best.step)

    model, new_weights = build_model(job, seed)
    freeze(model.encoder, config.frozen_layers)
    model.to(ranks.device)
    optimizer = build_optimizer(model, config.weight_decay, config.layer_decay)
    recorder.check_space(model, optimizer, 2, num_models=2)  # the best model so far, and a better one
    load_checkpoint(found[0] if found else None, model, optimizer, ranks)
    if saved:
        recorder.print(f"seed {seed}: resuming at step {state.step:,}")
    elif new_weights:
        recorder.print(f"seed {seed}: new weights for {', '.join(new_weights)}")
    training = Finetuning(
        job=job,
        seed=seed,
        settings=settings,
        ranks=ranks,
        recorder=recorder,
        model=model,
        optimizer=optimizer,
        copy=compute_copy(model, job.precision),
        start_step=state.step,
        best=state.best,
        best_files=state.best_files,
    )
    return training, state.progress.in_precision(job.precision)


def write_inputs(job: FinetuneJob) -> None:
    """Write the configuration and the skipped rows into the command's folder."""
    write_text(job.config.out / "config.toml", dump(job.config))
    if rejected := job.bad_train + job.bad_dev:
        lines = [json.dumps(row._asdict(), ensure_ascii=False) + "\n" for row in rejected]
        write_text(job.config.out / "bad_rows.jsonl", "".join(lines))


def build_model(job: FinetuneJob, seed: int) -> tuple[TaskModel, list[str]]:
    """Return the model before its first step, and the names of its parts with new weights."""
    shape = job.pretrained.config.shape.with_dropouts(job.config.dropout, job.config.attention_dropout)
    config = replace(job.pretrained.config, shape=shape)
    model = job.task.build_model(config)
    return model, load_encoder(model, job.pretrained, seed, random_weights=job.config.random_weights)


def finish(training: Finetuning, progress: Progress) -> dict[str, Any]:
    """Move the best model to its final place, and return the content of results.json, which is written."""
    out, best_step = training.recorder.out, training.best.step
    assert best_step is not None, "the last step is evaluated"
    best = model_path(out, best_step)
    if best.exists():  # else a kill came after the rename below
        shutil.rmtree(out / "model", ignore_errors=True)
        best.rename(out / "model")
    values = evaluation_of(out, best_step)
    content = {"step": progress.step, "best_step": best_step, "metrics": values, "settings": training.settings}
    content["files"] = training.best_files
    write_text(out / "results.json", json.dumps(content, indent=2) + "\n")
    remove_intermediate(out)
    return content


def evaluation_of(out: Path, step: int) -> dict[str, Any]:
    """Return the metrics of the evaluation after a step; ValueError if metrics.jsonl does not have them."""
    for line in read_metrics(out / "metrics.jsonl"):
        if (line["step"], line["split"]) == (step, "validation"):
            return {key: value for key, value in line.items() if key not in ("step", "split", "seconds")}
    raise ValueError(
        f"{out / 'metrics.jsonl'} has no evaluation of step {step:,}, the best so far: put the file back, or give a new "
        f"--out"
    )


def check_best(out: Path, best: Best, files: dict[str, str]) -> None:
    """Raise ValueError if the best model so far is missing or damaged, or its metrics, which the result of the run needs.

    files: sha256 of its files, if they are known.
    """
    if best.step is None:
        return
    path = model_path(out, best.step)
    if not path.is_dir() and not (out / "model").is_dir():
        raise ValueError(f"{path}, the best model so far, is missing: put it back, or give a new --out")
    check_model_files(path if path.is_dir() else out / "model", files)
    evaluation_of(out, best.step)


def check_model_files(folder: Path, files: dict[str, str]) -> None:
    """Raise ValueError unless the files of a model have these sha256."""
    found = digests_of(folder)
    for name, sha256 in files.items():
        if found.get(name) != sha256:
            raise ValueError(
                f"{folder / name}, of the best model, is {'damaged' if name in found else 'missing'}: put it back as "
                f"it was, or give a new --out"
            )


def remove_intermediate(out: Path) -> None:
    """Remove the checkpoints and the intermediate models of a finished run. Other files stay."""
    for folder in (out / "checkpoints", out / "models"):
        sweep_temporary(folder)
        for path in folder.glob("step-*"):
            if path.is_dir():
                remove_folder(path)
        with suppress(OSError):  # something else is in it, or it does not exist
            folder.rmdir()


def read_result(out: Path, settings: dict[str, Any]) -> dict[str, Any] | None:
    """Return the content of results.json of a finished run, or None; ValueError if its settings were different."""
    path = out / "results.json"
    if not path.exists():
        return None
    content = read_results(path)
    changes_between(content["settings"], settings, content["step"])
    if not (out / "model").is_dir():
        raise ValueError(f"{out} is finished, but {out / 'model'} is missing: put it back, or give a new --out")
    check_model_files(out / "model", content.get("files", {}))
    return content


def result_of(seed: int, out: Path, content: dict[str, Any], tokens_per_second: float = 0.0) -> SeedResult:
    """Return the end of a run from the content of its results.json."""
    return SeedResult(
        seed=seed,
        out=out,
        step=content["step"],
        best_step=content["best_step"],
        metrics=content["metrics"],
        tokens_per_second=tokens_per_second,
    )
