"""Forward and backward of a micro-batch as one CUDA graph, for models so small that starting kernels takes most of a step.

A graph is recorded once for each size of padded batches (`model/loading/padding.py`) and replayed for every micro-batch of
that size. It reads a batch from fixed places and adds to gradients in fixed places. The optimizer is not part of it. Two
kinds of batches run without a graph: those that were not padded, and those without pairs in a run that trains on pairs.

While a graph is recorded, other threads may use the GPU: the reader allocates pinned memory for the next batch.
"""

from collections.abc import Collection
from dataclasses import astuple, dataclass, fields
from typing import Any

import torch
from torch import Tensor

from model.batch import PackedBatch, StaticShape
from model.heads import PretrainingModel
from model.optimizer import trained

WARM_UP_PASSES = 3
"""Passes on another stream before recording, in which libraries allocate memory and torch.compile compiles."""


@dataclass(kw_only=True)
class Recording:
    """A graph, and the fixed places that it reads and writes."""

    graph: torch.cuda.CUDAGraph
    batch: PackedBatch
    scalars: Tensor
    """float32 (3,): masked positions and pairs of the global batch, and the loss scale"""
    sums: Tensor
    """float64 (4 + number of sources,), the metrics of `PretrainingOutput`"""


class StepGraphs:
    """Runs forward and backward of micro-batches of fixed sizes as CUDA graphs."""

    def __init__(self, computing: PretrainingModel, master: PretrainingModel, shapes: Collection[StaticShape]) -> None:
        """
        Args:
            computing: the model that computes, on a CUDA device.
            master: the model whose gradients the optimizer reads; may be the same.
            shapes: the sizes that batches are padded to.

        Raises:
            ValueError: the work of the model depends on more than the sizes of a batch.
        """
        if not computing.encoder.is_static:
            raise ValueError(
                "--cuda-graphs needs FlashAttention on a GPU: omit it, or use --device cuda, --precision bf16 or fp16, "
                "and no dropout of attention weights"
            )
        self.model = computing
        self.shapes = shapes
        self._gradients = [(own, torch.zeros_like(own)) for own in trained(master)]
        self._trains_pairs = master.trains_pairs
        self._recordings: dict[tuple[StaticShape, int], Recording] = {}
        """By the size of batches and the number of sources."""
        self._pool: Any = None
        """The memory that all graphs share, because only one runs at a time."""

    def begin(self, num_pairs: int) -> bool:
        """Set all gradients to 0 in their fixed places, and return whether this global batch can use graphs."""
        if self._trains_pairs and not num_pairs:  # its head gets no gradient at all, which differs from 0
            return False
        for own, gradient in self._gradients:
            own.grad = gradient
        torch._foreach_zero_([gradient for _, gradient in self._gradients])
        return True

    def shape_of(self, part: PackedBatch) -> StaticShape | None:
        """Return the size that a micro-batch was padded to; None if it was not padded."""
        sizes = len(part.input_ids), len(part.masked_ids), len(part.cu_seqlens) - 1, part.longest
        return next((shape for shape in self.shapes if astuple(shape) == sizes), None)

    def run(
        self,
        part: PackedBatch,
        shape: StaticShape,
        num_masked: int,
        num_pairs: int,
        loss_scale: float | None,
        num_sources: int,
    ) -> Tensor:
        """Add the gradients of a micro-batch in pinned memory, and return its metrics until the next call.

        Args:
            shape: from `shape_of`.
            num_masked, num_pairs, loss_scale, num_sources: as in `model.step.train_step` and the model.

        Returns:
            float64 (4 + num_sources,), as `PretrainingOutput.metrics`.
        """
        scalars = torch.tensor([max(num_masked, 1), num_pairs, loss_scale or 1.0]).pin_memory()
        found = self._recordings.get((shape, num_sources))
        if found is None:
            device = next(self.model.parameters()).device
            with torch.random.fork_rng([device]):  # else dropout would depend on when the graph was recorded
                found = self._recordings[shape, num_sources] = self._record(part, scalars, num_sources)
        copy_batch(part, found.batch)
        found.scalars.copy_(scalars, non_blocking=True)
        found.graph.replay()
        return found.sums

    def _record(self, part: PackedBatch, scalars: Tensor, num_sources: int) -> Recording:
        """Return the recording of a pass over a batch of this size. It leaves the gradients as they are."""
        device = next(self.model.parameters()).device
        found = Recording(
            graph=torch.cuda.CUDAGraph(),
            batch=part.to(device),
            scalars=scalars.to(device),
            sums=torch.zeros(4 + num_sources, dtype=torch.float64, device=device),
        )
        kept = [gradient.clone() for _, gradient in self._gradients]
        stream = torch.cuda.Stream(device)
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP_PASSES):
                self._pass(found)
        torch.cuda.current_stream(device).wait_stream(stream)
        with torch.cuda.graph(found.graph, pool=self._pool, capture_error_mode="thread_local"):
            self._pass(found)
        self._pool = found.graph.pool()
        torch._foreach_copy_([gradient for _, gradient in self._gradients], kept)
        return found

    def _pass(self, into: Recording) -> None:
        """Run forward and backward on the batch of a recording."""
        num_masked, num_pairs, loss_scale = into.scalars.unbind()
        output = self.model(into.batch, num_masked, num_pairs if self._trains_pairs else 0, len(into.sums) - 4)
        (output.loss * loss_scale).backward()
        into.sums.copy_(output.metrics())


def copy_batch(source: PackedBatch, target: PackedBatch) -> None:
    """Copy the tensors of a batch into those of another one of the same size, without waiting if they are pinned."""
    for field in fields(PackedBatch):
        values = getattr(source, field.name)
        if isinstance(values, Tensor):
            getattr(target, field.name).copy_(values, non_blocking=True)
