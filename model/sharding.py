"""Training of models that do not fit one device: each rank keeps a part of every weight, gradient and moment.

    torchrun --no-python --nproc-per-node 8 bertloom pretrain large --shard-model --data DATASET --out RUN

This is PyTorch's FSDP2 (`fully_shard`). A layer's weights are gathered before its forward pass and before its backward
pass, and freed after each. Embeddings and heads share the word embeddings, so they are one group, which stays gathered
during a whole pass. In bf16 and fp16, weights are gathered in 16 bits and gradients are summed in 32 bits. The sharded
weights are the master copy, so no compute copy is needed.

All ranks must gather the same weights at the same time. So every rank makes as many passes as the one with the most
batches; a rank without one makes a pass on `IDLE_BATCH`, whose losses and gradients are 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from model.batch import PackedBatch
from model.distributed import Ranks
from model.mixed_precision import DTYPES

if TYPE_CHECKING:
    from torch.distributed.fsdp import FSDPModule

    from model.heads import PretrainingModel
    from model.loading.batches import GlobalBatch

SHARE_FOR_GRADIENTS = 1 / 8
"""Largest share of a device's memory for gradients of the whole model, which save communication between micro-batches."""

IDLE_BATCH = PackedBatch(
    input_ids=torch.zeros(1, dtype=torch.int64),
    token_type_ids=torch.zeros(1, dtype=torch.int64),
    position_ids=torch.zeros(1, dtype=torch.int64),
    cu_seqlens=torch.tensor([0, 1], dtype=torch.int32),
    lengths=[1],
    longest=1,
    masked_positions=torch.zeros(0, dtype=torch.int64),
    masked_ids=torch.zeros(0, dtype=torch.int64),
    next_sentence_label=torch.tensor([-1]),
    rows=np.zeros((0, 2), dtype=np.int64),
    sources=torch.zeros(1, dtype=torch.int64),
)
"""A batch of one token that no loss depends on."""


@dataclass(frozen=True, kw_only=True)
class Sharding:
    """A sharded model, as the training step sees it."""

    model: FSDPModule
    ranks: Ranks
    sums_once: bool
    """Whether gradients are summed over the ranks only in the last micro-batch. Until then each rank holds its own
    gradients of the whole model."""

    def micro_batches(self, batch: GlobalBatch) -> Iterator[tuple[int, PackedBatch]]:
        """Yield numbers and micro-batches, on every rank as many as the largest number of a rank.

        Each needs a forward and a backward pass.
        """
        parts = list(zip(batch.numbers, batch.micro_batches, strict=True))
        parts += [(0, IDLE_BATCH)] * (batch.num_passes - len(parts))
        for index, part in enumerate(parts, start=1):
            self.model.set_requires_gradient_sync(index == len(parts) or not self.sums_once)
            yield part

    def batches(self, batches: Iterable[PackedBatch]) -> Iterator[PackedBatch]:
        """Yield batches for forward passes, until no rank has one."""
        own = iter(batches)
        while True:
            batch = next(own, None)
            if not self.ranks.sum_numbers([batch is not None])[0]:
                break
            yield IDLE_BATCH if batch is None else batch
        self.model.reshard()  # embeddings and heads, which a backward pass would do


def shard_model(model: PretrainingModel, ranks: Ranks, precision: str) -> Sharding:
    """Divide rank 0's weights among all ranks and move them to their devices, one at a time.

    Args:
        model: on the CPU. The weights of other ranks are not read and may be on the device "meta".
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

    weights = {name: parameter.data for name, parameter in model.named_parameters()} if ranks.is_first else {}
    model.to("meta")
    dtype = model.encoder.gathered_dtype = DTYPES.get(precision)
    mesh = init_device_mesh(ranks.device.type, (ranks.size,))
    policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32)
    for module in (*model.encoder.blocks[1:], model):
        fully_shard(module, mesh=mesh, mp_policy=policy)
    for module in model.modules():
        if isinstance(module, FSDPModule):
            # Losses are divided by the counts of the global batch, so gradients are sums and not means.
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)
    model.to_empty(device=ranks.device)
    for name, parameter in model.named_parameters():
        share_parts(parameter.data, weights.pop(name, None), ranks)
    assert isinstance(model, FSDPModule)
    return Sharding(model=model, ranks=ranks, sums_once=have_room_for_gradients(ranks, model))


def have_room_for_gradients(ranks: Ranks, model: PretrainingModel) -> bool:
    """Return whether gradients of the whole model, in 32 bits, are a small share of the memory of all ranks' devices."""
    num_bytes = 4 * sum(parameter.numel() for parameter in model.parameters())
    has_room = True
    if ranks.device.type == "cuda":
        has_room = num_bytes <= SHARE_FOR_GRADIENTS * torch.cuda.get_device_properties(ranks.device).total_memory
    return ranks.sum_numbers([has_room]) == [ranks.size]  # GPUs may differ, and all ranks must do the same


def share_parts(target: Tensor, source: Tensor | None, ranks: Ranks) -> None:
    """Copy a whole tensor of rank 0 into the target of all ranks. A target may be a part. Other ranks give None."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    full = torch.empty(target.shape, dtype=target.dtype, device=ranks.device) if is_sharded(target) else target
    if source is not None:
        full.copy_(source)
    ranks.share_tensors([full])
    if isinstance(target, DTensor):
        target.copy_(distribute_tensor(full, target.device_mesh, target.placements, src_data_rank=None))


def is_sharded(tensor: Tensor) -> bool:
    """Return whether this rank may hold only a part of a tensor."""
    from torch.distributed.tensor import DTensor  # the import takes a second, and predictions do not need it

    return isinstance(tensor, DTensor)


def whole(tensor: Tensor) -> Tensor:
    """Return a whole tensor. If it is sharded, all ranks must call this together."""
    found: Tensor = tensor.full_tensor() if is_sharded(tensor) else tensor  # type: ignore[attr-defined]
    return found


def own_parts(tensors: Iterable[Tensor]) -> list[Tensor]:
    """Return this rank's part of each tensor: all of it, unless it is sharded. Both share memory."""
    return [tensor.to_local() if is_sharded(tensor) else tensor for tensor in tensors]  # type: ignore[attr-defined]


def norms(parts: Sequence[Tensor], are_sharded: bool) -> Tensor:
    """Return the norms (N,) of N tensors from this rank's parts of them. All ranks must call this together."""
    found = torch.stack(torch._foreach_norm(list(parts)))
    if not are_sharded:
        return found
    squares = found.double().square()
    torch.distributed.all_reduce(squares)
    return squares.sqrt().float()
