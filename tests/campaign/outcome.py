"""What a part of the campaign reports."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Outcome:
    """One case, or several that are alike."""

    what: str
    """What was done, such as "SIGKILL to a worker of preprocess --near-duplicates". The report counts these."""
    result: str
    """What came of it, such as "same digest"; of a fault, what was wrong."""
    seconds: float
    """Duration of the case."""
    is_fault: bool = False
    """Whether the result is a fault of bertloom."""
    count: int = 1
    """Number of cases, for a part that has too many to report each."""
