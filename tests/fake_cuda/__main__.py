"""Run a program on CUDA devices in host memory, and report what it did there.

    python -m tests.fake_cuda [--devices 2] [--name "NVIDIA T4"] [--capability 7.5] [--report FILE] PROGRAM ...

PROGRAM is a command of bertloom and its flags (`pretrain tiny --data …`), or a Python file and its arguments
(`benchmarks/bench_train.py …`). Several ranks start with

    torchrun --nproc-per-node 2 -m tests.fake_cuda --devices 2 pretrain tiny --data …

Devices, dtypes, memory, streams, pinned memory and autograd's threads are CUDA's; FlashAttention and NCCL make their
own checks; the numbers are the CPU's, and times mean nothing. torch.compile traces and runs the graphs without
generating code. The report counts calls of FlashAttention, CUDA operators, how often the host waited for the device and
where, compiled graphs, recompilations and graph breaks. Without --report it goes to stderr as JSON. Ranks above 0 write
to FILE.RANK.

In tests, `tests/fake_cuda/runs.py` has `run` and `run_ranks`, which do the same and return the report, and the decorator
`on_devices`, with which the body of a test runs on the device:

    @on_devices(capability=(7, 5), name="NVIDIA T4")
    def test_something():
        import torch
        ...
"""

import argparse
import json
import os
import runpy
import sys
from dataclasses import asdict
from pathlib import Path

from tests.fake_cuda.device import Devices, choose, install
from tests.fake_cuda.library import load, missing


def main(argv: list[str]) -> int:
    """Run the program and return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.fake_cuda", description=__doc__.splitlines()[0])
    parser.add_argument("--devices", type=int, default=1, help="number of CUDA devices")
    parser.add_argument("--name", default="NVIDIA H200", help="their name")
    parser.add_argument("--capability", default="9.0", help="their compute capability")
    parser.add_argument("--report", type=Path, help="file for the report; default: stderr")
    parser.add_argument(
        "program", nargs=argparse.REMAINDER, help="a bertloom command or a Python file, and its arguments"
    )
    chosen = parser.parse_args(argv)
    if not chosen.program:
        parser.error("no program is given: expected a bertloom command or a Python file")
    if reason := missing():
        parser.error(reason)
    install()
    major, minor = map(int, chosen.capability.split("."))
    return run(
        chosen.program, Devices(count=chosen.devices, name=chosen.name, capability=(major, minor)), chosen.report
    )


def run(program: list[str], devices: Devices, report: Path | None) -> int:
    """Run a program on these devices, write its report and return its exit status."""
    from tests.fake_cuda.report import Recorder, replace_compiler

    choose(devices)
    replace_compiler()
    recorder = Recorder(load())
    try:
        if program[0].endswith(".py"):
            sys.argv = program
            runpy.run_path(program[0], run_name="__main__")
            return 0
        from jobs import cli

        return cli.main(program)
    finally:
        if report:
            rank = os.environ.get("RANK", "0")
            recorder.write(report if rank == "0" else report.with_name(f"{report.name}.{rank}"))
        else:
            print(json.dumps(asdict(recorder.report()), indent=1), file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
