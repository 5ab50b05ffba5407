"""`bertloom plan`: what a job or a training will make and need, before it runs.

    bertloom plan --input 'corpus/*.jsonl.gz' --vocab vocab.txt --max-seq-length 128 512 --num-workers 2
    bertloom plan --data web=WEB:0.7 BOOKS:0.3:epochs=2 --preset base --tokens-per-second 500000
    bertloom plan --input corpus --vocab vocab.txt --preset tiny --tokens-per-second 2700 --hours 2

With --input, reads a small sample of the texts and runs the stages of `preprocess` on it in a temporary folder. With --data,
computes the steps, tokens and epochs of a training on finished data sets. With --hours, also recommends what to train.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Annotated, Any

import tyro

from bertloom.extras import require
from bertloom.messages import print_message
from jobs.support.config import parse
from jobs.support.exclude import ExcludeConfig
from jobs.support.inputs import Like, read_inputs
from jobs.support.pretrain_config import PretrainConfig
from pipeline.examples.configuration import ExamplesConfig
from pipeline.local.beam_import import import_beam
from pipeline.options import check_num_workers
from pipeline.tokenizer import TokenizeConfig, check_packages

say = partial(print_message, "plan")

DEFAULT_SAMPLE_MB = 16.0


@dataclass(frozen=True, kw_only=True)
class PlanConfig:
    """Estimate what a job over texts, or a training, will make and need, before it runs."""

    input: tuple[str, ...] = ()
    """Files, folders, quoted globs or @LIST, as for `preprocess`."""
    inputs: str | None = None
    """A TOML file of more inputs, each with its own flags for reading, as for `preprocess`."""
    like: Like = None
    """A well-known corpus, such as c4 or wikiextractor. Sets the flags that read it. Other flags override these. See
    `bertloom corpora`."""
    validation_input: tuple[str, ...] = ()
    """Files, folders or globs of texts for the validation split, as for `preprocess`."""
    leave_out: tuple[str, ...] = ()
    """Names of input files to leave out, as for `preprocess`."""
    test_sets: Annotated[ExcludeConfig, tyro.conf.OmitArgPrefixes] = field(default_factory=ExcludeConfig)
    vocab: str | None = None
    """The vocabulary of the job, as for `preprocess`. `bertloom build-vocab` makes one."""
    num_workers: int = 1
    """Number of worker processes of the job on this machine."""
    split_mb: float | None = None
    """Megabytes of text that a worker of the job takes in one piece, as for `preprocess`."""
    sample_mb: float = DEFAULT_SAMPLE_MB
    """Megabytes of text to read, about. A larger sample takes longer and has smaller errors. An input that is smaller is
    read whole, and counted instead of estimated."""
    data: tuple[str, ...] = ()
    """Finished data sets, instead of texts, for a plan of their training: as for `pretrain`, such as WEB:0.7
    BOOKS:0.3:epochs=2."""
    temperature: float | None = None
    """Exponent of the sizes of several data sets, instead of their shares, as for `pretrain`."""
    preset: str | None = None
    """Preset of `pretrain`, such as base, or a .toml file: the shape of the model and the defaults of the training."""
    num_steps: int | None = None
    """Number of updates of the training. By default --preset decides."""
    num_epochs: float | None = None
    """Passes over the examples, instead of --num-steps."""
    num_tokens: int | None = None
    """Number of real tokens to train on, instead of --num-steps."""
    batch_size: int | None = None
    """Examples per update. By default --preset decides."""
    phases: tuple[str, ...] = ()
    """Phases of the training, as for `pretrain`, such as 128:0.9 512:0.1."""
    tokens_per_second: float | None = None
    """Speed of a training with --preset on this machine, in real tokens per second. `pretrain` prints it at the end, also
    after 20 steps."""
    hours: float | None = None
    """Recommend what to train in this time. Needs --tokens-per-second and --preset."""
    json: bool = False
    """Print one JSON object instead of a table."""
    tokenize: Annotated[TokenizeConfig, tyro.conf.OmitArgPrefixes] = field(default_factory=TokenizeConfig)
    examples: Annotated[ExamplesConfig, tyro.conf.OmitArgPrefixes] = field(default_factory=ExamplesConfig)

    def __post_init__(self) -> None:
        if self.data and (self.input or self.inputs):
            raise ValueError(
                "--data and --input: give --data for the training on finished data sets, or --input for texts that are to "
                "be preprocessed"
            )
        if not self.data:
            self._check_texts()
        for name in ("hours", "tokens_per_second", "batch_size", "num_steps", "num_epochs", "num_tokens"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"--{name.replace('_', '-')} {value:g}: expected more than 0")
        if self.hours is not None and (self.tokens_per_second is None or self.preset is None):
            raise ValueError(
                f"--hours {self.hours:g}: needs --tokens-per-second, the speed of this machine, and --preset, with which it "
                f"was measured. `bertloom pretrain tiny --data DATASET --out RUN --num-steps 20` prints it at the end"
            )

    def _check_texts(self) -> None:
        if not (self.input or self.inputs):
            raise ValueError(
                "no input: expected --input or --inputs with texts to preprocess, or --data with finished data "
                "sets to train on"
            )
        check_num_workers(self.num_workers)
        if self.sample_mb <= 0:
            raise ValueError(f"--sample-mb {self.sample_mb:g}: expected more than 0, such as {DEFAULT_SAMPLE_MB:g}")
        if self.split_mb is not None and self.split_mb <= 0:
            raise ValueError(f"--split-mb {self.split_mb}: expected more than 0")
        if self.vocab is None:
            raise ValueError(
                "no vocabulary: the number of tokens depends on it. Give --vocab, or make one of these texts with "
                "`bertloom build-vocab`"
            )

    @property
    def has_training(self) -> bool:
        """Whether a training is to be planned."""
        lengths = (self.num_steps, self.num_epochs, self.num_tokens)
        return bool(self.data) or (
            any(one is not None for one in lengths) or (self.preset is not None and not self.hours)
        )

    def pretrain_config(self, data: Sequence[str]) -> PretrainConfig:
        """Return the configuration of the training. ValueError if `pretrain` would refuse it."""
        words = [] if self.preset is None else self.preset.split()
        for name in ("num_steps", "num_epochs", "num_tokens", "batch_size", "temperature"):
            if (value := getattr(self, name)) is not None:
                words += [f"--{name.replace('_', '-')}", str(value)]
        words += ["--phases", *self.phases] if self.phases else []
        return parse(PretrainConfig, [*words, "--data", *data, "--out", "RUN"], prog="bertloom plan")


def main(argv: Sequence[str]) -> None:
    config = parse(PlanConfig, argv, prog="bertloom plan")
    found = plan(config)
    print(json.dumps(found, indent=1) if config.json else "\n".join(_lines(found, config)))


def plan(config: PlanConfig) -> dict[str, Any]:
    """Return everything that the command prints, as plain values."""
    if config.has_training or config.hours is not None:
        require("bertloom plan of a training", "torch")
    found: dict[str, Any] = {}
    made_with = None
    if config.data:
        text_tokens, found["training"], made_with = plan_of_data(config)
    else:
        found["preprocess"] = plan_of_texts(config)
        text_tokens = found["preprocess"]["tokens"]["value"]
        if config.has_training:
            found["training"] = plan_of_both(config, found["preprocess"])
    if config.hours is not None:
        assert config.tokens_per_second and config.preset
        from jobs.support.recommendation import of_data_sets, recommend

        advice = recommend(config.hours, config.tokens_per_second, config.preset, text_tokens)
        if made_with:
            advice = of_data_sets(advice, *made_with)
        found["recommendation"] = [asdict(one) for one in advice]
    return found


def plan_of_texts(config: PlanConfig) -> dict[str, Any]:
    """Return the plan of `preprocess`."""
    from jobs.support.text_plan import about, estimate_texts
    from pipeline.inputs.discovery import find_sources
    from pipeline.inputs.sources import leave_out

    require("bertloom plan with --input", "apache_beam")
    import_beam(connectors=False)
    check_packages(config.tokenize)
    read, notes = config.tokenize.text.read, list[str]()
    listed = read_inputs(config.inputs, config.tokenize.text, config.input)
    found = find_sources(config.input, notes, read, config.validation_input, listed.inputs)
    sources = leave_out(found, config.leave_out)
    for note in notes:
        say(note)
    assert config.vocab
    estimate, notes = estimate_texts(
        sources,
        config.tokenize,
        config.examples,
        config.vocab,
        config.test_sets,
        sample_bytes=round(config.sample_mb * 1e6),
        part_bytes=round(config.split_mb * 1e6) if config.split_mb else None,
        num_workers=config.num_workers,
        inputs=listed.named,
    )
    size = sum(source.size for source in sources)
    return {"files": len(sources), "bytes": size, **about(estimate, config.examples, notes)}


def plan_of_data(config: PlanConfig) -> tuple[float, dict[str, Any], tuple[int, list[int]]]:
    """Return (tokens of one copy of all data sets, the plan of a training on them, their words and lengths)."""
    from jobs.support.training_plan import about_training, plan_data

    pretrain = config.pretrain_config(config.data)
    plan = plan_data(pretrain)
    about = about_training(plan.phases, pretrain, plan.vocabulary_size, plan.notes, config.tokens_per_second)
    return plan.copy_tokens, about, (plan.vocabulary_size, plan.lengths)


def plan_of_both(config: PlanConfig, texts: dict[str, Any]) -> dict[str, Any]:
    """Return the plan of a training on the data set that `preprocess` will make."""
    from jobs.support.training_plan import about_training, plan_estimated
    from pipeline.vocabulary_files import read_vocabulary

    assert config.vocab
    pretrain = config.pretrain_config(["DATASET"])
    phases = plan_estimated(pretrain, texts["examples"], texts["copies"])
    words = len(read_vocabulary(config.vocab).words)
    return about_training(phases, pretrain, words, [], config.tokens_per_second)


def _lines(found: dict[str, Any], config: PlanConfig) -> list[str]:
    from bertloom.counts import counted
    from jobs.support.preview import size
    from jobs.support.text_plan import text_lines
    from jobs.support.training_lines import advice_lines, training_lines

    lines = []
    if texts := found.get("preprocess"):
        lines.append(f"preprocess: {counted(texts['files'], 'file')}, {size(texts['bytes'])}")
        lines += [f"  {line}" if line else "" for line in text_lines(texts, config.num_workers)]
    if training := found.get("training"):
        lines += [*([""] if lines else []), "pretrain", *(f"  {line}" for line in training_lines(training))]
    if advice := found.get("recommendation"):
        lines += [
            *([""] if lines else []),
            f"what to train in {config.hours:g} {'hour' if config.hours == 1 else 'hours'}",
        ]
        lines += [f"  {line}" for line in advice_lines(advice)]
    return lines
