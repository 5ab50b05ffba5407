import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from model.batch import PackedBatch, StaticShape
from model.compiling import compile_model
from model.distributed import Ranks
from model.loading.batches import BatchReader, GlobalBatch, global_batch, num_parts
from model.loading.data import DataSet
from model.loading.data_sets import DataSets
from model.loading.order import TrainingOrder
from model.loading.padding import pad_batch, static_shape
from model.loading.stream import Leg
from model.mixed_precision import compute_copy
from model.optimizer import build_optimizer
from model.runs.sinks import numbers
from model.step import evaluate, train_step
from tests.model.small_model import random_model

# torch.compile looks at every attribute of a tensor, and some warn; inductor still imports torch.jit.
pytestmark = pytest.mark.filterwarnings(
    "ignore:The .grad attribute of a Tensor that is not a leaf",
    "ignore:`torch.jit.script_method` is deprecated",
    "ignore:Guards may run slower on Python 3.13.0",
)

STEP = {"learning_rate": 1e-3, "max_gradient_norm": 1.0, "seed": 1, "step": 0}
SHAPE = StaticShape(num_tokens=448, num_masked=64, num_sequences=26, max_seq_length=32)


@pytest.fixture(scope="module")
def examples(data_set):
    return DataSet(data_set).examples("train", 32)


@pytest.fixture(scope="module")
def batch(examples) -> GlobalBatch:
    """24 examples in two parts."""
    return global_batch(examples, TrainingOrder(examples.rows_per_copy, 1, 32), 0, 24, 12)


def padded(batch: GlobalBatch, shape: StaticShape = SHAPE) -> GlobalBatch:
    return replace(batch, micro_batches=[pad_batch(part, shape) for part in batch.micro_batches])


def sizes(batch: PackedBatch) -> list[int]:
    tensors = (batch.input_ids, batch.token_type_ids, batch.position_ids, batch.masked_positions, batch.masked_ids)
    return [*map(len, tensors), len(batch.cu_seqlens) - 1, len(batch.next_sentence_label)]


def test_padding_gives_one_size_and_leaves_what_is_real_as_it_was(batch):
    for part in batch.micro_batches:
        full = pad_batch(part, SHAPE)
        tokens, masked, examples = len(part.input_ids), len(part.masked_ids), len(part.lengths)
        assert sizes(full) == [448, 448, 448, 64, 64, 26, 26]
        for name in ("input_ids", "token_type_ids", "position_ids"):
            assert getattr(full, name)[:tokens].equal(getattr(part, name))
        assert full.masked_ids[:masked].equal(part.masked_ids) and (full.masked_ids[masked:] == -100).all()
        assert full.masked_positions[:masked].equal(part.masked_positions)
        assert full.lengths[:examples] == part.lengths and sum(full.lengths) == 448 and max(full.lengths) <= 32
        starts, labels = full.cu_seqlens.tolist(), full.next_sentence_label.tolist()
        real = [(start, label) for start, label in zip(starts, labels) if label >= 0]
        assert real == list(zip(part.cu_seqlens.tolist(), part.next_sentence_label.tolist()))
        assert [length for length in np.diff(starts) if length] == full.lengths and max(starts[:-1]) < starts[-1] == 448


def test_what_does_not_fit_stays_as_it_is(batch):
    part = batch.micro_batches[0]
    for name in ("num_tokens", "num_masked", "num_sequences"):
        assert pad_batch(part, replace(SHAPE, **{name: 8})) is part
    exact = StaticShape(
        num_tokens=len(part.input_ids), num_masked=len(part.masked_ids), num_sequences=12, max_seq_length=32
    )
    assert sizes(pad_batch(part, exact)) == sizes(part)


@pytest.mark.parametrize("compiler", [None, "eager", "aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_losses_and_gradients_of_padded_batches_equal_those_of_packed_ones(batch, compiler):
    """Padding counts in no loss, no accuracy and no gradient."""
    if compiler == "inductor" and not shutil.which("g++"):
        pytest.skip("inductor needs g++ on a CPU")
    results, gradients = [], []
    for variant in (batch, padded(batch)):
        model = random_model()
        if compiler and variant is not batch:
            compile_model(model, [SHAPE], backend=compiler)
        results.append(train_step(model, build_optimizer(model, 0.01), variant, **STEP))
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    assert numbers(vars(results[1])) == pytest.approx(numbers(vars(results[0])), rel=1e-5)
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, atol=1e-6, rtol=1e-4, msg=name)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_each_region_is_compiled_once_for_all_layers_and_steps_and_evaluation_runs_as_written(examples, precision):
    graphs = []

    def compiler(graph, inputs):
        graphs.append(graph)
        return graph

    order = TrainingOrder(examples.rows_per_copy, 1, 32)
    model = random_model(num_hidden_layers=12)
    optimizer, copy = build_optimizer(model, 0.01), compute_copy(model, precision)
    computing = copy.model if copy else model
    compile_model(computing, [SHAPE], backend=compiler)
    for step in range(5):
        batch = padded(global_batch(examples, order, step * 24, 24, 12))
        train_step(model, optimizer, batch, copy=copy, **STEP | {"step": step})
    assert len(graphs) == 3  # embeddings, what is behind attention, losses
    small = replace(SHAPE, num_tokens=64)  # nothing fits
    train_step(model, optimizer, padded(global_batch(examples, order, 0, 24, 12), small), copy=copy, **STEP)
    evaluate(computing, examples.in_order(10, limit=30))
    assert len(graphs) == 3


def test_activations_are_computed_again_in_compiled_layers_too(batch):
    gradients = []
    for recompute in (False, True):
        model = random_model()
        model.encoder.recompute_activations = recompute
        compile_model(model, [SHAPE], backend="aot_eager")
        train_step(model, build_optimizer(model, 0.01), padded(batch), **STEP)
        gradients.append([parameter.grad for parameter in model.parameters()])
    for part, whole in zip(*gradients):
        torch.testing.assert_close(part, whole, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("batch_size, micro_batch_size, num_ranks", [(64, 64, 1), (64, 8, 1), (50, 7, 2), (3, 8, 4)])
def test_nearly_all_batches_fit_and_padding_is_a_small_share(data_set, batch_size, micro_batch_size, num_ranks):
    examples = DataSet(data_set).examples("train", 32)
    leg = Leg(step=0, max_seq_length=32, item=0, batch_size=batch_size, seed=1, shards_digest="")
    found, real = [], 0
    for rank in range(num_ranks):
        ranks = Ranks(device=torch.device("cpu"), rank=rank, size=num_ranks)
        with BatchReader(DataSets({"": DataSet(data_set)}), [leg], micro_batch_size, ranks) as reader:
            (shape,) = reader.pad_batches()
            for step in range(30):
                batch = reader.read(leg, step)
                found += [len(part.input_ids) for part in batch.micro_batches]
                real += batch.num_tokens if rank == 0 else 0
                # what is counted, and proved, is what was read
                plain = global_batch(
                    examples,
                    examples.order(1, "global"),
                    leg.item_at(step),
                    batch_size,
                    micro_batch_size,
                    rank,
                    num_ranks,
                )
                assert batch.lengths.tolist() == plain.lengths.tolist()
                padded, packed = (replace(one, micro_batches=[], lengths=None) for one in (batch, plain))
                assert padded == packed
    assert set(found) == {shape.num_tokens}
    assert shape.num_tokens <= -(-min(batch_size, micro_batch_size) * 32 // 64) * 64
    if batch_size == 64:
        assert real > 0.6 * sum(found)  # these lengths stray widely, and these batches are small


def test_large_batches_are_padded_by_a_few_per_cent():
    lengths = np.random.default_rng(1).integers(20, 129, 1024)
    masks = np.maximum(lengths * 15 // 100, 1)
    parts = num_parts(4096, 256, 1)
    shape = static_shape(lengths, masks, max_seq_length=128, batch_size=4096, micro_batch_size=256, num_parts=parts)
    assert shape.num_tokens < 1.04 * 256 * lengths.mean()
    assert shape.num_masked < 1.15 * 256 * masks.mean()
