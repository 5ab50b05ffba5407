"""manifest.json and shards.parquet of a data set: read and checked in one place, for both halves.

The presence of manifest.json means that the data set is complete; from then on it never changes.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

from bertloom import storage
from bertloom.json_files import Damaged, parse_json
from bertloom.limits import MAX_SEQ_LENGTH, MIN_SEQ_LENGTH
from bertloom.parquet_files import parse_parquet
from bertloom.shapes import COUNT, SHA256, SHARE, TEXT, Kind, MapOf, check_shape, shown
from bertloom.shards import FORMAT_VERSION, SHARDS_SCHEMA, SPLITS, shards_faults

FORMAT = "bertloom-dataset"
DAMAGED = "`bertloom verify DATASET` reports what is damaged"
MAX_BYTES = 1 << 28
"""Size of the largest manifest.json or shards.parquet that is read: a million input files or shards."""
SHARD_ROW_BYTES = 32
"""Bytes of a row of shards.parquet that cannot be compressed: those of its sha256."""

_LENGTHS = Kind(
    f"a list of different whole numbers from {MIN_SEQ_LENGTH} to {MAX_SEQ_LENGTH}",
    lambda value: (
        isinstance(value, list)
        and 0 < len(value) <= MAX_SEQ_LENGTH
        and all(type(length) is int and MIN_SEQ_LENGTH <= length <= MAX_SEQ_LENGTH for length in value)
        and len({*value}) == len(value)
    ),
)
_COPIES = Kind("a whole number from 1 to 2^31 - 1", lambda value: type(value) is int and 0 < value < 1 << 31)
_SEED = Kind("a whole number from 0 to 2^63 - 1", lambda value: type(value) is int and 0 <= value < 1 << 63)
_FILE = Kind("a file inside the data set", lambda value: isinstance(value, str) and storage.is_plain_name(value))
_COUNTS = MapOf(TEXT, COUNT)
MANIFEST = {
    "configuration": {
        "max_seq_length": _LENGTHS,
        "dupe_factor": _COPIES,
        "seed": _SEED,
        "masked_lm_prob": SHARE,
        "max_predictions_per_seq": [COUNT],
        "mask_token_prob": SHARE,
        "random_token_prob": SHARE,
        "validation_fraction": SHARE,
    },
    "masking": {"scheme": TEXT, "can_be_redrawn": bool},
    "vocabulary": {"sha256": SHA256, "size": COUNT},
    "versions": MapOf(TEXT, TEXT),
    "counters": {
        **dict.fromkeys(("documents_in", "documents_used", "documents_rejected", "documents_duplicate"), COUNT),
        **dict.fromkeys(("sentences", "tokens", "text_bytes"), COUNT),
        **dict.fromkeys(("rejected", "passed_over", "cleaned", "pairs"), _COUNTS),
        "examples": dict.fromkeys(SPLITS, COUNT),
    },
    "notes": [TEXT],
    "inputs": [
        {
            **dict.fromkeys(("name", "path", "format", "fingerprint"), TEXT),
            **dict.fromkeys(("codec", "encoding"), str | None),
            **dict.fromkeys(("bytes", "documents", "sentences", "tokens", "text_bytes", "rejected"), COUNT),
        }
    ],
    "shards_parquet": {"sha256": SHA256, "rows": COUNT},
    "shards_digest": SHA256,
    "documents": MapOf(_FILE, SHA256),
    "files": MapOf(_FILE, SHA256),
}
"""What readers use of manifest.json. It may hold more."""
EXCLUDED = {
    "sha256": SHA256,
    "run_words": COUNT,
    "sets": [{"name": TEXT, **dict.fromkeys(("records", "records_without_run", "runs", "documents"), COUNT)}],
}
"""The key `excluded`, which a data set made with --exclude has."""
EXTENDS = [{"name": TEXT, "path": TEXT, "sha256": SHA256, "shards_digest": SHA256, "files_not_read_again": COUNT}]
"""The key `extends`, which a data set made with --extend has; then its counters have `duplicates_of`."""
SOURCES = {
    "sources": [
        {
            "name": TEXT,
            "options": MapOf(TEXT, Any),
            "files": COUNT,
            "counters": {
                **dict.fromkeys(("documents_in", "documents_used", "documents_rejected", "documents_duplicate"), COUNT),
                **dict.fromkeys(("sentences", "tokens", "text_bytes"), COUNT),
                **dict.fromkeys(("rejected", "passed_over", "cleaned", "examples"), _COUNTS),
            },
        }
    ]
}
"""The key `sources`, which a data set made with --inputs has."""


def manifest_text(manifest: dict[str, Any]) -> bytes:
    """Return the bytes of manifest.json: those of `json.dumps` with indent=1, which takes ten times as long."""
    return _indented(manifest, "\n").encode() + b"\n"


def _indented(value: Any, line_end: str) -> str:
    """Return JSON. line_end: a line feed, and the indentation of the line of the value."""
    inner = f"{line_end} "
    if not isinstance(value, (dict, list)) or not value:
        return json.dumps(value, ensure_ascii=False)
    first, last = "{}" if isinstance(value, dict) else "[]"
    items: Iterable[Any] = value.values() if isinstance(value, dict) else value
    if not any(isinstance(item, (dict, list)) for item in items):  # in one call, which is fast
        text = json.dumps(value, ensure_ascii=False, separators=(f",{inner}", ": "))[1:-1]
    elif isinstance(value, dict):
        named = (f"{json.dumps(name, ensure_ascii=False)}: {_indented(item, inner)}" for name, item in value.items())
        text = f",{inner}".join(named)
    else:
        text = f",{inner}".join(_indented(item, inner) for item in value)
    return f"{first}{inner}{text}{line_end}{last}"


def manifest_sha256(manifest: dict[str, Any]) -> str:
    """Return the digest of a manifest without its key `sha256`, which is what that key must hold."""
    return hashlib.sha256(manifest_text({key: value for key, value in manifest.items() if key != "sha256"})).hexdigest()


def parse_manifest(content: bytes, name: str) -> dict[str, Any]:
    """Return the manifest in the content of a file of this name.

    Raises:
        ValueError: it has another format version, lacks a part, has a value that is not possible, or (Damaged) is not as
            it was written.
    """
    manifest = parse_json(content, name)
    if manifest.get("format") != FORMAT:
        raise ValueError(f"{name}: format is {manifest.get('format')!r}, expected {FORMAT!r}: give a bertloom data set")
    if manifest.get("format_version") != FORMAT_VERSION:
        raise ValueError(
            f"{name}: format_version is {manifest.get('format_version')!r}, this program reads {FORMAT_VERSION}: "
            f"preprocess again, or use the version of bertloom that wrote it"
        )
    try:
        found = manifest_sha256(manifest)
    except UnicodeEncodeError as error:
        raise Damaged(
            f"{name} is not as it was written: it holds half of a character ({error}); copy it again"
        ) from None
    if found != manifest.get("sha256"):
        raise Damaged(f"{name} is not as it was written: its sha256 is not the one that it holds; copy it again")
    check_shape(manifest, MANIFEST, name)
    if "extends" in manifest:
        parts = {"extends": EXTENDS, "counters": {"duplicates_of": MapOf(TEXT, _COUNTS)}}
        check_shape({key: manifest[key] for key in parts}, parts, name)
    if "excluded" in manifest:
        check_shape({"excluded": manifest["excluded"]}, {"excluded": EXCLUDED}, name)
    if "sources" in manifest:
        check_shape(manifest, SOURCES, name)
    if vocabulary_file(manifest) not in ("vocab.txt", "tokenizer.json"):
        raise ValueError(
            f"{name} has a value that is not possible: vocabulary.file is {shown(manifest['vocabulary']['file'])}, expected "
            f"tokenizer.json"
        )
    return manifest


def vocabulary_file(manifest: Mapping[str, Any]) -> str:
    """Return the name of the file of a data set that holds its vocabulary."""
    return str(manifest["vocabulary"].get("file", "vocab.txt"))


def parse_shards(content: bytes, name: str, manifest: dict[str, Any]) -> pa.Table:
    """Return the rows of shards.parquet from its content.

    Raises:
        ValueError: its sha256 is not the one in the manifest (Damaged), or a row is not possible.
    """
    expected = manifest["shards_parquet"]
    found = hashlib.sha256(content).hexdigest()
    if found != expected["sha256"]:
        raise Damaged(
            f"{name} has sha256 {found[:12]}…, manifest.json has {expected['sha256'][:12]}…: the data set was changed or "
            f"copied in part; copy it again"
        )
    shards = parse_parquet(content, name, SHARDS_SCHEMA, SHARD_ROW_BYTES)
    for fault in shards_faults(shards, manifest):
        raise ValueError(f"{name}: {fault}")
    return shards


def read_dataset(dataset: str) -> tuple[dict[str, Any], pa.Table]:
    """Return (manifest, shards.parquet) of a finished data set. ValueError if it is not one or cannot be read."""
    path = storage.join(dataset, "manifest.json")
    try:
        manifest = parse_manifest(read_below(dataset, "manifest.json"), path)
        path = storage.join(dataset, "shards.parquet")
        return manifest, parse_shards(read_below(dataset, "shards.parquet"), path, manifest)
    except (FileNotFoundError, NotADirectoryError) as error:
        if not path.endswith("manifest.json"):
            raise ValueError(f"{path} cannot be read ({error}); {DAMAGED}") from error
        what = "is not a data set, or not a finished one" if storage.exists(dataset) else "does not exist"
        raise ValueError(
            f"{dataset} {what}: expected a folder with manifest.json, as `bertloom preprocess --out` makes it"
            + what_it_is(dataset)
        ) from None
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error}); {DAMAGED}") from error
    except ValueError as error:
        raise ValueError(f"{error}; {DAMAGED}") from error


def what_it_is(path: str) -> str:
    """Return the end of an error about a local path without a manifest.json: what else the path is, if that is known."""
    if path.endswith(".tar"):
        return "; this is a shard, which `bertloom inspect` shows: give the folder of its data set"
    if any(os.path.exists(os.path.join(path, name)) for name in ("metrics.jsonl", "checkpoints", "config.json")):
        return "; this is a model or a run: give the data set that it was trained on"
    names = sorted(os.listdir(path)) if os.path.isdir(path) else []
    if held := [name for name in names if os.path.exists(os.path.join(path, name, "manifest.json"))]:
        return f"; it holds other data sets: give one of them, such as {os.path.join(path, held[0])}"
    return ""


def read_below(dataset: str, name: str) -> bytes:
    """Return the content of a file of a data set, by its name there. Shards are read elsewhere."""
    return storage.read(storage.file_below(dataset, name), MAX_BYTES)
