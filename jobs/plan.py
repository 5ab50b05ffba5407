"""`bertloom plan`: what a job will make and need, before it runs.

    bertloom plan --input 'corpus/*.jsonl.gz' --vocab vocab.txt --max-seq-length 128 512 --num-workers 2

Reads a small sample of the texts, runs the stages of `preprocess` on it in a temporary folder, and prints documents,
tokens, examples, disk space, memory and time of the whole job, with ranges. Takes the flags of `preprocess`. Writes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any

import tyro

from bertloom.extras import require
from bertloom.messages import print_message
from jobs.support.config import parse
from jobs.support.exclude import ExcludeConfig
from jobs.support.inputs import Like, check_inputs, read_inputs
from pipeline.examples.configuration import ExamplesConfig
from pipeline.local.beam_import import import_beam
from pipeline.options import check_num_workers
from pipeline.tokenizer import TokenizeConfig, check_packages

say = partial(print_message, "plan")

DEFAULT_SAMPLE_MB = 16.0


@dataclass(frozen=True, kw_only=True)
class PlanConfig:
    """Estimate what a job will make and need, from a small sample of its texts, before it runs."""

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
    json: bool = False
    """Print one JSON object instead of a table."""
    tokenize: Annotated[TokenizeConfig, tyro.conf.OmitArgPrefixes] = field(default_factory=TokenizeConfig)
    examples: Annotated[ExamplesConfig, tyro.conf.OmitArgPrefixes] = field(default_factory=ExamplesConfig)

    def __post_init__(self) -> None:
        check_inputs(self.input, self.inputs)
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


def main(argv: Sequence[str]) -> None:
    config = parse(PlanConfig, argv, prog="bertloom plan")
    found = plan(config)
    print(json.dumps(found, indent=1) if config.json else "\n".join(_lines(found, config)))


def plan(config: PlanConfig) -> dict[str, Any]:
    """Return everything that the command prints, as plain values."""
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
    for note in [*notes, *listed.ignored]:
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


def _lines(found: dict[str, Any], config: PlanConfig) -> list[str]:
    from bertloom.counts import counted
    from jobs.support.preview import size
    from jobs.support.text_plan import text_lines

    head = f"preprocess: {counted(found['files'], 'file')}, {size(found['bytes'])}"
    return [head, *(f"  {line}" if line else "" for line in text_lines(found, config.num_workers))]
