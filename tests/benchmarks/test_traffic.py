"""The counter of kernels, bytes and FLOPs in benchmarks/traffic.py, against counts by hand."""

import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch.fx.experimental.proxy_tensor import make_fx

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from traffic import Counter, GraphTraffic, Kernel, compiler

from model.losses import word_losses

T, C, N = 10, 4, 6  # rows, channels, channels of the result
INPUT, WEIGHT, RESULT = 2 * T * C, 2 * N * C, 2 * T * N  # bytes in bfloat16
BIAS = 2 * N


def empty(*shape, dtype=torch.bfloat16):
    return torch.empty(*shape, dtype=dtype, device="meta")


def counts(kernels):
    return {(kernel.name, kernel.bytes, kernel.flops) for kernel in kernels}


def graph_kernels(function, *arguments, merged=False):
    graph = make_fx(function, tracing_mode="fake")(*arguments).graph
    return GraphTraffic(graph, merged).kernels


def test_a_linear_layer_and_an_addition_are_counted_as_by_hand():
    weight, bias, x, other = empty(N, C), empty(N), empty(T, C), empty(T, N)
    with Counter() as counter:
        F.linear(x, weight, bias) + other
    assert counts(counter.kernels) == {
        ("addmm", INPUT + WEIGHT + BIAS + RESULT, 2 * T * C * N),
        ("add", 3 * RESULT, 0),
    }
    assert counter.num_bytes == INPUT + WEIGHT + BIAS + 4 * RESULT


def test_operators_in_place_read_and_write_and_copies_only_write_their_target():
    x, wide = empty(T, C), empty(T, C, dtype=torch.float32)
    with Counter() as counter:
        x.mul_(2)
        wide.copy_(x)
        x.view(-1).zero_()
    assert counts(counter.kernels) == {("mul_", 2 * INPUT, 0), ("copy_", 3 * INPUT, 0), ("zero_", INPUT, 0)}


def test_a_lookup_reads_the_rows_that_it_returns_and_not_the_table():
    with Counter() as counter:
        F.embedding(empty(T, dtype=torch.int64), empty(1000, C))
    assert counter.num_bytes == 2 * INPUT


def test_time_is_the_longer_one_of_memory_and_arithmetic():
    kernel = Kernel(name="mm", dtype="bfloat16", bytes=100, flops=1000)
    assert kernel.seconds(flops_per_second=10, bytes_per_second=10) == 100
    assert kernel.seconds(flops_per_second=1000, bytes_per_second=10) == 10


def test_operators_between_products_are_one_kernel_that_reads_and_writes_once():
    def function(x, weight, other):
        hidden = F.gelu(x @ weight) + other
        return hidden * 2, hidden.sin()

    assert counts(graph_kernels(function, empty(T, C), empty(C, N), empty(T, N))) == {
        ("mm", INPUT + WEIGHT + RESULT, 2 * T * C * N),
        ("fused", 4 * RESULT, 0),  # reads the product and `other`, writes both results
    }


def test_what_a_later_product_needs_is_written_and_read():
    def function(x, weight):
        hidden = x.cos()
        return hidden @ weight

    assert counts(graph_kernels(function, empty(T, C), empty(C, N))) == {
        ("fused", 2 * INPUT, 0),
        ("mm", INPUT + WEIGHT + RESULT, 2 * T * C * N),
    }


@pytest.mark.parametrize(("merged", "expected"), [(False, 4 * INPUT), (True, 3 * INPUT)])
def test_a_sum_over_rows_reads_again_what_a_sum_over_channels_has_read_unless_they_are_fused(merged, expected):
    def function(x):
        return x * x.sum(1, keepdim=True), x.sum(0)

    kernels = graph_kernels(function, empty(T, C), merged=merged)
    assert sum(kernel.bytes for kernel in kernels) == expected - INPUT + 2 * C
    assert len(kernels) == (1 if merged else 2)


def test_a_sum_inside_blocks_of_rows_reads_nothing_again():
    def function(x, weight):
        wide = x.cos()
        return wide.flatten(0, 1) @ weight, wide.sum(1).sum(0)

    blocks = 2 * 5 * C  # bytes of the sums of five blocks
    assert counts(graph_kernels(function, empty(5, T // 5, C), empty(C, N))) == {
        ("fused sum", 2 * INPUT + blocks, 0),
        ("mm", INPUT + WEIGHT + RESULT, 2 * T * C * N),
        ("fused sum", blocks + 2 * C, 0),
    }


def test_memory_counts_tensors_as_long_as_they_live():
    with Counter() as counter:
        first = empty(T, C)
        second = first + 1
        del first
        third = second + 1
    assert (counter.live_bytes, counter.peak_bytes) == (2 * INPUT, 2 * INPUT)
    del second, third
    assert counter.live_bytes == 0


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_compiled_losses_of_masked_words_have_no_probabilities_in_memory():
    """Between the products logits are read, and their gradients are written."""
    rows, size, words = 640, 16, 1000
    leaves = [empty(*shape).requires_grad_() for shape in [(rows, size), (words, size), (words,)]]
    counter = Counter()
    with counter:
        loss, *_ = torch.compile(word_losses, backend=compiler(counter))(*leaves, empty(rows, dtype=torch.int64))
        loss.backward()
    rest = sum(kernel.bytes * number for kernel, number in counter.kernels.items() if kernel.kind == "rest")
    assert rest / (rows * words) == pytest.approx(2 * 2, rel=0.1)
