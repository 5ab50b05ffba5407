import math
import re

import pytest
import torch
from torch import nn
from transformers import get_cosine_schedule_with_warmup, get_linear_schedule_with_warmup

from model.schedule import Phase, Schedule, parse_budget, parse_phases


def schedule(**changes) -> Schedule:
    values = {
        "unit": "steps",
        "total": 20,
        "peak": 0.5,
        "warmup_ratio": 0.0,
        "shape": "linear",
        "decay_ratio": 0.2,
        "phases": (),
    }
    return Schedule(**values | changes)


@pytest.mark.parametrize("num_warmup_steps", [0, 1, 7])
@pytest.mark.parametrize(
    "shape, theirs", [("linear", get_linear_schedule_with_warmup), ("cosine", get_cosine_schedule_with_warmup)]
)
def test_linear_and_cosine_are_those_of_transformers_but_warm_up_one_step_earlier(num_warmup_steps, shape, theirs):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.5)
    scheduler = theirs(optimizer, num_warmup_steps, 20)
    expected = []
    for _ in range(20):
        expected.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    chosen = schedule(warmup_ratio=(num_warmup_steps + 0.01) / 20, shape=shape)
    ours = [chosen.learning_rate(step, 1) for step in range(20)]
    assert max(ours) == 0.5  # the peak is reached
    assert ours[num_warmup_steps:] == pytest.approx(expected[num_warmup_steps:], abs=2e-3)
    warm = max(num_warmup_steps - 1, 0)
    assert ours[:warm] == pytest.approx(expected[1 : warm + 1])
    assert ours[-1] > 0  # no step is thrown away


def test_wsd_stays_at_the_peak_and_falls_in_a_line_at_the_end():
    chosen = schedule(total=10, peak=1.0, warmup_ratio=0.2, shape="wsd", decay_ratio=0.4)
    assert [chosen.learning_rate(step, 1) for step in range(10)] == pytest.approx(
        [0.5, 1, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25]
    )


def test_tokens_and_seconds_run_through_the_same_shape():
    tokens = schedule(unit="tokens", total=1000, peak=1.0, warmup_ratio=0.1)
    assert [tokens.learning_rate(at, 50) for at in (0, 50, 100, 550, 999, 1020)] == pytest.approx(
        [0.5, 1, 1, 0.5, 1 / 900, 0]
    )
    seconds = schedule(unit="seconds", total=3600.0, peak=1.0, warmup_ratio=0.0, shape="cosine")
    assert seconds.learning_rate(900.0, 1.5) == pytest.approx(0.5 * (1 + math.cos(math.pi / 4)))
    assert not seconds.is_over(3599.9) and seconds.is_over(3600.5)


def test_phases_follow_each_other_at_their_shares():
    phases = parse_phases(["128:0.9", "512:0.1:64"], 256)
    assert phases == (
        Phase(max_seq_length=128, share=0.9, batch_size=256),
        Phase(max_seq_length=512, share=0.1, batch_size=64),
    )
    chosen = schedule(total=10, phases=phases)
    assert [chosen.phase_at(step).max_seq_length for step in range(12)] == [128] * 9 + [512] * 3
    thirds = parse_phases(["32:0.3333333", "64:0.3333333", "128:0.3333334"], 8)
    assert [schedule(total=9, phases=thirds).phase_at(step).max_seq_length for step in range(9)] == (
        [32] * 3 + [64] * 3 + [128] * 3
    )


@pytest.mark.parametrize(
    "words, message",
    [
        (["128"], "phases: '128' is not of the form LENGTH:SHARE"),
        (["128:0.9", "512:x"], "phases: '512:x' is not of the form LENGTH:SHARE"),
        (["128:0.9", "512:0.2"], "phases: the shares of 128:0.9 512:0.2 add up to 1.1, expected 1"),
        (["128:1.0", "512:0"], "expected a share above 0 and at most 1"),
        (["128:1:0"], "a batch size of at least 1"),
    ],
)
def test_impossible_phases_are_refused(words, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        parse_phases(words, 8)


def test_a_budget_is_hours_minutes_and_seconds():
    assert [parse_budget(text) for text in ("1h", "90m", "1h30m", "45s", "1.5h")] == [3600, 5400, 5400, 45, 5400]
    for text in ("", "1", "0s", "-1h", "h", "1 h", "9" * 400 + "h"):
        with pytest.raises(ValueError, match=re.escape(f"budget={text!r} is not a duration: write 1h, 90m")):
            parse_budget(text)
