import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from model import losses
from model.loading.data import DataSet
from model.losses import IGNORED, chunks, highest_words, word_losses
from tests.model.small_model import random_model

TOLERANCES = {torch.float64: 1e-12, torch.float32: 2e-6, torch.bfloat16: 2e-2, torch.float16: 3e-3}
"""Largest error by the type of the inputs, as a share of what is summed over positions."""


def twin(hidden: Tensor, weight: Tensor, bias: Tensor, masked_ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    logits = F.linear(hidden, weight, bias)
    wide = logits.double() if logits.dtype == torch.float64 else logits.float()
    loss = F.cross_entropy(wide, masked_ids, reduction="sum")
    losses = F.cross_entropy(wide, masked_ids, reduction="none").detach()
    return loss, (logits.argmax(-1) == masked_ids).sum(), losses


def inputs(
    num_masked: int, vocab_size: int, *, dtype: torch.dtype = torch.float32, padding: int = 0, seed: int = 1
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Random inputs of `word_losses`; one position in five does not count, and the last words are padding."""
    draws = torch.Generator().manual_seed(seed)
    hidden, weight = (torch.randn(rows, 8, generator=draws) for rows in (num_masked, vocab_size + padding))
    bias = torch.randn(vocab_size + padding, generator=draws)
    weight[vocab_size:], bias[vocab_size:] = 0, -math.inf
    ids = torch.randint(vocab_size, (num_masked,), generator=draws)
    ids[torch.rand(num_masked, generator=draws) < 0.2] = IGNORED
    leaves = [values.to(dtype).requires_grad_() for values in (hidden, weight, bias)]
    return leaves[0], leaves[1], leaves[2], ids


def results(function, arguments: tuple[Tensor, ...], factor: float = 1.0) -> list[Tensor]:
    """What the function returns, and the gradients of factor * loss."""
    for leaf in arguments[:3]:
        leaf.grad = None
    loss, num_correct, losses_of_positions = function(*arguments)
    assert not losses_of_positions.requires_grad
    (loss * factor).backward()
    return [loss.detach(), num_correct, losses_of_positions, *(leaf.grad for leaf in arguments[:3])]


@pytest.fixture
def small_chunks(monkeypatch):
    """Chunks of a few positions: 400 logits each."""
    monkeypatch.setattr(losses, "CPU_CHUNK", 400)


@given(
    num_masked=st.integers(0, 70),
    vocab_size=st.integers(2, 120),
    padding=st.integers(0, 3),
    chunk=st.integers(1, 3000),
    dtype=st.sampled_from(list(TOLERANCES)),
    seed=st.integers(0, 99),
)
def test_losses_counts_and_gradients_are_those_of_cross_entropy_on_full_logits(
    num_masked, vocab_size, padding, chunk, dtype, seed
):
    arguments = inputs(num_masked, vocab_size, dtype=dtype, padding=padding, seed=seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(losses, "CPU_CHUNK", chunk)
        found, expected = results(word_losses, arguments, 0.37), results(twin, arguments, 0.37)
        with torch.no_grad():
            evaluated = word_losses(*arguments)
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype and one.isfinite().all()
        assert (one - other).double().norm() <= TOLERANCES[dtype] * (other.double().norm() + num_masked**0.5)
    assert found[1] == expected[1]
    torch.testing.assert_close(evaluated[0], found[0])
    assert evaluated[1] == found[1] and evaluated[2].equal(found[2])
    assert (found[2][arguments[3] == IGNORED] == 0).all()


@pytest.mark.parametrize("num_masked", [1, 16, 17])
def test_gradients_are_the_limits_of_differences(small_chunks, num_masked):
    *leaves, ids = inputs(num_masked, 50, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda *values: word_losses(*values, ids)[0], leaves)


@given(num_masked=st.integers(0, 3000), vocab_size=st.integers(2, 40_000), chunk=st.integers(1, 2**22))
def test_chunks_hold_every_position_once_within_the_limit(num_masked, vocab_size, chunk):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(losses, "CPU_CHUNK", chunk)
        parts = chunks(torch.empty(num_masked, 1), torch.arange(num_masked), vocab_size)
    assert torch.cat([ids for _, ids in parts]).tolist() == list(range(num_masked))
    assert all(len(part) == len(ids) and len(ids) * vocab_size <= max(chunk, vocab_size) for part, ids in parts)
    most = max(1, chunk // vocab_size)
    assert len(parts) <= max(1, -(-num_masked // most))


class Shapes(TorchDispatchMode):
    """Notes the shapes of all tensors that operations return."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[torch.Size] = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        values = result if isinstance(result, (tuple, list)) else [result]
        self.found |= {value.shape for value in values if isinstance(value, Tensor)}
        return result


@pytest.mark.parametrize("is_training", [True, False])
def test_no_tensor_has_more_elements_than_a_chunk_or_the_decoder(small_chunks, is_training):
    arguments = inputs(48, 50)
    with Shapes() as shapes, torch.set_grad_enabled(is_training):
        loss, *_ = word_losses(*arguments)
        if is_training:
            loss.backward()
    assert max(shape.numel() for shape in shapes.found) == 400
    with Shapes() as shapes:
        twin(*arguments)
    assert (48, 50) in shapes.found


@pytest.mark.parametrize("is_training", [True, False])
def test_the_model_makes_no_more_logits_at_once_than_a_chunk(data_set, monkeypatch, is_training):
    monkeypatch.setattr(losses, "CPU_CHUNK", 8 * 53)
    batch = next(DataSet(data_set).examples("train", 32).in_order(40))
    model = random_model()
    with Shapes() as shapes, torch.set_grad_enabled(is_training):
        output = model(batch, len(batch.masked_ids), 40)
        if is_training:
            output.loss.backward()
    logits = {shape for shape in shapes.found if shape[-1:] == (53,) and len(shape) == 2}
    assert logits and all(rows <= 8 for rows, _ in logits - {(32, 53)})  # the decoder's transpose
    words, _ = model.logits(batch)
    assert output.mlm_loss_sum.item() == pytest.approx(F.cross_entropy(words, batch.masked_ids, reduction="sum").item())
    assert output.mlm_correct == (words.argmax(-1) == batch.masked_ids).sum()


def test_loss_scales_reach_gradients_in_16_bits_exactly(small_chunks):
    """A factor beyond the range of fp16, or with more digits than bf16 has, is not rounded before the product."""
    for dtype, factor in ((torch.float16, 2.0**20), (torch.bfloat16, 1 / 4915)):
        *leaves, ids = inputs(33, 50, dtype=dtype)
        with torch.no_grad():
            leaves[0] *= 2.0**-8
        found = results(word_losses, (*leaves, ids), factor)
        plain = results(word_losses, (*leaves, ids))
        scaled = [(gradient.double() * factor) for gradient in plain[3:]]
        for one, other in zip(found[3:], scaled):
            bound = torch.finfo(dtype).eps
            kept = other.abs() < torch.finfo(dtype).max / 2
            assert ((one.double() - other).abs()[kept] <= bound * other.abs()[kept] + 1e-7 * factor).all()


def test_small_probabilities_have_gradients_in_fp16():
    """A word of probability 2e-8, which fp16 rounds to 0, gets the gradient that it gets in 32 bits."""
    hidden, weight = torch.ones(64, 8), torch.zeros(3, 8)
    bias, ids = torch.tensor([0.0, 0.0, -17.0]), torch.zeros(64, dtype=torch.int64)
    gradients = []
    for dtype in (torch.float16, torch.float32):
        leaves = [values.to(dtype, copy=True).requires_grad_() for values in (hidden, weight, bias)]
        gradients.append(results(word_losses, (*leaves, ids), 2.0**16 / 64)[3:])
    for half, full in zip(*gradients):
        torch.testing.assert_close(half.float(), full, rtol=0.05, atol=0)


def test_many_positions_of_one_word_stay_in_the_range_of_fp16():
    """The sum over 4,000 positions with hidden states of 8 is 32,000; times a factor it would overflow."""
    hidden, weight, bias = torch.full((4000, 8), 8.0), torch.zeros(3, 8), torch.tensor([-12.0, 0.0, 0.0])
    leaves = [values.half().requires_grad_() for values in (hidden, weight, bias)]
    found = results(word_losses, (*leaves, torch.zeros(4000, dtype=torch.int64)), 1 / 4000)
    torch.testing.assert_close(found[4][0], torch.full((8,), -8.0).half(), rtol=1e-2, atol=0)


def test_the_first_of_equally_likely_words_is_predicted():
    for dtype in (torch.float32, torch.bfloat16):
        zeros = [torch.zeros(*size, dtype=dtype) for size in ((5, 8), (500, 8), (500,))]
        assert word_losses(*zeros, torch.tensor([0, 1, 0, 499, IGNORED]))[1] == 2


@given(
    vocab_size=st.sampled_from([1, 127, 128, 255, 256, 257, 384, 1000]),
    values=st.integers(1, 5),
    last=st.booleans(),
    dtype=st.sampled_from(list(TOLERANCES)),
    seed=st.integers(0, 99),
)
def test_the_most_likely_word_is_that_of_a_plain_maximum(vocab_size, values, last, dtype, seed):
    """Also with many equal logits, with the last word and with words of probability 0."""
    draws = torch.Generator().manual_seed(seed)
    logits = torch.randint(values, (9, vocab_size), generator=draws).to(dtype)
    logits[:, torch.rand(vocab_size, generator=draws) < 0.1] = -math.inf
    if last:
        logits[:, -1] = values
    highest, best = highest_words(logits)
    assert highest.equal(logits.amax(-1, keepdim=True)) and best.equal(logits.argmax(-1, keepdim=True))


def test_the_same_inputs_give_the_same_bits(small_chunks):
    arguments = inputs(61, 50)
    one, two = (results(word_losses, arguments) for _ in range(2))
    assert all(first.equal(second) for first, second in zip(one, two))


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated", "ignore:Guards may run slower")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_it_compiles_to_one_graph_with_all_chunks_inside(small_chunks, backend, dtype):
    torch._dynamo.reset()
    arguments = inputs(20, 50, dtype=dtype)
    compiled = torch.compile(word_losses, dynamic=False, fullgraph=True, backend=backend)
    for one, other in zip(results(compiled, arguments, 0.5), results(word_losses, arguments, 0.5)):
        torch.testing.assert_close(one, other)


def test_nothing_asks_for_the_value_of_a_tensor():
    """On CUDA that would be a host sync. Tensors without memory have no value to give."""
    with torch.device("meta"):
        leaves = [
            torch.empty(*size, dtype=torch.bfloat16, requires_grad=True) for size in ((300, 8), (30_000, 8), (30_000,))
        ]
        ids = torch.empty(300, dtype=torch.int64)
    loss, *_ = word_losses(*leaves, ids)
    loss.backward()
    with torch.no_grad():
        word_losses(*leaves, ids)
    assert all(leaf.grad.shape == leaf.shape and leaf.grad.dtype == leaf.dtype for leaf in leaves)


def test_how_the_positions_are_cut_changes_only_rounding(monkeypatch):
    arguments = inputs(97, 50)
    found = []
    for chunk in (50, 400, 1350, 10**6):
        monkeypatch.setattr(losses, "CPU_CHUNK", chunk)
        found.append(results(word_losses, arguments))
    for other in found[1:]:
        for one, two in zip(found[0], other):
            torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-5)


def test_a_second_backward_pass_through_one_graph_is_an_error_and_never_a_wrong_gradient():
    hidden, weight, bias = torch.randn(3, 4, requires_grad=True), torch.randn(9, 4), torch.zeros(9)
    loss, *_ = word_losses(hidden, weight.requires_grad_(), bias.requires_grad_(), torch.tensor([1, 2, 3]))
    (loss / 3).backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        (loss / 3).backward()
