"""`@transform`: a Beam transform that is a frozen dataclass."""

from dataclasses import FrozenInstanceError, dataclass
from typing import Any, TypeVar, dataclass_transform

from bertloom import storage

T = TypeVar("T")
_STORE_OPTIONS = "_store_options"


@dataclass_transform(frozen_default=True, eq_default=False)
def transform(cls: type[T]) -> type[T]:
    """Make a PTransform a dataclass with frozen fields.

    `dataclass(frozen=True)` does not work: Beam sets attributes of its own on a transform, such as its label.

    A worker that unpickles the transform, or a method of it, takes over the options of the stores of the process that built
    the job. A worker may serve several jobs, one after the other.
    """
    fields = dataclass(eq=False)(cls).__dataclass_fields__  # type: ignore[attr-defined]  # mypy sees no dataclass here

    def __setattr__(self: T, name: str, value: Any) -> None:
        if name in fields and name in self.__dict__:
            raise FrozenInstanceError(f"cannot assign to field {name!r}")
        object.__setattr__(self, name, value)

    def __getstate__(self: T) -> dict[str, Any]:
        return {**self.__dict__, _STORE_OPTIONS: storage.options()}

    def __setstate__(self: T, state: dict[str, Any]) -> None:
        storage.connect(state.pop(_STORE_OPTIONS))
        self.__dict__.update(state)

    cls.__setattr__ = __setattr__  # type: ignore[method-assign, assignment]
    cls.__getstate__ = __getstate__  # type: ignore[method-assign, assignment]
    cls.__setstate__ = __setstate__  # type: ignore[attr-defined]
    return cls
