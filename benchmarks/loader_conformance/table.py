"""The table of outcomes, in Markdown."""

from collections.abc import Mapping

from loader_conformance.comparison import Outcome
from loader_conformance.scenarios import SCENARIOS

WORDS = {
    "exact": "**exact**",
    "batch order": "order in batches",
    "epoch order": "other batches",
    "refused": "refused",
    "hangs": "hangs",
    "not offered": "not offered",
}


def outcome_table(outcomes: Mapping[str, Mapping[str, Outcome]]) -> list[str]:
    """Return a line per scenario and a column per loader, then the notes.

    Args:
        outcomes: by the name of the loader and the key of the scenario.
    """
    names = list(outcomes)
    scenarios = [scenario for scenario in SCENARIOS if all(scenario.key in found for found in outcomes.values())]
    notes: list[str] = []
    lines = [f"| | {' | '.join(names)} |", f"|---{'|---' * len(names)}|"]
    for scenario in scenarios:
        cells = [cell(outcomes[name][scenario.key], name, notes) for name in names]
        lines.append(f"| {scenario.title} | {' | '.join(cells)} |")
    return [*lines, "", *(f"{number}. {note}" for number, note in enumerate(notes, 1))]


def cell(outcome: Outcome, name: str, notes: list[str]) -> str:
    """Return an outcome in words. A message becomes a note, once for each loader."""
    if outcome.kind == "lost":
        words = [f"{outcome.num_lost} lost"] if outcome.num_lost else []
        return ", ".join(words + ([f"{outcome.num_repeated} repeated"] if outcome.num_repeated else []))
    if not outcome.message:
        return WORDS[outcome.kind]
    note = f"{name}: {outcome.message}"
    if note not in notes:
        notes.append(note)
    return f"{WORDS[outcome.kind]} ({notes.index(note) + 1})"


def summary(outcomes: Mapping[str, Mapping[str, Outcome]]) -> str:
    """Return in how many scenarios each loader is exact."""
    counts = {name: sum(o.kind == "exact" for o in found.values()) for name, found in outcomes.items()}
    return "; ".join(f"{name} {count} of {len(outcomes[name])}" for name, count in counts.items())
