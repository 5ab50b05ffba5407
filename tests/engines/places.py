"""Where the files of a job are: on a local disk, or in a bucket of a real S3 server on loopback."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tests.model.object_store import object_store


class Place(Protocol):
    """The input and the output of one job."""

    name: str
    flags: tuple[str, ...]
    """Beam's flags, which lead all processes to the files."""

    def url(self, path: str) -> str:
        """Return the URL of a file or folder."""

    def names(self, folder: str) -> list[str]:
        """Return the paths of the files of a folder."""

    def read(self, path: str) -> bytes:
        """Return the content of a file."""

    def write(self, path: str, content: bytes) -> None:
        """Write a file."""

    def remove(self, path: str) -> None:
        """Remove a file."""


@dataclass(frozen=True)
class Disk:
    """A folder on a local disk."""

    folder: Path
    name: str = "local disk"
    flags: tuple[str, ...] = ()

    def url(self, path: str) -> str:
        return str(self.folder / path)

    def names(self, folder: str) -> list[str]:
        found = (self.folder / folder).rglob("*")
        return [path.relative_to(self.folder).as_posix() for path in found if path.is_file()]

    def read(self, path: str) -> bytes:
        return (self.folder / path).read_bytes()

    def write(self, path: str, content: bytes) -> None:
        (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / path).write_bytes(content)

    def remove(self, path: str) -> None:
        (self.folder / path).unlink()


@dataclass(frozen=True)
class Bucket:
    """A bucket of an object store."""

    client: Any
    bucket: str
    flags: tuple[str, ...]
    name: str = "S3 (moto)"

    def url(self, path: str) -> str:
        return f"s3://{self.bucket}/{path}"

    def names(self, folder: str) -> list[str]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=f"{folder}/")
        return [row["Key"] for page in pages for row in page.get("Contents", [])]

    def read(self, path: str) -> bytes:
        return bytes(self.client.get_object(Bucket=self.bucket, Key=path)["Body"].read())

    def write(self, path: str, content: bytes) -> None:
        self.client.put_object(Bucket=self.bucket, Key=path, Body=content)

    def remove(self, path: str) -> None:
        self.client.delete_object(Bucket=self.bucket, Key=path)


@contextmanager
def bucket(name: str) -> Iterator[Bucket]:
    """A new bucket. Flags lead to it; only the keys are in the environment of every process, because they are secrets."""
    with object_store() as store:
        client = store.client()
        client.create_bucket(Bucket=name)
        yield Bucket(client, name, (f"--s3_endpoint_url={store.endpoint}", "--s3_region_name=us-east-1"))


def digest(place: Place, out: str) -> str:
    """Return the digest of a data set's shards, from its manifest."""
    return str(json.loads(place.read(f"{out}/manifest.json"))["shards_digest"])
