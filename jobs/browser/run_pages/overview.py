"""The overview of a run: its configuration, its state, its checkpoints and what it has read."""

from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from starlette.requests import Request
from starlette.responses import Response

from jobs.browser.curve_points import Latest
from jobs.browser.metrics_lines import sources_in
from jobs.browser.pages import cut, render, run_of, translate
from jobs.browser.run import BrowsedRun
from jobs.browser.section import Section
from jobs.browser.step_rows import config_of
from jobs.browser.targets import Targets
from jobs.support.phase_tables import PhaseRow, phase_rows
from model.runs.bad_steps import BAD_STEPS
from model.runs.state import TrainingState

MAX_ROWS = 500
"""Rows of a table that are shown; a file from elsewhere may have any number."""
MAX_TEXT = 300


class SourceOfRun(NamedTuple):
    """What a run has read of a source of its mixture."""

    name: str
    tokens: float
    share: float
    """Its share of the tokens of all sources."""
    loss: float | None
    """MLM loss in the last step with masked tokens of it."""
    validation_loss: float | None


class Checkpoint(NamedTuple):
    """A folder in checkpoints/."""

    name: str
    megabytes: float


def show_overview(request: Request) -> Response:
    run, targets = run_of(request), request.app.state.targets
    state = run.state()
    settings = flat(run.settings)
    latest = run.points.latest()
    return render(
        request,
        "overview.html.j2",
        run=run,
        state=state,
        condition=condition_of(request, run, state),
        last_step=max([*(int(values.get("step", 0)) for values in latest.values()), state.step if state else 0]),
        settings=[(name, cut(text, MAX_TEXT)) for name, text in settings[:MAX_ROWS]],
        sources=sources_of_run(latest),
        checkpoints=[Checkpoint(path.name, size_of(path) / 1e6) for path in run.checkpoints()[-MAX_ROWS:]],
        phases=phases_of_run(run),
        legs=[
            (leg, [(name, digest, targets.find_data_set(digest)) for name, digest in leg.digests().items()])
            for leg in (state.progress.legs[-MAX_ROWS:] if state else ())
        ],
        changes=[
            (change, *(cut(str(change[name]), MAX_TEXT) for name in ("before", "after")))
            for change in (state.changes if state else [])
        ],
        data_sets=data_sets_of_run(request, targets, run, state),
        has_bad_steps=(run.path / BAD_STEPS).exists(),
    )


def phases_of_run(run: BrowsedRun) -> list[PhaseRow]:
    """Return the phases of a pretraining run; none if it has no others than the whole training.

    A length of 0 is the shortest one of the data set.
    """
    if run.is_finetuning or not (run.settings.get("phases") or run.settings.get("phase")):
        return []
    try:
        config = config_of(run)
        return phase_rows(config.all_phases(), *config.length_of_training(), config.learning_rate)[:MAX_ROWS]
    except (OSError, ValueError):  # another version, or damaged
        return []


def condition_of(request: Request, run: BrowsedRun, state: TrainingState | None) -> str:
    """Return whether a run is finished, or else when it wrote its last line."""
    if (state and state.is_finished) or (run.path / "results.json").exists():
        return translate(request, "finished")
    try:
        written = datetime.fromtimestamp((run.path / "metrics.jsonl").stat().st_mtime).astimezone()
    except FileNotFoundError:
        return translate(request, "no step is done yet")
    return translate(request, "not finished; last line written at {time}", time=f"{written:%Y-%m-%d %H:%M:%S %z}")


def data_sets_of_run(
    request: Request, targets: Targets, run: BrowsedRun, state: TrainingState | None
) -> list[tuple[str, str | None, str]]:
    """Return the name of each data set that a run reads, its key, None if it is not open, and what is wrong with it."""
    sources = run.sources
    known = {name: digest for leg in (state.progress.legs if state else ()) for name, digest in leg.digests().items()}
    found = []
    for source in sources:
        name = source.name if len(sources) > 1 else ""
        key, note = targets.find_location(source.path), ""
        if name in known:
            key = targets.find_data_set(known[name])
        if key is None and source.path in run.data_set_faults:
            note = run.data_set_faults[source.path]
        elif key is None and name in known:
            note = translate(
                request,
                "{location} has changed since the run read it: its shards.parquet has another sha256 than {digest}…",
                location=source.path,
                digest=known[name][:12],
            )
        found.append((name, key, note))
    return found


def sources_of_run(latest: Latest) -> list[SourceOfRun]:
    """Return the sources of a run's mixture; none if it reads one data set."""
    train, validation = latest["train"], latest["validation"]
    tokens = {name: train[f"tokens_by_source/{name}"] for name in sources_in(train, "tokens_by_source")}
    total = sum(tokens.values()) or 1.0
    return [
        SourceOfRun(
            name=cut(name, MAX_TEXT),
            tokens=number,
            share=number / total,
            loss=train.get(f"loss_by_source/{name}"),
            validation_loss=validation.get(f"loss_by_source/{name}"),
        )
        for name, number in tokens.items()
    ]


def flat(table: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Return the values of a configuration, with the keys of nested tables after a dot.

    >>> flat({"seed": 1, "phases": ["64:1"], "model": {"hidden_size": 128}})
    [('seed', '1'), ('phases', '64:1'), ('model.hidden_size', '128')]
    """
    rows = []
    for name, value in table.items():
        if isinstance(value, dict):
            rows += flat(value, f"{prefix}{name}.")
        else:
            rows.append((prefix + name, " ".join(map(str, value)) if isinstance(value, list) else str(value)))
    return rows


def size_of(folder: Path) -> int:
    """Return the bytes of the files in a folder."""
    return sum(path.stat().st_size for path in folder.glob("*") if path.is_file())


OVERVIEW = Section(name="overview", title="Overview", of="r", routes=[("overview", show_overview)])
