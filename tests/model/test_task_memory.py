"""What a long text takes: as much at once as a few windows do, in training and in prediction, and the same numbers."""

import numpy as np
import pytest
import torch

from model.bert import BertEncoder
from model.packing import grouped
from model.tasks import heads, training
from model.tasks.data import DataBuilder, TaskData, Windowing
from model.tasks.heads import SequenceModel, TaskModel
from model.tasks.registry import make_task
from model.tasks.training import build_optimizer, micro_batches, predict_all, train_step
from tests.model.small_model import random_model
from tests.model.small_task import ROWS, VOCABULARY, small_tokenizer


def texts_of(*num_windows: int) -> TaskData:
    """Items of so many windows, each of five tokens, and their classes."""
    builder = DataBuilder(small_tokenizer())
    for item, number in enumerate(num_windows):
        for window in range(number):
            builder.add_sequence(np.array([60 + item, 61 + window % 5, 62]))
        builder.add_item(item)
    return builder.build(np.arange(len(num_windows)) % 2)


def small_model(model_class: type[TaskModel] = SequenceModel, num_labels: int = 2, **changes) -> TaskModel:
    model = model_class(random_model(vocab_size=len(VOCABULARY), **changes).config, num_labels)
    torch.manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


@pytest.fixture
def seen(monkeypatch) -> list[int]:
    """The tokens that went through an encoder at once; no more than 20 may."""
    for module in (heads, training):
        monkeypatch.setattr(module, "MAX_TOKENS", 20)
    sizes = []
    forward = BertEncoder.forward

    def counted(self, batch):
        sizes.append(len(batch.input_ids))
        return forward(self, batch)

    monkeypatch.setattr(BertEncoder, "forward", counted)
    return sizes


def test_neighbours_are_grouped_up_to_a_limit_and_a_larger_one_is_alone():
    assert list(grouped([3, 2, 4, 9, 1, 5], int, 6)) == [[3, 2], [4], [9], [1, 5]]
    assert list(grouped([], int, 6)) == []


def test_a_micro_batch_has_at_most_its_size_in_windows_except_for_one_long_text():
    found = texts_of(1, 2, 9, 1, 3, 1, 1, 1)
    batches = micro_batches(found, np.arange(8), 4)
    assert sum(batch.num_items for batch in batches) == 8
    assert all(len(batch.lengths) <= 4 or batch.num_items == 1 for batch in batches)
    assert max(len(batch.lengths) for batch in batches) == 9
    plain = texts_of(*[1] * 8)
    assert [batch.num_items for batch in micro_batches(plain, np.arange(8), 4)] == [4, 4]


def test_predictions_go_through_the_model_in_parts_and_are_those_of_whole_texts(seen, monkeypatch):
    model, found = small_model(), texts_of(1, 12, 2, 1, 5)
    logits, loss = predict_all(model, found, 32)
    assert max(seen) <= 20 and sum(seen) == len(found.input_ids)
    for module in (heads, training):
        monkeypatch.setattr(module, "MAX_TOKENS", 8192)
    whole, whole_loss = predict_all(model, found, 32)
    assert seen[-1] == len(found.input_ids)
    np.testing.assert_allclose(logits, whole, atol=1e-6)
    assert loss == pytest.approx(whole_loss, abs=1e-6) and logits.shape == (5, 2)


@pytest.mark.parametrize("name", ["tag", "span", "choice"])
def test_windows_of_words_and_answers_go_through_the_model_in_parts_too(name, seen):
    task = make_task(name, Windowing(max_seq_length=16, stride=None, max_windows=None))
    rows = [task.parse("x", {"id": None, "is_impossible": None} | row) for row in ROWS[name](12)]
    task = task.learn(rows)
    found = task.tokenize(rows, small_tokenizer())
    logits, _ = predict_all(small_model(task.model_class, task.num_outputs), found, 32)
    expected = {"tag": len(found.labels), "span": len(found.input_ids), "choice": len(found.starts) - 1}
    assert max(seen) <= 20 and len(logits) == expected[name]


def test_a_long_text_in_parts_has_the_gradient_of_the_whole_text(seen, monkeypatch):
    gradients = []
    for limit in (20, 8192):
        monkeypatch.setattr(heads, "MAX_TOKENS", limit)
        model, found = small_model(hidden_dropout_prob=0.0), texts_of(12, 2)
        batches = micro_batches(found, np.arange(2), 4)
        optimizer = build_optimizer(model, weight_decay=0.01, layer_decay=1.0)
        train_step(model, optimizer, batches, learning_rate=0.0, max_gradient_norm=1e9, seed=1, step=0)
        assert max(seen) == (20 if limit == 20 else 60)
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in model.parameters()]))
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-6)


def test_the_second_reading_for_the_gradient_has_the_same_dropout(seen):
    """A step downhill along the gradient changes the loss, under the same dropout, as the gradient says."""
    model, found = small_model(hidden_dropout_prob=0.3).double(), texts_of(12)
    batch = found.batch(np.array([0]))
    model.train()

    def loss() -> torch.Tensor:
        torch.manual_seed(5)
        return model.losses(model(batch), batch).sum()

    before = loss()
    before.backward()
    assert len(seen) == 6, "three parts, each read twice"
    with torch.no_grad():
        squares = sum(float(parameter.grad.square().sum()) for parameter in model.parameters())
        for parameter in model.parameters():
            parameter -= 1e-3 / squares * parameter.grad
        assert before.item() - loss().item() == pytest.approx(1e-3, rel=0.05)
