"""Fine-tuned models are those of transformers: the same logits from the same files, the same losses step by step."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import (
    AutoModelForMultipleChoice,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
)

from model.hub.pretrained import open_pretrained
from model.hub.weights import save_pretrained, to_hugging_face
from model.loading.order import TrainingOrder
from model.schedule import Schedule
from model.tasks.data import TaskBatch, Windowing
from model.tasks.initial_weights import load_encoder
from model.tasks.registry import make_task
from model.tasks.training import BETAS, EPSILON, build_optimizer, micro_batches, train_step
from tests.model.small_task import ROWS, write_model

AUTO = {
    "classify": AutoModelForSequenceClassification,
    "pair": AutoModelForSequenceClassification,
    "regress": AutoModelForSequenceClassification,
    "tag": AutoModelForTokenClassification,
    "span": AutoModelForQuestionAnswering,
    "multilabel": AutoModelForSequenceClassification,
    "choice": AutoModelForMultipleChoice,
}
NUM_STEPS = 12
NAMES = {"a": "text_a", "b": "text_b"}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("parity") / "encoder", initializer_range=0.1)


def prepared(name: str, encoder, max_seq_length: int = 48):
    """A task, its model with a pretrained encoder, and its rows as data."""
    pretrained = open_pretrained(encoder)
    task = make_task(name, Windowing(max_seq_length=max_seq_length, stride=None, max_windows=None))
    values = [{NAMES.get(key, key): value for key, value in row.items()} for row in ROWS[name](60)]
    rows = [task.parse("x", {"id": None, "is_impossible": None} | row) for row in values]
    task = task.learn(rows)
    model = task.model_class(pretrained.config, task.num_outputs)
    load_encoder(model, pretrained, seed=1)
    return task, model, task.tokenize(rows, pretrained.tokenizer), pretrained


def padded(batch: TaskBatch) -> dict[str, torch.Tensor]:
    """A batch as transformers takes it."""

    def pad(values: torch.Tensor) -> torch.Tensor:
        return torch.nn.utils.rnn.pad_sequence(values.split(batch.lengths), batch_first=True)

    inputs = {"input_ids": batch.input_ids, "token_type_ids": batch.token_type_ids}
    return {name: pad(values) for name, values in inputs.items()} | {"attention_mask": pad(batch.input_ids * 0 + 1)}


def their_loss(name: str, model, batch: TaskBatch) -> torch.Tensor:
    """What transformers' model gives as its loss on a padded batch."""
    inputs = padded(batch)
    if name == "tag":
        labels = torch.full_like(batch.input_ids, -100)
        labels[batch.positions] = batch.labels
        rows = torch.nn.utils.rnn.pad_sequence(labels.split(batch.lengths), batch_first=True, padding_value=-100)
        return model(**inputs, labels=rows).loss
    if name == "span":  # theirs would take the padding into the softmax
        output = model(**inputs)
        hidden = inputs["attention_mask"] == 0
        logits = [each.masked_fill(hidden, -torch.inf) for each in (output.start_logits, output.end_logits)]
        return sum(F.cross_entropy(each, batch.labels[:, side]) for side, each in enumerate(logits)) / 2
    if name == "choice":  # theirs takes rows with equally many endings only
        logits = their_scores(model, batch)
        return torch.stack([F.cross_entropy(each, label) for each, label in zip(logits, batch.labels)]).mean()
    labels = batch.labels.float() if name == "multilabel" else batch.labels
    return model(**inputs, labels=labels).loss


def their_scores(model, batch: TaskBatch) -> list[torch.Tensor]:
    """What transformers' model gives for the endings of each row."""
    counts = torch.bincount(batch.item_of).tolist()
    rows = zip(*(values.split(counts) for values in padded(batch).values()))
    names = list(padded(batch))
    return [model(**{name: value[None] for name, value in zip(names, row)}).logits[0] for row in rows]


@pytest.mark.parametrize("name", AUTO)
def test_fine_tuning_follows_a_plain_loop_around_transformers_step_by_step(name, encoder, tmp_path):
    task, model, data, pretrained = prepared(name, encoder)
    save_pretrained(model, tmp_path, pretrained.tokenizer, **task.configuration())
    theirs = AUTO[name].from_pretrained(tmp_path, hidden_dropout_prob=0.0)
    theirs.train()
    decays, stays = [], []
    for key, parameter in theirs.named_parameters():
        (stays if "bias" in key or "LayerNorm" in key else decays).append(parameter)
    groups = [{"params": decays, "weight_decay": 0.01}, {"params": stays, "weight_decay": 0.0}]
    their_optimizer = torch.optim.AdamW(groups, lr=0.0, betas=BETAS, eps=EPSILON)

    optimizer = build_optimizer(model, 0.01, 1.0)
    order = TrainingOrder([data.num_items], 1, 48)
    schedule = Schedule(
        unit="steps", total=NUM_STEPS, peak=3e-3, warmup_ratio=0.25, shape="linear", decay_ratio=1.0, phases=()
    )
    for step in range(NUM_STEPS):
        _, items = order.items(step * 8, step * 8 + 8)
        learning_rate = schedule.learning_rate(step, 1)
        result = train_step(
            model,
            optimizer,
            micro_batches(data, items, 3),
            learning_rate=learning_rate,
            max_gradient_norm=1.0,
            seed=1,
            step=step,
        )
        their_optimizer.zero_grad()
        loss = their_loss(name, theirs, data.batch(items))
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(theirs.parameters(), 1.0)
        for group in their_optimizer.param_groups:
            group["lr"] = learning_rate
        their_optimizer.step()
        assert result.loss == pytest.approx(loss.item(), abs=1e-4), f"step {step}"
        assert result.gradient_norm == pytest.approx(norm.item(), rel=1e-3)
    before = pretrained.weights["bert.encoder.layer.0.output.dense.weight"]
    after = theirs.state_dict()["bert.encoder.layer.0.output.dense.weight"]
    assert (after - before).abs().mean() > 1e-3, "weights have moved"
    ours = to_hugging_face(model.state_dict(), model.config, model.form)["bert.encoder.layer.0.output.dense.weight"]
    torch.testing.assert_close(ours, after, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", AUTO)
def test_transformers_reads_a_fine_tuned_model_and_gives_its_logits(name, encoder, tmp_path):
    task, model, data, pretrained = prepared(name, encoder)
    save_pretrained(model, tmp_path, pretrained.tokenizer, **task.configuration())
    theirs, info = AUTO[name].from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    assert [theirs.config.id2label[number] for number in range(len(task.labels))] == list(task.labels)
    kinds = dict.fromkeys(("classify", "pair"), "single_label_classification")
    kinds |= {"regress": "regression", "multilabel": "multi_label_classification"}
    assert theirs.config.problem_type == kinds.get(name)
    model.eval()
    theirs.eval()
    batch = data.batch(np.arange(10))
    with torch.no_grad():
        ours = model(batch)
        output = None if name == "choice" else theirs(**padded(batch))
    if name == "choice":
        with torch.no_grad():
            expected = torch.cat(their_scores(theirs, batch))
    elif name == "span":
        expected = torch.stack([output.start_logits, output.end_logits], -1)[padded(batch)["attention_mask"] == 1]
    elif name == "tag":
        expected = output.logits[padded(batch)["attention_mask"] == 1][batch.positions]
    else:
        expected = output.logits
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)


def test_transformers_tokenizer_gives_the_sequences_that_are_trained_on(encoder, tmp_path):
    task, model, data, pretrained = prepared("pair", encoder)
    save_pretrained(model, tmp_path, pretrained.tokenizer, **task.configuration())
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    batch = data.batch(np.arange(20))
    inputs = tokenizer(*zip(*((row["a"], row["b"]) for row in ROWS["pair"](20))), padding=True, return_tensors="pt")
    assert torch.equal(inputs["input_ids"], padded(batch)["input_ids"])
    assert torch.equal(inputs["token_type_ids"], padded(batch)["token_type_ids"])


def test_a_text_in_windows_has_the_mean_of_their_logits(encoder):
    task, model, data, _ = prepared("classify", encoder, max_seq_length=8)
    assert len(data.starts) - 1 > data.num_items
    model.eval()
    items = np.arange(20)
    together = model(data.batch(items))
    for item in items:
        sequences = range(data.item_starts[item], data.item_starts[item + 1])
        single = replace(
            data,
            item_starts=np.arange(len(data.starts)),
            row_of=np.arange(len(data.starts) - 1),
            target_starts=np.arange(len(data.starts)),
            labels=np.zeros(len(data.starts), dtype=int),
            weights=np.ones(len(data.starts), dtype=np.float32),
        )
        each = model(single.batch(np.array(sequences)))
        torch.testing.assert_close(together[item], each.mean(0), atol=1e-5, rtol=1e-5)
