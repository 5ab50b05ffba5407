"""Programs and tests on the fake device, each in a process of its own, which starts without waiting for imports."""

import ast
import functools
import importlib.util
import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _pytest.assertion.rewrite import rewrite_asserts

from tests.fake_cuda.device import Devices
from tests.fake_cuda.report import Report
from tests.forked import Forked

FIRST = "from tests.fake_cuda.device import install; install()"
PROGRAM = "import sys; from tests.fake_cuda.__main__ import main; sys.exit(main(sys.argv[1:]))"
FUNCTION = "import sys; from tests.fake_cuda.runs import call; call(*sys.argv[1:])"
ONE = Devices()
SECONDS = 400


@dataclass(frozen=True, kw_only=True)
class Ended:
    """A process that has ended."""

    status: int
    output: str
    errors: str
    report: Report


def run(*program: object, devices: Devices = ONE, status: int = 0) -> Ended:
    """Run a program as `python -m tests.fake_cuda` does, which must end with this status."""
    (ended,) = run_ranks([program], devices=devices, status=status)
    return ended


def run_ranks(
    programs: Sequence[Sequence[object]],
    *,
    devices: Devices = ONE,
    environments: Sequence[dict[str, str]] = ({},),
    status: int = 0,
) -> list[Ended]:
    """Run programs at the same time, each with its environment variables; all must end with this status."""
    with tempfile.TemporaryDirectory() as folder:
        options = ["--devices", str(devices.count), "--name", devices.name]
        options += ["--capability", ".".join(map(str, devices.capability)), "--report", f"{folder}/report"]
        processes = [
            Forked(PROGRAM, *options, *map(str, program), env=environment, first=FIRST)
            for program, environment in zip(programs, environments, strict=True)
        ]
        try:
            texts = [process.communicate(timeout=SECONDS) for process in processes]
        finally:
            for process in processes:
                process.kill()
        for process, (_, errors) in zip(processes, texts):
            assert process.returncode == status, errors
        return [
            Ended(
                status=status,
                output=str(output),
                errors=str(errors),
                report=Report.read(Path(folder, f"report.{rank}" if rank else "report")),
            )
            for rank, (output, errors) in enumerate(texts)
        ]


def on_devices(**devices: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Let a test run in a process with the fake device. Its fixtures must be paths."""

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(test)
        def wrapper(**fixtures: Path) -> None:
            arguments = {name: str(path) for name, path in fixtures.items()}
            place = [test.__code__.co_filename, test.__name__]
            process = Forked(FUNCTION, *place, json.dumps(arguments), json.dumps(devices), first=FIRST)
            try:
                output, errors = process.communicate(timeout=SECONDS)
            finally:
                process.kill()
            assert process.returncode == 0, f"{output}{errors}"

        return wrapper

    return decorate


def call(file: str, name: str, arguments: str, devices: str) -> None:
    """Run a test that `on_devices` decorates, in this process."""
    from tests.fake_cuda.device import choose

    values = json.loads(devices)
    if "capability" in values:
        values["capability"] = tuple(values["capability"])
    choose(Devices(**values))
    spec = importlib.util.spec_from_file_location(Path(file).stem, file)
    assert spec
    module = importlib.util.module_from_spec(spec)
    source = Path(file).read_bytes()
    tree = ast.parse(source)
    rewrite_asserts(tree, source, file)  # so that an assert that fails shows its values
    exec(compile(tree, file, "exec"), vars(module))
    test = getattr(module, name).__wrapped__
    test(**{key: Path(path) for key, path in json.loads(arguments).items()})
