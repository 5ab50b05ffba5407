"""Files of named tensors in the format of safetensors, which holds no code.

The names and shapes in a file are compared with the expected ones before any tensor is read.
"""

import errno
import os
import re
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from bertloom.json_files import check_regular


def read_tensors(path: Path, expected: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """Return the tensors in a file.

    Args:
        expected: tensors with exactly the names and shapes that the file must have; by default it may have any.

    Raises:
        ValueError: the file cannot be read, or has other tensors than expected.
    """
    check_regular(path)
    try:
        if expected is not None:
            with safe_open(path, framework="pt") as file:
                shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
            check_same(shapes, expected, path)
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} cannot be read, it is damaged or holds more than weights: {error}") from None


def check_same(shapes: Mapping[str, tuple[int, ...]], expected: Mapping[str, Tensor], path: Path) -> None:
    """Raise ValueError unless these are the shapes of the expected tensors."""
    for name in sorted(shapes.keys() ^ expected.keys()):
        found = "holds a tensor with the unknown name" if name in shapes else "has no tensor with the name"
        raise ValueError(f"{path} {found} {name[:200]!r}: it belongs to another model")
    for name, tensor in expected.items():
        if shapes[name] != tuple(tensor.shape):
            raise ValueError(
                f"{path}: {name} has the shape {shapes[name]}, expected {tuple(tensor.shape)}: it belongs to another model"
            )


def write_tensors(tensors: Mapping[str, Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """Write a file. OSError if the disk is full, as for any other file; safetensors has an error of its own."""
    try:
        save_file(dict(tensors), path, metadata)
    except SafetensorError as error:
        found = re.search(r"os error (\d+)", str(error))
        number = int(found[1]) if found else errno.EIO
        raise OSError(number, os.strerror(number), str(path)) from None
