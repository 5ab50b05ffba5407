"""CUDA graphs on the fake device: what a capture records, what it forbids, and what a replay needs."""

import pytest

from tests.fake_cuda.library import missing
from tests.fake_cuda.runs import on_devices

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())


@on_devices()
def test_a_replay_computes_again_in_the_same_memory_and_a_capture_computes_nothing():
    import torch

    weight = torch.nn.Parameter(torch.tensor([[1.0, 2.0], [3.0, 4.0]], device="cuda"))
    weight.grad = torch.zeros_like(weight)
    given = torch.ones(2, device="cuda")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = weight @ given
        view = result[1:] + given[1:] * 0
        result.sum().backward()
        given.add_(1)
    assert given.tolist() == [1, 1] and result.isnan().all() and weight.grad.eq(0).all()
    graph.replay()
    assert result.tolist() == [3, 7] and view.tolist() == [7] and given.tolist() == [2, 2]
    assert weight.grad.tolist() == [[1, 1], [1, 1]]
    graph.replay()
    assert result.tolist() == [6, 14] and weight.grad.tolist() == [[3, 3], [3, 3]]
    given.copy_(torch.tensor([1.0, 0.0]))
    weight.data.mul_(10)
    graph.replay()
    assert result.tolist() == [10, 30]


@on_devices()
def test_a_result_that_an_operator_makes_by_resizing_belongs_to_the_graph():
    import torch

    given = torch.zeros(2, 3, device="cuda")
    with torch.cuda.graph(graph := torch.cuda.CUDAGraph()):
        result = given.logsumexp(-1) + torch.arange(2, device="cuda")
    for values in ([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], [[0.0, 0.0, 7.0], [1.0, 0.0, 0.0]]):
        given.copy_(expected := torch.tensor(values))
        graph.replay()
        assert torch.equal(result.cpu(), expected.logsumexp(-1) + torch.arange(2))


@on_devices()
def test_dropout_in_a_graph_draws_anew_in_each_replay_from_the_seed_of_the_device():
    import torch

    ones = torch.ones(64, device="cuda")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        dropped = torch.nn.functional.dropout(ones)
    torch.manual_seed(3)
    expected = [torch.nn.functional.dropout(ones) for _ in range(2)]
    torch.manual_seed(3)
    for twin in expected:
        graph.replay()
        assert dropped.equal(twin)


@on_devices()
def test_a_capture_refuses_what_makes_the_host_wait():
    import torch

    device, host = torch.ones(4, device="cuda"), torch.ones(4)
    pinned = host.pin_memory()
    for mistake in (
        lambda: device.sum().item(),
        lambda: device.nonzero(),
        lambda: device.cpu(),
        lambda: device.copy_(host, non_blocking=True),
        lambda: device.copy_(pinned),
        lambda: torch.tensor([1.0], device="cuda"),
        lambda: torch.cuda.synchronize(),
        lambda: host.pin_memory(),
    ):
        with (
            pytest.raises(RuntimeError, match="previous error during capture") as error,
            torch.cuda.graph(torch.cuda.CUDAGraph()),
        ):
            mistake()
        assert "operation not permitted when stream is capturing" in str(error.value.__context__)
    torch.cuda.set_stream(torch.cuda.default_stream())  # torch does not do this after the error
    with torch.cuda.graph(graph := torch.cuda.CUDAGraph()):
        device.copy_(pinned, non_blocking=True)
    pinned.fill_(5)
    graph.replay()
    assert device.tolist() == [5, 5, 5, 5]
    with pytest.raises(RuntimeError, match="non-default stream"):
        torch.cuda.CUDAGraph().capture_begin()
    with pytest.raises(RuntimeError, match="without a preceding successful capture"):
        torch.cuda.CUDAGraph().replay()


@on_devices()
def test_another_thread_may_pin_memory_during_a_capture_only_if_its_mode_is_of_one_thread():
    from concurrent.futures import ThreadPoolExecutor

    import torch

    def capture(mode):
        with torch.cuda.graph(torch.cuda.CUDAGraph(), capture_error_mode=mode):
            torch.ones(3, device="cuda").add_(1)
            threads.submit(lambda: torch.ones(3).pin_memory()).result()

    with ThreadPoolExecutor(1) as threads:
        capture("thread_local")
        with pytest.raises(RuntimeError, match="previous error during capture"):
            capture("global")


@on_devices()
def test_a_replay_refuses_memory_that_was_freed_after_the_capture():
    import torch

    weight = torch.nn.Parameter(torch.ones(3, device="cuda"))
    weight.grad = torch.zeros_like(weight)
    with torch.cuda.graph(graph := torch.cuda.CUDAGraph()):
        weight.sum().backward()
    graph.replay()
    assert weight.grad.tolist() == [1, 1, 1]
    weight.grad = None  # as zero_grad does
    with pytest.raises(RuntimeError, match="was freed since: keep the tensor, also a gradient"):
        graph.replay()
