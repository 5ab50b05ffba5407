"""What ranks do together, in processes that talk by gloo."""

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file

from model.distributed import Ranks, is_of_lost_rank
from tests.ranks import finish, start_ranks

UPDATES = """
import sys, torch
from safetensors.torch import save_file
from model.distributed import join_ranks
from model.optimizer import Muon, set_learning_rate
torch.set_num_threads(1)
with join_ranks(torch.device("cpu")) as ranks:
    generator = torch.Generator().manual_seed(1)
    for name, shapes in {
        "several": [(40, 24), (24, 40), (24, 24), (24, 40), (40, 24), (24, 40), (2, 24)],
        "two": [(8, 24), (24, 8)],
    }.items():
        matrices = [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]
        optimizer = Muon(matrices, 0.1, ranks)
        for step in range(3):
            for matrix in matrices:
                matrix.grad = torch.randn(matrix.shape, generator=generator)
            if name == "several":
                matrices[step].grad = None
            set_learning_rate(optimizer, 0.01)
            optimizer.step()
        kept = {f"m{i}": optimizer.state[matrix]["momentum_buffer"] for i, matrix in enumerate(matrices)}
        save_file({str(i): m.data for i, m in enumerate(matrices)} | kept, f"{sys.argv[1]}/{name}-{ranks.rank}")
"""


def test_ranks_share_the_work_of_muon_and_all_have_the_weights_of_one_bit_for_bit(tmp_path):
    files: dict[str, set[bytes]] = {"several": set(), "two": set()}
    for size in (1, 3):  # with three ranks and two matrices, one has nothing to do
        ended = finish(start_ranks(size, UPDATES, [str(tmp_path)]))
        assert ended == [(0, "", "")] * size
        for name, contents in files.items():
            contents |= {(tmp_path / f"{name}-{rank}").read_bytes() for rank in range(size)}
    assert [len(contents) for contents in files.values()] == [1, 1]
    assert len(load_file(tmp_path / "several-0")) == 14


STEP = """
import torch, torch.distributed as dist
from model.distributed import join_ranks
with join_ranks(torch.device("cpu")) as ranks:
    calls, own = [], dist.all_reduce
    dist.all_reduce = lambda *arguments, **options: calls.append(1) or own(*arguments, **options)
    print(ranks.sum_step(ranks.rank, 1.5 + ranks.rank, 2**64 - 1 - ranks.rank), len(calls))
"""


def test_what_ranks_must_know_after_a_step_is_one_exchange():
    """The largest sums of rows do not fit a floating-point number."""
    assert finish(start_ranks(1, STEP, [])) == [(0, f"{(0, 1.5, 2**64 - 1)} 0\n", "")]
    total = (3 * (2**64 - 1) - 3) % 2**64
    assert finish(start_ranks(3, STEP, [])) == [(0, f"{(3, 1.5, total)} 1\n", "")] * 3


def test_work_is_divided_evenly_and_all_of_it():
    ranks = Ranks(device=torch.device("cpu"), size=3)
    assert ranks.divide([9, 2, 5, 4, 1, 5]) == [[0], [2, 3], [5, 1, 4]]
    assert ranks.divide([7, 7]) == [[0], [1], []]
    assert ranks.divide([]) == [[], [], []]


@pytest.mark.parametrize(
    ("error", "is_lost"),
    [
        (
            RuntimeError(
                "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:553] Connection closed by peer [::1]:8"
            ),
            True,
        ),
        (
            RuntimeError("[../gloo/transport/tcp/unbound_buffer.cc:78] Timed out waiting 5000ms for recv operation"),
            True,
        ),
        (RuntimeError("Application timeout caused pair closure"), True),
        (
            dist.DistBackendError("NCCL error: remote process exited or there was a network error, NCCL version 2.28"),
            True,
        ),
        (dist.DistBackendError("NCCL communicator was aborted on rank 1."), True),
        (dist.DistNetworkError("Connection reset by peer"), True),
        (
            RuntimeError("[enforce fail at gloo/transport/tcp/pair.cc:456] op.preamble.length <= op.nbytes. 4 vs 8"),
            False,
        ),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"), False),
        (dist.DistBackendError("NCCL error: unhandled cuda error (run with NCCL_DEBUG=INFO for details)"), False),
        (RuntimeError("Invalid scalar type"), False),
    ],
)
def test_only_errors_about_a_lost_rank_are_taken_for_one(error, is_lost):
    assert is_of_lost_rank(error) == is_lost


WRONG_DTYPE = """
import torch
from model.distributed import join_ranks
with join_ranks(torch.device("cpu")) as ranks:
    ranks.sum_tensor(torch.zeros(2, dtype=torch.float8_e5m2))
"""


def test_an_error_that_has_nothing_to_do_with_a_lost_rank_stays_as_it_is():
    for status, said, errors in finish(start_ranks(2, WRONG_DTYPE)):
        assert (status, said) == (1, "")
        assert errors.splitlines()[-1] == "RuntimeError: Invalid scalar type" and "lost" not in errors
