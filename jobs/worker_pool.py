"""`bertloom worker-pool`: a pool of workers for a job on Flink, Spark or another engine that is not written in Python.

    bertloom worker-pool
    bertloom preprocess ... -- --runner=FlinkRunner ... --environment_type=EXTERNAL --environment_config=localhost:50000

The engine asks the pool for workers, and the pool starts them with this Python. Start one on each machine of the engine.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from bertloom.messages import print_message
from jobs.support.config import parse
from pipeline.local.beam_import import import_beam

say = partial(print_message, "worker-pool")


@dataclass(frozen=True, kw_only=True)
class WorkerPoolConfig:
    """Start workers for a job on Flink, Spark or another engine, when the engine asks for them.

    The command runs until it is interrupted, and then ends its workers. Give its address to the job, after `--`:
    --environment_type=EXTERNAL --environment_config=localhost:50000
    """

    port: int = 50000
    """Port at which the engine asks for workers. 0 takes a free one, which the first line names."""
    host: str = "localhost"
    """Address at which the pool listens. By default only programs on this machine reach it, such as a task manager of
    Flink. Whoever reaches it can run code here, so use 0.0.0.0 only in a network that you trust."""

    def __post_init__(self) -> None:
        if not 0 <= self.port < 65536:
            raise ValueError(f"--port {self.port}: expected 0 to 65535")


def main(argv: Sequence[str]) -> None:
    config = parse(WorkerPoolConfig, argv, prog="bertloom worker-pool")
    import_beam(connectors=True)
    from pipeline.remote.messages import software
    from pipeline.remote.worker_pool import worker_pool

    with worker_pool(config.host, config.port, say) as address:
        print(f"worker pool at {address}: {software()}", flush=True)
        threading.Event().wait()
