import math
import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR
from transformers import get_cosine_schedule_with_warmup, get_linear_schedule_with_warmup, get_wsd_schedule

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
        (["128"], "phases: '128' is not LENGTH:SHARE"),
        (["128:0.9", "512:x"], "phases: '512:x' is not LENGTH:SHARE"),
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


def phase(share: float, decay=None, first: float = 1.0, final: float = 1.0, **changes) -> Phase:
    values = {"max_seq_length": 32, "batch_size": 4, "learning_rate": first, "final_learning_rate": final}
    return Phase(share=share, decay=decay, **values | changes)


def rates(chosen: Schedule) -> list[float]:
    return [chosen.learning_rate(step, 1) for step in range(int(chosen.total))]


def theirs(make, num_steps: int) -> list[float]:
    """The learning rates of a scheduler of torch, from a peak of 0.5."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.5)
    scheduler = make(optimizer)
    found = []
    for _ in range(num_steps):
        found.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    return found


@pytest.mark.parametrize("shape, warmup_ratio", [("linear", 0.0), ("linear", 0.2), ("cosine", 0.0), ("cosine", 0.2)])
@pytest.mark.parametrize("unit, total", [("steps", 37), ("tokens", 99_991), ("seconds", 77.7)])
def test_one_phase_that_falls_to_zero_has_the_rates_of_the_shape_without_a_table(shape, warmup_ratio, unit, total):
    values = {"unit": unit, "total": total, "peak": 3e-4, "warmup_ratio": warmup_ratio, "shape": shape}
    plain, table = schedule(**values), schedule(**values, phases=(phase(1.0, shape, final=0.0),))
    positions = [total * number / 97 for number in range(100)]
    assert [table.learning_rate(at, 1) for at in positions] == [plain.learning_rate(at, 1) for at in positions]


@pytest.mark.parametrize("decay, decay_type", [("linear", "linear"), ("cosine", "cosine"), ("sqrt", "1-sqrt")])
@pytest.mark.parametrize("final", [0.0, 0.1])
def test_a_decay_after_a_constant_phase_is_that_of_transformers_but_warm_up_one_step_earlier(decay, decay_type, final):
    expected = theirs(
        lambda optimizer: get_wsd_schedule(
            optimizer, 4, num_decay_steps=10, num_stable_steps=26, decay_type=decay_type, min_lr_ratio=final
        ),
        40,
    )
    phases = (phase(0.75, "constant"), phase(0.25, decay, final=final))
    ours = rates(schedule(total=40, warmup_steps=4, phases=phases))
    assert ours[4:] == pytest.approx(expected[4:])
    assert ours[:5] == pytest.approx([0.125, 0.25, 0.375, 0.5, 0.5])


def test_phases_with_a_rate_each_are_the_schedulers_of_torch_one_after_the_other():
    """A fall to half, a restart at 0.8 that falls to 0.2, and a line from there to 0.02."""

    def sequence(optimizer):
        parts = [LinearLR(optimizer, 1.0, 0.5, total_iters=10), CosineAnnealingLR(optimizer, 20, eta_min=0.1)]
        parts.append(LinearLR(optimizer, 0.2, 0.02, total_iters=10))
        return SequentialLR(optimizer, parts, [10, 30])

    expected = theirs(sequence, 40)
    phases = (
        phase(0.25, "linear", 1.0, 0.5),
        phase(0.5, "cosine", 0.8, 0.2),
        phase(0.25, "linear", 0.2, 0.02),
    )
    ours = rates(schedule(total=40, phases=phases))
    assert ours[:10] == pytest.approx(expected[:10])
    assert ours[30:] == pytest.approx(expected[30:])
    cosine = theirs(lambda optimizer: CosineAnnealingLR(optimizer, 20, eta_min=0.125), 20)  # 0.5 to 0.125 is 0.4 to 0.1
    assert ours[10:30] == pytest.approx([0.8 * rate for rate in cosine])


SHAPES = {
    "constant": lambda done: 0.0,
    "linear": lambda done: done,
    "cosine": lambda done: (1 - math.cos(math.pi * done)) / 2,
    "sqrt": math.sqrt,
}
"""Which part of its fall a phase has done, when this part of its steps is done."""


@given(
    st.lists(
        st.tuples(st.integers(1, 30), st.sampled_from(sorted(SHAPES)), st.floats(0.1, 1.0), st.floats(0, 0.09)),
        min_size=1,
        max_size=5,
    ),
    st.integers(0, 20),
)
def test_the_rates_of_a_table_equal_their_twin_step_by_step(parts, num_warmup):
    total, num_warmup = sum(size for size, *_ in parts), min(num_warmup, parts[0][0] - 1)
    phases = tuple(phase(size / total, decay, first, final) for size, decay, first, final in parts)
    expected = []
    for number, (size, decay, first, final) in enumerate(parts):
        warmup = num_warmup if number == 0 else 0
        expected += [first * (step + 1) / warmup for step in range(warmup)]
        expected += [first - (first - final) * SHAPES[decay](step / (size - warmup)) for step in range(size - warmup)]
    found = rates(schedule(total=total, peak=1.0, warmup_steps=num_warmup, phases=phases))
    assert found == pytest.approx(expected)
    assert all(rate > 0 for rate in found)


def test_a_phase_without_a_step_is_refused():
    phases = (phase(0.99), phase(0.01))
    with pytest.raises(
        ValueError, match="phase 2 has no step, because its share is 0.01 of 20 steps: .* at least 100 steps"
    ):
        schedule(phases=phases).check_phases()
    schedule(total=100, phases=phases).check_phases()
    schedule(unit="tokens", total=100, phases=phases).check_phases()


@pytest.mark.parametrize("decay", ["linear", None])
def test_a_warm_up_that_is_longer_than_a_first_phase_with_a_rate_is_refused(decay):
    chosen = schedule(warmup_ratio=0.5, phases=(phase(0.5, decay, final=0.5), phase(0.5, decay, first=0.5, final=0.1)))
    if decay is None:
        chosen.check_phases()
        return
    with pytest.raises(
        ValueError, match="the warm-up of 10 steps is not over before the end of the first phase, which has 10"
    ):
        chosen.check_phases()
