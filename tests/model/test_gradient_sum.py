"""Gradients that ranks add up during their last backward pass, in processes that talk by gloo."""

import pytest
from safetensors.torch import load_file

from tests.ranks import finish, start_ranks

STEP = """
import sys
import torch, torch.distributed as dist
from safetensors.torch import save_file
from model import gradient_sum
from model.distributed import ALONE, join_ranks
from model.gradient_sum import GradientSum
from model.mixed_precision import compute_copy
from model.loading.batches import global_batch
from model.loading.data import DataSet
from model.loading.order import TrainingOrder
from tests.model.small_model import random_model

data, out, precision, normalization, num_pairs, parts, overlaps = sys.argv[1:]
torch.set_num_threads(1)
gradient_sum.PIECE_NUMBERS = 3000
examples = DataSet(data).examples("train", 32)
batch = global_batch(examples, TrainingOrder(examples.rows_per_copy, 1, 32), 0, 20, 4)
events = []

def all_reduce(tensor, **options):
    events.append(tensor.numel())
    return torch.distributed.distributed_c10d.all_reduce(tensor, **options)

dist.all_reduce = all_reduce
with join_ranks(torch.device("cpu")) as ranks:
    model = random_model(normalization=normalization)
    copy = compute_copy(model, precision)
    computing = copy.model if copy else model
    computing.train()
    summed = GradientSum(ranks, model, computing, idle=() if int(num_pairs) else model.nsp.parameters())
    mine = [number for number, rank in enumerate(parts) if int(rank) == ranks.rank]
    for number in mine:
        output = computing(batch.micro_batches[number], batch.num_masked, int(num_pairs))
        with summed.overlapping(is_last=overlaps == "yes" and number == mine[-1]):
            output.loss.backward()
    during = len(events)
    summed.finish()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    save_file(gradients, f"{out}/{overlaps}-{ranks.rank}")
    print(during, *events)
"""
ARGUMENTS = {"precision": "fp32", "normalization": "layer", "num_pairs": "20", "parts": "00011"}
"""`parts` has the rank of each micro-batch."""


def summed(data, out, size: int, overlaps: str = "yes", **changes: str) -> list[list[int]]:
    """Sum gradients over ranks; return how many pieces each had sent before its last backward pass ended, and all sizes."""
    arguments = [str(data), str(out), *(ARGUMENTS | changes).values(), overlaps]
    ended = finish(start_ranks(size, STEP, arguments))
    assert [(status, errors) for status, _, errors in ended] == [(0, "")] * size, ended
    return [[int(word) for word in said.split()] for _, said, _ in ended]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_ranks_with_two_one_and_no_micro_batches_get_the_sum_of_one_rank(data_set, tmp_path, precision):
    said = summed(data_set, tmp_path, 3, precision=precision)
    during, sizes = [line[0] for line in said], [line[1:] for line in said]
    assert sizes == [sizes[0]] * 3 and len(sizes[0]) > 4  # the same pieces in the same order
    # A rank without a micro-batch sends all of them at the end.
    assert during == [len(sizes[0])] * 2 + [0]
    several = [(tmp_path / f"yes-{rank}").read_bytes() for rank in range(3)]
    assert several == several[:1] * 3

    summed(data_set, tmp_path, 3, precision=precision, overlaps="no")  # after everything: the same bits
    assert (tmp_path / "no-0").read_bytes() == several[0]

    there = load_file(tmp_path / "yes-0")
    assert summed(data_set, tmp_path, 1, precision=precision, parts="00000") == [[0]]  # one rank sends nothing
    alone = load_file(tmp_path / "yes-0")
    assert there.keys() == alone.keys()
    for name, gradient in there.items():
        assert (gradient - alone[name]).norm() <= 1e-6 * alone[name].norm() + 1e-9


def test_the_head_for_pairs_has_no_gradient_on_any_rank_when_there_are_no_pairs(data_set, tmp_path):
    said = summed(data_set, tmp_path, 2, num_pairs="0", parts="00000")
    assert said[0][0] == len(said[0]) - 1 > 4 and said[1] == [0, *said[0][1:]]
    for rank in range(2):
        names = load_file(tmp_path / f"yes-{rank}").keys()
        assert names and not any(name.startswith("nsp") for name in names)


def test_batch_normalization_which_sums_over_ranks_itself_is_not_mixed_with_the_gradients(data_set, tmp_path):
    said = summed(data_set, tmp_path, 2, normalization="batch", parts="01")
    during, *sizes = said[0]
    assert said[1] == said[0] and during
    assert max(sizes[:during]) == 32 < min(sizes[during:])  # statistics of 32 channels, then pieces of the gradient
