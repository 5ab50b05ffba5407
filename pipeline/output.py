"""The output of a job before it starts: refuse a wrong place, find what exists, and claim it for this job.

An output never holds two configurations, two vocabularies or two sets of inputs.
"""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from bertloom import storage
from bertloom.json_files import parse_json
from bertloom.locks import shared_lock
from bertloom.manifest import parse_manifest
from pipeline.inputs.discovery import expand_lists
from pipeline.inputs.sources import Source, SplitGroup
from pipeline.job import JobConfig, special_tokens_of
from pipeline.places import Places
from pipeline.stages.rejected import REJECTS
from pipeline.stages.tokenization import part_names
from pipeline.vocabulary import SPECIAL_TOKENS

OWN_FILES = {
    "--out": ("vocab.txt", "shards.parquet", "documents/train/00000.parquet", REJECTS),
    "--work-dir": ("parts/0.part",),
}
"""Files of a job that an --input could take for texts."""
SHARED_SECONDS = 3600  # in a --work-dir that other jobs use, a half-written file of this age belongs to a killed job
_CLAIM_TYPES: dict[str, type] = {
    **dict.fromkeys(("configuration", "vocabulary", "files", "excluded"), dict),
    "configuration_digest": str,
    "inputs": list,
}


def check_apart(inputs: Sequence[str], out: str, work_dir: str | None, input_flag: str = "--input") -> None:
    """Raise ValueError if the next start would read files of this job as texts. inputs: patterns of the flag."""
    for flag, folder in (("--out", out), ("--work-dir", work_dir)):
        for pattern in expand_lists(inputs, input_flag):
            if folder and any(_matches(pattern, storage.join(folder, *name.split("/"))) for name in OWN_FILES[flag]):
                raise ValueError(
                    f"{flag} {folder} is inside {input_flag} {pattern}: the next start would read the files of this job as "
                    f"texts; choose a folder outside of the input"
                )


def _matches(pattern: str, path: str) -> bool:
    """Return whether an input pattern would find a file of this path."""
    if storage.is_local(pattern) and storage.is_local(path):
        is_folder, pattern, path = os.path.isdir(pattern), os.path.realpath(pattern), os.path.realpath(path)
        if is_folder:
            return path.startswith(os.path.join(pattern, ""))
    elif pattern.endswith("/"):
        return path.startswith(pattern)
    return storage.matches(pattern, path)


def make_folder(flag: str, path: str) -> None:
    """Make the folder that a flag names. ValueError if a file has its name."""
    try:
        storage.make_folder(path)
    except (FileExistsError, NotADirectoryError):
        raise ValueError(f"{flag} {path}: a file has this name; expected a folder or an unused name") from None


def finished_manifests(places: Places, job: JobConfig, sources: Sequence[Source]) -> dict[str, dict[str, Any]] | None:
    """Return folder -> manifest of the finished data sets, if the job is complete, else None.

    Raises:
        ValueError: the output belongs to another job.
    """
    single = finished_manifest(places, job, sources)
    if not job.per_source:
        return None if single is None else {places.dataset: single}
    found = {}
    for number in range(len(job.inputs)):
        of_source = job.places_of(places, number)
        manifest = finished_manifest(of_source, job, [source for source in sources if source.input == number])
        if manifest is not None:
            found[of_source.dataset] = manifest
    return found if len(found) == len(job.inputs) else None


def finished_manifest(places: Places, job: JobConfig, sources: Sequence[Source]) -> dict[str, Any] | None:
    """Return the manifest if the data set is complete, else None. ValueError if it belongs to another job."""
    content = storage.read_if_there(places.manifest)
    if content is None:
        return None
    manifest = parse_manifest(content, places.manifest)
    if manifest.get("configuration_digest") != job.digest:
        raise ValueError(
            f"{places.dataset} holds a complete data set with another configuration{_differences(manifest, job)}: "
            f"choose another --out"
        )
    if sorted(f"{row['fingerprint']} {row.get('source', '')}".strip() for row in manifest["inputs"]) != _fingerprints(
        job, sources
    ):
        raise ValueError(
            f"{places.dataset} holds a complete data set made from other input files: choose another --out"
        )
    return manifest


def claim(places: Places, job: JobConfig, sources: Sequence[Source], *, is_dry: bool = False) -> bool:
    """Mark the output as this job's. Return whether an earlier start of the same job did so; ValueError if another did.

    An output without a shard can be taken over by a job with other flags. It reuses the tokens that fit.

    is_dry: whether only to check that the output can be claimed.
    """
    own = {
        "configuration": job.as_dict(),
        "vocabulary": {"sha256": job.vocabulary_sha256},
        "files": {SPECIAL_TOKENS: job.special_tokens_sha256},
        "excluded": {"sha256": job.excluded_sha256},
        "configuration_digest": job.digest,
        "inputs": _fingerprints(job, sources),
    }
    claimed = storage.read_if_there(places.claim)
    if claimed is None:
        _check_unused(places)
    else:
        other = _parse_claim(claimed, places)
        if (other["configuration_digest"], other["inputs"]) == (own["configuration_digest"], own["inputs"]):
            return True
        if has_shards(places):
            if other["configuration_digest"] != job.digest:
                raise ValueError(
                    f"{places.dataset} holds an unfinished data set with another configuration{_differences(other, job)}: "
                    f"use the same flags to finish it, or choose another --out"
                )
            raise ValueError(
                f"{places.dataset} holds an unfinished data set made from other input files: use the same files to finish "
                f"it, or choose another --out, which can reuse the tokens with --work-dir {places.work}"
            )
        if not is_dry:
            for name in storage.names_in(places.scratch) - {"parts"}:
                storage.remove(storage.join(places.scratch, name))
            storage.remove(storage.join(places.dataset, *REJECTS.split("/")[:-1]))  # the folder, with the list in it
    if is_dry:
        return False
    make_folder("--out", places.scratch)
    storage.write_whole(places.claim, [json.dumps(own).encode()])
    return False


def _parse_claim(content: bytes, places: Places) -> dict[str, Any]:
    """Return what `claim` wrote. ValueError if the file is damaged."""
    try:
        other = parse_json(content, places.claim)
        if missing := sorted({"configuration", "vocabulary", "configuration_digest", "inputs"} - other.keys()):
            raise ValueError(f"{places.claim} is damaged: it has no {', '.join(missing)}")
        for name, kind in _CLAIM_TYPES.items():
            if not isinstance(other.get(name, kind()), kind):
                raise ValueError(
                    f"{places.claim} is damaged: {name} is a {type(other[name]).__name__}, not a {kind.__name__}"
                )
    except ValueError as error:
        raise ValueError(f"{error}. {_how_to_reuse(places)}") from None
    return other


def _how_to_reuse(places: Places) -> str:
    return f"Choose another --out, which can reuse the tokens with --work-dir {places.work}"


def has_shards(places: Places) -> bool:
    """Return whether a job has begun to write shards in the output."""
    names, shards = storage.names_in(places.dataset), {"train", "validation", "documents"}
    if not names.isdisjoint(shards):
        return True
    return any(
        not storage.names_in(storage.join(places.dataset, name)).isdisjoint(shards) for name in names - {".work"}
    )


def _check_unused(places: Places) -> None:
    """Raise ValueError if the output, which no job has claimed, is not empty."""
    found = {name for name in storage.names_in(places.dataset) if not name.startswith(".")}
    for name in sorted(found):
        if storage.exists(storage.join(places.dataset, name, "manifest.json")):
            raise ValueError(
                f"{places.dataset} holds the data set {name} of another job: choose a new or empty --out, or start that job "
                f"again with the same flags"
            )
    found |= {f".work/{name}" for name in storage.names_in(places.scratch) if not name.startswith(".")}
    if any(name.startswith(".work/vocabulary-") for name in found):  # the first that a job writes after the claim
        raise ValueError(
            f"{places.dataset} holds an unfinished data set, but {places.claim} is missing, which names its flags and "
            f"inputs. {_how_to_reuse(places)}"
        )
    if found:
        names = ", ".join(sorted(found)[:3]) + (f" and {len(found) - 3} more" if len(found) > 3 else "")
        raise ValueError(
            f"{places.dataset} holds {names}, but neither manifest.json of a finished data set nor .work/job.json of an "
            f"unfinished one: choose a new or empty --out"
        )


@contextmanager
def work_folder(places: Places) -> Iterator[None]:
    """Make the folder of --work-dir, and use it together with other jobs.

    Half-written files of killed jobs are removed: at once if no other job uses the folder, otherwise when they are old.
    """
    make_folder("--work-dir", places.work)
    if not storage.is_local(places.work):
        yield
        return
    with shared_lock(storage.join(places.work, ".lock"), partial(storage.sweep_temporary, places.work)):
        storage.sweep_temporary(places.work, SHARED_SECONDS)
        yield


def prepare_folders(places: Places, job: JobConfig) -> None:
    """Make the folders that the stages write to, and remove half-written files and the plan of an earlier start."""
    make_folder("--work-dir", places.parts)
    make_folder("--out", places.records)
    for number in range(len(job.inputs)) if job.per_source else (-1,):
        storage.remove(job.places_of(places, number).plan)
    storage.remove(places.over_budget)
    storage.sweep_temporary(places.dataset)
    if job.extends:
        make_folder("--out", places.known)
    if job.examples.near_duplicates is not None:
        make_folder("--work-dir", places.near_duplicate_search)


def count_finished(places: Places, job: JobConfig, groups: Sequence[SplitGroup], part_bytes: int) -> tuple[int, int]:
    """Return (number of splits in groups with at least one token part, number of finished buckets)."""
    parts, records = storage.names_in(places.parts), storage.names_in(places.records)
    num_buckets = sum(name.endswith(".json") and not name.startswith(".") for name in records)
    begun = [group for group in groups if part_names(group, job.of_input(group.input), part_bytes)(0) in parts]
    return sum(len(group.splits) for group in begun), num_buckets


def _fingerprints(job: JobConfig, sources: Sequence[Source]) -> list[str]:
    """Return the fingerprint of each file, with the name of its source if it has one."""
    names = {number: one.name for number, one in enumerate(job.inputs)}
    return sorted(f"{source.fingerprint} {names.get(source.input, '')}".strip() for source in sources)


def _differences(other: dict[str, Any], job: JobConfig) -> str:
    """Return the names of the options that differ, in parentheses."""
    own, others = job.as_dict(), other.get("configuration", {})
    names = [name for name in {**own, **others} if own.get(name) != others.get(name)]
    if other.get("vocabulary", {}).get("sha256") != job.vocabulary_sha256:
        names.append("vocabulary")
    elif special_tokens_of(other) != job.special_tokens_sha256:
        names.append(SPECIAL_TOKENS)
    if other.get("excluded", {}).get("sha256", "") != job.excluded_sha256:
        names.append("exclude")
    if not names and (job.inputs or other.get("sources")):
        names.append("the sources of --inputs, or --per-source,")
    return f" ({', '.join(names)} differ)" if names else ""
