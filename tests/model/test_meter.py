import numpy as np
import pytest
import torch

from model.bert_config import BertShape
from model.heads import PretrainingModel
from model.loading.batches import global_batch
from model.loading.data import DataSet
from model.loading.order import TrainingOrder
from model.runs.meter import PretrainingMeter
from model.shape import EncoderConfig
from model.step import PretrainingResult
from tests.model.small_model import random_model


def test_the_count_of_operations_is_what_torch_counts(data_set):
    from torch.utils.flop_counter import FlopCounterMode

    examples = DataSet(data_set).examples("train", 32)
    batch = global_batch(examples, TrainingOrder(examples.rows_per_copy, 1, 32), 0, 12, 12)
    model = random_model()
    with FlopCounterMode(display=False) as counter:
        model(batch.micro_batches[0], batch.num_masked, batch.num_pairs).loss.backward()
    # Only newer torch counts attention on a CPU. Attention by hand: two layers of 32, two products each, three times.
    counts = counter.get_flop_counts()["Global"]
    counted = sum(flops for operation, flops in counts.items() if "attention" not in str(operation))
    ours = model.step_flops(batch.lengths, batch.num_masked, batch.num_pairs)
    of_attention = 3 * 2 * sum(2 * 2 * length * length * 32 for length in batch.micro_batches[0].lengths)
    # torch counts the gradient of the decoder's bias too, which is a product with a vector here.
    assert ours == counted - 2 * batch.num_masked * 53 + of_attention


def test_base_at_128_takes_546_million_operations_a_token():
    with torch.device("meta"):
        model = PretrainingModel(EncoderConfig(shape=BertShape(), vocab_size=30528))
    flops = model.step_flops(np.full(100, 128), 20 * 100, 100)
    assert flops / 12800 == pytest.approx(546e6, rel=0.01)


def test_the_line_tells_speed_share_of_the_peak_fill_waiting_and_memory(data_set):
    examples = DataSet(data_set).examples("train", 32)
    batch = global_batch(examples, TrainingOrder(examples.rows_per_copy, 1, 32), 0, 12, 12)
    model = random_model()
    flops = model.step_flops(batch.lengths, batch.num_masked, batch.num_pairs)
    meter = PretrainingMeter(model=model, device=torch.device("cpu"), peak=flops * 2.0)
    result = PretrainingResult(
        loss=3.0, mlm_loss=2.5, mlm_accuracy=0.25, nsp_loss=0.5, nsp_accuracy=0.75, gradient_norm=1.0
    )
    values = meter.add_step(result, batch, 32, seconds=2.0, wait_seconds=0.5)
    assert values == {
        "fill": batch.num_tokens / (12 * 32),
        "tokens_per_second": batch.num_tokens / 2,
        "data_wait_share": 0.25,
        "mfu": 0.25,
    }
    line = meter.describe()
    assert line.startswith("loss 3.000, mlm 25.0%, nsp 75.0%, ") and "MFU 25%, fill " in line and "data 25%, " in line
    assert line.endswith(" GiB")
    assert PretrainingMeter(model=model, device=torch.device("cpu"), peak=None).describe().startswith("0 tokens/s, ")
