"""The precisions of matrix products by name, without torch."""

from typing import Literal

Precision = Literal["auto", "fp32", "bf16", "fp16"]
FIRST_LOSS_SCALE = 2.0**16
"""Loss scale of the first step in fp16, as in torch's GradScaler."""
LARGEST_LOSS_SCALE = 2.0**24
SCALE_STEPS = 2000
"""Steps without an overflow after which the loss scale doubles, as in torch's GradScaler."""


def first_loss_scale(precision: str) -> float | None:
    """Return the loss scale of the first step; None for a precision that needs none."""
    return FIRST_LOSS_SCALE if precision == "fp16" else None
