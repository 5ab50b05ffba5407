"""A new pair objective or masking scheme needs its own functions and a line in a registry, and nothing else."""

import ast
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bertloom.members import read_shard
from jobs.explain import Explainer
from jobs.support.explanation import explanation_lines
from jobs.support.report import write_report
from jobs.verify import verify
from model.loading.data import DataSet
from model.loading.remask import remasking_of
from pipeline.checks.gates import Gates
from pipeline.examples.masking import registry as schemes
from pipeline.examples.masking.scheme import Chosen, MaskingScheme, Unmasked
from pipeline.examples.objectives import registry as objectives
from pipeline.examples.objectives.none import NONE
from pipeline.examples.objectives.objective import DrawnPair, Objective, PlacedPairs
from pipeline.examples.pairs import Pairs
from tests.jobs.corpus import documents, run_job, write, write_vocabulary

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    return write(folder / "texts.txt", documents(60)), write_vocabulary(folder / "vocab.txt")


# ---- an objective: the halves of a single segment, the second one before the first, with one label for all


def reverse(sentences, max_seq_length, copy, seed, short_seq_prob):
    pairs, _ = NONE.make_pairs(sentences, max_seq_length - 1, copy, seed, short_seq_prob)
    pairs = pairs.take(np.flatnonzero(pairs.a_length >= 2))
    half = pairs.a_length // 2
    rest = {"a_start": pairs.a_start + half, "a_length": pairs.a_length - half}
    return replace(pairs, **rest, b_start=pairs.a_start, b_length=half, label=np.ones_like(pairs.label)), {}


def reversed_faults(pairs: PlacedPairs):
    yield "is not reversed", ~pairs.a_follows_b


def about_reversed(drawn: DrawnPair) -> list[str]:
    return ["its second half comes first", drawn.about_target(drawn.max_seq_length - 3)]


REVERSED = Objective(
    name="reversed",
    summary="B always comes before A.",
    labels={1: "reversed"},
    min_sources=1,
    tokens_per_token=1.0,
    form_tells_label=True,
    cut_sentences=lambda block, words, length: NONE.cut_sentences(block, words, length - 1),
    make_pairs=reverse,
    label_faults=reversed_faults,
    explain=about_reversed,
)


def test_a_new_objective_is_woven_verified_explained_and_reported(source, tmp_path, monkeypatch):
    monkeypatch.setattr(objectives, "OBJECTIVES", [*objectives.OBJECTIVES, REVERSED])
    out = tmp_path / "out"
    run_job(source[0], out, source[1], pairs="reversed")
    assert verify(str(out))[0] == []
    table = read_shard(str(out / "train/seq32/copy0/00000.tar"))
    assert set(table["next_sentence_label"].to_pylist()) == {1}
    found = Explainer(str(out)).explain(3)
    assert found["agrees"] and found["example"]["label"] == "reversed"
    assert "  its second half comes first" in explanation_lines(found)
    write_report(str(out), Gates(fail=False))
    report = json.loads((out / "report.json").read_text())
    assert set(report["lengths"]["32"]["sample"]["labels"]) == {"reversed"}


def in_order(*arguments):
    pairs, counters = reverse(*arguments)
    a, b = (pairs.b_start, pairs.b_length), (pairs.a_start, pairs.a_length)
    return Pairs(*a, *b, np.zeros_like(pairs.label), pairs.document_a, pairs.document_b, pairs.sentence), counters


def test_labels_of_a_new_objective_are_checked_by_its_own_rule(source, tmp_path, monkeypatch):
    monkeypatch.setattr(objectives, "OBJECTIVES", [*objectives.OBJECTIVES, replace(REVERSED, make_pairs=in_order)])
    run_job(source[0], tmp_path / "out", source[1], pairs="reversed")
    faults = verify(str(tmp_path / "out"))[0]
    assert any("has a label that is none of (1,)" in fault for fault in faults)
    assert any("is not reversed" in fault for fault in faults)


# ---- a scheme: every fifth token


def choose_every_fifth(examples: Unmasked) -> Chosen:
    sizes = examples.a_length + examples.b_length
    counts = np.minimum(examples.counts, -(-sizes // 5))
    numbers = 5 * (np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts))
    return Chosen(numbers=numbers, counts=counts)


EVERY_FIFTH = MaskingScheme(
    name="every_fifth",
    option=None,
    summary="every fifth token",
    can_be_redrawn=False,
    whole_words=False,
    extra_predictions=0,
    choose=choose_every_fifth,
)


def test_a_new_scheme_is_woven_verified_explained_and_not_redrawn(source, tmp_path, monkeypatch):
    monkeypatch.setattr(schemes, "SCHEMES", [EVERY_FIFTH, *schemes.SCHEMES])
    out = tmp_path / "out"
    manifest = run_job(source[0], out, source[1])
    assert manifest["masking"] == {"scheme": "every_fifth", "can_be_redrawn": False}
    assert verify(str(out))[0] == []
    for row in read_shard(str(out / "train/seq64/copy0/00000.tar")).slice(0, 50).to_pylist():
        numbers = [at - 1 - (at >= row["segment_b_start"]) for at in row["masked_lm_positions"]]
        assert numbers == list(range(0, 5 * len(numbers), 5))
    found = Explainer(str(out)).explain(3)
    assert found["agrees"]
    assert any(line.endswith("tokens, chosen as every fifth token") for line in explanation_lines(found))
    with pytest.raises(ValueError, match=r"remask: the masks of .*out have the scheme 'every_fifth'"):
        remasking_of(DataSet(out))


def test_a_scheme_has_to_say_whether_its_masks_can_be_redrawn():
    fields = {name: getattr(EVERY_FIFTH, name) for name in ("name", "option", "summary", "whole_words", "choose")}
    with pytest.raises(TypeError, match="can_be_redrawn"):
        MaskingScheme(**fields, extra_predictions=0)


def test_a_scheme_that_the_manifest_does_not_name_is_a_fault(source, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(schemes, "SCHEMES", [EVERY_FIFTH, *schemes.SCHEMES])
        run_job(source[0], tmp_path / "out", source[1])
    (fault,) = verify(str(tmp_path / "out"))[0]
    assert fault.startswith("manifest.json: masking is {'scheme': 'every_fifth'") and fault.endswith("scheme 'token'")


# ---- no other code knows the members


def compared_strings(source: str) -> set[str]:
    """The string constants that this source compares, matches, or uses as keys of a dict or as an index."""
    found: list[ast.expr] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Compare):
            found += [node.left, *node.comparators]
        elif isinstance(node, ast.MatchValue):
            found.append(node.value)
    for node in list(found):
        if isinstance(node, ast.Tuple | ast.List | ast.Set):
            found += node.elts
        elif isinstance(node, ast.Dict):
            found += [key for key in node.keys if key]
    return {node.value for node in found if isinstance(node, ast.Constant) and isinstance(node.value, str)}


def test_compared_strings_are_found():
    source = "a == 'b'\nc in ('d', 'e')\nmatch f:\n    case 'g': pass\n{'h': 1}\n'i'\n"
    assert compared_strings(source) == {"b", "d", "e", "g"}


FOLDERS = ("pipeline/examples/objectives", "pipeline/examples/masking")
SOURCES = [
    path
    for folder in ("bertloom", "pipeline", "model/loading", "model/runs", "jobs")  # "span" is also a fine-tuning task
    for path in sorted((ROOT / folder).rglob("*.py"))
    if not path.relative_to(ROOT).as_posix().startswith(FOLDERS)
    and (folder != "jobs" or "from pipeline." in path.read_text(encoding="utf-8"))
]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_other_code_compares_the_names_of_objectives_and_schemes(path):
    names = {objective.name for objective in objectives.OBJECTIVES} | {o.compat for o in objectives.OBJECTIVES}
    names |= {scheme.name for scheme in schemes.SCHEMES} | {scheme.option for scheme in schemes.SCHEMES}
    assert compared_strings(path.read_text(encoding="utf-8")) & (names - {None}) == set()
