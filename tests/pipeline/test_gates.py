"""The gates: each one closes on what it is for, names the flag that opens it, and leaves small samples some slack."""

import copy

import pytest

from pipeline.checks.gates import Gates, check_gates

GOOD = {
    "counters": {"documents_in": 1000, "documents_rejected": 20},
    "configuration": {"compat": None},
    "notes": [],
    "inputs": {"files": 4, "num_empty": 0, "empty": [], "largest": [{"name": "a.txt", "share": 0.5}]},
    "words": {"unknown": 0.001},
    "sample": {"examples": 30_000},
    "lengths": {
        "128": {
            "examples": 50_000,
            "one_label": 0.5,
            "label_guess": {"accuracy": 0.505, "error": 0.004},
            "border_guess": {"accuracy": 0.51, "error": 0.003},
        }
    },
}
GUESSES = ["max_label_guess", "max_border_guess"]


def closed(gates=None, **changes):
    """Names of the gates not passed; changes: "path__to__value" = value."""
    report = copy.deepcopy(GOOD)
    for path, value in changes.items():
        *place, last = path.split("__")
        at = report
        for key in place:
            at = at[key]
        at[last] = value
    return [gate.name for gate in check_gates(gates or Gates(), report) if not gate.passed]


def test_good_data_passes_all_seven_gates():
    assert closed() == [] and len(check_gates(Gates(), GOOD)) == 7


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("max_rejected", {"counters__documents_rejected": 150}),
        ("max_empty_inputs", {"inputs__num_empty": 1, "inputs__empty": ["wiki.txt"]}),
        ("max_one_input", {"inputs__largest": [{"name": "a.txt", "share": 0.96}]}),
        ("max_unknown", {"words__unknown": 0.03}),
        ("max_one_label", {"lengths__128__one_label": 0.8}),
        ("max_label_guess", {"lengths__128__label_guess": {"accuracy": 0.58, "error": 0.004}}),
        ("max_border_guess", {"lengths__128__border_guess": {"accuracy": 0.533, "error": 0.003}}),
    ],
)
def test_each_gate_fails_on_its_fault_and_passes_with_a_higher_threshold(name, changes):
    assert closed(**changes) == [name]
    assert closed(Gates(**{name: 1.0}), **changes) == []
    (gate,) = (gate for gate in check_gates(Gates(), GOOD) if gate.name == name)
    assert gate.advice and gate.what


def test_chance_alone_fails_no_gate():
    """Two of ten rejected documents, or 60 % of a few labels, may be chance."""
    assert closed(counters__documents_in=10, counters__documents_rejected=2) == []
    assert closed(lengths__128__label_guess={"accuracy": 0.6, "error": 0.03}) == []
    assert closed(lengths__128__border_guess={"accuracy": 0.6, "error": 0.03}) == []
    assert closed(words__unknown=0.03, sample__examples=500) == []


def test_exact_shares_have_no_slack():
    """One empty file of two fails."""
    assert closed(inputs__files=2, inputs__num_empty=1, inputs__empty=["wiki.txt"]) == ["max_empty_inputs"]
    assert closed(Gates(max_rejected=0.0), counters__documents_rejected=1) == ["max_rejected"]


def test_gates_that_do_not_apply_are_left_out():
    one_file = check_gates(Gates(), {**GOOD, "inputs": {"files": 1, "num_empty": 0, "empty": [], "largest": []}})
    assert [gate.name for gate in one_file] == ["max_rejected", "max_unknown", "max_one_label", *GUESSES]
    nothing = dict.fromkeys(("one_label", "label_guess", "border_guess"))
    assert closed(**{f"lengths__128__{name}": value for name, value in nothing.items()}) == []
    guessed = {f"lengths__128__{name}_guess": {"accuracy": 0.9, "error": 0.004} for name in ("label", "border")}
    assert closed(configuration__compat="google", **guessed) == []  # one of the faults of Google's script


def test_a_threshold_that_is_not_a_share_is_refused():
    with pytest.raises(ValueError, match=r"--gates.max-unknown 2: expected a share from 0 to 1"):
        Gates(max_unknown=2)


def test_gates_about_documents_repeat_what_was_noted_about_their_layout():
    note = "30 text files gave 23,096 documents: if each file is one document, give --text-layout file"
    plain = {gate.name: gate.advice for gate in check_gates(Gates(), GOOD)}
    noted = {gate.name: gate.advice for gate in check_gates(Gates(), GOOD | {"notes": ["another", note]})}
    assert {name for name in plain if noted[name] != plain[name]} == {"max_rejected", "max_one_label"}
    assert all(noted[name] == f"{plain[name]}. {note}" for name in ("max_rejected", "max_one_label"))
