"""torch.cuda.CUDAGraph on the fake device; `torch.cuda.graph` is torch's own.

A capture raises where CUDA does: where the host waits, copies memory that is not pinned, or allocates pinned memory. It
computes nothing. A replay fails if memory from before the capture has been freed. Work on a second stream during a capture
is not modelled, nor are collectives.
"""

from typing import Any


def install(library: Any) -> None:
    """Replace torch's class, whose C++ base a CPU build does not have."""
    import torch

    class CUDAGraph:
        """Operators that were captured and can be replayed."""

        def __init__(self, keep_graph: bool = False) -> None:
            self.number = 0

        def capture_begin(
            self, pool: Any = None, capture_error_mode: str = "global", check_input_liveness: bool = False
        ) -> None:
            torch.ops.fake_cuda.begin_capture(capture_error_mode == "global")

        def capture_end(self) -> None:
            self.number = torch.ops.fake_cuda.end_capture()

        def replay(self) -> None:
            if not self.number:
                raise RuntimeError("Called CUDAGraph::replay without a preceding successful capture.")
            torch.ops.fake_cuda.replay(self.number)

        def reset(self) -> None:
            torch.ops.fake_cuda.free_graph(self.number)
            self.number = 0

        def pool(self) -> tuple[int, int]:
            return (0, self.number)

        def __del__(self) -> None:
            if self.number:
                self.reset()

    def is_capturing() -> bool:
        return bool(library.fake_cuda_is_capturing())

    torch._C.__dict__["_cuda_isCurrentStreamCapturing"] = is_capturing
    torch.cuda.graphs._cuda_isCurrentStreamCapturing = is_capturing
    torch.cuda.CUDAGraph = torch.cuda.graphs.CUDAGraph = CUDAGraph  # type: ignore[misc, assignment]
