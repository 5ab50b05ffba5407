"""Programs and tests on the fake device, each in a process of its own, which starts without waiting for imports."""

import ast
import functools
import importlib.util
import json
import os
import signal
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
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
    (ended,) = run_ranks(1, *program, devices=devices, status=status)
    return ended


def run_ranks(size: int, *program: object, devices: Devices | None = None, status: int = 0) -> list[Ended]:
    """Run a program in several ranks, as torchrun does; all must end with this status. By default each has a device."""
    import torch.distributed as dist

    devices = devices or Devices(count=size)
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    common = {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port)}
    common |= {"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "0"}
    with tempfile.TemporaryDirectory() as folder:
        options = ["--devices", str(devices.count), "--name", devices.name]
        options += ["--capability", ".".join(map(str, devices.capability)), "--report", f"{folder}/report"]
        processes = [
            Forked(
                PROGRAM,
                *options,
                *map(str, program),
                env=common | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
                first=FIRST,
            )
            for rank in range(size)
        ]
        texts = finish(processes, status)
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


def finish(processes: list[Forked], status: int) -> list[tuple[str | None, str | None]]:
    """Return output and errors of each when all have ended. If one ends otherwise, the others are ended, as by torchrun."""
    with ThreadPoolExecutor(len(processes)) as threads:
        ends = {threads.submit(process.communicate, SECONDS): process for process in processes}
        try:
            for end in as_completed(ends):
                if ends[end].poll() != status:
                    break
        finally:
            for end, process in ends.items():
                if not end.done():  # its thread reads its status, so nobody else may
                    with suppress(ProcessLookupError):
                        os.kill(process.pid, signal.SIGKILL)
        return [end.result() for end in ends]


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
