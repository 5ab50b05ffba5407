"""The comparison of loaders in benchmarks/loader_conformance: outcomes of literal runs, and bertloom's own columns."""

import random
import sys
from collections import Counter
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from loader_conformance.comparison import (
    Outcome,
    Step,
    by_pass,
    by_places,
    by_rank,
    by_turns,
    compare,
    compare_batches,
)
from loader_conformance.interface import LOADERS, OURS, loader_of
from loader_conformance.rows import row_of, row_tokens
from loader_conformance.scenarios import SCENARIOS, Part, Scenario
from loader_conformance.table import outcome_table
from loader_conformance.training import Trainings

ROOT = Path(__file__).parents[2]
WHOLE = [(0, [1, 2, 3]), (0, [4, 5]), (1, [5, 4, 3]), (1, [1, 2])]


def steps(batches, micro_batch=2):
    """One rank's steps, cut into micro-batches."""
    return [
        Step(epoch=epoch, rows=[[rows[start : start + micro_batch] for start in range(0, len(rows), micro_batch)]])
        for epoch, rows in batches
    ]


@pytest.mark.parametrize(
    ("found", "outcome"),
    [
        (WHOLE, Outcome(kind="exact")),
        ([(0, [1, 3, 2]), *WHOLE[1:]], Outcome(kind="batch order")),
        ([(0, [1, 2, 4]), (0, [3, 5]), *WHOLE[2:]], Outcome(kind="epoch order")),
        ([(0, [4, 5]), (0, [1, 2, 3]), *WHOLE[2:]], Outcome(kind="epoch order")),
        ([(0, [1, 2, 3]), (0, [4, 4]), *WHOLE[2:]], Outcome(kind="lost", num_lost=1, num_repeated=1)),
        (WHOLE[:3], Outcome(kind="lost", num_lost=2)),
        ([*WHOLE, (1, [1])], Outcome(kind="lost", num_repeated=1)),
        ([(0, [1, 2, 3]), (1, [4, 5]), *WHOLE[2:]], Outcome(kind="lost", num_lost=2, num_repeated=2)),
        ([], Outcome(kind="lost", num_lost=10)),
    ],
)
def test_a_run_is_exact_reordered_or_loses_and_repeats_rows(found, outcome):
    assert compare_batches(WHOLE, found) == outcome
    assert compare(steps(WHOLE), steps(found)) == outcome


def slow_outcome(expected, found):
    """The same outcome in the plainest way: by lists."""
    if expected == found:
        return Outcome(kind="exact")
    if len(expected) == len(found) and all(
        a[0] == b[0] and sorted(a[1]) == sorted(b[1]) for a, b in zip(expected, found)
    ):
        return Outcome(kind="batch order")
    lost = [(epoch, row) for epoch, rows in expected for row in rows]
    repeated = []
    for epoch, rows in found:
        for row in rows:
            if (epoch, row) in lost:
                lost.remove((epoch, row))
            else:
                repeated.append((epoch, row))
    if not lost and not repeated:
        return Outcome(kind="epoch order")
    return Outcome(kind="lost", num_lost=len(lost), num_repeated=len(repeated))


def test_outcomes_equal_the_plainest_way_to_find_them():
    draw, kinds = random.Random(1), Counter()
    for _ in range(400):
        expected = [(epoch, [draw.randrange(6) for _ in range(draw.randint(1, 3))]) for epoch in (0, 0, 1)]
        found = [(epoch, list(rows)) for epoch, rows in expected]
        for _ in range(draw.randint(0, 2)):
            change, batch = draw.randrange(4), draw.randrange(3)
            if change == 0:
                draw.shuffle(found[batch][1])
            elif change == 1:
                found[batch][1][0], found[batch - 1][1][0] = found[batch - 1][1][0], found[batch][1][0]
            elif change == 2:
                found[batch][1].append(draw.randrange(6))
            else:
                found[batch][1][0] = draw.randrange(6)
        outcome = compare_batches(expected, found)
        assert outcome == slow_outcome(expected, found)
        kinds[outcome.kind] += 1
    assert set(kinds) == {"exact", "batch order", "epoch order", "lost"}


def test_rows_of_ranks_are_put_together_in_the_way_that_the_loader_divides_them():
    whole = [Step(epoch=0, rows=[[[1, 2, 3, 4, 5, 6]]])]
    assert by_rank(Step(epoch=0, rows=[[[1, 2], [3]], [[4, 5], [6]]])) == [1, 2, 3, 4, 5, 6]
    assert by_pass(Step(epoch=0, rows=[[[1, 2], [5]], [[3, 4], [6]]])) == [1, 2, 3, 4, 5, 6]
    assert by_turns(Step(epoch=0, rows=[[[1, 3], [5]], [[2, 4], [6]]])) == [1, 2, 3, 4, 5, 6]
    for rows in ([[[1, 2, 3]], [[4, 5, 6]]], [[[1, 3, 5]], [[2, 4, 6]]], [[[1, 2], [5]], [[3, 4], [6]]]):
        assert compare(whole, [Step(epoch=0, rows=rows)]) == Outcome(kind="exact")
    assert compare(whole, [Step(epoch=0, rows=[[[1, 4, 5]], [[2, 3, 6]]])]) == Outcome(kind="batch order")


def test_one_way_to_put_rows_together_counts_for_the_whole_run():
    whole = steps([(0, [1, 2, 3, 4]), (0, [5, 6, 7, 8])])
    mixed = [Step(epoch=0, rows=[[[1, 2]], [[3, 4]]]), Step(epoch=0, rows=[[[5, 7]], [[6, 8]]])]
    assert compare(whole, mixed) == Outcome(kind="batch order")


def test_a_loader_that_knows_the_places_is_judged_by_them():
    step = Step(epoch=0, rows=[[[7, 5]], [[6]]], places=[[[2, 0]], [[1]]])
    assert by_places(step) == [5, 6, 7]
    in_rank_order = Step(epoch=0, rows=[[[5, 6, 7]]], places=[[[0, 2, 1]]])
    assert compare([step], [in_rank_order]) == Outcome(kind="batch order")


def test_a_row_that_a_loader_changes_is_an_error():
    assert [row_of(row_tokens(row)) for row in (0, 1, 999, 1000, 5_699)] == [0, 1, 999, 1000, 5_699]
    for damaged in (row_tokens(7)[:-1], row_tokens(7)[::-1], [2], []):
        with pytest.raises(ValueError, match="do not belong to any row of the test"):
            row_of(damaged)


def test_the_table_names_each_outcome_and_numbers_the_messages():
    outcomes = dict.fromkeys(("a", "b"), Outcome(kind="refused", message="no")) | {
        "c": Outcome(kind="lost", num_lost=3, num_repeated=1),
        "d": Outcome(kind="hangs", message="late"),
    }
    lines = outcome_table({"x": outcomes, "y": dict.fromkeys("abcd", Outcome(kind="exact"))})
    assert [line.split("|")[2:4] for line in lines[2:6]] == [
        [" refused (1) ", " **exact** "],
        [" refused (1) ", " **exact** "],
        [" 3 lost, 1 repeated ", " **exact** "],
        [" hangs (2) ", " **exact** "],
    ]
    assert lines[-2:] == ["1. x: no", "2. x: late"]


def test_each_loader_has_a_file_with_the_interface():
    """Without its library, because files import it inside functions."""
    keys = {scenario.key for scenario in SCENARIOS}
    for name in LOADERS:
        loader = loader_of(name)
        assert loader.PACKAGES and loader.LACKS.keys() <= keys and callable(loader.write) and callable(loader.Session)


def assert_exact(name, folder, scenarios):
    trainings = Trainings(name=name, folder=folder, rivals_python=Path("no rival"), time_limit=600)
    trainings.write()
    outcomes = {scenario.key: trainings.outcome(scenario) for scenario in scenarios}
    lacks = {key: Outcome(kind="not offered", message=reason) for key, reason in loader_of(name).LACKS.items()}
    assert outcomes == {key: lacks.get(key, Outcome(kind="exact")) for key in outcomes}


@pytest.mark.slow  # sixty processes
@pytest.mark.parametrize("name", OURS)
def test_our_loaders_are_exact_in_each_scenario(name, tmp_path):
    assert_exact(name, tmp_path / "run", SCENARIOS)


@pytest.mark.slow
@pytest.mark.parametrize("name", OURS)
def test_our_loaders_are_exact_after_a_kill(name, tmp_path):
    assert_exact(name, tmp_path / "run", [scenario for scenario in SCENARIOS if scenario.key == "e"])


def test_a_training_that_does_not_end_hangs_and_an_error_is_a_refusal(tmp_path):
    scenario = Scenario(key="a", title="", parts=(Part(stop=2), Part()))
    broken = Trainings(name=OURS[1], folder=tmp_path / "no-set", rivals_python=Path("no rival"))
    outcome = broken.outcome(scenario)
    assert outcome.kind == "refused" and "no-set/even" in outcome.message
    slow = Trainings(name=OURS[1], folder=tmp_path / "slow", rivals_python=Path("no rival"), time_limit=0)
    assert slow.outcome(scenario) == Outcome(kind="hangs", message="no end after 0 s")


def test_the_page_shows_the_tables_of_the_last_result():
    """docs/loader-conformance.md has the tables of benchmarks/results/loader_conformance.md."""
    result, page = (
        [line for line in (ROOT / path).read_text(encoding="utf-8").splitlines() if line.startswith("|")]
        for path in ("benchmarks/results/loader_conformance.md", "docs/loader-conformance.md")
    )
    assert result == page[-len(result) :]
