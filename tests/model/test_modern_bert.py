"""ModernBERT equals the one of transformers: logits, losses and all gradients, on any batch of lengths."""

import itertools
import math
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    ModernBertConfig,
    ModernBertForMultipleChoice,
    ModernBertForQuestionAnswering,
    ModernBertForSequenceClassification,
    ModernBertForTokenClassification,
)
from transformers import ModernBertForMaskedLM as TheirModernBert

from model.batch import PackedBatch
from model.bert_config import BertShape
from model.heads import PretrainingModel
from model.hub.config import write_config
from model.hub.weights import save_pretrained, to_hugging_face
from model.mixed_precision import in_precision
from model.modern_bert import ModernBertEncoder
from model.modern_bert_config import ModernBertShape
from model.packing import PackedSequences, pack_sequences
from model.shape import EncoderConfig
from model.tasks.choice import ChoiceModel
from model.tasks.data import TaskBatch
from model.tasks.heads import SequenceModel, SpanModel, TokenModel
from model.tasks.training import build_optimizer, freeze

SHAPE = {
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "local_attention": 8,
    "global_rope_theta": 50.0,
    "local_rope_theta": 10.0,
    "max_position_embeddings": 96,
}
LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=5)


def modern_config(vocab_size: int = 53, **changes) -> EncoderConfig:
    return EncoderConfig(shape=ModernBertShape(**SHAPE | changes), vocab_size=vocab_size)


def with_random_weights(model, seed: int = 3):
    """Also the norms are random, so that nothing is hidden behind a 1."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(1.0 if name.endswith("norm.weight") else 0.0, 0.2, generator=generator)
    return model


def batch_of(lengths: list[int], seed: int = 0) -> PackedBatch:
    """Random words; some are masked."""
    draws = np.random.default_rng(seed)
    ids = draws.integers(5, 53, sum(lengths))
    masked = np.sort(draws.permutation(len(ids))[: max(1, len(ids) // 4)])
    sizes = np.array(lengths)
    return PackedBatch(
        **vars(pack_sequences(ids, sizes, (sizes + 1) // 2)),
        masked_positions=torch.from_numpy(masked),
        masked_ids=torch.from_numpy(draws.integers(5, 53, len(masked))),
        next_sentence_label=torch.full((len(lengths),), -1),
        rows=np.zeros((len(lengths), 2), dtype=np.int64),
    )


def padded(batch: PackedSequences) -> dict[str, torch.Tensor]:
    """The same batch as transformers takes it."""

    def pad(values: torch.Tensor, value: int) -> torch.Tensor:
        return torch.nn.utils.rnn.pad_sequence(values.split(batch.lengths), batch_first=True, padding_value=value)

    inputs = {"input_ids": pad(batch.input_ids, 0), "attention_mask": pad(torch.ones_like(batch.input_ids), 0)}
    if not isinstance(batch, PackedBatch):
        return inputs
    labels = torch.full_like(batch.input_ids, -100)
    labels[batch.masked_positions] = batch.masked_ids
    return inputs | {"labels": pad(labels, -100)}


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A model of ours, and transformers' model of the same weights."""
    ours = with_random_weights(PretrainingModel(modern_config()))
    directory = tmp_path_factory.mktemp("modern")
    save_pretrained(ours, directory)
    theirs, info = TheirModernBert.from_pretrained(directory, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    return ours, theirs.eval()


@settings(max_examples=25)
@given(LENGTHS, st.integers(0, 9))
def test_logits_loss_and_all_gradients_equal_those_of_transformers_on_any_batch_of_lengths(pair, lengths, seed):
    ours, theirs = pair
    batch = batch_of(lengths, seed)
    for model in pair:
        model.zero_grad(set_to_none=True)
    expected = theirs(**padded(batch))
    words, _ = ours.logits(batch)
    masked = padded(batch)["labels"] != -100
    torch.testing.assert_close(words, expected.logits[masked], atol=1e-5, rtol=1e-5)
    output = ours(batch, len(batch.masked_ids), 0)
    torch.testing.assert_close(output.loss, expected.loss, atol=1e-5, rtol=1e-5)
    output.loss.backward()
    expected.loss.backward()
    gradients = {name: p.grad for name, p in ours.named_parameters() if not name.startswith("nsp")}
    their_gradients = {name: p.grad for name, p in theirs.named_parameters()}
    converted = to_hugging_face(gradients, ours.config, "ForMaskedLM")
    assert set(converted) == set(their_gradients)
    for name, gradient in converted.items():
        torch.testing.assert_close(gradient, their_gradients[name], atol=1e-5, rtol=1e-5, msg=name)


def test_a_window_of_one_token_is_refused():
    with pytest.raises(ValueError, match="local_attention=1 must be at least 2"):
        modern_config(local_attention=1)


def test_the_count_of_operations_is_that_of_the_products_and_of_what_each_layer_sees():
    from torch.utils.flop_counter import FlopCounterMode

    encoder = PretrainingModel(modern_config()).encoder
    lengths = [30, 2, 9, 5]
    with FlopCounterMode(display=False) as counter:
        encoder(batch_of(lengths))
    counts = counter.get_flop_counts()["Global"]
    products = sum(flops for operation, flops in counts.items() if "attention" not in str(operation))
    near = sum(abs(i - j) <= 4 for length in lengths for i in range(length) for j in range(length))
    far = sum(length * length for length in lengths)
    assert encoder.forward_flops(np.array(lengths)) == products + 2 * 2 * 32 * (2 * far + 2 * near)


FORMS = {
    "ForSequenceClassification": (SequenceModel, ModernBertForSequenceClassification),
    "ForMultipleChoice": (ChoiceModel, ModernBertForMultipleChoice),
    "ForTokenClassification": (TokenModel, ModernBertForTokenClassification),
    "ForQuestionAnswering": (SpanModel, ModernBertForQuestionAnswering),
}


def task_batch(lengths: list[int], form: str, seed: int) -> TaskBatch:
    """Sequences with random labels: of three classes, of all their tokens, or the first and last token of an answer."""
    batch, sizes = batch_of(lengths, seed), torch.tensor(lengths)
    generator = torch.Generator().manual_seed(seed)
    num_items, item_of = len(lengths), torch.arange(len(lengths))
    labels = torch.randint(3, (len(lengths),), generator=generator)
    if form == "ForTokenClassification":
        labels = torch.randint(3, (sum(lengths),), generator=generator)
    if form == "ForQuestionAnswering":
        labels = torch.stack([sizes // 3, sizes // 2], 1)
    if form == "ForMultipleChoice":  # all sequences are endings of one row
        num_items, item_of, labels = 1, torch.zeros_like(item_of), labels[:1] % len(lengths)
    return TaskBatch(
        **{name: getattr(batch, name) for name in PackedSequences.__dataclass_fields__},
        item_of=item_of,
        num_items=num_items,
        positions=torch.arange(sum(lengths)),
        labels=labels,
        weights=torch.ones(len(labels)),
    )


def their_loss_and_logits(form: str, theirs, batch: TaskBatch) -> tuple[torch.Tensor, torch.Tensor]:
    """What transformers computes; its softmax over an answer's tokens would count the padding, so that is done here."""
    inputs = padded(batch)
    real = inputs["attention_mask"].bool()
    if form == "ForMultipleChoice":
        output = theirs(**{name: value[None] for name, value in inputs.items()}, labels=batch.labels)
        return output.loss, output.logits[0]
    if form == "ForTokenClassification":
        rows = batch.labels.split(batch.lengths)
        labels = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-100)
        output = theirs(**inputs, labels=labels)
        return output.loss, output.logits[real]
    if form == "ForQuestionAnswering":
        output = theirs(**inputs)
        logits = torch.stack([output.start_logits, output.end_logits], -1)
        rows = logits.masked_fill(~real[..., None], -torch.inf)
        return F.cross_entropy(rows, batch.labels, reduction="none").mean(), logits[real]
    output = theirs(**inputs, labels=batch.labels)
    return output.loss, output.logits


@pytest.fixture(scope="module", params=itertools.product(FORMS, ("cls", "mean")), ids=lambda param: " ".join(param))
def task_pair(request, tmp_path_factory):
    """A form, and a model of ours and of transformers with the same weights."""
    form, pooling = request.param
    own_class, their_class = FORMS[form]
    num_labels = {"ForMultipleChoice": 1, "ForQuestionAnswering": 2}.get(form, 3)
    ours = with_random_weights(own_class(modern_config(classifier_pooling=pooling), num_labels))
    directory = tmp_path_factory.mktemp("task")
    save_pretrained(ours, directory, id2label={str(label): f"L{label}" for label in range(num_labels)})
    theirs, info = their_class.from_pretrained(directory, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    assert theirs.config.classifier_pooling == pooling
    return form, ours.eval(), theirs.eval()


@settings(max_examples=8)
@given(LENGTHS, st.integers(0, 9))
def test_tasks_have_the_logits_losses_and_gradients_of_transformers(task_pair, lengths, seed):
    form, ours, theirs = task_pair
    batch = task_batch(lengths, form, seed)
    for model in (ours, theirs):
        model.zero_grad(set_to_none=True)
    logits = ours(batch)
    loss = ours.losses(logits, batch).mean()
    their_loss, their_logits = their_loss_and_logits(form, theirs, batch)
    torch.testing.assert_close(logits, their_logits, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(loss, their_loss, atol=1e-5, rtol=1e-5)
    loss.backward()
    their_loss.backward()
    gradients = to_hugging_face({name: p.grad for name, p in ours.named_parameters()}, ours.config, form)
    for name, parameter in theirs.named_parameters():
        torch.testing.assert_close(gradients.pop(name), parameter.grad, atol=1e-5, rtol=1e-5, msg=name)
    assert not gradients


@pytest.mark.parametrize("name", ["embedding_dropout", "attention_dropout", "mlp_dropout", "classifier_dropout"])
def test_each_dropout_is_where_transformers_has_it(name, tmp_path):
    ours = with_random_weights(SequenceModel(modern_config(**{name: 0.5}), 3))
    save_pretrained(ours, tmp_path, id2label={str(label): str(label) for label in range(3)})
    theirs = ModernBertForSequenceClassification.from_pretrained(tmp_path).train()
    batch = task_batch([5], "ForSequenceClassification", 1)  # a single short sequence, so that both draw equal masks
    torch.manual_seed(1)
    expected = their_loss_and_logits("ForSequenceClassification", theirs, batch)[1]
    torch.manual_seed(1)
    dropped = ours.train()(batch)
    torch.testing.assert_close(dropped, expected, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(dropped, ours.eval()(batch))


def test_initial_weights_have_the_deviations_of_transformers(tmp_path):
    sizes = {"hidden_size": 128, "intermediate_size": 192, "num_hidden_layers": 8, "initializer_range": 0.1}
    config = modern_config(vocab_size=999, **sizes)
    ours, task = PretrainingModel(config), SequenceModel(config, 50)
    for model in (ours, task):
        model.encoder.initialize_weights(model, seed=1)
    theirs = TheirModernBert(ModernBertConfig(**write_config(config, "ForMaskedLM")))
    their_task = ModernBertForSequenceClassification(
        ModernBertConfig(**write_config(config, "ForSequenceClassification"), num_labels=50)
    )
    for own, their, form in ((ours, theirs, "ForMaskedLM"), (task, their_task, "ForSequenceClassification")):
        state = {name: tensor for name, tensor in own.state_dict().items() if not name.startswith("nsp")}
        converted = to_hugging_face(state, config, form)
        for name, parameter in their.named_parameters():
            mine, his = converted.pop(name), parameter.detach()
            if mine.ndim == 1:
                assert torch.equal(mine, his), name  # norms 1, biases 0
            else:
                assert mine.std().item() == pytest.approx(his.std().item(), rel=0.06), name
                assert mine.abs().max().item() == pytest.approx(his.abs().max().item(), rel=0.1), name
        assert not converted
    assert ours.encoder.layers[3].output.weight.abs().max() <= 2 * 0.1 / math.sqrt(2 * 8)
    assert ours.nsp.classifier.weight.abs().max() <= 2 / math.sqrt(128)


def test_half_precision_is_close_and_its_rotary_tables_have_32_bits():
    model = with_random_weights(PretrainingModel(modern_config()))
    batch = batch_of([40, 3, 17])
    exact = model(batch, len(batch.masked_ids), 0).loss
    tables = model.encoder.rotations(batch.position_ids)
    rounded = in_precision(model, "bf16")
    loss = rounded(batch, len(batch.masked_ids), 0).loss
    assert loss.dtype == torch.float32 and abs(loss.item() - exact.item()) < 0.03 * exact.item()
    assert all(torch.equal(a.cos, b.cos) for a, b in zip(tables, rounded.encoder.rotations(batch.position_ids)))
    assert rounded.encoder.layers[1].window == 4 and rounded.encoder.word_embeddings.dtype == torch.bfloat16


def test_recomputed_activations_change_no_gradient():
    model = with_random_weights(PretrainingModel(modern_config(mlp_dropout=0.3, attention_dropout=0.2))).train()
    gradients = []
    for recompute in (False, True):
        model.encoder.recompute_activations = recompute
        model.zero_grad(set_to_none=True)
        torch.manual_seed(7)
        batch = batch_of([40, 9, 17])
        model(batch, len(batch.masked_ids), 0).loss.backward()
        gradients.append([p.grad.clone() for name, p in model.named_parameters() if not name.startswith("nsp")])
    assert all(torch.equal(a, b) for a, b in zip(*gradients))


def test_layers_have_lower_rates_downwards_and_the_final_norm_that_of_the_head():
    model = SequenceModel(modern_config(), 3)
    freeze(model.encoder, 1)
    optimizer = build_optimizer(model, 0.01, 0.5)
    rates = {p: group["lr_scale"] for group in optimizer.param_groups for p in group["params"]}
    found = {name: rates.get(parameter) for name, parameter in model.named_parameters()}
    assert found["encoder.final_norm.weight"] == found["head.dense.weight"] == found["classifier.bias"] == 1.0
    assert found["encoder.layers.3.qkv.weight"] == 0.5 and found["encoder.layers.1.output.weight"] == 0.125
    assert found["encoder.layers.0.qkv.weight"] is found["encoder.embeddings.norm.weight"] is None


def test_padded_batches_give_the_same_hidden_states_as_packed_ones():
    model = with_random_weights(ModernBertEncoder(modern_config()))
    batch = batch_of([40, 9, 17, 1])
    inputs = padded(batch)
    found = model.forward_padded(inputs["input_ids"], inputs["attention_mask"], inputs["input_ids"] * 0)
    torch.testing.assert_close(found[inputs["attention_mask"].bool()], model(batch), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"hidden_size": 36, "num_attention_heads": 4}, "is 9: rotary positions need an even number"),
        ({"classifier_pooling": "max"}, "classifier_pooling='max' must be 'cls' or 'mean'"),
        ({"global_attn_every_n_layers": 0}, "global_attn_every_n_layers=0 must be at least 1"),
        ({"mlp_dropout": 1.0}, "mlp_dropout=1.0 must be at least 0 and below 1"),
        ({"local_rope_theta": float("nan")}, "local_rope_theta=nan: expected a finite number"),
    ],
)
def test_shapes_that_cannot_be_are_refused(changes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        modern_config(**changes)


def test_bert_has_no_other_pooling():
    shape = BertShape()
    assert shape.with_pooling("cls") is shape
    with pytest.raises(
        ValueError, match=r"pooling=mean: transformers' classes for this encoder \(bert\) have only cls"
    ):
        shape.with_pooling("mean")
