"""ModernBERT equals the one of transformers: logits, losses and all gradients, on any batch of lengths."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import ModernBertForMaskedLM as TheirModernBert

from model.batch import PackedBatch
from model.heads import PretrainingModel
from model.hub.weights import save_pretrained, to_hugging_face
from model.modern_bert_config import ModernBertShape
from model.packing import pack_sequences
from model.shape import EncoderConfig

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
    """Random words, of which some are masked."""
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


def padded(batch: PackedBatch) -> dict[str, torch.Tensor]:
    """The same batch as transformers takes it."""

    def pad(values: torch.Tensor, value: int) -> torch.Tensor:
        return torch.nn.utils.rnn.pad_sequence(values.split(batch.lengths), batch_first=True, padding_value=value)

    labels = torch.full_like(batch.input_ids, -100)
    labels[batch.masked_positions] = batch.masked_ids
    ones = torch.ones_like(batch.input_ids)
    return {"input_ids": pad(batch.input_ids, 0), "attention_mask": pad(ones, 0), "labels": pad(labels, -100)}


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
