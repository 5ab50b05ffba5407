"""The data sets that a job extends (--extend): how they are read before it begins, and what its workers get to know.

A job that extends data sets makes a data set of its own from what is new. It leaves out the input files that they read and,
in the stage of known documents, the documents that they hold.
"""

import json
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from bertloom import storage
from bertloom.manifest import DAMAGED, read_dataset
from bertloom.sealed_files import read_sealed, write_sealed
from pipeline.dataset import NEAR_DUPLICATES, vocabulary_of
from pipeline.examples.configuration import ExamplesConfig
from pipeline.inputs.named_inputs import clean_of
from pipeline.inputs.sources import Source
from pipeline.job import JobConfig
from pipeline.options import option_names
from pipeline.tokenizer import TokenizeConfig, token_versions
from pipeline.vocabulary import Vocabulary

SHARED = ("do_lower_case", "strip_accents", "max_seq_length")
"""Options that data sets must have in common, together with the vocabulary, to be trained on as a mixture."""


@dataclass(frozen=True, kw_only=True)
class Extended:
    """A data set that the job extends, as the stages need it."""

    name: str
    """Its name in counters and in the report: the name of its folder."""
    location: str
    """Its folder."""
    sha256: str
    """sha256 of its manifest."""
    shards_digest: str
    pages: dict[str, str]
    """Files with the ids of its documents -> their sha256."""
    sketches: dict[str, str] = field(default_factory=dict)
    """Files with the sketches of its documents, for near duplicates -> their sha256; empty if it has none."""
    num_files: int = 0
    """Input files of this job that it read, and which are not read again."""


@dataclass(frozen=True)
class Extension:
    """The data sets that a job extends."""

    data_sets: tuple[Extended, ...] = ()
    manifests: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)

    @property
    def digests(self) -> tuple[str, ...]:
        """What decides which documents are known, for the digest of the job."""
        return tuple(data_set.sha256 for data_set in self.data_sets)

    def vocabulary(self) -> Vocabulary:
        """Return the vocabulary of the first data set."""
        return vocabulary_of(self.data_sets[0].location, self.manifests[0])


def read_extension(locations: Sequence[str], out: str) -> Extension:
    """Read the manifests of the data sets. ValueError if one is not a finished data set, or is the output."""
    names, manifests, data_sets = _names(locations), [], []
    for name, location in zip(names, locations, strict=True):
        if _real(location) == _real(out):
            raise ValueError(
                f"--extend {location} is also the --out, but a finished data set never changes: give a new folder as --out"
            )
        if _real(out).startswith(_real(location).rstrip("/") + "/"):
            raise ValueError(
                f"--out {out} is inside --extend {location}, but a finished data set never changes: choose another folder"
            )
        manifest = read_manifest(location)
        manifests.append(manifest)
        pages = dict(manifest["documents"])
        if NEAR_DUPLICATES in manifest["files"]:
            pages[NEAR_DUPLICATES] = manifest["files"][NEAR_DUPLICATES]
        data_sets.append(
            Extended(
                name=name,
                location=location,
                sha256=manifest["sha256"],
                shards_digest=manifest["shards_digest"],
                pages=pages,
                sketches={name: sha256 for name, sha256 in manifest["files"].items() if name.startswith("sketches/")},
            )
        )
    return Extension(tuple(data_sets), tuple(manifests))


def read_manifest(location: str) -> dict[str, Any]:
    """Return the manifest of a data set that --extend names."""
    try:
        return read_dataset(location)[0]
    except ValueError as error:
        raise ValueError(f"--extend {error}") from error


def _names(locations: Sequence[str]) -> list[str]:
    """Return the names of the folders, or their whole paths where two have the same name. ValueError for one given twice."""
    for location in locations:
        if sum(_real(other) == _real(location) for other in locations) > 1:
            raise ValueError(f"--extend names {location} twice: give each data set once")
    names = [location.rstrip("/").rpartition("/")[2] or location for location in locations]
    return [name if names.count(name) == 1 else location for name, location in zip(names, locations)]


def _real(location: str) -> str:
    return os.path.realpath(location) if storage.is_local(location) else location.rstrip("/")


def options_of(location: str) -> dict[str, Any]:
    """Return the options that a data set was made with, as values of a preset: the defaults of a job that extends it."""
    configuration = read_manifest(location)["configuration"]
    known = {*option_names(TokenizeConfig), *option_names(ExamplesConfig)}
    values = {name: "None" if value is None else value for name, value in configuration.items() if name in known}
    most = values.pop("max_predictions_per_seq", None)
    examples = ExamplesConfig.of({name: value for name, value in configuration.items() if name in values})
    if most != [examples.max_predictions(length) for length in examples.max_seq_length]:
        values["max_predictions_per_seq"] = most
    return values


def check_extension(extension: Extension, job: JobConfig, sources: Sequence[Source]) -> list[str]:
    """Return notes for the user about the data sets. ValueError if a mixture could not have one of them and the new one."""
    notes: list[str] = []
    own = job.as_dict()
    for data_set, manifest in zip(extension.data_sets, extension.manifests, strict=True):
        others = manifest["configuration"]
        if manifest["vocabulary"]["sha256"] != job.vocabulary_sha256:
            raise ValueError(
                f"--extend {data_set.location} has the vocabulary {manifest['vocabulary']['sha256'][:12]}…, but this job "
                f"has {job.vocabulary_sha256[:12]}…: a run takes both data sets only with the same vocabulary. Leave out "
                f"--vocab to use the data set's vocabulary"
            )
        for name in SHARED:
            if own[name] != others.get(name):
                raise ValueError(
                    f"--{name.replace('_', '-')} {_shown(own[name])}: {data_set.location}, which --extend names, has "
                    f"{_shown(others.get(name))}, and a run takes both data sets only with the same value. Leave out the "
                    f"flag to use the data set's value"
                )
        notes += _about_near_duplicates(data_set, others, job)
        differing = [name for name in own if own[name] != others.get(name) and name not in SHARED]
        if differing:
            values = ", ".join(
                f"{name} {_shown(own[name])} instead of {_shown(others.get(name))}" for name in differing
            )
            notes.append(f"differs from {data_set.name}: {values}")
        notes += _about_sources(data_set, manifest, job)
        if manifest.get("excluded", {}).get("sha256", "") != job.excluded_sha256:
            notes.append(
                f"{data_set.name} and this job have different test sets in --exclude: give the same ones to keep "
                f"their texts out of both"
            )
        notes += _other_versions(data_set, manifest["versions"], job.tokenize, sources)
        notes += _more_to_extend(data_set, manifest, extension.digests)
    return notes


def _about_near_duplicates(data_set: Extended, others: Mapping[str, Any], job: JobConfig) -> list[str]:
    """Return a note if near duplicates of a data set cannot be found. ValueError if it was searched with another value."""
    own, other = job.examples.near_duplicates, others.get("near_duplicates")
    if own is None:
        return []
    if not data_set.sketches:
        return [
            f"{data_set.name} has no sketches, because it was made without --near-duplicates: new documents that only "
            f"resemble one of its documents are not left out. To leave them out, make it again with --near-duplicates {own}"
        ]
    if own != other:
        raise ValueError(
            f"--near-duplicates {own}: {data_set.location}, which --extend names, has sketches for {other}, which cannot "
            f"find another similarity. Leave out the flag to use the data set's value, or give --near-duplicates None to "
            f"leave out equal documents only"
        )
    return []


def _about_sources(data_set: Extended, manifest: Mapping[str, Any], job: JobConfig) -> list[str]:
    """Return a note for each source of a data set whose options for cleaning this job does not have."""
    flags, notes = job.tokenize.text.clean, []
    own = {one.name: _of_cleaning(one.options(flags)) for one in job.inputs}
    for row in manifest.get("sources", ()):
        options = _of_cleaning(row["options"])
        if options != own.get(row["name"], {}):
            values = ", ".join(f"{name} {_shown(value)}" for name, value in options.items()) or "none"
            notes.append(
                f"the options of the source {row['name']} differ from those in {data_set.name} ({values}): to have the "
                f"same, give them in a table of --inputs with this name"
            )
    return notes


def _of_cleaning(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that change or reject single texts."""
    return {name: value for name, value in options.items() if name not in ("tokens", "sample")}


def _shown(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _other_versions(
    data_set: Extended, versions: Mapping[str, str], config: TokenizeConfig, sources: Sequence[Source]
) -> list[str]:
    own: dict[str, str] = {}
    for form in sorted({source.format for source in sources}):
        own |= token_versions(config, form)
    differing = [name for name, version in own.items() if versions.get(name, version) != version]
    if not differing:
        return []
    what = ", ".join(f"{name} {versions[name]}, here {own[name]}" for name in differing)
    return [
        f"{data_set.name} was made with other versions ({what}): a text or its tokens may come out differently, and then an "
        f"equal document is not found"
    ]


def _more_to_extend(data_set: Extended, manifest: Mapping[str, Any], digests: Collection[str]) -> list[str]:
    """Return a note if a data set extends others that this job does not."""
    rows = [row for row in manifest.get("extends", ()) if row["sha256"] not in digests]
    return [
        f"{data_set.name} extends {row['path']}, which this job does not extend: its documents count as new. Give both: "
        f"--extend {row['path']} {data_set.location}"
        for row in rows
    ]


def leave_out_known(
    sources: Sequence[Source], extension: Extension, job: JobConfig
) -> tuple[list[Source], Extension, list[str]]:
    """Return (the sources that no data set has read, the data sets with the numbers of the others, notes).

    A file is known if it has the same name, size, time, first bytes and options for reading. A data set with another
    sample took other documents from its files, so these are read again; the same holds for a source with a budget of tokens.
    """
    known: dict[tuple[str, float], int] = {}
    for number, manifest in enumerate(extension.manifests):
        options = {row["name"]: row["options"] for row in manifest.get("sources", ())}
        for row in manifest["inputs"]:
            own = options.get(str(row.get("source")), {})
            if "tokens" not in own:
                sample = own.get("sample", manifest["configuration"].get("sample"))
                known.setdefault((row["fingerprint"], sample), number)
    numbers = [0] * len(extension.data_sets)
    kept = []
    for source in sources:
        clean = clean_of(source, job.tokenize.text.clean, job.cleaning)
        found = known.get((source.fingerprint, clean.sample))
        if found is None:
            kept.append(source)
        else:
            numbers[found] += 1
    if not kept:
        raise ValueError(
            f"all {len(sources):,} input files are in the data sets of --extend already, so nothing is new: train on these, "
            f"or give other files with --input"
        )
    named = zip(extension.data_sets, numbers, strict=True)
    data_sets = tuple(Extended(**{**asdict(data_set), "num_files": number}) for data_set, number in named)
    notes = [
        f"{one.num_files:,} of {len(sources):,} input files are in {one.name} and are not read again"
        for one in data_sets
        if one.num_files
    ]
    return kept, Extension(data_sets, extension.manifests), notes


def write_extension(path: str, extension: Extension) -> None:
    """Write what the stages need to know."""
    write_sealed(path, [json.dumps([asdict(data_set) for data_set in extension.data_sets]).encode()])


def read_data_sets(path: str) -> list[Extended]:
    """Return the data sets that `write_extension` wrote."""
    return [Extended(**fields) for fields in json.loads(read_sealed(path))]


def damaged(data_set: Extended, error: Exception) -> ValueError:
    """Return the error for a file of a data set that cannot be read."""
    return ValueError(f"--extend {data_set.location}: {error}; {DAMAGED}")
