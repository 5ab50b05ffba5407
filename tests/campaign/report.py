"""The report of the campaign: a section for each part, which stays until the part is run again."""

import re
import time
from collections import defaultdict
from pathlib import Path

from benchmarks.setting import ROOT, commit, machine
from bertloom.counts import counted
from tests.campaign.outcome import Outcome
from tests.campaign.parts import PARTS

REPORT = ROOT / "benchmarks/results/campaign.md"
HEAD = """# A campaign of faults

What bertloom does when processes are killed, disks are full, and files are damaged. `make campaign` runs all parts.
"""


def section(
    name: str, command: str, seed: int, outcomes: list[tuple[int, Outcome]], seconds: float, share: float = 1.0
) -> str:
    """Return the part's section: how it was run, the number of cases of each kind, and each fault with its index."""
    cases, faults = sum(outcome.count for _, outcome in outcomes), [pair for pair in outcomes if pair[1].is_fault]
    lines = [f"## {name}", "", PARTS[name], ""]
    lines += [f"{time.strftime('%Y-%m-%d')}, `{command}`, commit {commit()}, seed {seed}", ""]
    lines += [machine("apache-beam", "pyarrow", "numpy", "torch"), ""]
    lines += [f"**{counted(cases, 'case')} in {counted(round(seconds / 60), 'minute')}, faults: {len(faults)}**", ""]
    groups: dict[tuple[str, str], list[Outcome]] = defaultdict(list)
    for _, outcome in outcomes:
        groups[outcome.what, "fault" if outcome.is_fault else outcome.result].append(outcome)
    lines += ["| what | result | cases | seconds each |", "|---|---|---|---|"]
    for (what, result), found in sorted(groups.items()):
        number = sum(outcome.count for outcome in found)
        each = sum(outcome.seconds for outcome in found) / max(number, 1)
        lines.append(f"| {cell(what)} | {cell(result)} | {number:,} | {each:.2g} |")
    for index, outcome in faults:
        again = f"python -m tests.campaign --part {name} --seed {seed}" + f" --share {share}" * (share != 1)
        again += f" --only {index}" * (index >= 0)  # a negative index: the whole part
        lines += ["", f"Fault: {outcome.what}. `{again}`", "", "```", outcome.result.strip(), "```"]
    return "\n".join(lines) + "\n"


def cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def write_section(name: str, text: str, report: Path = REPORT) -> None:
    """Put a part's section into the report, in the place of an older one."""
    old = report.read_text(encoding="utf-8") if report.exists() else ""
    sections = {found.split("\n", 1)[0]: f"## {found}" for found in re.split(r"(?m)^## ", old)[1:]} | {name: text}
    ordered = [sections[part].rstrip() + "\n" for part in PARTS if part in sections]
    report.write_text("\n".join([HEAD, *ordered]), encoding="utf-8")
