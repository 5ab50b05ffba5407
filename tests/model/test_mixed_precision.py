import copy

import pytest
import torch
import torch.nn.functional as F

from model.embedding import Embedding
from model.loading.batches import GlobalBatch, global_batch
from model.loading.data import DataSet
from model.loading.order import TrainingOrder
from model.mixed_precision import ComputeCopy, compute_copy
from model.normalization import LayerNorm, follow_updates
from model.optimizer import build_optimizer
from model.step import evaluate, train_step
from tests.model.small_model import random_model

STEP = {"learning_rate": 1e-3, "max_gradient_norm": 1.0, "seed": 1}
BOUNDS = {"bf16": 0.06, "fp16": 0.006}
"""Largest allowed distance of a gradient from the one in fp32, as a share of its norm.."""


@pytest.fixture(scope="module")
def examples(data_set):
    return DataSet(data_set).examples("train", 32)


def take_batch(examples, micro_batch_size: int = 24, step: int = 0) -> GlobalBatch:
    return global_batch(examples, TrainingOrder(examples.rows_per_copy, 1, 32), step * 24, 24, micro_batch_size)


@pytest.mark.parametrize("precision", BOUNDS)
@pytest.mark.parametrize("micro_batch_size", [24, 5])
def test_gradients_in_16_bits_are_close_to_those_in_32(examples, precision, micro_batch_size):
    batch = take_batch(examples, micro_batch_size)
    exact, model = random_model(), random_model()
    train_step(exact, build_optimizer(exact, 0.01), batch, step=0, **STEP)
    mixed, scale = compute_copy(model, precision), 1024.0 if precision == "fp16" else None
    train_step(model, build_optimizer(model, 0.01), batch, step=0, copy=mixed, loss_scale=scale, **STEP)
    for (name, mine), own in zip(model.named_parameters(), exact.parameters()):
        assert mine.grad.dtype == torch.float32 and mine.grad.shape == mine.shape
        assert (mine.grad - own.grad).norm() <= BOUNDS[precision] * own.grad.norm() + 1e-6, name


def test_the_copy_holds_the_rounded_weights_after_every_update_and_after_a_skipped_one(examples):
    model = random_model()
    mixed, optimizer = ComputeCopy(model, torch.bfloat16), build_optimizer(model, 0.01)
    for step, highest_loss in enumerate((100.0, 0.0)):
        before = copy.deepcopy(model.state_dict())
        train_step(model, optimizer, take_batch(examples), step=step, copy=mixed, highest_loss=highest_loss, **STEP)
        is_same = all(tensor.equal(before[name]) for name, tensor in model.state_dict().items())
        assert is_same == (highest_loss == 0)
        for own, rounded in zip(model.parameters(), mixed.model.parameters(), strict=True):
            assert rounded.grad is None and rounded.dtype == torch.bfloat16
            assert rounded[: len(own)].equal(own.bfloat16())


def test_words_that_pad_the_vocabulary_never_win_and_have_no_gradient(examples):
    model = random_model()  # 53 words
    with torch.no_grad():
        model.mlm.bias.fill_(-50.0)  # all real words are unlikely
    batch = take_batch(examples).micro_batches[0]
    mixed = ComputeCopy(model, torch.bfloat16)
    words, _ = mixed.model.logits(batch)
    assert words.shape[1] == 64 and words.argmax(-1).max() < 53
    plain = F.cross_entropy(words[:, :53].float(), batch.masked_ids, reduction="sum")
    assert mixed.model(batch, 1, 1).mlm_loss_sum.item() == pytest.approx(plain.item(), rel=1e-6)
    mixed.model(batch, 1, 1).loss.backward()
    assert model.mlm.bias.grad.shape == (53,) and model.mlm.bias.grad.isfinite().all()
    assert model.encoder.word_embeddings.grad.isfinite().all()
    assert {len(tensor) for name, tensor in model.state_dict().items() if "word_emb" in name or name == "mlm.bias"} == {
        53
    }


def test_sums_over_many_tokens_do_not_stop_growing_in_16_bits():
    """torch's own on a CPU give 256 and 512 here."""
    table, norm, number = Embedding(2, 8).bfloat16(), LayerNorm(8).bfloat16(), 20_000
    table(torch.zeros(number, dtype=torch.long)).backward(torch.ones(number, 8, dtype=torch.bfloat16))
    assert table.weight.grad.tolist() == [[19968.0] * 8, [0.0] * 8]  # the nearest bfloat16
    norm(torch.randn(number, 8).bfloat16()).backward(torch.ones(number, 8, dtype=torch.bfloat16))
    assert norm.bias.grad.tolist() == [19968.0] * 8


def test_batch_normalisation_keeps_its_statistics_in_32_bits_and_shares_them(examples):
    model = random_model(normalization="batch")
    optimizer, mixed = build_optimizer(model, 0.01), ComputeCopy(model, torch.bfloat16)
    follow_updates(model, optimizer)
    train_step(model, optimizer, take_batch(examples), step=0, copy=mixed, **STEP)
    own, shared = model.encoder.embeddings.norm, mixed.model.encoder.embeddings.norm
    assert (
        own is shared and own.running_mean.dtype == torch.float32 and own.running_mean.any() and own.weight.grad.any()
    )
    assert evaluate(mixed.model, examples.in_order(24, limit=24)).mlm_loss > 0


def test_frozen_weights_of_a_copy_get_no_gradient_and_do_not_move(examples):
    model = random_model()
    model.encoder.layers[0].requires_grad_(False)
    before = model.encoder.layers[0].qkv.weight.clone()
    mixed = ComputeCopy(model, torch.bfloat16)
    train_step(model, build_optimizer(model, 0.01), take_batch(examples), step=0, copy=mixed, **STEP)
    assert model.encoder.layers[0].qkv.weight.grad is None and model.encoder.layers[0].qkv.weight.equal(before)


@pytest.mark.slow
def test_held_out_loss_after_training_in_bf16_is_that_of_fp32(examples, data_set):
    validation = DataSet(data_set).examples("validation", 32)
    losses = {}
    for precision in ("fp32", "bf16"):
        model = random_model()
        optimizer, mixed = build_optimizer(model, 0.01), compute_copy(model, precision)
        for step in range(60):
            train_step(model, optimizer, take_batch(examples, 24, step), step=step, copy=mixed, **STEP)
        losses[precision] = evaluate(mixed.model if mixed else model, validation.in_order(64)).mlm_loss
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.003)
