import math
from dataclasses import replace

import pytest
import torch

from model.bert_config import BertShape
from model.heads import PretrainingModel
from model.loading.batches import GlobalBatch, global_batch
from model.loading.data import DataSet
from model.loading.order import TrainingOrder
from model.optimizer import build_optimizer
from model.runs.sinks import numbers
from model.step import choose_device, choose_precision, evaluate, train_step
from tests.model.small_model import random_model, small_config


@pytest.fixture(scope="module")
def examples(data_set):
    return DataSet(data_set).examples("train", 32)


def take_batch(examples, micro_batch_size: int, step: int = 0) -> GlobalBatch:
    return global_batch(examples, TrainingOrder(examples.rows_per_copy, 1, 32), step * 24, 24, micro_batch_size)


STEP = {"learning_rate": 1e-3, "max_gradient_norm": 1.0, "seed": 1}


def test_how_a_batch_is_cut_changes_neither_loss_nor_gradient_beyond_rounding(examples):
    results, gradients = [], []
    for micro_batch_size in (24, 7, 1):
        model = random_model()
        batch = take_batch(examples, micro_batch_size)
        results.append(train_step(model, build_optimizer(model, 0.01), batch, step=0, **STEP))
        gradients.append([parameter.grad for parameter in model.parameters()])
    for result, gradient in zip(results[1:], gradients[1:]):
        assert numbers(vars(result)) == pytest.approx(numbers(vars(results[0])), rel=1e-5)
        for part, whole in zip(gradient, gradients[0]):
            torch.testing.assert_close(part, whole, atol=1e-6, rtol=1e-4)


def test_a_step_is_a_function_of_its_arguments_with_dropout_too(examples):
    def run(steps: list[int]) -> list[float]:
        model = random_model(hidden_dropout_prob=0.3, attention_probs_dropout_prob=0.3)
        optimizer = build_optimizer(model, 0.01)
        return [train_step(model, optimizer, take_batch(examples, 8), step=step, **STEP).loss for step in steps]

    torch.manual_seed(123)
    first = run([3, 4])
    torch.manual_seed(456)
    assert run([3, 4]) == first
    assert run([4])[0] != first[0]


def test_loss_falls_below_chance_on_text_that_can_be_learnt(examples, data_set):
    model = PretrainingModel(small_config(num_hidden_layers=1, hidden_size=64, max_position_embeddings=512))
    model.encoder.initialize_weights(model, 1)
    optimizer = build_optimizer(model, 0.01)
    validation = DataSet(data_set).examples("validation", 32)
    before = evaluate(model, validation.in_order(64))
    assert before.mlm_loss == pytest.approx(math.log(53), rel=0.02)
    assert before.nsp_loss == pytest.approx(math.log(2), rel=0.02)
    for step in range(250):
        train_step(model, optimizer, take_batch(examples, 24, step), step=step, **STEP | {"learning_rate": 5e-3})
    after = evaluate(model, validation.in_order(64))
    assert after.num_examples == 200
    assert after.mlm_loss < 0.95 * before.mlm_loss
    assert after.nsp_loss < 0.8 * before.nsp_loss
    assert after.mlm_accuracy > 2 * before.mlm_accuracy


def test_evaluation_does_not_depend_on_the_batches_and_counts_by_hand(examples):
    model = random_model()
    one = evaluate(model, examples.in_order(50, limit=50))
    many = evaluate(model, examples.in_order(9, limit=50))
    assert vars(one) == pytest.approx(vars(many), rel=1e-5)
    batch = next(examples.in_order(50))
    words, pairs = model.logits(batch)
    assert one.mlm_accuracy == pytest.approx((words.argmax(-1) == batch.masked_ids).float().mean().item())
    assert one.nsp_accuracy == pytest.approx((pairs.argmax(-1) == batch.next_sentence_label).float().mean().item())


def test_without_a_finite_loss_or_above_the_highest_one_there_is_no_update(examples):
    model = random_model()
    with torch.no_grad():
        model.mlm.bias[7] = float("nan")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    result = train_step(model, build_optimizer(model, 0.01), take_batch(examples, 24), step=12, **STEP)
    assert not result.is_finite
    assert all(tensor.equal(model.state_dict()[name]) for name, tensor in before.items() if name != "mlm.bias")

    model = random_model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    optimizer = build_optimizer(model, 0.01)
    result = train_step(model, optimizer, take_batch(examples, 24), step=12, highest_loss=2.0, **STEP)
    assert result.is_finite and result.loss > 2
    assert all(tensor.equal(model.state_dict()[name]) for name, tensor in before.items()) and not optimizer.state


def test_a_head_for_pairs_that_is_not_trained_leaves_no_gradient_in_the_encoder(examples):
    with_head, without = random_model(), random_model()
    with_head.nsp.requires_grad_(False)
    batch = take_batch(examples, 24)
    assert batch.num_pairs
    result = train_step(with_head, build_optimizer(with_head, 0.01), batch, step=0, **STEP)
    assert (result.nsp_loss, result.nsp_accuracy) == (0, 0)
    words = replace(batch, num_pairs=0)
    train_step(without, build_optimizer(without, 0.01), words, step=0, **STEP)
    for one, other in zip(with_head.encoder.parameters(), without.encoder.parameters()):
        assert torch.equal(one.grad, other.grad)


def test_recomputed_activations_change_no_gradient_beyond_rounding(examples):
    gradients = []
    for recompute in (False, True):
        model = random_model(hidden_dropout_prob=0.2)
        model.encoder.recompute_activations = recompute
        train_step(model, build_optimizer(model, 0.01), take_batch(examples, 7), step=0, **STEP)
        gradients.append([parameter.grad for parameter in model.parameters()])
    for part, whole in zip(*gradients):
        torch.testing.assert_close(part, whole, atol=1e-6, rtol=1e-4)


def test_device_and_precision_choose_themselves(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Some GPU")
    assert choose_precision("auto", torch.device("cpu"), BertShape()) == "fp32"
    for capability, precision in [((7, 5), "fp16"), ((8, 0), "bf16"), ((9, 0), "bf16")]:
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, capability=capability: capability)
        assert choose_precision("auto", torch.device("cuda"), BertShape(), warn=[].append) == precision
    assert choose_precision("bf16", torch.device("cpu"), BertShape(), warn=[].append) == "bf16"
    if not torch.cuda.is_available():
        assert choose_device("auto") == torch.device("cpu")
        with pytest.raises(ValueError, match="device=cuda, but torch finds no CUDA device"):
            choose_device("cuda")
