"""Several ranks: one process for each device, started by torchrun, that share every global batch out between them.

    torchrun --no-python --nproc-per-node 8 bertloom pretrain base --data DATASET --out RUN

All ranks hold the same weights and moments and make the same update. In a step each one computes the gradients of its
micro-batches; these are summed over the ranks once, when all are done, in a few large pieces. That is not
DistributedDataParallel: there is nothing to overlap with that pays for its hooks at the batch sizes of BERT, and the sum
is the plain one of losses that are already divided by the counts of the whole batch. Only rank 0 writes files.

Ranks talk by gloo on a CPU and by NCCL on CUDA. Under gloo a rank that ends takes the others with it: they say so and
end too. Under NCCL they wait until torchrun ends them, or NCCL's own watchdog. torchrun, or the next start, goes on from
the last checkpoint.
"""

import json
import os
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

TIMEOUT = timedelta(minutes=30)
"""How long a rank waits for the others: rank 0 may be writing a large checkpoint to a slow disk."""
BUCKET_NUMBERS = 16 * 2**20
"""Gradients summed in one piece: 64 MiB, enough to be limited by bandwidth alone."""


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """This process's place among those that train together; by default it is alone, and nothing here costs anything."""

    device: torch.device
    """Where it computes."""
    rank: int = 0
    """Its number."""
    size: int = 1
    """How many there are."""

    @property
    def is_first(self) -> bool:
        """Whether this is the one that writes files and speaks."""
        return self.rank == 0

    def sum_tensor(self, tensor: Tensor) -> Tensor:
        """The sum over all ranks, in place."""
        if self.size > 1:
            with together():
                dist.all_reduce(tensor)
        return tensor

    def sum_numbers(self, values: Sequence[float]) -> list[float]:
        """Sums over all ranks, in 64-bit floating point: exact for integers below 2^53."""
        if self.size == 1:
            return list(values)
        return self.sum_tensor(torch.tensor(values, dtype=torch.float64, device=self.device)).tolist()

    def sum_integer(self, value: int) -> int:
        """The sum over all ranks modulo 2^64 of integers from 0 to 2^64 - 1."""
        low, high = self.sum_numbers([value & 0xFFFFFFFF, value >> 32])
        return int(low) + (int(high) << 32) & 2**64 - 1

    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Makes each gradient the sum over all ranks. A rank that had no example of a batch has none yet: zeros."""
        if self.size == 1:
            return
        bucket: list[Tensor] = []
        numbers = 0
        for parameter in parameters:
            if not parameter.requires_grad:
                continue
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            bucket.append(parameter.grad)
            numbers += parameter.numel()
            if numbers >= BUCKET_NUMBERS:
                self._sum_bucket(bucket)
                bucket, numbers = [], 0
        if bucket:
            self._sum_bucket(bucket)

    def _sum_bucket(self, gradients: list[Tensor]) -> None:
        flat = self.sum_tensor(torch.cat([gradient.reshape(-1) for gradient in gradients]))
        for gradient, part in zip(gradients, flat.split([gradient.numel() for gradient in gradients])):
            gradient.copy_(part.view_as(gradient))

    def share_tensors(self, tensors: Iterable[Tensor]) -> None:
        """Gives all ranks the values that rank 0 has, in place."""
        if self.size > 1:
            with together():
                for tensor in tensors:
                    dist.broadcast(tensor, 0)

    def share_json(self, value: Any) -> Any:
        """What rank 0 has, on all ranks; anything that JSON can hold."""
        if self.size == 1:
            return value
        content = json.dumps(value).encode() if self.is_first else b""
        size = int(self.sum_numbers([len(content)])[0])
        data = torch.zeros(size, dtype=torch.uint8, device=self.device)
        if self.is_first:
            data.copy_(torch.frombuffer(bytearray(content), dtype=torch.uint8))
        self.share_tensors([data])
        return json.loads(bytes(data.cpu().numpy()))


@contextmanager
def together() -> Iterator[None]:
    """Turns what the backend says when a rank is gone into words for people."""
    try:
        yield
    except RuntimeError as error:
        raise ValueError(
            f"rank {dist.get_rank()} of {dist.get_world_size()} has lost the others: one of them has ended, and its own "
            f"message says why; start again to go on from the last checkpoint ({str(error).splitlines()[0][:200]})"
        ) from error


class _SumOverRanks(torch.autograd.Function):
    """A sum over ranks that gradients go through: every rank's share has the gradients of all."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        total = tensor.clone()
        with together():
            dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _SumOverRanks.forward(ctx, gradients[0])


def sum_over_ranks(tensor: Tensor) -> Tensor:
    """The sum over all ranks, for a model's own use: with gradients, and without a word of which ranks there are."""
    return _SumOverRanks.apply(tensor) if dist.is_initialized() else tensor


def agree_on_name(store: dist.Store, rank: int, size: int) -> str:
    """A name that all ranks of this start have, and none that met in this store before.

    torchrun may keep its store when it starts the ranks again, and they would look for those that are gone. Its count of
    restarts does not tell one start from another: each machine has its own, and one that joins or leaves raises none.
    So each rank asks rank 0 by a word that nobody has used, and gets the name as the answer to that. What a dead rank
    has asked is answered as well, to nobody; rank 0 is done when all ranks have said the name.
    """
    mine = uuid.uuid4().hex
    if rank:
        store.set(f"asks-{rank}", mine)
        name = store.get(f"answer-{mine}").decode()  # waits for it
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
                f"ranks {', '.join(map(str, sorted(missing)))} of {size} have not come in {TIMEOUT}: look at what their "
                f"machines say, then start again"
            )
        time.sleep(0.02)
    return mine


@contextmanager
def join_ranks(device: torch.device) -> Iterator[Ranks]:
    """Meets the other processes that torchrun has started; without torchrun, this process is alone.

    Args:
        device: cpu or cuda; of several CUDA devices each process takes the one of its number on its machine.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Ranks(device=device)
        return
    rank, local = int(os.environ["RANK"]), int(os.environ["LOCAL_RANK"])
    store, _, _ = next(iter(dist.rendezvous("env://", timeout=TIMEOUT)))
    store = dist.PrefixStore(agree_on_name(store, rank, size), store)
    group: dict[str, Any] = {"store": store, "rank": rank, "world_size": size, "timeout": TIMEOUT}
    if device.type == "cuda":
        if local >= torch.cuda.device_count():
            raise ValueError(
                f"rank {rank} is number {local} on this machine, which has {torch.cuda.device_count()} CUDA devices: "
                f"give torchrun --nproc-per-node {torch.cuda.device_count()}, or --device cpu"
            )
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
        dist.init_process_group("nccl", device_id=device, **group)
    else:
        dist.init_process_group("gloo", **group)
    yield Ranks(device=device, rank=rank, size=size)
    dist.destroy_process_group()  # not after an error: the others may be gone, and it would wait for them
