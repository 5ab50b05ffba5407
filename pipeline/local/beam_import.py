"""Import Beam, for runs on this machine without its connectors to cloud services, which take almost half of the time."""

import gc
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any

CONNECTORS = (
    "apache_beam.io.gcp.bigquery",
    "azure",
    "boto3",
    "botocore",
    "bson",
    "google.api_core",
    "google.auth",
    "google.cloud",
    "pymongo",
)
"""Beam catches the ImportError of each. `bertloom.storage` reaches stores through fsspec, not through these."""
HTTP_CLIENT = "apache_beam.internal.http_client"


def import_beam(*, connectors: bool) -> None:
    """Import `apache_beam`; without `connectors`, as if their packages were not installed. Later imports find them."""
    # Both messages are warnings about connectors that are missing.
    logging.getLogger().addFilter(lambda record: "apitools not found" not in record.getMessage())
    logging.getLogger("apache_beam.io.mongodbio").addFilter(lambda record: "bson" not in record.getMessage())
    if connectors or "apache_beam" in sys.modules:
        import apache_beam
    else:
        with _without(CONNECTORS), _without_collections():
            import apache_beam  # noqa: F401


@contextmanager
def _without(names: Sequence[str]) -> Iterator[None]:
    """Make imports of these modules fail, and replace Beam's HTTP client, whose import is slow, until it is used."""
    client: Any = ModuleType(HTTP_CLIENT)
    client.get_new_http = _get_new_http
    stand_ins: dict[str, Any] = dict.fromkeys(names) | {HTTP_CLIENT: client}
    stand_ins = {name: module for name, module in stand_ins.items() if name not in sys.modules}
    sys.modules.update(stand_ins)  # None makes an import fail
    try:
        yield
    finally:
        for name in stand_ins:
            del sys.modules[name]


def _get_new_http(*arguments: Any) -> Any:
    from apache_beam.internal import http_client

    return http_client.get_new_http(*arguments)


@contextmanager
def _without_collections() -> Iterator[None]:
    """Suspend the garbage collector, which takes a tenth of the time, and let it ignore the objects made until now."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.freeze()
