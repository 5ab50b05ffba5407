"""What a program did on the fake device, counted while it runs and written as JSON."""

import ast
import ctypes
import json
import sys
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).parent.parent.parent
OUTSIDE = (str(ROOT / "tests" / "fake_cuda"), str(ROOT / ".venv"))
BACKWARD = "backward pass"
"""The place of operators in autograd's thread of a device, which has no Python frame."""

COMPILER_WARNINGS = (
    "The .grad attribute of a Tensor that is not a leaf",
    "Guards may run slower on Python 3.13.0",
    "<class 'torch.autograd.function.Function'> should not be instantiated",
)
"""Warnings from torch.compile, which reads every attribute of a tensor and makes objects of its own."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """Counts of one process."""

    flash_forward: int
    """Calls of FlashAttention's forward operator."""
    flash_backward: int
    flash_windows: dict[str, int]
    """Calls of both by window: "forward 64"; -1 is none."""
    operators: int
    """Calls of CUDA operators: an upper bound of kernels in eager mode."""
    replays: int
    """Replays of CUDA graphs."""
    synchronizations: dict[str, int]
    """How often the host waited for the device, by place and operator: "model/step.py train_step: …"."""
    graphs: dict[str, int]
    """Number of graphs that torch.compile made, by the function that it compiled."""
    recompilations: list[str]
    """Reasons of the graphs after the first one of a function."""
    graph_breaks: dict[str, int]
    """How often each reason cut a graph in two."""
    peak_bytes: list[int]
    """Largest memory in use, by device."""

    @property
    def num_synchronizations(self) -> int:
        """How often the host waited for the device."""
        return sum(self.synchronizations.values())

    @property
    def num_graphs(self) -> int:
        """Number of graphs that torch.compile made."""
        return sum(self.graphs.values())

    @classmethod
    def read(cls, path: Path) -> "Report":
        """Read a report that `Recorder.write` wrote."""
        return cls(**json.loads(path.read_text()))


class Recorder:
    """Counts what happens on the devices of this process from now on."""

    def __init__(self, library: ctypes.CDLL) -> None:
        from torch._dynamo import utils

        from tests.fake_cuda.flash_attention import CALLS, WINDOWS

        self.library = library
        self.operators_before = library.fake_cuda_num_operators()
        self.replays_before = library.fake_cuda_num_replays()
        self.synchronizations: Counter[str] = Counter()
        self.listener = ctypes.CFUNCTYPE(None, ctypes.c_char_p)(self.note_synchronization)
        library.fake_cuda_listen(self.listener)
        utils.set_compilation_metrics_limit(1_000_000)
        utils.clear_compilation_metrics()
        utils.counters.clear()
        CALLS.clear()
        WINDOWS.clear()

    def note_synchronization(self, operator: bytes) -> None:
        """Count that the host waits; called in the thread that does."""
        self.synchronizations[f"{place(sys._getframe(1))}: {operator.decode()}"] += 1

    def report(self) -> Report:
        """Return the counts so far."""
        from torch._dynamo import utils

        from tests.fake_cuda.flash_attention import CALLS, WINDOWS

        compilations = [made for made in utils.get_compilation_metrics() if made.graph_op_count]
        return Report(
            flash_forward=CALLS["forward"],
            flash_backward=CALLS["backward"],
            flash_windows=dict(WINDOWS),
            operators=self.library.fake_cuda_num_operators() - self.operators_before,
            replays=self.library.fake_cuda_num_replays() - self.replays_before,
            synchronizations=dict(self.synchronizations.most_common()),
            graphs=dict(Counter(map(compiled_function, compilations))),
            recompilations=[str(made.recompile_reason) for made in compilations if made.recompile_reason],
            graph_breaks=dict(utils.counters["graph_break"]),
            peak_bytes=[self.library.fake_cuda_peak(i) for i in range(self.library.fake_cuda_num_devices())],
        )

    def write(self, path: Path) -> None:
        """Write the counts so far."""
        path.write_text(json.dumps(asdict(self.report()), indent=1) + "\n")


def compiled_function(compilation: Any) -> str:
    """Return the name of the function that torch.compile made a graph of, with its class."""
    line = compilation.co_firstlineno
    tree = ast.parse(Path(compilation.co_filename).read_text())
    owners = [
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and node.lineno < line <= (node.end_lineno or 0)
    ]
    return ".".join([*owners, str(compilation.co_name)])


def place(frame: FrameType | None) -> str:
    """Return the innermost function of this repository among a frame and its callers, with its file."""
    while frame:
        name = frame.f_code.co_filename
        if name.startswith(str(ROOT)) and not name.startswith(OUTSIDE):
            return f"{Path(name).relative_to(ROOT)} {frame.f_code.co_name}"
        frame = frame.f_back
    return BACKWARD


def replace_compiler(backend: str | Callable[..., Any] = "aot_eager") -> None:
    """Let torch.compile run the graphs that it would give to inductor, which has no code for a GPU on this machine."""
    import torch

    for message in COMPILER_WARNINGS:
        warnings.filterwarnings("ignore", message)
    real = torch.compile

    def compile_(model: Any = None, **options: Any) -> Any:
        options = {name: value for name, value in options.items() if name not in ("mode", "options")}
        return real(model, **{"backend": backend} | options)

    torch.compile = compile_  # type: ignore[assignment]
