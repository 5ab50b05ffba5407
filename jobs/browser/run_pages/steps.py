"""The examples of any past or future step, and of the bad steps, whose updates were skipped."""

from typing import Any, NamedTuple

from starlette.requests import Request
from starlette.responses import Response

from bertloom import storage
from bertloom.json_files import loads, read_regular
from bertloom.shapes import TEXT, MapOf, shaped
from jobs.browser.data_set import BrowsedDataSet
from jobs.browser.pages import number_of, render, run_of, translate
from jobs.browser.paging import Paging
from jobs.browser.run import BrowsedRun
from jobs.browser.section import Section
from jobs.browser.step_rows import num_of_sources, plan_step, rows_of_step
from jobs.browser.targets import Targets
from jobs.support.example_text import ExampleText, example_text
from model.loading.data_sets import DataSets
from model.runs.bad_steps import BAD_STEPS

PAGE = 20
"""Examples of a batch on one page, and bad steps on one page."""
SHOWN_TOKENS = 48
"""Tokens of each segment that are shown."""
SHOWN_EXAMPLES = 8
"""Examples of a bad step that are listed; the others are on the page of the step."""
LAST_STEP = 10**12
MAX_TEXT = 40
"""Characters of a text in bad_steps.jsonl that are shown."""


class BatchRow(NamedTuple):
    """An example of a step."""

    data_key: str
    source: str
    """Name of its data set among several; empty if the run has one."""
    example: int
    epoch: int
    copy: int
    text: ExampleText | None
    """None where it is not asked for or cannot be read."""
    fault: str


class BadStep(NamedTuple):
    """A line of bad_steps.jsonl."""

    step: int
    loss: str
    gradient_norm: str
    action: str
    examples: list[tuple[str, int]]
    """The name of the data set of each, empty if the run has one, and its number there."""


def show_step(request: Request) -> Response:
    """Show the examples of a step, by default of the last one that is logged."""
    run, targets = run_of(request), request.app.state.targets
    latest = run.points.latest()["train"].get("step", 1)
    step = number_of(request, "step", int(latest) or 1, 1, LAST_STEP)
    if run.is_finetuning:
        return render(request, "steps.html.j2", step=step, last=step, message=translate(request, FINETUNING))
    planned = plan_step(run, step, lambda: next_data_sets(targets, run))
    leg = planned.leg
    data_keys = {name: targets.find_data_set(digest) for name, digest in leg.digests().items()}
    missing = next((digest for name, digest in leg.digests().items() if data_keys[name] is None), None)
    if missing:
        return render(
            request,
            "steps.html.j2",
            step=step,
            last=run.last_step(),
            message=translate(request, OTHER_DATA, step=f"{step:,}", digest=missing[:12]),
        )
    paging = Paging.of(request, leg.batch_size, PAGE)
    opened = DataSets({name: targets.training_data(key) for name, key in data_keys.items() if key})
    found = rows_of_step(opened, leg, step, paging.first, PAGE)
    sources = [(name, key, targets.data_sets[key]) for name, key in data_keys.items() if key]
    is_local = all(storage.is_local(data_set.location) for _, _, data_set in sources)
    has_texts = is_local or request.query_params.get("texts") == "1"
    rows = []
    for index, copy, epoch, number in zip(found.indices, found.copies, found.epochs, found.sources):
        name, key, data_set = sources[number]
        rows.append(BatchRow(key, name, index, epoch, copy, *(text_of(data_set, index) if has_texts else (None, ""))))
    return render(
        request,
        "steps.html.j2",
        step=step,
        last=run.last_step(),
        message="",
        planned=planned,
        sources=list(zip(sources, num_of_sources(leg, step))),
        rows=rows,
        paging=paging,
        has_texts=has_texts,
        is_remasked=run.settings.get("remask") is True,
    )


FINETUNING = "This run is fine-tuning. It reads the rows of its files, which are not in a data set."
OTHER_DATA = (
    "Step {step} read another data set (sha256 of shards.parquet {digest}…), which is not open. "
    "Give it to the command, too: bertloom browse RUN DATASET"
)


def next_data_sets(targets: Targets, run: BrowsedRun) -> DataSets:
    """Return the data sets that a run goes on with; ValueError if one is not open.

    They are those in its configuration. Without --allow-change data, training would refuse to read others than before.
    """
    settings, state = run.settings, run.state()
    sources = run.sources
    if not sources:
        raise ValueError(f"{run.path / 'config.toml'} does not name the data set of the run")
    legs = state.progress.legs if state else ()
    known = {name: digest for leg in legs for name, digest in leg.digests().items()}
    found = {}
    for source in sources:
        name = source.name if len(sources) > 1 else ""
        key = targets.find_location(source.path)
        if name in known and not (key and "data" in settings.get("allow_change", ())):
            key = targets.find_data_set(known[name])
        if key is None:
            raise ValueError(
                run.data_set_faults.get(source.path)
                or f"{source.path} has changed since the run read it: give its data set to the command, too: "
                f"bertloom browse RUN DATASET"
            )
        found[name] = targets.training_data(key)
    return DataSets(found)


def text_of(data_set: BrowsedDataSet, index: int) -> tuple[ExampleText | None, str]:
    """Return the text of an example, or why it cannot be read."""
    try:
        return example_text(data_set.example(index), data_set.vocabulary, SHOWN_TOKENS), ""
    except ValueError as error:
        return None, str(error)


def show_bad_steps(request: Request) -> Response:
    """List the bad steps with their examples."""
    run, targets = run_of(request), request.app.state.targets
    try:
        lines = read_regular(run.path / BAD_STEPS).splitlines()
    except FileNotFoundError:
        lines = []
    paging = Paging.of(request, len(lines), PAGE)
    shown = lines[paging.first : paging.past]
    steps = [(number, parse_bad_step(text)) for number, text in enumerate(shown, paging.first + 1)]
    data_keys = {bad.step: data_keys_of(targets, run, bad.step) for _, bad in steps if bad}
    return render(
        request,
        "bad_steps.html.j2",
        steps=steps,
        data_keys=data_keys,
        num_steps=len(lines),
        paging=paging,
        shown_examples=SHOWN_EXAMPLES,
    )


def parse_bad_step(text: bytes) -> BadStep | None:
    """Return a line of bad_steps.jsonl, None if it is damaged."""
    try:
        values: dict[str, Any] = loads(text)
        shaped(values, {"step": int, "loss": str, "gradient_norm": str, "action": str})
        examples = values.get("examples")
        by_name: dict[str, Any] = examples if isinstance(examples, dict) else {"": examples}
        shaped(by_name, MapOf(TEXT, [int]))
    except ValueError:
        return None
    loss, gradient_norm, action = (values[name][:MAX_TEXT] for name in ("loss", "gradient_norm", "action"))
    named = [(name[:MAX_TEXT], number) for name, numbers in by_name.items() for number in numbers]
    return BadStep(values["step"], loss, gradient_norm, action, named)


def data_keys_of(targets: Targets, run: BrowsedRun, step: int) -> dict[str, str | None]:
    """Return the keys of the data sets that a step of the past has read by name, None for those that are not open."""
    state = run.state()
    legs = [leg for leg in state.progress.legs if leg.step < step] if state else []
    if legs:
        return {name: targets.find_data_set(digest) for name, digest in legs[-1].digests().items()}
    sources = run.sources
    return {(source.name if len(sources) > 1 else ""): targets.find_location(source.path) for source in sources}


STEPS = Section(name="steps", title="Steps", of="r", routes=[("steps", show_step)])
BAD = Section(name="bad-steps", title="Bad steps", of="r", routes=[("bad-steps", show_bad_steps)])
