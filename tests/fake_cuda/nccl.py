"""The process group of NCCL, by gloo on the same memory, with NCCL's checks."""

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import distributed_c10d as c10d

DTYPES = {
    torch.int8,
    torch.uint8,
    torch.int32,
    torch.int64,
    torch.float16,
    torch.float32,
    torch.float64,
    torch.bfloat16,
    torch.bool,
}
"""What NCCL adds up and copies, as torch's `getNcclDataType` lists it."""
COLLECTIVES = (
    "allgather",
    "all_gather_single",
    "_allgather_base",
    "allreduce",
    "allreduce_coalesced",
    "alltoall",
    "alltoall_base",
    "broadcast",
    "reduce",
    "reduce_scatter",
    "reduce_scatter_single",
    "reduce_scatter_tensor_coalesced",
    "_reduce_scatter_base",
    "send",
    "recv",
)

OF_BACKENDS = {"all_gather_single": "_allgather_base", "reduce_scatter_single": "_reduce_scatter_base"}
"""Methods of a group that its backends have under another name."""


class Options:
    """The options that torch gives NCCL; only the time limit counts here."""

    _timeout: Any = None


class ProcessGroupNCCL(dist.ProcessGroup):
    """Checks tensors as NCCL does, and lets gloo do the work. A wait for it does not count as a wait for the device."""

    Options = Options

    def __init__(self, store: Any, rank: int, size: int, options: Options) -> None:
        super().__init__(rank, size)
        self.store = store
        self.gloo = dist.ProcessGroupGloo(store, rank, size, timeout=options._timeout)
        self.device: torch.device | None = None

    group_name = ""

    def _set_group_name(self, name: str) -> None:
        self.group_name = name

    def _set_sequence_number_for_group(self) -> None:
        pass

    def _get_backend(self, device: torch.device) -> "ProcessGroupNCCL":
        return self

    @property
    def supports_splitting(self) -> bool:
        return False

    def name(self) -> str:
        return "nccl"

    getBackendName = name

    def barrier(self, *options: Any) -> Any:
        return self.gloo.barrier()

    def host(self, value: Any) -> Any:
        """Return a tensor, or lists of them, as NCCL's argument on the host; other values as they are."""
        if isinstance(value, (list, tuple)):
            return [self.host(item) for item in value]
        if not isinstance(value, Tensor):
            return value
        if not value.is_cuda:
            raise RuntimeError(f"No backend type associated with device type {value.device}")
        if value.dtype not in DTYPES:
            raise RuntimeError(f"Unconvertible NCCL type {value.dtype}")
        if not value.is_contiguous():
            raise ValueError("Tensors must be contiguous")
        self.check_device(value.device)
        return torch.ops.fake_cuda.on_host(value.detach())

    def allgather_into_tensor_coalesced(self, outputs: Any, inputs: Any, *options: Any) -> Any:
        *works, last = map(self.gloo._allgather_base, self.host(outputs), self.host(inputs))
        for work in works:
            work.wait()
        return last

    def check_device(self, device: torch.device) -> None:
        """Raise RuntimeError if another rank uses this device, or this rank has used another one."""
        if self.device is None:
            self.device = device
            self.store.set(f"device-of-{self.rank()}", str(device))
            for rank in range(self.size()):
                if rank != self.rank() and self.store.get(f"device-of-{rank}").decode() == str(device):
                    raise RuntimeError(f"Duplicate GPU detected : rank {self.rank()} and rank {rank} both on {device}")
        if device != self.device:
            raise RuntimeError(f"a rank of NCCL has one device: this one has used {self.device} and now uses {device}")


def collective(name: str) -> Callable[..., Any]:
    """Return the method of this name, which hands its arguments over to gloo."""

    def call(self: ProcessGroupNCCL, *arguments: Any) -> Any:
        options = next((a for a in arguments if hasattr(a, "reduceOp")), None)
        is_mean = options is not None and options.reduceOp == dist.ReduceOp.AVG
        if is_mean:
            options.reduceOp = dist.ReduceOp.SUM  # gloo has no mean
        work = getattr(self.gloo, OF_BACKENDS.get(name, name))(*map(self.host, arguments))
        if is_mean:
            work.wait()
            with torch.no_grad():
                for result in self.host([arguments[0]]):
                    for tensor in result if isinstance(result, list) else [result]:
                        tensor.div_(self.size())
        return work

    return call


for _name in COLLECTIVES:
    setattr(ProcessGroupNCCL, _name, collective(_name))


def install(library: Any) -> None:
    """Let `init_process_group("nccl", ...)` find this group."""
    start = c10d.init_process_group

    def init_process_group(backend: str | None = None, *arguments: Any, device_id: Any = None, **named: Any) -> None:
        if backend == "nccl":
            current = torch.device("cuda", library.fake_cuda_current_device())
            if device_id != current:
                raise RuntimeError(
                    f"device_id={device_id}, but the current device is {current}: call torch.cuda.set_device first"
                )
        start(backend, *arguments, device_id=device_id, **named)

    torch._C.__dict__.update(_nccl_version=lambda: 2 << 32 | 29 << 16, _nccl_version_suffix=lambda: b"")
    c10d.ProcessGroupNCCL = ProcessGroupNCCL  # type: ignore[misc]
    c10d.is_nccl_available = dist.is_nccl_available = lambda: True
    c10d.init_process_group = dist.init_process_group = init_process_group
