"""manifest.json and shards.parquet of a data set: read and checked in one place, for both halves.

The presence of manifest.json means that the data set is complete; from then on it never changes.
"""

import hashlib
import json
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bertloom import storage
from bertloom.json_files import Damaged, parse_json
from bertloom.shards import FORMAT_VERSION

FORMAT = "bertloom-dataset"
DAMAGED = "`bertloom verify DATASET` reports what is damaged"


def manifest_text(manifest: dict[str, Any]) -> bytes:
    """Return the bytes of manifest.json."""
    return json.dumps(manifest, indent=1, ensure_ascii=False).encode() + b"\n"


def manifest_sha256(manifest: dict[str, Any]) -> str:
    """Return the digest of a manifest without its key `sha256`, which is what that key must hold."""
    return hashlib.sha256(manifest_text({key: value for key, value in manifest.items() if key != "sha256"})).hexdigest()


def parse_manifest(content: bytes, name: str) -> dict[str, Any]:
    """Return the manifest in the content of a file of this name.

    Raises:
        ValueError: it has another format version, or (Damaged) is not as it was written.
    """
    manifest = parse_json(content, name)
    if manifest.get("format") != FORMAT:
        raise ValueError(f"{name}: format is {manifest.get('format')!r}, expected {FORMAT!r}: give a bertloom data set")
    if manifest.get("format_version") != FORMAT_VERSION:
        raise ValueError(
            f"{name}: format_version is {manifest.get('format_version')!r}, this program reads {FORMAT_VERSION}: "
            f"preprocess again, or use the version of bertloom that wrote it"
        )
    if manifest_sha256(manifest) != manifest.get("sha256"):
        raise Damaged(f"{name} is not as it was written: its sha256 is not the one that it holds; copy it again")
    return manifest


def check_shards_parquet(content: bytes, name: str, sha256: str) -> None:
    """Raise Damaged unless the content has the checksum that the manifest gives."""
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise Damaged(
            f"{name} has sha256 {found[:12]}…, manifest.json has {sha256[:12]}…: the data set was changed or copied in "
            f"part; copy it again"
        )


def read_dataset(dataset: str) -> tuple[dict[str, Any], pa.Table]:
    """Return (manifest, shards.parquet) of a finished data set. ValueError if it is not one or cannot be read."""
    path = storage.join(dataset, "manifest.json")
    if not storage.exists(path):
        what = "is not a data set, or not a finished one" if storage.exists(dataset) else "does not exist"
        raise ValueError(
            f"{dataset} {what}: expected a folder with manifest.json, as `bertloom preprocess --out` makes it"
        )
    try:
        manifest = parse_manifest(storage.read(path), path)
        path = storage.join(dataset, "shards.parquet")
        content = storage.read(path)
        check_shards_parquet(content, path, manifest["shards_parquet"]["sha256"])
        return manifest, pq.read_table(pa.BufferReader(content))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read ({error}); {DAMAGED}") from error
