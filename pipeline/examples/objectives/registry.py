"""The pair objectives that `--pairs` and `--compat` choose from."""

from pipeline.examples.objectives.google import GOOGLE
from pipeline.examples.objectives.none import NONE
from pipeline.examples.objectives.nsp import NSP
from pipeline.examples.objectives.objective import Objective
from pipeline.examples.objectives.sop import SOP

OBJECTIVES: list[Objective] = [NSP, SOP, NONE, GOOGLE]


def find_objective(pairs: str, compat: str | None) -> Objective:
    """Return the objective for these values of --pairs and --compat.

    Raises:
        ValueError: there is none.
    """
    offered = [objective for objective in OBJECTIVES if objective.compat == compat]
    for objective in offered:
        if objective.name == pairs:
            return objective
    names = " or ".join(objective.name for objective in offered)
    if compat is None:
        raise ValueError(f"--pairs {pairs} is unknown: expected {names}")
    if not offered:
        raise ValueError(f"--compat {compat} is unknown: leave it out")
    raise ValueError(f"--compat {compat} makes --pairs {names} only, not --pairs {pairs}: leave one of the two out")
