"""Import Beam for a run on this machine: without its connectors to cloud services, which take almost half of the time."""

import importlib.util
import logging
import sys

CONNECTORS = ("apache_beam.io.gcp.bigquery", "azure", "boto3", "botocore", "bson", "google.auth", "google.cloud", "pymongo")
"""Beam catches the ImportError of each. `bertloom.storage` reaches stores through fsspec, not through these."""


def import_beam() -> None:
    """Import `apache_beam` as if the packages of its connectors were not installed. Later imports find them again."""
    if "apache_beam" in sys.modules:
        return
    missing = [name for name in CONNECTORS if name not in sys.modules]
    logger = logging.getLogger("apache_beam.io.mongodbio")  # warns that bson is missing
    logger.disabled = True
    sys.modules.update(dict.fromkeys(missing))  # type: ignore[arg-type]  # None makes an import fail
    try:
        _import_on_use("httplib2")
        import apache_beam  # noqa: F401
    finally:
        for name in missing:
            del sys.modules[name]
        logger.disabled = False


def _import_on_use(name: str) -> None:
    """Defer the import of a module until one of its attributes is used."""
    spec = importlib.util.find_spec(name)
    if name in sys.modules or not spec or not spec.loader:
        return
    spec.loader = importlib.util.LazyLoader(spec.loader)
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
