"""What sharded models need of a batch and of a device. `tests/jobs/test_sharded_runs.py` trains them."""

from types import SimpleNamespace

import pytest
import torch

from model.distributed import Ranks
from model.loading.batches import global_batch
from model.loading.data import DataSet
from model.loading.order import TrainingOrder
from model.sharding import IDLE_BATCH, have_room_for_gradients
from tests.model.small_model import random_model


def test_a_pass_on_nothing_has_losses_and_gradients_of_zero():
    model = random_model()
    model.train()
    output = model(IDLE_BATCH, 7, 3)
    output.loss.backward()
    assert output.loss == 0 and output.metrics().tolist() == [0, 0, 0, 0]
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in model.parameters())


def test_a_batch_tells_the_passes_of_the_rank_with_the_most_micro_batches(data_set):
    examples = DataSet(data_set).examples("train", 32)
    order = TrainingOrder(examples.rows_per_copy, 1, 32)
    uneven = 0
    for batch_size in range(1, 12):
        for micro_batch_size, num_ranks in ((1, 1), (1, 2), (1, 3), (2, 3), (4, 4), (16, 2)):
            shares = [
                global_batch(examples, order, 0, batch_size, micro_batch_size, r, num_ranks) for r in range(num_ranks)
            ]
            lengths = {len(share.micro_batches) for share in shares}
            assert {share.num_passes for share in shares} == {max(lengths)}
            uneven += len(lengths) > 1
    assert uneven > 10


@pytest.mark.parametrize("total_memory, has_room", [(8, True), (7, False)])
def test_gradients_stay_whole_where_they_are_at_most_an_eighth_of_the_memory(monkeypatch, total_memory, has_room):
    model = random_model()
    num_bytes = 4 * sum(parameter.numel() for parameter in model.parameters())
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=total_memory * num_bytes)
    )
    assert have_room_for_gradients(Ranks(device=torch.device("cuda")), model) == has_room
