"""Processes that train together, as torchrun starts them, without torchrun."""

import functools
from collections.abc import Sequence

import torch.distributed as dist

from tests.forked import Forked


@functools.cache
def meeting_place() -> dist.TCPStore:
    """A store like the one that torchrun opens for its ranks. It holds a free port, so no other process can take it."""
    return dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)


def start_ranks(size: int, code: str, arguments: Sequence[str] = ()) -> list[Forked]:
    """Start this code in this number of ranks."""
    return [start_rank(rank, size, meeting_place().port, [code, *arguments]) for rank in range(size)]


def start_rank(rank: int, size: int, port: int, code: list[str], **environment: str) -> Forked:
    """Start code, and its arguments, in one rank."""
    common = {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    common |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
    common |= {"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "0"}
    return Forked(*code, env=common | environment)


def finish(processes: list[Forked]) -> list[tuple[int | None, str | None, str | None]]:
    """Return exit status, output and errors of each. None is left running."""
    try:
        ended = [process.communicate(timeout=240) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, *texts) for process, texts in zip(processes, ended)]
