"""The task embed: its losses and gradients are those of sentence-transformers, and memory is that of a micro-batch."""

import warnings
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import (
    CachedMultipleNegativesRankingLoss,
    MultipleNegativesRankingLoss,
)
from torch.autograd.graph import saved_tensors_hooks

from model.hub.pretrained import open_pretrained
from model.hub.weights import save_pretrained, to_hugging_face
from model.tasks.data import TaskData, Windowing, joined
from model.tasks.embed import EmbedModel, EmbedRow, EmbedTask
from model.tasks.initial_weights import load_encoder
from model.tasks.training import build_optimizer, micro_batches, predict_all, train_step
from model.tasks.values import BadRow
from tests.model.small_task import WORDS, write_model

WINDOWING = Windowing(max_seq_length=32, stride=None, max_windows=None)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("embed") / "encoder", initializer_range=0.1)


def rows_of(*lists: Sequence[str]) -> list[EmbedRow]:
    return [EmbedRow(f"row {number}", None, tuple(texts)) for number, texts in enumerate(lists)]


def drawn_rows(number: int, num_texts: int, seed: int = 0) -> list[EmbedRow]:
    """Texts of 1 to 9 words, all different."""
    draw = np.random.default_rng(seed)
    texts = {" ".join(draw.choice(WORDS, draw.integers(1, 10))): None for _ in range(9 * number * num_texts)}
    assert len(texts) >= number * num_texts
    return rows_of(*np.array(list(texts)[: number * num_texts]).reshape(number, num_texts).tolist())


def prepared(encoder, rows, dropout: float = 0.0, **flags) -> tuple[EmbedTask, EmbedModel, TaskData]:
    """A task, its model with a pretrained encoder, and its rows as data."""
    pretrained = open_pretrained(encoder)
    task = EmbedTask(windowing=WINDOWING, **flags).learn(rows)
    shape = replace(pretrained.config.shape, hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout)
    model = task.build_model(replace(pretrained.config, shape=shape))
    load_encoder(model, pretrained, seed=1)
    return task, model, task.tokenize(rows, pretrained.tokenizer)


def gradients_of(model: EmbedModel, data: TaskData, micro_batch_size: int, step: int = 0) -> tuple[float, dict]:
    """The loss of all items, and its gradients, by a step that changes no weight."""
    optimizer = build_optimizer(model, 0.0, 1.0)
    result = train_step(
        model,
        optimizer,
        micro_batches(data, np.arange(data.num_items), micro_batch_size),
        learning_rate=0.0,
        max_gradient_norm=1e9,
        seed=1,
        step=step,
    )
    return result.loss, {name: each.grad for name, each in model.named_parameters() if each.grad is not None}


def their_model(task, model, encoder, folder) -> SentenceTransformer:
    tokenizer = open_pretrained(encoder).tokenizer
    save_pretrained(model, folder, tokenizer, 32, task.vectors, **task.configuration())
    return SentenceTransformer(str(folder), device="cpu", config_kwargs={"attn_implementation": "sdpa"}).train()


@pytest.mark.parametrize("is_cached", [False, True])
@pytest.mark.parametrize(
    "num_texts, symmetric, pooling", [(2, False, "mean"), (3, False, "cls"), (2, True, "cls"), (4, True, "mean")]
)
def test_loss_and_gradients_are_those_of_sentence_transformers(
    num_texts, symmetric, pooling, is_cached, encoder, tmp_path
):
    rows = drawn_rows(11, num_texts)
    task, model, data = prepared(encoder, rows, symmetric=symmetric, pooling=pooling)
    theirs = their_model(task, model, encoder, tmp_path)
    options = {"directions": ("query_to_doc", "doc_to_query"), "partition_mode": "per_direction"} if symmetric else {}
    if is_cached:
        loss = CachedMultipleNegativesRankingLoss(theirs, scale=20.0, mini_batch_size=4, **options)
    else:
        loss = MultipleNegativesRankingLoss(theirs, scale=20.0, **options)
    features = [theirs.preprocess([row.texts[number] for row in rows]) for number in range(num_texts)]
    value = loss(features, torch.zeros(0))
    value.backward()

    for micro_batch_size in (4, 1000):
        ours, gradients = gradients_of(model, data, micro_batch_size)
        assert ours == pytest.approx(value.item(), abs=1e-5)
        state = {name: gradients.get(name, torch.zeros_like(own)) for name, own in model.named_parameters()}
        named = to_hugging_face(state, model.config, model.form)
        compared = 0
        for name, parameter in theirs[0].auto_model.named_parameters():
            if parameter.grad is not None:
                torch.testing.assert_close(named[f"bert.{name}"], parameter.grad, atol=1e-5, rtol=1e-4)
                compared += 1
        assert compared > 30


def masked_by_hand(vectors: torch.Tensor, rows: Sequence[EmbedRow], temperature: float, symmetric: bool) -> float:
    """The loss, text by text."""
    places, place = [], 0
    for row in rows:
        places.append(range(place, place + len(row.texts)))
        place += len(row.texts)
    total = 0.0

    def cosine(first: int, second: int) -> float:
        return torch.cosine_similarity(vectors[first], vectors[second], dim=0).item() / temperature

    for own, row in zip(places, rows):
        pair = set(row.texts[:2])
        forward, backward = [cosine(own[0], own[1])], [cosine(own[1], own[0])]
        for other_places, other in zip(places, rows):
            for number, (spot, text) in enumerate(zip(other_places, other.texts)):
                if spot in own[:2]:
                    continue
                if number > 0 and text not in pair and not (number == 1 and other.texts[0] == row.texts[0]):
                    forward.append(cosine(own[0], spot))
                if number == 0 and text not in pair and other.texts[1] != row.texts[1]:
                    backward.append(cosine(own[1], spot))
        losses = [torch.logsumexp(torch.tensor(scores), 0).item() - scores[0] for scores in (forward, backward)]
        total += sum(losses) / 2 if symmetric else losses[0]
    return total / len(rows)


TEXTS = st.sampled_from(["good film", "bad film", "paris", "anna lives in london", "the capital of france"])


@given(
    st.lists(st.lists(TEXTS, min_size=2, max_size=4, unique=True), min_size=1, max_size=7),
    st.booleans(),
    st.sampled_from([0.05, 1.0]),
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_equal_texts_are_no_negatives_of_each_other(encoder, lists, symmetric, temperature):
    rows = rows_of(*lists)
    _, model, data = prepared(encoder, rows, symmetric=symmetric, temperature=temperature)
    vectors, loss = predict_all(model, data, 3)
    expected = masked_by_hand(torch.from_numpy(vectors), rows, temperature, symmetric)
    assert loss == pytest.approx(expected, abs=1e-4)
    assert gradients_of(model, data, 4)[0] == pytest.approx(expected, abs=1e-4)


@given(
    st.lists(st.lists(TEXTS, min_size=2, max_size=4, unique=True), min_size=2, max_size=9),
    st.integers(2, 20),
    st.booleans(),
    st.integers(0, 5),
)
@settings(max_examples=40, deadline=None, derandomize=True)
def test_cached_gradients_are_those_of_one_graph_with_the_same_dropout(encoder, lists, size, symmetric, step):
    rows = rows_of(*lists)
    _, model, data = prepared(encoder, rows, dropout=0.2, symmetric=symmetric)
    batches = micro_batches(data, np.arange(data.num_items), size)
    loss, gradients = gradients_of(model, data, size, step)

    from bertloom.draws import fold_int
    from model.step import DROPOUT

    model.zero_grad()
    parts = []
    for number, batch in enumerate(batches):  # one graph for all micro-batches
        torch.manual_seed(fold_int(1, DROPOUT, step, number) >> 1)
        parts.append(model(batch))
    whole = joined(batches)
    expected = (model.losses(torch.cat(parts), whole) * whole.weights).sum() / whole.weights.sum()
    expected.backward()
    assert loss == pytest.approx(expected.item(), abs=1e-6)
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(gradients[name], parameter.grad, atol=1e-6, rtol=1e-5, msg=name)


def test_a_step_keeps_no_more_for_its_backward_pass_with_more_micro_batches(encoder):
    """What a graph keeps at a time is measured: it is that of the largest micro-batch, and not of the whole batch."""

    def most_kept(number: int, micro_batch_size: int) -> int:
        _, model, data = prepared(encoder, rows_of(*[["good film", "bad film"]] * number))
        now = most = 0
        hidden = model.config.shape.hidden_size

        def freed(tensor: torch.Tensor):
            class Kept:
                def __init__(self):
                    nonlocal now, most
                    self.tensor, self.size = tensor, tensor.numel() if tensor.shape[-1:] == (hidden,) else 0
                    now += self.size
                    most = max(most, now)

                def __del__(self):
                    nonlocal now
                    now -= self.size

            return Kept()

        with saved_tensors_hooks(freed, lambda kept: kept.tensor):
            gradients_of(model, data, micro_batch_size)
        return most

    small, large = most_kept(8, 8), most_kept(64, 8)
    whole = most_kept(64, 10_000)
    assert large < 1.5 * small and whole > 5 * small


def test_single_texts_are_read_twice_with_different_dropout(encoder):
    rows = rows_of(*([text] for text in ("good film", "bad film", "paris is the capital")))
    task, model, data = prepared(encoder, rows, dropout=0.1)
    assert np.diff(data.item_starts).tolist() == [2, 2, 2] and data.weights.tolist() == [1, 0] * 3
    assert task.remarks(data) == ["the rows are single texts: each is read twice, with different dropout"]
    model.train()
    torch.manual_seed(1)
    vectors = model(data.batch(np.arange(3)))
    assert (vectors[0::2] - vectors[1::2]).abs().amax(1).min() > 1e-3
    with pytest.raises(ValueError, match="dropout=0: the training rows are single texts"):
        prepared(encoder, rows, dropout=0.0)


def test_rows_are_checked():
    task = EmbedTask(windowing=WINDOWING)

    def parse(**values):
        return task.parse("line 1", {"id": None} | values)

    assert parse(anchor="a", positive="b").texts == ("a", "b")
    assert parse(anchor="a", positive="b", negatives='["c", "d"]').texts == ("a", "b", "c", "d")
    assert parse(anchor="a", positive="b", negatives=["c", ""]).texts == ("a", "b", "c")
    assert parse(anchor="a", positive="b", negatives="c").texts == ("a", "b", "c")
    assert parse(text_a="a", text_b="b", score="2.5").score == 2.5
    for values, reason in (
        ({"anchor": "a", "positive": "b", "negatives": ["b"]}, "a negative is also the anchor or the positive: 'b'"),
        ({"anchor": "a", "positive": " "}, "positive is empty"),
        ({"anchor": "a", "positive": "b", "is_impossible": True}, "the context does not answer the question"),
        ({"text_a": "a", "text_b": "b", "score": "high"}, "score is 'high', expected a number"),
        ({"anchor": "a", "positive": "b", "negatives": [7]}, "a negative is 7, expected a string"),
    ):
        with pytest.raises(BadRow, match=reason):
            parse(**values)
    scored = [EmbedRow("x", None, ("a", "b"), 1.0)]
    with pytest.raises(ValueError, match="the training rows have scores, which embed does not learn from"):
        task.learn(scored)
    with pytest.raises(ValueError, match="the dev rows are single texts, which show nothing about vectors"):
        task.learn_dev(rows_of(["a"]))
    assert task.learn_dev(scored).metrics == ("spearman", "pearson")
    assert task.learn_dev(rows_of(["a", "b"])).metrics[0] == "ndcg_at_10"


@pytest.mark.parametrize(
    "flags, message",
    [
        ({"temperature": 0.0}, "temperature=0.0 must be above 0"),
        ({"temperature": "x"}, "temperature='x' must be above 0"),
        ({"pooling": "max"}, "pooling is 'max', expected mean or cls"),
        ({"symmetric": "yes"}, "symmetric is 'yes', expected true or false"),
        ({"windowing": replace(WINDOWING, stride=4)}, "stride=4: embed reads the beginning of a text and no windows"),
    ],
)
def test_values_that_mean_nothing_are_refused(flags, message):
    with pytest.raises(ValueError, match=message):
        EmbedTask(**{"windowing": WINDOWING} | flags)


def test_rows_with_the_same_positive_are_counted(encoder):
    rows = rows_of(["paris", "good film"], ["london", "good film"], ["anna", "bad film"])
    task, _, data = prepared(encoder, rows)
    assert task.remarks(data) == [
        "2 rows of 3 have the positive of another row, too: equal texts are never wrong answers to each other"
    ]


@pytest.mark.parametrize(
    "lists, batch_size, message",
    [
        ([["a", "b"]], 8, "1 training row with one text"),
        ([["a"], ["a"]], 8, "2 training rows with one text"),
        ([["a", "b"], ["a", "c"]], 8, "no text is a wrong one"),
        ([["a", "b"], ["c", "b"]], 8, "no text is a wrong one"),
        ([["a", "b"], ["c", "d"]], 1, "batch_size=1: a text is compared with the other texts of its batch"),
        ([["a", "b"], ["c", "d"]], 2, None),
        ([["a", "b", "c"]], 1, None),
        ([["a"], ["b"]], 2, None),
    ],
)
def test_training_in_which_no_text_is_a_wrong_one_is_refused(encoder, lists, batch_size, message):
    task, model, data = prepared(encoder, rows_of(*lists), dropout=0.1)
    batch = data.batch(np.arange(min(batch_size, data.num_items)))
    assert (message is None) == bool(model.losses(model(batch), batch).sum() > 0)
    if message is None:
        return task.check_batches(data, batch_size)
    with pytest.raises(ValueError, match=message):
        task.check_batches(data, batch_size)


def test_warnings_of_sentence_transformers_do_not_come_from_our_files(encoder, tmp_path):
    task, model, _ = prepared(encoder, drawn_rows(2, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        their_model(task, model, encoder, tmp_path)
