"""The MLM loss of each source of a mixture, in one step: it equals a slow loop's and does not change the training."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from model import losses
from model.batch import StaticShape
from model.compiling import compile_model
from model.heads import sums_by_source
from model.loading.batches import GlobalBatch, global_batch
from model.loading.data import DataSet
from model.loading.order import TrainingOrder
from model.loading.padding import pad_batch
from model.mixed_precision import compute_copy, computing_model
from model.optimizer import build_optimizer
from model.sharding import IDLE_BATCH
from model.step import train_step
from tests.model.small_model import random_model
from tests.ranks import finish, start_ranks

# torch.compile looks at every attribute of a tensor, and some warn; inductor still imports torch.jit.
pytestmark = pytest.mark.filterwarnings(
    "ignore:The .grad attribute of a Tensor that is not a leaf",
    "ignore:`torch.jit.script_method` is deprecated",
    "ignore:Guards may run slower on Python 3.13.0",
)

STEP = {"learning_rate": 1e-3, "max_gradient_norm": 1.0, "seed": 1, "step": 0}
NAMES = ("web", "books", "notes", "nothing")
SHAPE = StaticShape(num_tokens=448, num_masked=64, num_sequences=26, max_seq_length=32)


@pytest.fixture(scope="module")
def examples(data_set):
    return DataSet(data_set).examples("train", 32)


def take_batch(examples, micro_batch_size: int, rank: int = 0, num_ranks: int = 1) -> GlobalBatch:
    order = TrainingOrder(examples.rows_per_copy, 1, 32)
    return global_batch(examples, order, 0, 24, micro_batch_size, rank, num_ranks)


def source_of(row: np.ndarray) -> int:
    """The source of an example of these tests. No example is of the last one."""
    return int(row.sum()) % 3


def mixed(batch: GlobalBatch, whole: GlobalBatch | None = None) -> GlobalBatch:
    """The batch as one of a mixture. `whole` has the micro-batches of all ranks."""
    numbers = np.zeros(len(NAMES), dtype=np.int64)
    for part in (whole or batch).micro_batches:
        counts = np.bincount(example_of(part), minlength=len(part.lengths))
        np.add.at(numbers, [source_of(row) for row in part.rows], counts)
    parts = [replace(part, sources=torch.tensor([source_of(row) for row in part.rows])) for part in batch.micro_batches]
    return replace(batch, micro_batches=parts, source_names=NAMES, masked_by_source=tuple(numbers.tolist()))


def example_of(part) -> np.ndarray:
    """The example of each masked position, by search in a list."""
    ends = np.cumsum(part.lengths)
    return np.array([next(n for n, end in enumerate(ends) if at < end) for at in part.masked_positions.tolist()])


def slow_losses(model, examples, batch: GlobalBatch) -> dict[str, float]:
    """The mean of the losses of each source, one example and one masked position after the other."""
    found: dict[str, list[float]] = {}
    model.eval()
    with torch.no_grad():
        for part in batch.micro_batches:
            for row in part.rows:
                one = examples.gather(row[:1], row[1:])
                words, _ = model.logits(one)
                for logits, word in zip(words.double(), one.masked_ids):
                    found.setdefault(NAMES[source_of(row)], []).append(F.cross_entropy(logits, word).item())
    return {name: sum(values) / len(values) for name, values in found.items()}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("micro_batch_size", [24, 12, 5])
def test_losses_of_sources_equal_those_of_a_loop_over_examples(examples, monkeypatch, precision, micro_batch_size):
    monkeypatch.setattr(losses, "CPU_CHUNK", 8 * 64)  # several chunks of logits
    model = random_model()
    optimizer, copy = build_optimizer(model, 0.01), compute_copy(model, precision)
    batch = mixed(take_batch(examples, micro_batch_size))
    expected = slow_losses(computing_model(model, copy), examples, batch)
    result = train_step(model, optimizer, batch, copy=copy, **STEP)
    assert expected.keys() == set(NAMES[:3])  # the last source has no masked token in this step, so it is left out
    assert result.loss_by_source == pytest.approx(expected, rel=1e-5 if precision == "fp32" else 2e-2)
    shares = np.array(batch.masked_by_source[:3]) / batch.num_masked
    assert np.dot(shares, [result.loss_by_source[name] for name in NAMES[:3]]) == pytest.approx(result.mlm_loss)


@pytest.mark.parametrize("compiler", [None, "eager", "aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_losses_of_sources_change_no_bit_of_the_training(examples, compiler, precision):
    """Also in padded batches and compiled, where they compile nothing more."""
    if compiler == "inductor" and not shutil.which("g++"):
        pytest.skip("inductor needs g++ on a CPU")
    plain = take_batch(examples, 12)
    found = []
    for batch in (plain, mixed(plain)):
        model = random_model(hidden_dropout_prob=0.1)
        optimizer, copy = build_optimizer(model, 0.01), compute_copy(model, precision)
        if compiler:
            torch._dynamo.reset()
            compile_model(computing_model(model, copy), [SHAPE], backend=compiler, fullgraph=True)
        padded = replace(batch, micro_batches=[pad_batch(part, SHAPE) for part in batch.micro_batches])
        results = [train_step(model, optimizer, padded, copy=copy, **STEP | {"step": step}) for step in range(3)]
        found.append((model.state_dict(), [{**vars(result), "loss_by_source": {}} for result in results]))
    assert results[0].loss_by_source.keys() == set(NAMES[:3])
    assert found[0][1] == found[1][1]
    assert all(found[1][0][name].equal(value) for name, value in found[0][0].items())


def test_padding_counts_in_no_source(examples):
    batch = mixed(take_batch(examples, 12))
    results = []
    for parts in (batch.micro_batches, [pad_batch(part, SHAPE) for part in batch.micro_batches]):
        model = random_model()
        results.append(train_step(model, build_optimizer(model, 0.01), replace(batch, micro_batches=parts), **STEP))
    assert results[1].loss_by_source == pytest.approx(results[0].loss_by_source, rel=1e-6)


@settings(max_examples=40)
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=12),
    num_empty=st.integers(0, 3),
    num_sources=st.integers(1, 32),
    seed=st.integers(0, 99),
)
def test_each_loss_is_added_to_the_source_of_its_example(lengths, num_empty, num_sources, seed):
    draws = np.random.default_rng(seed)
    total = sum(lengths)
    positions = np.flatnonzero(draws.random(total) < 0.4)
    sources = draws.integers(num_sources, size=num_empty + len(lengths))
    values = draws.random(len(positions)).astype(np.float32)
    batch = replace(
        IDLE_BATCH,
        input_ids=torch.zeros(total, dtype=torch.int64),
        cu_seqlens=torch.tensor([0] * num_empty + [0, *np.cumsum(lengths)], dtype=torch.int32),
        masked_positions=torch.from_numpy(positions),
        sources=torch.from_numpy(sources),
    )
    expected = [0.0] * num_sources
    example = [number for number, length in enumerate(lengths) for _ in range(length)]
    for position, value in zip(positions, values):
        expected[sources[num_empty + example[position]]] += float(value)
    found = sums_by_source(batch, torch.from_numpy(values), num_sources)
    assert found.dtype == torch.float64 and found.tolist() == pytest.approx(expected, rel=1e-12)


def test_a_loss_that_is_not_finite_stays_in_its_own_source():
    batch = replace(
        IDLE_BATCH,
        cu_seqlens=torch.tensor([0, 2, 4], dtype=torch.int32),
        masked_positions=torch.tensor([0, 1, 3]),
        sources=torch.tensor([1, 0]),
    )
    assert sums_by_source(batch, torch.tensor([1.0, torch.inf, 2.0]), 3).tolist() == [2.0, torch.inf, 0.0]


def test_a_rank_without_a_batch_adds_nothing():
    model = random_model()
    model.train()
    assert model(IDLE_BATCH, 7, 3, num_sources=5).metrics().tolist() == [0] * 9


def test_one_data_set_has_no_losses_of_sources(examples):
    model = random_model()
    batch = take_batch(examples, 12)
    assert all(part.sources is None for part in batch.micro_batches)
    assert train_step(model, build_optimizer(model, 0.01), batch, **STEP).loss_by_source == {}
    assert len(model(batch.micro_batches[0], 1, 1).metrics()) == 4


STEP_OF_RANKS = """
import sys, torch, torch.distributed as dist
from model.distributed import join_ranks
from model.loading.data import DataSet
from model.optimizer import build_optimizer
from model.step import train_step
from tests.model.small_model import random_model
from tests.model.test_losses_of_sources import STEP, mixed, take_batch
torch.set_num_threads(1)
with join_ranks(torch.device("cpu")) as ranks:
    examples = DataSet(sys.argv[1]).examples("train", 32)
    own = take_batch(examples, 5, ranks.rank, ranks.size)
    calls, reduce = [], dist.all_reduce
    dist.all_reduce = lambda *arguments, **options: calls.append(1) or reduce(*arguments, **options)
    for batch in (own, mixed(own, take_batch(examples, 24))):
        model = random_model()
        calls.clear()
        result = train_step(model, build_optimizer(model, 0.01), batch, ranks=ranks, **STEP)
        print(len(calls), {name: round(loss, 4) for name, loss in result.loss_by_source.items()})
"""


def test_the_losses_are_those_of_all_ranks_without_one_more_exchange(examples, data_set):
    model = random_model()
    alone = train_step(model, build_optimizer(model, 0.01), mixed(take_batch(examples, 24)), **STEP)
    shown = {name: round(loss, 4) for name, loss in alone.loss_by_source.items()}
    for status, output, errors in finish(start_ranks(2, STEP_OF_RANKS, [str(data_set)])):
        assert (status, errors) == (0, "")
        without, with_sources = output.splitlines()
        calls, _, found = with_sources.partition(" ")
        assert without == f"{calls} {{}}" and eval(found) == pytest.approx(shown, abs=2e-4)
