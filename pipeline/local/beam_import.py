"""Import Beam, for runs on this machine without its connectors to cloud services, which take almost half of the time."""

import gc
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
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
LATER = ("requests", "yaml")
"""Packages that Beam imports for other runners and languages. They are imported when something of them is used."""


def import_beam(*, connectors: bool) -> None:
    """Import `apache_beam`; without `connectors`, as if their packages were not installed. Later imports find them."""
    # Both messages are warnings about connectors that are missing.
    logging.getLogger().addFilter(lambda record: "apitools not found" not in record.getMessage())
    logging.getLogger("apache_beam.io.mongodbio").addFilter(lambda record: "bson" not in record.getMessage())
    if connectors or "apache_beam" in sys.modules:
        import apache_beam
    else:
        with _without(CONNECTORS), _without_collections():
            import apache_beam
            import apache_beam.runners.portability.flink_runner  # noqa: F401  (which imports requests)


@contextmanager
def _without(names: Sequence[str]) -> Iterator[None]:
    """Make imports of these modules fail, and replace modules whose import is slow until they are used."""
    stand_ins: dict[str, Any] = {
        **dict.fromkeys(names),
        HTTP_CLIENT: _Later(HTTP_CLIENT, get_new_http=_get_new_http),
        "beartype": _Later("beartype"),
        "beartype.door": _Later("beartype.door", is_subhint=_is_subhint),
        "beartype.roar": _Later("beartype.roar", BeartypeDoorException=_NotComparable),
        **{name: _Later(name) for name in LATER},
    }
    stand_ins = {name: module for name, module in stand_ins.items() if name not in sys.modules}
    sys.modules.update(stand_ins)  # None makes an import fail
    try:
        yield
    finally:
        for name, module in stand_ins.items():
            if name in sys.modules and sys.modules[name] is module:
                del sys.modules[name]


class _Later(ModuleType):
    """Stands in for a module, which is imported when something else than these members is used."""

    def __init__(self, name: str, **members: Any):
        super().__init__(name)
        vars(self).update(members)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # the import system looks for these
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(import_module(self.__name__), name)


class _NotComparable(Exception):
    """Stands in for beartype's exception about two hints."""


def _is_subhint(*hints: Any) -> bool:
    from beartype.door import is_subhint
    from beartype.roar import BeartypeDoorException

    try:
        return is_subhint(*hints)
    except BeartypeDoorException as error:
        raise _NotComparable(str(error)) from error


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
