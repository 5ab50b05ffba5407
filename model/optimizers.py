"""The optimizers by name, without torch. A new one is a function in `model/optimizer.py` and a line here."""

from typing import TYPE_CHECKING, Literal

OPTIMIZERS = {
    "adamw": "model.optimizer:build_adamw",
    "lamb": "model.optimizer:build_lamb",
    "muon": "model.optimizer:build_muon",
}
"""The registry: for each a function of a model, the weight decay, `model.optimizer.AdamConstants` and the ranks."""

if TYPE_CHECKING:
    OptimizerName = str
else:
    OptimizerName = Literal[tuple(OPTIMIZERS)]
