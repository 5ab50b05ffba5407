"""torch.cuda.Stream and torch.cuda.Event, which here only have names: every operator has ended when its call returns."""

from typing import Any


def install(library: Any) -> None:
    """Replace torch's classes, whose C++ bases a CPU build does not have, and the functions under `current_stream`."""
    import torch

    cuda = int(torch._C._autograd.DeviceType.CUDA)

    class Stream(torch.Stream):
        """A stream of a device; the current device by default."""

        def __new__(cls, device: Any = None, priority: int = 0, **names: int) -> "Stream":
            if names:
                return super().__new__(cls, **names)
            index = torch.cuda._utils._get_device_index(device, optional=True)
            return super().__new__(cls, device=torch.device("cuda", index), priority=priority)

        @property
        def cuda_stream(self) -> int:
            return self.stream_id

    class Event(torch.Event):
        """An event of a device."""

        def __new__(cls, enable_timing: bool = False, blocking: bool = False, interprocess: bool = False) -> "Event":
            return super().__new__(cls, device="cuda", enable_timing=enable_timing, blocking=blocking)

    def set_stream(stream_id: int, device_index: int, device_type: int) -> None:
        library.fake_cuda_set_stream(device_index, stream_id)

    torch._C.__dict__.update(
        _cuda_getCurrentStream=lambda device: (library.fake_cuda_stream(device), device, cuda),
        _cuda_getCurrentRawStream=lambda device: library.fake_cuda_stream(device),
        _cuda_getDefaultStream=lambda device: (0, device, cuda),
        _cuda_setStream=set_stream,
    )
    for module in (torch.cuda, torch.cuda.streams):
        module.Stream, module.Event = Stream, Event  # type: ignore[misc]
