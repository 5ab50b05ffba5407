"""Text to shards.

    bertloom preprocess --input 'corpus/*.jsonl.gz' --vocab vocab.txt --out DATASET \\
        --max-seq-length 128 512 --dupe-factor 5 --num-workers 2

writes a data set as docs/shard-format.md describes it. Killed at any moment and started again, it does the rest and the
data set has the same bytes. Flags behind `--` go to Beam: `-- --runner=FlinkRunner --flink_master=...`.
"""

import hashlib
import json
import os
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

import apache_beam as beam
import tyro
from apache_beam.options.pipeline_options import PipelineOptions

from bertloom import storage
from bertloom.locks import output_lock
from jobs.support.config import parse
from jobs.support.progress import JobProgress
from pipeline.checks.gates import Gates
from pipeline.examples.configuration import ExamplesConfig
from pipeline.inputs.discovery import find_sources
from pipeline.inputs.sources import Source, Split
from pipeline.inputs.splitting import split_size, split_source
from pipeline.local.disk_estimate import check_room
from pipeline.local.runner import for_people, is_local, pipeline_options, quiet_workers, run, worker_watch
from pipeline.preprocess import Places, Preprocess, balanced
from pipeline.stages.line_repeats import REPEATED, CountLines
from pipeline.stages.manifest import JobConfig
from pipeline.stages.tokenization import TokenizeConfig, part_names
from pipeline.storage_flags import storage_options
from pipeline.text.chinese import load_segmenter
from pipeline.text.icu import load_sentence_finder
from pipeline.vocabulary import read_vocabulary

OWN_FILES = {
    "--out": ("vocab.txt", "shards.parquet", "documents/train/00000.parquet", "rejects/rejects.jsonl.gz"),
    "--work-dir": ("parts/0.part",),
}
"""Of the files that a job writes, those that an --input could take for texts."""
SHARED_SECONDS = 3600  # in a shared --work-dir a half-written file this old is nobody's


@dataclass(frozen=True, kw_only=True)
class PreprocessConfig:
    """Text to shards. Inputs are .txt, .jsonl, .parquet, .arrow, data sets saved by Hugging Face `datasets`, and MediaWiki
    dumps, mixed as you like, plain or .gz, .bz2, .zst, .xz. Flags for Beam come last, behind `--`."""

    input: tuple[str, ...]
    """Files, folders or quoted globs, on any file system that fsspec knows; @LIST is a file with one of these a line."""
    vocab: str
    """The vocabulary, one word a line; `bertloom build-vocab` makes one."""
    out: str
    """The data set to write. Started again with the same flags, the job does the rest."""
    work_dir: str | None = None
    """Where tokenized text is kept. By default inside --out until it is complete; one given here is kept, and later jobs
    over the same texts with other lengths, copies or masks do not tokenize again."""
    num_workers: int = 1
    """Processes on this machine."""
    split_mb: float | None = None
    """Megabytes of text that a worker takes at a time; None: 8, and 64 from 100 GB of input on."""
    tokenize: Annotated[TokenizeConfig, tyro.conf.OmitArgPrefixes] = field(default_factory=TokenizeConfig)
    weave: Annotated[ExamplesConfig, tyro.conf.OmitArgPrefixes] = field(default_factory=ExamplesConfig)
    gates: Gates = field(default_factory=Gates)

    def __post_init__(self) -> None:
        if self.num_workers < 1:
            raise ValueError(f"--num-workers {self.num_workers}: expected 1 or more")
        if self.split_mb is not None and self.split_mb <= 0:
            raise ValueError(f"--split-mb {self.split_mb}: expected more than 0")


def main(argv: Sequence[str]) -> int:
    argv = list(argv)
    at = argv.index("--") if "--" in argv else len(argv)
    config = parse(PreprocessConfig, argv[:at], prog="bertloom preprocess")
    print_summary(preprocess(config, argv[at + 1 :]))
    from jobs.support.report import write_report  # imports jinja2

    return write_report(config.out, config.gates)


def preprocess(config: PreprocessConfig, beam_flags: Sequence[str] = ()) -> dict[str, Any]:
    """Makes the data set, or what is missing of it; its manifest, with the key `out` added."""
    options = pipeline_options(config.num_workers, beam_flags)
    storage.connect(storage_options(options))
    _keep_apart(config)
    vocabulary = read_vocabulary(config.vocab)
    for note in vocabulary.notes:
        _say(note)
    load_sentence_finder(config.tokenize.sentences)  # its error before the work begins
    if config.tokenize.chinese_words:
        load_segmenter()  # and this one's
    job = JobConfig(config.tokenize, config.weave, vocabulary)
    notes: list[str] = []
    sources = find_sources(config.input, notes, job.tokenize.text.read.encoding)
    for note in notes:
        _say(note)
    places = Places(config.out, config.work_dir or storage.join(config.out, ".work"))
    _make_folder("--out", config.out)
    with output_lock(config.out):
        manifest = _finished(places, job, sources)
        if manifest is None:
            total = sum(source.size for source in sources)
            part_bytes = round(config.split_mb * 1e6) if config.split_mb else split_size(total)
            splits = [split for source in sources for split in split_source(source, part_bytes, job.tokenize.text.read)]
            if room := check_room(places, job, splits, part_bytes):
                _say(room)
            begun = _claim(places, job, sources)
            storage.write_whole(places.vocabulary(vocabulary.sha256), [vocabulary.text])
            if config.tokenize.max_line_repeats is not None:
                places = _count_lines(config, options, places, splits)
            _make_folder("--work-dir", places.parts)
            if config.weave.near_duplicates is not None:
                _make_folder("--work-dir", places.near)
                storage.sweep_temporary(places.near, SHARED_SECONDS)
            _make_folder("--out", places.records)
            storage.sweep_temporary(places.dataset)
            storage.sweep_temporary(places.parts, SHARED_SECONDS)
            _tell_found(places, job, splits, begun)
            transform = Preprocess(places, job, sources, notes, part_bytes)
            has_bar = is_local(options) and storage.is_local(config.out)
            progress = JobProgress(places, total) if has_bar else nullcontext()
            try:
                _run(config, options, places, splits, transform, progress)
            except ValueError as error:  # of the texts; it may advise other flags, and these this output refuses now
                raise ValueError(
                    f"{error}; other flags or inputs need another --out, where --work-dir {places.work} lets them use "
                    f"the same tokens"
                ) from error
            manifest = json.loads(storage.read(storage.join(config.out, "manifest.json")))
            for note in manifest["notes"]:
                if note not in notes:
                    _say(note)
        storage.remove(places.scratch)
    return {**manifest, "out": config.out}


def _keep_apart(config: PreprocessConfig) -> None:
    """ValueError where the next start would take files of this job for texts."""
    for flag, place in (("--out", config.out), ("--work-dir", config.work_dir)):
        for pattern in config.input:
            if place and any(_reads(pattern, storage.join(place, *name.split("/"))) for name in OWN_FILES[flag]):
                raise ValueError(
                    f"{flag} {place} lies where --input {pattern} finds files: those of the job would be taken for texts "
                    f"when it is started again; choose a place outside"
                )


def _reads(pattern: str, path: str) -> bool:
    """Whether an input would find a file of this path."""
    if storage.is_local(pattern) and storage.is_local(path):
        is_folder, pattern, path = os.path.isdir(pattern), os.path.realpath(pattern), os.path.realpath(path)
        if is_folder:
            return path.startswith(os.path.join(pattern, ""))
    elif pattern.endswith("/"):
        return path.startswith(pattern)
    return storage.matches(pattern, path)


def _run(
    config: PreprocessConfig,
    options: PipelineOptions,
    places: Places,
    splits: list[Split],
    transform: beam.PTransform,
    progress: AbstractContextManager,
) -> None:
    watch: AbstractContextManager = nullcontext()
    log = None
    if is_local(options):
        on_disk = storage.is_local(config.out)
        log = os.path.join(places.scratch, "beam.log") if on_disk else os.devnull
        unlock = "" if on_disk else f"remove {storage.join(config.out, '.lock')}, then "
        watch = worker_watch("preprocess", f"What is finished is kept: {unlock}start")
    dealt = balanced(splits, config.num_workers)
    try:
        with watch, quiet_workers(log), progress:
            run(options, lambda pipeline: pipeline | "splits" >> beam.Create(dealt) | "preprocess" >> transform)
    except Exception as error:
        raise for_people(error) from error


def _count_lines(config: PreprocessConfig, options: PipelineOptions, places: Places, splits: list[Split]) -> Places:
    """Counts the lines of all documents; the places for parts without those that repeat."""
    _say("counting the lines of all documents, for --max-line-repeats")
    folder = storage.join(places.work, "lines")
    _make_folder("--work-dir", folder)
    assert config.tokenize.max_line_repeats is not None
    transform = CountLines(folder, places.scratch, config.tokenize.text, config.tokenize.max_line_repeats)
    _run(config, options, places, splits, transform, nullcontext())
    lines = storage.read(storage.join(places.scratch, REPEATED))
    places = replace(places, repeated_lines=hashlib.sha256(lines).hexdigest()[:24])
    _make_folder("--work-dir", places.parts)
    storage.write_whole(storage.join(places.parts, REPEATED), [lines])
    return places


def _make_folder(flag: str, path: str) -> None:
    try:
        storage.make_folder(path)
    except (FileExistsError, NotADirectoryError):
        raise ValueError(f"{flag} {path}: a file is in the way; expected a folder, or a name that is free") from None


def _finished(places: Places, job: JobConfig, sources: list[Source]) -> dict[str, Any] | None:
    """The manifest where the data set is complete; ValueError where it is another one's."""
    path = storage.join(places.dataset, "manifest.json")
    if not storage.exists(path):
        return None
    manifest = json.loads(storage.read(path))
    if manifest.get("configuration_digest") != job.digest:
        raise ValueError(
            f"{places.dataset} holds a complete data set of another configuration{_difference(manifest, job)}: "
            f"choose another --out"
        )
    if sorted(row["fingerprint"] for row in manifest["inputs"]) != sorted(s.fingerprint for s in sources):
        raise ValueError(f"{places.dataset} holds a complete data set of other input files: choose another --out")
    _say(f"{places.dataset} is complete already: nothing to do")
    return manifest


def _claim(places: Places, job: JobConfig, sources: list[Source]) -> bool:
    """Marks the output as this job's, or refuses: an output never holds two configurations or two inputs. True where an
    earlier start of the same job has begun it."""
    path = storage.join(places.scratch, "job.json")
    mine = {
        "configuration": job.as_dict(),
        "vocabulary": {"sha256": job.vocabulary.sha256},
        "configuration_digest": job.digest,
        "inputs": sorted(source.fingerprint for source in sources),
    }
    if not storage.exists(path):
        left = [
            name for name in ("train", "validation", "documents") if storage.exists(storage.join(places.dataset, name))
        ]
        if left:
            raise ValueError(
                f"{places.dataset} holds {', '.join(left)} that no job here has begun: choose an empty --out"
            )
        _make_folder("--out", places.scratch)
        storage.write_whole(path, [json.dumps(mine).encode()])
        return False
    theirs = json.loads(storage.read(path))
    if theirs["configuration_digest"] != job.digest:
        raise ValueError(
            f"{places.dataset} holds an unfinished data set of another configuration{_difference(theirs, job)}: "
            f"give the same flags to finish it, or choose another --out"
        )
    if theirs["inputs"] != mine["inputs"]:
        raise ValueError(
            f"{places.dataset} holds an unfinished data set of other input files: choose another --out; "
            f"a --work-dir given by name lets it use the same tokens"
        )
    return True


def _tell_found(places: Places, job: JobConfig, splits: list[Split], begun: bool) -> None:
    """Says what does not have to be done again."""
    parts = storage.names_in(places.parts)
    tokenized = sum(part_names(split, job.tokenize, job.vocabulary.sha256)(0) in parts for split in splits)
    woven = sum(name.endswith(".json") and not name.startswith(".") for name in storage.names_in(places.records))
    if begun or tokenized:
        what = "an unfinished run" if begun else f"the tokens in {places.work}"
        _say(f"going on with {what}: {tokenized} of {len(splits)} splits are tokenized, {woven} buckets are woven")


def _difference(theirs: dict[str, Any], job: JobConfig) -> str:
    mine, others = job.as_dict(), theirs.get("configuration", {})
    names = [name for name in {**mine, **others} if mine.get(name) != others.get(name)]
    if theirs.get("vocabulary", {}).get("sha256") != job.vocabulary.sha256:
        names.append("vocabulary")
    return f" ({', '.join(names)} differ)" if names else ""


def _say(text: str) -> None:
    print(f"bertloom preprocess: {text}", file=sys.stderr)


def print_summary(manifest: dict[str, Any]) -> None:
    """What a finished data set holds, in a few lines."""
    counters, configuration = manifest["counters"], manifest["configuration"]
    print(f"{manifest['out']}: complete")
    print(
        f"  documents  {counters['documents_in']:>13,} in = {counters['documents_used']:,} used"
        f" + {counters['documents_rejected']:,} rejected + {counters['documents_duplicate']:,} duplicate"
    )
    if "documents_near_duplicate" in counters:
        print(f"    duplicate {counters['documents_near_duplicate']:>12,} of them near ones: near-duplicates.parquet")
    for reason, number in counters["rejected"].items():
        print(f"    rejected {number:>13,} {reason}")
    for reason, number in counters["passed_over"].items():
        print(f"    and also {number:>13,} {reason}, passed over")
    for step, number in counters["cleaned"].items():
        print(f"    changed  {number:>13,} by {step}")
    if counters["characters_replaced"]:
        print(f"  replaced   {counters['characters_replaced']:>13,} bytes that were no UTF-8, by U+FFFD")
    print(
        f"  text       {counters['text_bytes'] / 1e6:>13,.1f} MB,"
        f" {counters['sentences']:,} sentences, {counters['tokens']:,} tokens"
    )
    pairs, objective = counters["pairs"], ExamplesConfig.of(configuration).objective
    for length in configuration["max_seq_length"]:
        line = f"  length {length:<4}{pairs[f'pairs/{length}']:>14,} examples in {configuration['dupe_factor']} copies"
        if objective.predicts_label:
            random, dropped = pairs[f"pairs-random/{length}"], pairs.get(f"pairs-dropped/{length}", 0)
            line += f", {random:,} {objective.labels[1]}, {dropped:,} pairs dropped"
        print(line)
    print(f"  held out   {counters['examples']['validation']:>13,} validation examples")
    print(f"  digest of all shards {manifest['shards_digest']}")
