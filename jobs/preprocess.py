"""`bertloom preprocess`: text to shards.

    bertloom preprocess --input 'corpus/*.jsonl.gz' --vocab vocab.txt --out DATASET \\
        --max-seq-length 128 512 --dupe-factor 5 --num-workers 2

Writes a data set (docs/shard-format.md). If the job is killed at any moment and started again, it does the rest, and the
data set has the same bytes. Flags after `--` go to Beam: `-- --runner=FlinkRunner --flink_master=...`.
"""

from __future__ import annotations

import json
import os
import sys
import uuid
from collections.abc import Iterable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from bertloom import storage
from bertloom.counts import counted
from bertloom.locks import output_lock
from bertloom.messages import print_message
from bertloom.sealed_files import write_sealed
from jobs.support.config import NamesPreset, parse
from jobs.support.exclude import ExcludeConfig
from jobs.support.inputs import Like, check_inputs, read_inputs
from jobs.support.passes import take_sample, with_repeated_lines
from pipeline.checks.gates import Gates
from pipeline.examples.configuration import ExamplesConfig
from pipeline.inputs.sources import Source, SplitGroup
from pipeline.local.beam_import import import_beam
from pipeline.options import check_num_workers
from pipeline.places import Places
from pipeline.tokenizer import TokenizeConfig, check_packages, settled

if TYPE_CHECKING:
    from apache_beam.options.pipeline_options import PipelineOptions
    from apache_beam.runners.runner import PipelineResult

    from pipeline.execution import Launcher
    from pipeline.extended import Extension
    from pipeline.job import JobConfig
    from pipeline.remote.engine import Engine
    from pipeline.text.word_runs import RunIndex
    from pipeline.vocabulary import Vocabulary

say = partial(print_message, "preprocess")


def _options_of(location: str | Sequence[str]) -> dict[str, Any]:
    """Return the options of a data set, of the first one if there are several."""
    from pipeline.extended import options_of

    return options_of(location if isinstance(location, str) else location[0])


@dataclass(frozen=True, kw_only=True)
class PreprocessConfig:
    """Convert text to shards for pretraining.

    The input may be text, JSON Lines, CSV, Parquet, Arrow, Markdown, HTML, MediaWiki dumps, web archives and other formats,
    in any mixture, compressed or in .tar and .zip archives (docs/inputs.md). `bertloom preview` shows what a job would read.
    Flags for Beam come last, after `--`.
    """

    out: str
    """Folder of the data set to write. After an interruption, the same command does the rest."""
    vocab: str | None = None
    """The vocabulary: a vocab.txt with one word per line, a tokenizer.json, or a folder with either, as transformers writes
    it. `bertloom build-vocab` makes one. It may be left out with --extend, which takes the data set's vocabulary."""
    input: tuple[str, ...] = ()
    """Files, folders or quoted globs, local or on an object store. @LIST is a file with one of these per line."""
    inputs: str | None = None
    """A TOML file of sources: tables [[input]] with `path` and, for example, `name`, `like`, `text_column`, `languages` or
    `tokens`. Each has its own flags for reading and cleaning, its own budget, and its own counts in the report."""
    per_source: bool = False
    """With --inputs: make a data set for each source, in the folder of its name in --out. A text that several sources have
    is in the data set of the first one."""
    like: Like = None
    """A well-known corpus, such as c4 or wikiextractor. Sets the flags that read it. Other flags override these. See
    `bertloom corpora`."""
    extend: Annotated[tuple[str, ...], NamesPreset(_options_of)] = ()
    """Finished data sets to extend: input files that they read and documents that they hold are left out, so that --out has
    only what is new. The first one decides the defaults of all flags for reading, cleaning, tokens and examples. Train on
    all of them: `bertloom pretrain --data` takes several."""
    validation_input: tuple[str, ...] = ()
    """Files, folders or globs of texts for the validation split. By default --validation-fraction chooses documents of
    --input. Texts of --input that equal a text of these files are not trained on."""
    leave_out: tuple[str, ...] = ()
    """Names of input files to leave out, as in error messages and manifest.json. Each is counted as a reject. Use this for a
    file that ends a worker process whenever it is read."""
    test_sets: Annotated[ExcludeConfig, tyro.conf.OmitArgPrefixes] = field(default_factory=ExcludeConfig)
    work_dir: str | None = None
    """Folder for tokenized text. Later jobs over the same texts with the same folder do not tokenize them again, whatever
    their lengths, copies or masks. By default it is inside --out and is removed at the end."""
    num_workers: int = 1
    """Number of worker processes on this machine. An engine (--runner) has workers of its own."""
    split_mb: float | None = None
    """Megabytes of text that a worker takes in one piece. By default 8, or 64 if the input has 100 GB or more."""
    tokenize: Annotated[TokenizeConfig, tyro.conf.OmitArgPrefixes] = field(default_factory=TokenizeConfig)
    examples: Annotated[ExamplesConfig, tyro.conf.OmitArgPrefixes] = field(default_factory=ExamplesConfig)
    detect_languages: bool = False
    """Also show in the report the languages of a sample, and of each source of --inputs, by the detector of --languages
    (extra "langid")."""
    gates: Gates = field(default_factory=Gates)

    def __post_init__(self) -> None:
        check_inputs(self.input, self.inputs)
        if self.vocab is None and not self.extend:
            raise ValueError(
                "no vocabulary: expected --vocab with a vocab.txt, a tokenizer.json or a folder with either; `bertloom "
                "build-vocab` makes one"
            )
        check_num_workers(self.num_workers)
        if self.split_mb is not None and self.split_mb <= 0:
            raise ValueError(f"--split-mb {self.split_mb}: expected more than 0")
        if self.per_source and self.extend:
            raise ValueError(
                "--per-source and --extend: the data sets of sources cannot be extended in one job. Extend each with its "
                "own files, in a job without --per-source"
            )
        if self.per_source and self.inputs is None:
            raise ValueError("--per-source: the sources are the tables of a TOML file: give it with --inputs")
        if self.per_source and self.validation_input:
            raise ValueError(
                "--per-source and --validation-input: the files of --validation-input belong to no source. Give "
                "--validation-fraction, which takes the validation split of each source from its own documents"
            )
        fraction = self.examples.validation_fraction
        usual = (0.0, ExamplesConfig.validation_fraction)
        if self.validation_input and fraction not in usual and not self.extend:  # which may have set the fraction
            raise ValueError(
                f"--validation-fraction {fraction} and --validation-input both choose the validation split: give one of them"
            )


def main(argv: Sequence[str]) -> int:
    argv = list(argv)
    at = argv.index("--") if "--" in argv else len(argv)
    if any(word.partition("=")[0] == "--runner" for word in argv[:at]):
        raise ValueError("--runner: flags of Beam and of an engine follow a --, as in -- --runner=DaskRunner")
    if any(word.partition("=")[0] == "--extend" for word in argv[:at]):
        connect_stores(argv[at + 1 :])  # the data set, which may be in a store, decides defaults
    config = parse(PreprocessConfig, argv[:at], prog="bertloom preprocess")
    import_beam(connectors=at < len(argv))
    manifests = make_all(config, argv[at + 1 :])
    if manifests is None:
        return 0
    from jobs.support.report import write_report  # not at the top: imports jinja2
    from jobs.support.summary import print_summary

    status, limits = 0, read_inputs(config.inputs, config.tokenize.text, config.input).gates
    for manifest in manifests:
        print_summary(manifest)
        status = max(status, write_report(manifest["out"], config.gates, None, config.detect_languages, limits))
    return status


def connect_stores(beam_flags: Sequence[str]) -> None:
    """Connect the object stores that flags of Beam name."""
    import_beam(connectors=bool(beam_flags))
    from pipeline.execution import pipeline_options
    from pipeline.storage_flags import storage_options

    storage.connect(storage_options(pipeline_options(1, beam_flags)))


@dataclass(frozen=True)
class CheckedJob:
    """A job whose flags and inputs are checked. Nothing is written yet."""

    config: PreprocessConfig
    options: PipelineOptions
    job: JobConfig
    places: Places
    vocabulary: Vocabulary
    excluded: RunIndex | None
    """The test sets of --exclude."""
    sources: list[Source]
    notes: list[str]
    """Messages about the sources."""
    is_dry: bool
    """Whether the job is to be built and checked only."""
    extension: Extension
    """The data sets that it extends."""


def preprocess(config: PreprocessConfig, beam_flags: Sequence[str] = ()) -> dict[str, Any] | None:
    """Make the data set, or the missing rest of it. Return its manifest, with the additional key `out`.

    A dry run makes none and returns None. With --per-source, return the manifest of the first source.
    """
    manifests = make_all(config, beam_flags)
    return manifests[0] if manifests else None


def make_all(config: PreprocessConfig, beam_flags: Sequence[str] = ()) -> list[dict[str, Any]] | None:
    """Make the data sets of a job, or the missing rest of them. Return their manifests, see `preprocess`."""
    from pipeline.local.runner import is_local
    from pipeline.output import finished_manifests, make_folder, work_folder
    from pipeline.remote.engine import open_engine

    checked = check_job(config, beam_flags)
    options, places = checked.options, checked.places
    if checked.is_dry:
        say(dry_run(checked))
        return None
    make_folder("--out", config.out)
    with output_lock(config.out), work_folder(places) if config.work_dir else nullcontext():
        manifests = finished_manifests(places, checked.job, checked.sources)
        if manifests is not None:
            for data_set in manifests:
                storage.sweep_temporary(data_set)  # a kill may have come while the report was written
            say(f"{config.out} is already complete: nothing to do")
        else:
            with nullcontext() if is_local(options) else open_engine(options, beam_flags) as engine:
                manifests = make_data_sets(checked, engine)
        storage.remove(places.scratch)
    return [{**manifest, "out": folder} for folder, manifest in manifests.items()]


def check_job(config: PreprocessConfig, beam_flags: Sequence[str]) -> CheckedJob:
    """Check flags, vocabulary and inputs, and print what is to be known of them. ValueError if the job cannot be done."""
    from jobs.support.excluded_texts import read_excluded
    from pipeline.execution import pipeline_options
    from pipeline.extended import check_extension, leave_out_known, read_extension
    from pipeline.inputs.discovery import find_sources
    from pipeline.inputs.sources import leave_out
    from pipeline.job import JobConfig
    from pipeline.local.runner import is_local
    from pipeline.output import check_apart
    from pipeline.remote.dataflow import check_dataflow, is_dry_run, name_job
    from pipeline.storage_flags import storage_options
    from pipeline.vocabulary_files import read_vocabulary

    options = pipeline_options(config.num_workers, beam_flags)
    storage.connect(storage_options(options))
    listed = read_inputs(config.inputs, config.tokenize.text, config.input)
    if config.extend and (budgets := [one.name for one in listed.named if one.tokens is not None]):
        raise ValueError(
            f"--extend and tokens of the source {budgets[0]}: a budget would not count the documents that the data sets of "
            f"--extend have. Leave out tokens, or use sample"
        )
    patterns = [*config.input, *(pattern for one in listed.inputs for pattern in one.patterns)]
    check_apart(patterns, config.out, config.work_dir)
    check_apart(config.validation_input, config.out, config.work_dir, "--validation-input")
    is_dry = is_dry_run(options)
    given = {"--input": patterns, "--validation-input": config.validation_input, "--out": (config.out,)}
    check_dataflow(options, {**given, "--work-dir": filter(None, [config.work_dir]), "--extend": config.extend})
    extension = read_extension(config.extend, config.out)
    vocabulary = read_vocabulary(config.vocab) if config.vocab else extension.vocabulary()
    tokenize = settled(config.tokenize, vocabulary, config.vocab or config.extend[0])
    check_packages(tokenize)
    examples = replace(config.examples, validation_fraction=0.0) if config.validation_input else config.examples
    notes: list[str] = []
    excluded = read_excluded(config.test_sets, notes)
    test_sets = excluded.sha256 if excluded else ""
    digests = vocabulary.sha256, vocabulary.special_tokens_sha256, test_sets, extension.digests
    job = JobConfig(tokenize, examples, *digests, listed.named, config.per_source)
    if config.num_workers > 1 and not is_local(options):
        say(f"--num-workers {config.num_workers} is for this machine alone: an engine has workers of its own")
    sources = find_sources(config.input, notes, config.tokenize.text.read, config.validation_input, listed.inputs)
    sources = leave_out(sources, config.leave_out)
    if config.extend:
        notes += check_extension(extension, job, sources)
        sources, extension, about_files = leave_out_known(sources, extension, job)
        notes += about_files
    for note in filter(None, [*vocabulary.notes, vocabulary.block_tokenizer(tokenize.casing).note, *notes]):
        say(note)
    work = config.work_dir or storage.join(config.out, ".work")
    places = Places(config.out, work, start=uuid.uuid4().hex)
    name_job(options, "preprocess", config.out)
    return CheckedJob(config, options, job, places, vocabulary, excluded, sources, notes, is_dry, extension)


def what_looks_wrong(sources: Sequence[Source], job: JobConfig) -> list[str]:
    """Return what looks wrong with the beginnings of the files, as `bertloom preview` does."""
    from pipeline.checks.advice import advice
    from pipeline.checks.first_look import look_at

    config, needs_pairs = job.tokenize, job.examples.objective.predicts_label
    looks = look_at(sources, config, inputs=job.inputs)
    return [found for look in looks if not look.error for found in advice(look, config, needs_pairs)]


def dry_run(checked: CheckedJob) -> str:
    """Build and check the job, and start nothing. Return what was done. The only file written is that of the description."""
    from jobs.support.dry_run import DryRun
    from pipeline.output import claim, finished_manifests
    from pipeline.preprocess import Preprocess
    from pipeline.stages.line_repeats import CountLines

    job, places, sources = checked.job, checked.places, checked.sources
    if finished_manifests(places, job, sources) is not None:
        return f"dry run: {places.dataset} is already complete, so there is nothing to do"
    claim(places, job, sources, is_dry=True)
    groups, part_bytes = find_groups(checked)
    run = DryRun(checked.options, places, sources, groups)
    reading = job
    with suppress(FileNotFoundError):  # nothing has counted the documents
        reading = take_sample(run, job, places)
    if job.tokenize.max_line_repeats is not None:
        run(CountLines(reading.tokenize.text.clean, job.tokenize.max_line_repeats, places, reading.cleaning))
    run(Preprocess(job, reading, places, part_bytes, run.splits, ()))
    return run.finish()


def find_groups(checked: CheckedJob) -> tuple[list[SplitGroup], int]:
    """Return (the groups of splits, the bytes of text in a part), and print what looks wrong with the texts."""
    from pipeline.accents import accent_warning
    from pipeline.execution import balanced
    from pipeline.inputs.splitting import group_splits, split_size, split_source
    from pipeline.local.disk_estimate import check_room

    config, job, sources = checked.config, checked.job, checked.sources
    total_bytes = sum(source.size for source in sources)
    part_bytes = round(config.split_mb * 1e6) if config.split_mb else split_size(total_bytes)
    splits = [split for source in sources for split in split_source(source, part_bytes)]
    casing, is_own = checked.vocabulary.casing or job.tokenize.casing, checked.vocabulary.casing is not None
    if warning := accent_warning(splits, casing.lowers, casing.strip_accents, is_own):
        say(warning)
    for wrong in what_looks_wrong(sources, job):
        say(wrong)
    groups = balanced(group_splits(splits, part_bytes), config.num_workers)
    if room := check_room(checked.places, job, checked.vocabulary, groups, part_bytes):
        say(room)
    return groups, part_bytes


def make_data_sets(checked: CheckedJob, engine: Engine | None) -> dict[str, dict[str, Any]]:
    """Claim the output and run the pipeline. Return folder -> manifest of each data set.

    engine: the runner; None for bertloom's own on this machine.
    """
    from jobs.support.progress import JobProgress
    from pipeline.execution import Launcher
    from pipeline.extended import write_extension
    from pipeline.inputs.split_list import write_split_list
    from pipeline.output import claim
    from pipeline.remote.worker_check import worker_check
    from pipeline.vocabulary_files import write_copy

    places, sources = checked.places, checked.sources
    groups, part_bytes = find_groups(checked)
    is_continued = claim(places, checked.job, sources)
    write_copy(places.vocabulary(checked.job.vocabulary_digest), checked.vocabulary, checked.job.tokenize.casing)
    if checked.excluded:
        write_sealed(places.excluded(checked.job.excluded_sha256), checked.excluded.to_chunks())
    if checked.job.extends:
        write_extension(places.extended, checked.extension)
    split_list = write_split_list(places.scratch, sources, groups)
    if engine:
        say_where(engine, places, sources, groups)
    on_disk = storage.is_local(places.dataset)
    start = "Start" if on_disk else f"Remove {places.dataset}/.lock, then start"
    paths = [source.path for source in sources if not source.left_out]
    with worker_check(places, paths) if engine else nullcontext() as check:
        run = Launcher(
            options=checked.options,
            splits=split_list,
            command="preprocess",
            how_to_continue=f"Finished work is kept. {start}",
            log=os.path.join(places.scratch, "beam.log") if on_disk else os.devnull,
            progress=JobProgress("preprocess", places.work_log, sum(source.size for source in sources)),
            notes=places.reading_notes if on_disk else "",
            engine=engine,
            check=check,
        )
        run_stages(checked, run, groups, part_bytes, is_continued)
    if engine:
        print_counters(run.results)
    numbers = range(len(checked.job.inputs)) if checked.job.per_source else [-1]
    data_sets = [checked.job.places_of(places, number) for number in numbers]
    manifests: dict[str, dict[str, Any]] = {one.dataset: json.loads(storage.read(one.manifest)) for one in data_sets}
    for one in data_sets:
        for note in manifests[one.dataset]["notes"]:
            if note not in checked.notes:
                say(f"{one.source}: {note}" if one.source else note)
    return manifests


def run_stages(
    checked: CheckedJob, run: Launcher, groups: Sequence[SplitGroup], part_bytes: int, is_continued: bool
) -> None:
    """Run the passes over the texts that the job's flags ask for, and then the pipeline.

    Args:
        groups: of splits.
        part_bytes: bytes of text in a part.
        is_continued: whether an earlier start has claimed the output.
    """
    from pipeline.output import count_finished, has_shards, make_folder, prepare_folders
    from pipeline.preprocess import Preprocess
    from pipeline.stages.line_repeats import CountLines

    job, places = checked.job, checked.places
    reading = take_sample(run, job, places)
    if job.tokenize.max_line_repeats is not None:
        say("counting the lines of all documents, for --max-line-repeats")
        make_folder("--work-dir", places.lines)
        run(CountLines(reading.tokenize.text.clean, job.tokenize.max_line_repeats, places, reading.cleaning))
        places = with_repeated_lines(places)
    prepare_folders(places, job)
    num_tokenized, num_buckets = count_finished(places, reading, groups, part_bytes)
    if is_continued or num_tokenized:
        num_splits = sum(len(group.splits) for group in groups)
        what = "an unfinished run" if is_continued else f"the tokens in {places.work}"
        say(
            f"continuing with {what}: {num_tokenized} of {counted(num_splits, 'split')} tokenized, "
            f"{counted(num_buckets, 'bucket')} finished"
        )
    try:
        run(Preprocess(job, reading, places, part_bytes, run.splits, checked.notes))
    except ValueError as error:  # about the texts. It may suggest other flags, which an output with shards refuses
        if not has_shards(places):
            raise ValueError(
                f"{error}; {places.dataset} has no shards yet, so it can be used again with other flags"
            ) from error
        raise ValueError(
            f"{error}; other flags or inputs need another --out, and can reuse the tokens with --work-dir {places.work}"
        ) from error


def say_where(engine: Engine, places: Places, sources: Sequence[Source], groups: Sequence[SplitGroup]) -> None:
    """Print where a job runs, and what the launcher found there."""
    size = sum(source.size for source in sources) / 1e6
    say(f"runs on {engine.found}")
    splits = counted(sum(len(group.splits) for group in groups), "split")
    what = f"{splits} of {counted(len(sources), 'file')}, {size:,.1f} MB, such as {sources[0].path}"
    say(f"reads {what}; tokens in {places.work}; log in {engine.log}")


def print_counters(results: Iterable[PipelineResult]) -> None:
    """Print the counters of finished jobs, one stage per line, to standard error."""
    from pipeline.stages.counters import counters_of

    found = counters_of(results)
    say("counters by stage:" if found else "this runner keeps no counters; manifest.json has the numbers")
    for stage, counters in found.items():
        numbers = ", ".join(f"{name} {number:,}" for name, number in sorted(counters.items()) if number)
        print(f"  {stage:<15}{numbers}", file=sys.stderr)
