"""Jobs as a launcher submits them: what is inside the graph, and a process that loads it as a worker does."""

import base64
import bz2
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOT_ON_WORKERS = ("jobs", "model", "tests", "torch", "sklearn", "scipy", "matplotlib", "safetensors", "transformers")
_PICKLE = re.compile(rb"Qlpo[A-Za-z0-9+/]*={0,2}")  # bzip2 in base64

WITHOUT_LAUNCHER = f"""
import json, sys

class Absent:
    def find_spec(self, name, *_):
        if name.partition(".")[0] in {NOT_ON_WORKERS!r}:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Absent())
"""
"""The beginning of a program that has only what a worker has."""

_LOAD = f"""
{WITHOUT_LAUNCHER}
from apache_beam.internal import pickler

classes = set()
for line in sys.stdin:
    loaded = pickler.loads(line.strip().encode())
    function = loaded[0] if isinstance(loaded, tuple) else loaded
    classes.add(type(getattr(function, "fn", function)).__name__)
print(json.dumps(sorted(classes)))
"""


def pickles(graph: bytes) -> list[bytes]:
    """The pickled functions, coders and windows of a serialized pipeline."""
    return _PICKLE.findall(graph)


def contents(graph: bytes) -> Iterator[bytes]:
    """A serialized pipeline, and each of its pickles without its compression."""
    yield graph
    for pickled in pickles(graph):
        yield bz2.decompress(base64.b64decode(pickled))


HOST, USER = "host-of-the-launcher", "user-of-the-launcher"


def name_this_machine(patch: pytest.MonkeyPatch) -> None:
    """Give this machine and its user names that nothing else contains."""
    patch.setattr(socket, "gethostname", lambda: HOST)
    for variable in ("LOGNAME", "USER"):
        patch.setenv(variable, USER)


def traces_of_this_machine(graph: bytes) -> list[str]:
    """Names of the launcher's machine, user and folders in a serialized pipeline."""
    folders = {str(ROOT), str(Path.home()), tempfile.gettempdir(), sys.prefix, sys.base_prefix, os.getcwd()}
    names = [HOST, USER, *(f"{folder}/" for folder in sorted(folders))]
    return [name for name in names if any(name.encode() in text for text in contents(graph))]


def as_on_a_worker(*, with_store: bool = False) -> dict[str, str]:
    """The environment of a process that stands for a worker. with_store: whether it has what leads to the S3 server."""
    of_store = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    return {"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"], **(of_store if with_store else {})}


def load_elsewhere(graph: bytes, folder: Path) -> list[str]:
    """Load the pickles in a new process, in another folder and without what workers lack; names of the classes found."""
    lines = b"\n".join(pickles(graph)) + b"\n"
    command = [sys.executable, "-c", _LOAD]
    ended = subprocess.run(command, input=lines, cwd=folder, env=as_on_a_worker(), capture_output=True, timeout=300)
    assert ended.returncode == 0, ended.stderr.decode()[-2000:]
    return json.loads(ended.stdout)
