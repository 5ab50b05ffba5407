"""The progress bar of training."""

import pytest

from model.runs.progress_bar import ProgressBar

STATUS = "loss 5.598, mlm 0.5%, nsp 44.1%, 2,236 tokens/s, fill 89%, data 8%, 0.4 GiB"


def line(total: float, done: float, unit: str, width: int | None, elapsed: float = 75) -> str:
    bar = ProgressBar(total, 0, unit)
    bar.close()
    bar.set_postfix_str(STATUS, refresh=False)
    bar.dynamic_ncols, bar.ncols, bar.n = None, width, done
    bar._time, bar.start_t = (lambda: elapsed), 0
    return bar.format_meter(**bar.format_dict)


@pytest.mark.parametrize(
    ("total", "done", "unit", "begins"),
    [
        (180, 61.93, "seconds", " 34% 01:01 of 03:00, loss 5.598"),
        (36_000, 18_000.5, "seconds", " 50% 5:00:00 of 10:00:00, loss 5.598"),
        (1200, 300, "steps", " 25% 300 of 1,200 steps, 03:45 left, loss 5.598"),
        (10**10, 10**9, "tokens", " 10% 1.00G of 10.0G tokens, 11:15 left, loss 5.598"),
    ],
)
def test_a_progress_bar_counts_in_its_unit_and_fits_80_columns(total, done, unit, begins):
    short, long = line(total, done, unit, 80), line(total, done, unit, None)
    assert short.startswith(begins) and long.startswith(begins)
    assert len(short) <= 80 and "mlm 0.5%" in short and long.endswith(STATUS)
    assert STATUS.startswith(short[short.index("loss") :])  # whole parts of the status
