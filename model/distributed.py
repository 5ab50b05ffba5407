"""Ranks: processes started by torchrun, one for each device, that share every global batch.

    torchrun --no-python --nproc-per-node 8 bertloom pretrain base --data DATASET --out RUN

All ranks hold the same weights and moments and make the same updates. In a step, each rank computes the gradients of its
micro-batches. Some ranks may have more of them than others. The gradients are summed over the ranks once. The sum begins
during the last backward pass (`model/gradient_sum.py`). It is a plain sum, because losses are already divided by the counts
of the whole batch. DistributedDataParallel would divide by the number of ranks. Only rank 0 writes files.

Ranks communicate by gloo on a CPU and by NCCL on CUDA. With gloo, a rank that ends makes the others end with an error.
With NCCL a call only queues work on the GPU, so it cannot fail: the others wait until torchrun ends them, or until NCCL's
watchdog ends the process after `TIMEOUT` ("Watchdog caught collective operation timeout"). After a restart, training
resumes from the last checkpoint.
"""

import heapq
import json
import os
import re
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from bertloom.counts import counted
from bertloom.processes import LostProcess

TIMEOUT = timedelta(minutes=30)
"""Longest time to wait for another rank. Rank 0 may be writing a large checkpoint to a slow disk."""
CONNECT_TIMEOUT = timedelta(seconds=30)
"""Longest time to wait for a connection to torchrun, which listens before it starts the ranks. torch tries it twice."""
LOST_RANK = re.compile(
    r"gloo/transport/|Application timeout caused pair closure"  # gloo: a connection is closed, or does not answer
    r"|remote process exited|communicator was aborted"  # NCCL
)
"""What errors about a lost rank contain."""

TensorType = TypeVar("TensorType", bound=Tensor)


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """The processes that train together, as one of them sees them. By default there is one, and every call is free."""

    device: torch.device
    """Device of this process."""
    rank: int = 0
    """Rank of this process."""
    size: int = 1
    """Number of ranks."""

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0, which writes files and prints."""
        return self.rank == 0

    def sum_tensor(self, tensor: Tensor) -> Tensor:
        """Sum a tensor over all ranks, in place, and return it."""
        if self.size > 1:
            with backend_errors():
                dist.all_reduce(tensor)
        return tensor

    def sum_numbers(self, values: Sequence[float]) -> list[float]:
        """Return the sums over all ranks, in 64-bit floating point: exact for integers below 2^53."""
        if self.size == 1:
            return list(values)
        # From pinned memory the copy to a GPU does not wait; reading the sums does.
        numbers = torch.tensor(values, dtype=torch.float64, pin_memory=self.device.type == "cuda")
        return self.sum_tensor(numbers.to(self.device, non_blocking=True)).tolist()

    def sum_step(self, num_signals: int, seconds: float, rows_sum: int) -> tuple[int, float, int]:
        """Return what all ranks must know after a step, in one exchange.

        Args:
            rows_sum: from 0 to 2^64 - 1.

        Returns:
            The sum of `num_signals` over all ranks, rank 0's `seconds`, and the sum of `rows_sum` modulo 2^64.
        """
        values = [num_signals, seconds if self.is_first else 0.0, rows_sum & 0xFFFFFFFF, rows_sum >> 32]
        signals, of_first, low, high = self.sum_numbers(values)
        return int(signals), of_first, int(low) + (int(high) << 32) & 2**64 - 1

    def wait_for_all(self) -> None:
        """Wait until all ranks get here."""
        self.sum_numbers([0])

    def divide(self, work: Sequence[int]) -> list[list[int]]:
        """Return the items of each rank, of about equal work: the largest first, each to the rank with the least so far."""
        shares: list[list[int]] = [[] for _ in range(self.size)]
        least = [(0, rank) for rank in range(self.size)]  # a heap already
        for item in sorted(range(len(work)), key=work.__getitem__, reverse=True):
            total, rank = least[0]
            shares[rank].append(item)
            heapq.heapreplace(least, (total + work[item], rank))
        return shares

    def exchange(self, parts: Sequence[Tensor]) -> None:
        """Copy part r from rank r to all ranks, in place, for every r. Their sizes may differ."""
        if self.size > 1:
            with backend_errors():
                works = [dist.broadcast(part, rank, async_op=True) for rank, part in enumerate(parts) if part.numel()]
                for work in works:
                    work.wait()

    def share_tensors(self, tensors: Iterable[Tensor]) -> None:
        """Copy rank 0's values to all ranks, in place."""
        if self.size > 1:
            with backend_errors():
                for tensor in tensors:
                    dist.broadcast(tensor, 0)

    def share_json(self, value: Any) -> Any:
        """Return rank 0's value, which may be anything that JSON can hold."""
        if self.size == 1:
            return value
        content = json.dumps(value).encode() if self.is_first else b""
        size = int(self.sum_numbers([len(content)])[0])
        data = torch.zeros(size, dtype=torch.uint8, device=self.device)
        if self.is_first:
            data.copy_(torch.frombuffer(bytearray(content), dtype=torch.uint8))
        self.share_tensors([data])
        return json.loads(bytes(data.cpu().numpy()))


ALONE = Ranks(device=torch.device("cpu"))
"""The ranks of a single process. Its device is not used."""


def in_pieces(tensors: Iterable[TensorType], size: int) -> Iterator[list[TensorType]]:
    """Yield tensors, in their order, in lists that end with the tensor that brings them to this many numbers or more."""
    piece: list[TensorType] = []
    numbers = 0
    for tensor in tensors:
        piece.append(tensor)
        numbers += tensor.numel()
        if numbers >= size:
            yield piece
            piece, numbers = [], 0
    if piece:
        yield piece


@contextmanager
def backend_errors() -> Iterator[None]:
    """Turn the backend's error about a lost rank into a plain one. Others, such as too little memory, stay as they are."""
    try:
        yield
    except RuntimeError as error:
        if not is_of_lost_rank(error):
            raise
        raise LostProcess(
            f"rank {dist.get_rank()} of {dist.get_world_size()} lost the connection to the others: one of them ended, see "
            f"its own message; start again to resume from the last checkpoint ({str(error).splitlines()[0][:200]})"
        ) from error


def is_of_lost_rank(error: RuntimeError) -> bool:
    """Return whether a backend's error means that another rank has ended, or has not answered for as long as `TIMEOUT`.

    Gloo raises a plain RuntimeError for everything, so only the text shows the cause. NCCL raises almost no errors, for the
    reason at the top of this file.
    """
    text = str(error)
    return isinstance(error, dist.DistNetworkError) or bool(LOST_RANK.search(text) and "enforce fail" not in text)


class _SumOverRanks(torch.autograd.Function):
    """A differentiable sum over ranks: the gradient of each rank's summand is the sum of all ranks' gradients."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        total = tensor.clone()
        with backend_errors():
            dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _SumOverRanks.forward(ctx, gradients[0])


def sum_over_ranks(tensor: Tensor) -> Tensor:
    """Return the differentiable sum over all ranks, for models, which know no `Ranks`."""
    if not dist.is_initialized():
        return tensor
    total: Tensor = _SumOverRanks.apply(tensor)  # type: ignore[no-untyped-call]  # torch does not type it
    return total


def connect(rank: int, size: int) -> Store:
    """Return the store in which ranks meet. torchrun runs it; without torchrun, rank 0 does.

    Raises:
        LostProcess: the connection fails, as for ranks that start while torchrun is killed.
    """
    is_of_torchrun = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    try:
        store, _, _ = next(iter(rendezvous("env://", timeout=CONNECT_TIMEOUT if is_of_torchrun else TIMEOUT)))
    except dist.DistError as error:
        raise LostProcess(
            f"rank {rank} of {size} cannot connect to {'torchrun' if is_of_torchrun else 'rank 0'} at "
            f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}: it has ended, or another machine cannot be reached; "
            f"start again ({str(error).splitlines()[0][:200]})"
        ) from error
    store.set_timeout(TIMEOUT)
    return store


def agree_on_name(store: Store, rank: int, size: int) -> str:
    """Return a name that all ranks of this start share, and that no earlier start used in this store.

    torchrun may keep its store when it restarts the ranks, and new ranks would then look for dead ones. Its restart count
    does not identify a start: each machine has its own count, and a machine that joins or leaves does not raise it.
    Therefore each rank asks rank 0 with a unique token and receives the name as the answer. Rank 0 also answers
    tokens of dead ranks, which nobody reads, and is done when all ranks have confirmed the name.
    """
    mine = uuid.uuid4().hex
    if rank:
        store.set(f"asks-{rank}", mine)
        name: str = store.get(f"answer-{mine}").decode()  # blocks until rank 0 answers
        store.set(f"{name}-{rank}", "")
        return name
    deadline = time.monotonic() + TIMEOUT.total_seconds()
    missing = set(range(1, size))
    while missing:
        for other in sorted(missing):
            if store.check([f"asks-{other}"]):
                store.set(f"answer-{store.get(f'asks-{other}').decode()}", mine)
            if store.check([f"{mine}-{other}"]):
                missing.remove(other)
        if missing and time.monotonic() > deadline:
            raise ValueError(
                f"ranks {', '.join(map(str, sorted(missing)))} of {size} have not started within {TIMEOUT}: check the logs "
                f"of their machines, then start again"
            )
        time.sleep(0.02)
    return mine


@contextmanager
def join_ranks(device: torch.device) -> Iterator[Ranks]:
    """Connect to the other processes that torchrun started; without torchrun, this process is alone.

    Args:
        device: cpu or cuda. With several CUDA devices, each process uses the one with its local rank.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Ranks(device=device)
        return
    rank, local = int(os.environ["RANK"]), int(os.environ["LOCAL_RANK"])
    store = connect(rank, size)
    store = PrefixStore(agree_on_name(store, rank, size), store)
    group: dict[str, Any] = {"store": store, "rank": rank, "world_size": size, "timeout": TIMEOUT}
    if device.type == "cuda":
        if local >= torch.cuda.device_count():
            raise ValueError(
                f"rank {rank} has local rank {local}, but this machine has "
                f"{counted(torch.cuda.device_count(), 'CUDA device')}: use torchrun --nproc-per-node "
                f"{torch.cuda.device_count()}, or --device cpu"
            )
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
        dist.init_process_group("nccl", device_id=device, **group)
    else:
        dist.init_process_group("gloo", **group)
    yield Ranks(device=device, rank=rank, size=size)
    dist.destroy_process_group()  # not after an error: it would wait for ranks that may be gone
