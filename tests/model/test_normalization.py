import pytest
import torch
from torch import nn

from model.distributed import Ranks
from model.heads import PretrainingModel
from model.hub.weights import save_pretrained
from model.loading.batches import BatchReader, global_batch
from model.loading.data import DataSet
from model.loading.data_sets import DataSets
from model.loading.order import TrainingOrder
from model.loading.stream import Leg
from model.normalization import EPSILON, MOMENTUM, TokenBatchNorm, update_statistics
from model.optimizer import build_optimizer
from model.runs.checkpoint import load_model
from model.step import evaluate, train_step
from tests.model.small_model import random_model, save_checkpoint, small_config, training_state

STEP = {"learning_rate": 1e-3, "max_gradient_norm": 1.0, "seed": 1}


@pytest.fixture(scope="module")
def examples(data_set):
    return DataSet(data_set).examples("train", 32)


def test_it_equals_torchs_batch_norm_forward_backward_and_in_its_running_statistics():
    ours, theirs = TokenBatchNorm(6), nn.BatchNorm1d(6, eps=EPSILON, momentum=MOMENTUM)
    generator = torch.Generator().manual_seed(1)
    for step in range(3):
        hidden = torch.randn(9 + step, 6, generator=generator) * 3 + 1
        inputs = [hidden.clone().requires_grad_() for _ in range(2)]
        outputs = [module(value) for module, value in zip((ours, theirs), inputs)]
        torch.testing.assert_close(*outputs)
        for output in outputs:
            output.pow(3).sum().backward()
        update_statistics(ours)
    # Gradients are sums of terms up to about 50 that cancel in part: 1e-4 is some ten roundings of such a term.
    torch.testing.assert_close(*(value.grad for value in inputs), atol=1e-4, rtol=1e-5)
    for name in ("weight", "bias"):
        torch.testing.assert_close(getattr(ours, name).grad, getattr(theirs, name).grad, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(ours.running_mean, theirs.running_mean)
    torch.testing.assert_close(ours.running_variance, theirs.running_var)
    hidden = torch.randn(4, 6, generator=generator)
    torch.testing.assert_close(ours.eval()(hidden), theirs.eval()(hidden))


def test_every_normalization_is_replaced_and_drawn_like_the_other(examples):
    model = random_model(normalization="batch")
    assert not any(isinstance(module, nn.LayerNorm) for module in model.modules())
    assert sum(isinstance(module, TokenBatchNorm) for module in model.modules()) == 1 + 2 * 2 + 1
    model.encoder.initialize_weights(model, seed=1)
    plain = PretrainingModel(small_config())
    plain.encoder.initialize_weights(plain, seed=1)
    assert all(tensor.equal(model.state_dict()[name]) for name, tensor in plain.state_dict().items())


def test_the_statistics_move_with_an_update_and_stay_where_there_is_none(examples):
    order = TrainingOrder(examples.rows_per_copy, 1, 32)
    model = random_model(normalization="batch")
    optimizer = build_optimizer(model, 0.01)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    batch = global_batch(examples, order, 0, 24, 24)
    result = train_step(model, optimizer, batch, step=0, highest_loss=1.0, **STEP)
    assert result.loss > 1
    assert all(tensor.equal(model.state_dict()[name]) for name, tensor in before.items())
    train_step(model, optimizer, batch, step=0, **STEP)
    assert not any(tensor.equal(model.state_dict()[name]) for name, tensor in before.items() if "running" in name)
    # and evaluation uses them: it does not depend on how it is cut
    whole, cut = (evaluate(model, examples.in_order(size, limit=30)) for size in (30, 7))
    assert vars(whole) == pytest.approx(vars(cut), rel=1e-5)


def test_activations_computed_again_move_the_statistics_once(examples):
    batch = global_batch(examples, TrainingOrder(examples.rows_per_copy, 1, 32), 0, 24, 24)
    states = []
    for recompute in (False, True):
        model = random_model(normalization="batch")
        model.encoder.recompute_activations = recompute
        train_step(model, build_optimizer(model, 0.01), batch, step=0, **STEP)
        states.append(model.state_dict())
    for name, tensor in states[0].items():
        torch.testing.assert_close(states[1][name], tensor, atol=1e-5, rtol=1e-4, msg=name)


def test_the_statistics_are_in_the_checkpoint(examples, tmp_path):
    model = random_model(normalization="batch")
    optimizer = build_optimizer(model, 0.01)
    batch = global_batch(examples, TrainingOrder(examples.rows_per_copy, 1, 32), 0, 24, 24)
    train_step(model, optimizer, batch, step=0, **STEP)
    again = load_model(save_checkpoint(tmp_path, model, optimizer, training_state(model, 1), keep=1))
    assert all(tensor.equal(again.state_dict()[name]) for name, tensor in model.state_dict().items())
    assert "mlm.norm.running_mean" in again.state_dict()


def test_transformers_has_no_such_model(tmp_path):
    message = "A model with batch normalisation cannot be exported: train one with --model.normalization layer"
    with pytest.raises(ValueError, match=message):
        save_pretrained(random_model(normalization="batch"), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match="normalization='group' must be 'layer' or 'batch'"):
        random_model(normalization="group")


@pytest.mark.parametrize(
    "batch_size, micro_batch_size, num_ranks, fits",
    [
        (16, 16, 1, True),
        (16, 8, 1, False),
        (16, 8, 2, True),
        (3, 8, 4, False),
    ],
)
def test_a_batch_that_is_cut_or_leaves_a_rank_without_examples_is_refused(
    data_set, batch_size, micro_batch_size, num_ranks, fits
):
    ranks = Ranks(device=torch.device("cpu"), size=num_ranks)
    leg = Leg(step=0, max_seq_length=32, item=0, batch_size=batch_size, seed=1, shards_digest="")
    with BatchReader(DataSets({"": DataSet(data_set)}), [leg], micro_batch_size, ranks) as reader:
        if fits:
            reader.check_whole()
        else:
            with pytest.raises(
                ValueError, match=rf"normalization=batch .* at length 32 batch_size={batch_size} must be"
            ):
                reader.check_whole()
