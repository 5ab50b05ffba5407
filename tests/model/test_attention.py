import runpy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from model import attention as module
from model.attention import WINDOWS_OF_BLOCK, attention, flash_obstacle, num_seen, padded_attention
from model.packing import PackedSequences, pack_sequences

CUDA = torch.device("cuda")


def packed(lengths: list[int]) -> PackedSequences:
    sizes = np.array(lengths)
    return pack_sequences(np.arange(sizes.sum()) % 50, sizes, sizes)


def packed_with_empty_rows(lengths: list[int], num_empty: int) -> PackedSequences:
    """As `pad_batch` makes them: sequences without tokens come first, and `lengths` does not have them."""
    batch = packed(lengths)
    starts = torch.cat([torch.zeros(num_empty, dtype=torch.int32), batch.cu_seqlens])
    return PackedSequences(**vars(batch) | {"cu_seqlens": starts})


def random_qkv(num_tokens: int, head_size: int = 8, seed: int = 1) -> torch.Tensor:
    return torch.randn(num_tokens, 3, 2, head_size, generator=torch.Generator().manual_seed(seed))


def with_gradient(function, qkv: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The result, and the gradient of a sum in which every number has another weight."""
    leaf = qkv.clone().requires_grad_()
    result = function(leaf)
    (result * torch.linspace(-1, 1, result.numel()).view_as(result)).sum().backward()
    return result.detach(), leaf.grad


def test_attention_equals_the_formula_and_does_not_depend_on_the_grouping():
    batch = packed([3, 1, 7])
    qkv = random_qkv(11)
    result = attention(qkv, batch)
    for part, mixed in zip(qkv.split(batch.lengths), result.split(batch.lengths)):
        query, key, value = part.unbind(1)
        weights = torch.einsum("qhd,khd->hqk", query, key).div(8**0.5).softmax(-1)
        torch.testing.assert_close(mixed, torch.einsum("hqk,khd->qhd", weights, value))
        assert torch.equal(mixed, attention(part, packed([len(part)])))


@pytest.mark.parametrize("lengths", [[5], [3, 1, 7], [1, 1, 1], [16, 3, 16, 9], [2] * 40 + [13]])
@pytest.mark.parametrize("num_empty", [0, 3])
def test_one_padded_call_equals_a_call_for_each_sequence(lengths, num_empty):
    batch = packed_with_empty_rows(lengths, num_empty)
    qkv = random_qkv(sum(lengths))
    expected, expected_gradient = with_gradient(lambda leaf: attention(leaf, batch), qkv)
    result, gradient = with_gradient(lambda leaf: padded_attention(leaf, batch.padded_places, 0.0), qkv)
    torch.testing.assert_close(result, expected, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(gradient, expected_gradient, atol=1e-6, rtol=1e-5)


def test_the_padded_form_of_random_batches_has_every_token_in_its_row():
    generator = np.random.default_rng(1)
    for _ in range(50):
        lengths = generator.integers(1, 12, generator.integers(1, 9)).tolist()
        num_empty = int(generator.integers(0, 3))
        padded = packed_with_empty_rows(lengths, num_empty).padded_places
        rows = [[] for _ in range(num_empty)] + [
            list(part) for part in np.split(np.arange(sum(lengths)), np.cumsum(lengths)[:-1])
        ]
        tokens, is_key = padded.tokens.view(len(rows), -1), padded.is_key[:, 0, 0]
        assert tokens.shape[1] == is_key.shape[1] == max(lengths)
        assert [row[seen].tolist() for row, seen in zip(tokens[num_empty:], is_key[num_empty:])] == rows[num_empty:]
        assert is_key.sum(1).min() == 1 or num_empty == 0  # else a softmax over nothing
        assert padded.tokens[padded.places].tolist() == list(range(sum(lengths)))


def masked_twin(qkv: torch.Tensor, lengths: list[int], window: int) -> torch.Tensor:
    """The formula, with all scores of a sequence."""
    outputs = []
    for part in qkv.split(lengths):
        query, key, value = part.unbind(1)
        place = torch.arange(len(part))
        is_hidden = (place[:, None] - place).abs() > window
        scores = torch.einsum("qhd,khd->hqk", query, key).div(qkv.shape[-1] ** 0.5).masked_fill(is_hidden, -torch.inf)
        outputs.append(torch.einsum("hqk,khd->qhd", scores.softmax(-1), value))
    return torch.cat(outputs)


def assert_window_attention_is_right(lengths: list[int], window: int, num_empty: int) -> None:
    batch = packed_with_empty_rows(lengths, num_empty)
    qkv = random_qkv(sum(lengths)).double()
    expected = with_gradient(lambda leaf: masked_twin(leaf, lengths, window), qkv)
    torch.testing.assert_close(with_gradient(lambda leaf: attention(leaf, batch, 0.0, window), qkv), expected)
    padded = batch.padded_places
    torch.testing.assert_close(with_gradient(lambda leaf: padded_attention(leaf, padded, 0.0, window), qkv), expected)


@pytest.mark.parametrize("window", [1, 2, 5])
def test_attention_in_a_window_equals_the_masked_formula_at_every_edge_of_blocks(window):
    for length in range(1, 2 * WINDOWS_OF_BLOCK * window + window + 3):
        assert_window_attention_is_right([length, 1, length + 1], window, num_empty=0)


@settings(deadline=None, max_examples=100)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=6), st.integers(1, 9), st.integers(0, 2))
def test_attention_in_a_window_equals_the_masked_formula(lengths, window, num_empty):
    assert_window_attention_is_right(lengths, window, num_empty)


@pytest.mark.parametrize("length", [3, 5, 6, 12, 13, 50])
def test_with_a_window_the_result_of_a_sequence_does_not_depend_on_its_neighbours(length):
    qkv = random_qkv(length + 30)
    own = slice(20, 20 + length)

    def squared(leaf: torch.Tensor, lengths: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        leaf = leaf.clone().requires_grad_()
        result = attention(leaf, packed(lengths), window=4)
        result.square().sum().backward()
        return result.detach(), leaf.grad

    among, alone = squared(qkv, [20, length, 10]), squared(qkv[own], [length])
    assert torch.equal(among[0][own], alone[0]) and torch.equal(among[1][own], alone[1])
    assert torch.equal(alone[0], attention(qkv[own], packed([length]))) == (length <= 5)


def test_with_a_window_a_token_changes_only_those_that_see_it():
    qkv = random_qkv(100)
    other = qkv.clone()
    other[60] += 1
    changed = (attention(other, packed([100]), window=7) != attention(qkv, packed([100]), window=7)).any(2).any(1)
    assert changed.nonzero().flatten().tolist() == list(range(53, 68))


@given(st.lists(st.integers(1, 20), min_size=1, max_size=5), st.integers(1, 9))
def test_the_number_of_pairs_that_are_seen_equals_a_count_of_them(lengths, window):
    def count(reach: int) -> int:
        return sum(abs(i - j) <= reach for length in lengths for i in range(length) for j in range(length))

    assert num_seen(np.array(lengths), window) == count(window)
    assert num_seen(np.array(lengths)) == count(20)


def test_dropout_of_attention_in_a_window_keeps_its_mean():
    qkv = random_qkv(40)
    qkv[:, 2] = 1
    results = torch.stack([attention(qkv, packed([40]), 0.5, window=4) for _ in range(400)])
    torch.testing.assert_close(results.mean(0), torch.ones(40, 2, 8), atol=0.3, rtol=0)
    assert results.std() > 0.1


def test_dropout_of_the_padded_form_depends_on_the_seed_alone():
    batch = packed([3, 1, 7])
    qkv = random_qkv(11)

    def drawn(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        torch.manual_seed(seed)
        return with_gradient(lambda leaf: padded_attention(leaf, batch.padded_places, 0.5), qkv)

    first, again, other = drawn(1), drawn(1), drawn(2)
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])
    assert torch.isfinite(first[1]).all()


def test_the_padded_form_takes_the_same_few_operators_whatever_the_sequences():
    class Counter(TorchDispatchMode):
        number = 0

        def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
            self.number += 1
            return function(*arguments, **keywords or {})

    counts = []
    for lengths in ([9, 2], [3, 1, 7], [4] * 50):
        batch = packed(lengths)
        qkv = random_qkv(sum(lengths)).requires_grad_()
        padded = batch.padded_places
        with Counter() as counter:
            padded_attention(qkv, padded, 0.0).sum().backward()
        counts.append(counter.number)
    assert counts[0] == counts[1] == counts[2] < 80


def test_the_padded_form_needs_no_number_from_the_device():
    batch = packed_with_empty_rows([3, 1, 7], 2)
    with FakeTensorMode() as mode:  # raises an error where the host waits for a value
        tensors = {name: mode.from_tensor(value) for name, value in vars(batch).items() if torch.is_tensor(value)}
        padded = PackedSequences(**tensors, lengths=batch.lengths, longest=batch.longest).padded_places
        mixed = padded_attention(torch.empty(11, 3, 2, 8, requires_grad=True), padded, 0.5)
        mixed.sum().backward()
    assert mixed.shape == (11, 2, 8)


def test_the_padded_form_is_computed_once_for_all_layers_and_not_copied_to_another_device():
    batch = packed([3, 1, 7])
    assert batch.padded_places is batch.padded_places
    assert "padded_places" not in vars(batch.to(torch.device("cpu")))


@pytest.mark.parametrize(
    "capability, dtype, head_size, dropout, expected",
    [
        ((8, 0), torch.bfloat16, 64, 0.0, None),
        ((9, 0), torch.float16, 256, 0.0, None),
        ((8, 6), torch.bfloat16, 192, 0.0, None),
        ((12, 0), torch.bfloat16, 8, 0.0, None),
        ((9, 0), torch.float32, 64, 0.0, "it needs 16 bits"),
        ((9, 0), torch.bfloat16, 64, 0.1, "it has no dropout of attention weights, which is 0.1 here"),
        ((7, 5), torch.float16, 64, 0.0, "Some GPU is older than Ampere"),
        ((9, 0), torch.bfloat16, 20, 0.0, "the head size is 20, expected a multiple of 8 up to 256"),
        ((9, 0), torch.bfloat16, 264, 0.0, "the head size is 264, expected a multiple of 8 up to 256"),
        ((8, 9), torch.bfloat16, 224, 0.0, "the head size is 224, for which Some GPU has too little memory"),
    ],
)
def test_flash_attention_is_used_where_torch_takes_it(monkeypatch, capability, dtype, head_size, dropout, expected):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Some GPU")
    assert flash_obstacle(CUDA, dtype, head_size, dropout) == expected
    monkeypatch.setattr(module, "varlen_attn", None)
    assert "does not have it" in flash_obstacle(CUDA, torch.bfloat16, 64, 0.0)
    assert flash_obstacle(torch.device("cpu"), dtype, head_size, dropout) == "the device is cpu"


def test_flash_attention_without_windows_is_not_used(monkeypatch):
    """As in torch 2.10."""

    def without_windows(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, is_causal=False, return_aux=None):
        raise AssertionError

    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", without_windows)
    names = runpy.run_path(module.__file__)
    assert names["varlen_attn"] is None
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda device: (9, 0))
    assert "does not have it for packed sequences" in names["flash_obstacle"](CUDA, torch.bfloat16, 64, 0.0)
