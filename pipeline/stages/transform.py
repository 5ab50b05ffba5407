"""`@transform`: a Beam transform that is a frozen dataclass."""

from dataclasses import FrozenInstanceError, dataclass
from typing import Any, TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True, eq_default=False)
def transform(cls: type[T]) -> type[T]:
    """Make a PTransform a dataclass with frozen fields.

    `dataclass(frozen=True)` does not work: Beam sets attributes of its own on a transform, such as its label.
    """
    fields = dataclass(eq=False)(cls).__dataclass_fields__  # type: ignore[attr-defined]  # mypy sees no dataclass here

    def __setattr__(self: T, name: str, value: Any) -> None:
        if name in fields and name in self.__dict__:
            raise FrozenInstanceError(f"cannot assign to field {name!r}")
        object.__setattr__(self, name, value)

    cls.__setattr__ = __setattr__  # type: ignore[method-assign, assignment]
    return cls
