import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import BertForPreTraining as TheirBert

from model.batch import PackedBatch
from model.bert import BertEncoder
from model.bert_config import BertShape
from model.heads import PretrainingModel
from model.hub.weights import save_pretrained, to_hugging_face
from model.loading.data import DataSet
from model.mixed_precision import in_precision
from model.packing import pack_sequences
from model.shape import EncoderConfig
from tests.model.small_model import random_model, small_config


@pytest.fixture(scope="module")
def batch(data_set) -> PackedBatch:
    return next(DataSet(data_set).examples("train", 32).in_order(12))


def padded(batch: PackedBatch) -> dict[str, torch.Tensor]:
    """The same examples as transformers takes them."""

    def pad(values: torch.Tensor, value: int) -> torch.Tensor:
        return torch.nn.utils.rnn.pad_sequence(values.split(batch.lengths), batch_first=True, padding_value=value)

    labels = torch.full_like(batch.input_ids, -100)
    labels[batch.masked_positions] = batch.masked_ids
    return {
        "input_ids": pad(batch.input_ids, 0),
        "token_type_ids": pad(batch.token_type_ids, 0),
        "attention_mask": pad(torch.ones_like(batch.input_ids), 0),
        "labels": pad(labels, -100),
        "next_sentence_label": batch.next_sentence_label,
    }


def test_packed_logits_loss_and_gradients_equal_those_of_transformers_on_padded_input(batch, tmp_path):
    ours = random_model()
    save_pretrained(ours, tmp_path)
    theirs, info = TheirBert.from_pretrained(tmp_path, output_loading_info=True, attn_implementation="eager")
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    theirs.eval()

    inputs = padded(batch)
    expected = theirs(**inputs)
    words, pairs = ours.logits(batch)
    masked = inputs["labels"] != -100
    torch.testing.assert_close(words, expected.prediction_logits[masked], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(pairs, expected.seq_relationship_logits, atol=1e-5, rtol=1e-5)

    output = ours(batch, len(batch.masked_ids), len(batch.lengths))
    torch.testing.assert_close(output.loss, expected.loss, atol=1e-5, rtol=1e-5)
    output.loss.backward()
    expected.loss.backward()
    gradients = {name: parameter.grad for name, parameter in ours.named_parameters()}
    their_gradients = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    converted = to_hugging_face(gradients, ours.config)
    assert set(converted) == set(their_gradients)
    for name, gradient in converted.items():
        torch.testing.assert_close(gradient, their_gradients[name], atol=1e-5, rtol=1e-4, msg=name)
    # As a whole to 1e-5. Not each by itself: the gradient of a key's bias is 0, and what there is of it is rounding.
    difference, size = (
        torch.cat([part.flatten() for part in parts]).norm()
        for parts in ([converted[name] - their_gradients[name] for name in converted], converted.values())
    )
    assert difference < 1e-5 * size


def test_the_head_on_masked_positions_equals_the_head_on_all_positions(batch):
    model = random_model()
    hidden = model.encoder(batch)
    everywhere = model.mlm(hidden, model.encoder.word_embeddings)
    words, _ = model.logits(batch)
    torch.testing.assert_close(words, everywhere[batch.masked_positions], atol=1e-6, rtol=1e-5)


def test_packed_sequences_do_not_see_each_other(batch):
    model = random_model()
    packed = model.encoder(batch)
    ids, lengths, b_starts = batch.input_ids.numpy(), np.array(batch.lengths), []
    for types in batch.token_type_ids.split(batch.lengths):
        b_starts.append(len(types) - int(types.sum()))
    parts = zip(np.split(ids, np.cumsum(lengths)[:-1]), lengths, b_starts)
    alone = torch.cat([model.encoder(pack_sequences(part, *map(np.atleast_1d, sizes))) for part, *sizes in parts])
    torch.testing.assert_close(packed, alone, atol=1e-6, rtol=1e-5)


def test_pairs_without_a_label_have_no_loss_and_no_gradient(batch):
    model = random_model()
    labels = batch.next_sentence_label.clone()
    labels[1:] = -1
    one = PackedBatch(**vars(batch) | {"next_sentence_label": labels})
    output = model(one, 1, 1)
    _, pairs = model.logits(batch)
    torch.testing.assert_close(output.nsp_loss_sum, F.cross_entropy(pairs[:1], labels[:1]).detach())

    none = PackedBatch(**vars(batch) | {"next_sentence_label": torch.full_like(labels, -1)})
    output = model(none, 1, 0)
    output.loss.backward()
    assert output.nsp_loss_sum == 0 and output.nsp_correct == 0
    assert model.nsp.classifier.weight.grad is None


def test_bf16_stays_close_to_fp32(batch):
    model = random_model()
    exact = model(batch, len(batch.masked_ids), len(batch.lengths)).loss
    rounded = in_precision(model, "bf16")(batch, len(batch.masked_ids), len(batch.lengths)).loss
    assert rounded.dtype == torch.float32
    assert abs(rounded.item() - exact.item()) < 0.02 * exact.item()


def test_initial_weights_are_those_of_the_table():
    model = PretrainingModel(small_config(vocab_size=5000))
    model.encoder.initialize_weights(model, seed=1)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            assert not parameter.any(), name
        elif name.endswith("norm.weight"):
            assert (parameter == 1).all(), name
        else:
            assert parameter.abs().max() <= 0.04, name
            # a normal cut at two deviations keeps 0.8796 of its deviation
            assert abs(parameter.std().item() - 0.8796 * 0.02) < 0.002, name

    again = PretrainingModel(small_config(vocab_size=5000))
    again.encoder.initialize_weights(again, seed=1)
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values()))
    again.encoder.initialize_weights(again, seed=2)
    assert not torch.equal(model.encoder.layers[0].qkv.weight, again.encoder.layers[0].qkv.weight)


def test_dropout_works_in_training_only(batch):
    model = BertEncoder(small_config(hidden_dropout_prob=0.5, attention_probs_dropout_prob=0.5))
    assert not torch.equal(model(batch), model(batch))
    model.eval()
    assert torch.equal(model(batch), model(batch))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"hidden_size": 100}, "hidden_size=100 is not a multiple of num_attention_heads=12"),
        ({"num_hidden_layers": 0}, "num_hidden_layers=0 must be at least 1"),
        ({"max_position_embeddings": 4}, "max_position_embeddings=4 must be at least 8"),
        ({"hidden_dropout_prob": 1.0}, "hidden_dropout_prob=1.0 must be at least 0 and below 1"),
        ({"vocab_size": 0}, "vocab_size=0 must be at least 1"),
    ],
)
def test_an_impossible_shape_is_refused(changes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        EncoderConfig(vocab_size=changes.pop("vocab_size", 100), shape=BertShape(**changes))
