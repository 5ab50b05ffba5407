"""torch.cuda on the fake device: the functions that torch's Python half calls in a CUDA build.

Most functions of `torch.cuda` stay torch's own; only the C++ functions under them are replaced.
"""

import functools
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from tests.fake_cuda.library import load

MOST_DEVICES = 16
"""As in memory.h."""


@dataclass(frozen=True, kw_only=True)
class Devices:
    """The CUDA devices that torch finds."""

    count: int = 1
    name: str = "NVIDIA H200"
    capability: tuple[int, int] = (9, 0)
    """Compute capability: (7, 5) for a T4, (8, 0) for an A100, (9, 0) for an H100."""
    memory_bytes: int = 141 * 10**9
    """Memory of each, which is reported but not enforced."""


@functools.cache
def install() -> None:
    """Give torch the fake device. Call it before torch's compiler is imported, which looks for CUDA at import."""
    library = load()
    import torch

    from tests.fake_cuda import flash_attention, graphs, nccl, streams

    def memory_stats(device: int) -> dict[str, Any]:
        used = {"current": library.fake_cuda_allocated(device), "peak": library.fake_cuda_peak(device)}
        return {"allocated_bytes": {"all": used}, "reserved_bytes": {"all": used}}

    def exchange_device(device: int) -> int:
        return library.fake_cuda_exchange_device(device) if device >= 0 else -1

    def maybe_exchange_device(device: int) -> int:
        return exchange_device(device)

    torch._C.__dict__.update(  # Python functions, because torch puts some of them into dictionaries
        _cuda_getDeviceCount=lambda: library.fake_cuda_num_devices(),
        _cuda_getDevice=lambda: library.fake_cuda_current_device(),
        _cuda_setDevice=lambda device: library.fake_cuda_exchange_device(device),
        _cuda_isInBadFork=lambda: False,
        _cuda_synchronize=lambda: torch.ops.fake_cuda.synchronize("torch.cuda.synchronize"),
        _cuda_emptyCache=lambda: None,
        _host_emptyCache=lambda: None,
        _cuda_memoryStats=memory_stats,
        _cuda_resetPeakMemoryStats=lambda device: library.fake_cuda_reset_peak(device),
    )
    cuda = torch.cuda
    cuda._exchange_device, cuda._maybe_exchange_device = exchange_device, maybe_exchange_device
    cuda.default_generators = tuple(Generator(device) for device in range(MOST_DEVICES))  # type: ignore[assignment]
    cuda._initialized = True
    resize = torch.UntypedStorage.resize_

    def resize_storage(storage: Any, num_bytes: int) -> Any:  # torch's own has no CUDA in a CPU build
        if not storage.is_cuda:
            return resize(storage, num_bytes)
        library.fake_cuda_resize_storage(storage._cdata, num_bytes)
        return storage

    torch.UntypedStorage.resize_ = resize_storage  # type: ignore[method-assign]
    streams.install(library)
    graphs.install(library)
    flash_attention.install()
    nccl.install(library)
    choose(Devices())


def choose(devices: Devices) -> None:
    """Let torch find these devices from now on."""
    import torch

    library, cuda = load(), torch.cuda
    library.fake_cuda_set_num_devices(devices.count)
    major, minor = devices.capability
    properties = SimpleNamespace(
        name=devices.name,
        major=major,
        minor=minor,
        total_memory=devices.memory_bytes,
        multi_processor_count=132,
    )

    def free_and_total(device: Any = None) -> tuple[int, int]:
        used = library.fake_cuda_allocated(cuda._utils._get_device_index(device, optional=True))
        return devices.memory_bytes - used, devices.memory_bytes

    cuda._cached_device_count = devices.count
    cuda._get_device_properties = lambda device: properties  # type: ignore[attr-defined]
    cuda.mem_get_info = cuda.memory.mem_get_info = free_and_total


class Generator:
    """The random numbers of a device, which are those of a CPU generator with the same seed."""

    def __init__(self, device: int) -> None:
        self.device = device

    def get_state(self) -> Any:
        return _operators().random_state(self.device)

    def set_state(self, state: Any) -> None:
        _operators().set_random_state(self.device, state)

    def manual_seed(self, seed: int) -> None:
        _operators().seed_device(self.device, seed)


def _operators() -> Any:
    import torch

    return torch.ops.fake_cuda
