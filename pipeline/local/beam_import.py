"""Import Beam, for runs on this machine without its connectors to cloud services, which take almost half of the time."""

import importlib.util
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

CONNECTORS = (
    "apache_beam.io.gcp.bigquery",
    "azure",
    "boto3",
    "botocore",
    "bson",
    "google.auth",
    "google.cloud",
    "pymongo",
)
"""Beam catches the ImportError of each. `bertloom.storage` reaches stores through fsspec, not through these."""


def import_beam(*, connectors: bool) -> None:
    """Import `apache_beam`; without `connectors`, as if their packages were not installed. Later imports find them."""
    # Both messages are warnings about connectors that are missing.
    logging.getLogger().addFilter(lambda record: "apitools not found" not in record.getMessage())
    logging.getLogger("apache_beam.io.mongodbio").addFilter(lambda record: "bson" not in record.getMessage())
    if connectors or "apache_beam" in sys.modules:
        import apache_beam
    else:
        with _not_installed(*CONNECTORS):
            _import_on_use("httplib2")
            import apache_beam  # noqa: F401


@contextmanager
def _not_installed(*names: str) -> Iterator[None]:
    missing = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(missing))  # type: ignore[arg-type]  # None makes an import fail
    try:
        yield
    finally:
        for name in missing:
            del sys.modules[name]


def _import_on_use(name: str) -> None:
    """Defer the import of a module until one of its attributes is used."""
    spec = importlib.util.find_spec(name)
    if name in sys.modules or not spec or not spec.loader:
        return
    spec.loader = importlib.util.LazyLoader(spec.loader)
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
