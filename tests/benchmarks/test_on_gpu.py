"""`benchmarks/on_gpu.sh`, rehearsed on the CUDA device of the tests, and what keeps its table when a case goes wrong."""

import json
import os
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks import bench_gpu
from benchmarks.bench_gpu import Workers, chosen_cases, main, measure_all
from benchmarks.gpu import levers as levers_of_gpu
from benchmarks.gpu.answers import Answer
from benchmarks.gpu.cases import BEFORE, OFF, REAL, REHEARSAL, Check, Levers, Speed, all_cases
from benchmarks.gpu.levers import build_model, build_updates
from benchmarks.gpu.made_data import make_data_set
from benchmarks.gpu.steps import Steps
from benchmarks.gpu.table import COLUMNS, HEAD, Table
from model.loading.data import DataSet
from tests.fake_cuda.library import missing

ROOT = Path(__file__).parent.parent.parent
WORKER = """
import json, os, sys, time
print(json.dumps({"device": "a GPU", "software": "", "is_real": True}), flush=True)
for line in sys.stdin:
    name = line.strip()
    if name == "dies":
        os.kill(os.getpid(), 9)
    if name == "hangs":
        time.sleep(600)
    print(json.dumps({"result": f"{name} by {os.getpid()}", "is_fatal": name == "breaks"}), flush=True)
"""
BEAMLESS = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {names}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
import runpy
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
ABSENT = {
    "apache_beam",
    "webdataset",
    "tyro",
    "isal",
    "orjson",
    "zstandard",
    "tomli_w",
    "docstring_parser",
    "matplotlib",
}
"""Packages of bertloom that a machine for measuring may not have."""


def check(name: str) -> Check:
    return Check(name=name, seconds=1)


def rows_of(path: Path) -> list[list[str]]:
    """The cells of the table's lines, without its head."""
    lines = [line for line in path.read_text().splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[2:]]


def rehearse(out: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the script with tiny models."""
    command = [str(ROOT / "benchmarks" / "on_gpu.sh"), "--rehearse", "--out", str(out), "--minutes", "30", *options]
    environment = os.environ | {"PYTHON": sys.executable, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> DataSet:
    folder = tmp_path_factory.mktemp("made")
    lengths = (REHEARSAL.short, REHEARSAL.long)
    return DataSet(make_data_set(folder, num_tokens=20_000, num_words=1000, lengths=lengths))


# ---- the whole script


@pytest.mark.skipif(bool(missing()), reason=missing())
@pytest.mark.slow
def test_a_rehearsal_fills_the_lines_of_some_cases(tmp_path):
    out = tmp_path / "table.md"
    names = ["attention, bf16", "resume", "base 32: not compiled", "small 32: CUDA graphs", "small 32: transformers"]
    ended = rehearse(out, "--only", *names)
    rows = rows_of(out)
    names.insert(4, "small 32: CUDA graphs, not compiled")
    assert [row[0] for row in rows] == names, ended.stderr
    assert ended.returncode == 0 and "6 cases, 0 not run, 0 failed" in out.read_text()
    assert "(CUDA None)" in out.read_text()  # so `is_real` was false
    assert "varlen_attn" in rows[0][-1] and "equal to the last bit" in rows[1][-1]
    assert all(re.fullmatch(r"[\d,]+ \[[\d,]+, [\d,]+\]", row[1]) for row in rows[2:])


@pytest.mark.slow
@pytest.mark.skipif(bool(missing()), reason=missing())
def test_a_rehearsal_fills_the_lines_of_all_cases(tmp_path):
    out = tmp_path / "table.md"
    ended = rehearse(out)
    rows = rows_of(out)
    cases = all_cases(REHEARSAL)
    assert [row[0] for row in rows] == [case.name for case in cases], ended.stderr
    assert [row for row in rows if "fails" in row[-1] or "not run" in row[-1]] == []
    for case, row in zip(cases, rows):
        assert len(row) == len(COLUMNS) and row[-1]
        assert all(row[1:-1]) == isinstance(case, Speed)
        assert "breaks" not in row[-2]
    firsts = {row[0].partition(":")[0]: set() for row, case in zip(rows, cases) if isinstance(case, Speed)}
    for row, case in zip(rows, cases):
        if isinstance(case, Speed):
            firsts[case.shape].add(round(float(row[-1].split()[1]), 1))
    assert all(len(losses) == 1 for losses in firsts.values())  # all ways compute the same


@pytest.mark.parametrize(
    "machine, found",
    [
        ({"device": ""}, "skipped: torch finds no CUDA device\n"),
        ({"is_real": False}, "skipped: this CUDA device is the one of the tests: use --rehearse\n"),
    ],
)
def test_without_a_real_gpu_nothing_is_written(machine, found, tmp_path, capsys, monkeypatch):
    stub = f"print({json.dumps({'device': 'a GPU', 'software': '', 'is_real': True} | machine)!r})"
    monkeypatch.setattr(bench_gpu, "worker_command", lambda data, is_rehearsal: [sys.executable, "-c", stub])
    assert main(["--out", str(tmp_path / "table.md")]) == 0
    assert capsys.readouterr().out == found
    assert not any(tmp_path.iterdir())


# ---- the cases


def test_names_are_different_and_everything_worth_knowing_is_there():
    cases = all_cases(REAL)
    names = [case.name for case in cases]
    assert len(set(names)) == len(names)
    for shape in ("small 128", "base 128", "large 128", "base 512"):
        own = {name.partition(": ")[2] for name in names if name.startswith(f"{shape}:")}
        assert own >= {"all levers", "transformers", *OFF}
    assert {"base 128: lamb", "base 128: muon", "base 128: transformers, compiled"} <= set(names)


def test_the_checks_and_the_levers_of_base_fit_into_three_minutes_and_nearly_all_cases_into_eight():
    cases = all_cases(REAL)
    seconds = 0.0
    for case in cases:
        seconds += case.seconds
        if case.name == "base 128: vocabulary not padded":
            break
    assert seconds < 3 * 60
    assert sum(case.seconds for case in cases) < 8.5 * 60  # the last ones may be left out


def test_cases_are_chosen_by_texts():
    names = [case.name for case in chosen_cases(all_cases(REAL), ["resume", "small 128: all"])]
    assert names == ["resume", "small 128: all levers", "small 128: all off but the compiler"]
    with pytest.raises(SystemExit, match="--only nothing: no name of a case"):
        chosen_cases(all_cases(REAL), ["nothing"])


# ---- cases that go wrong


@pytest.mark.parametrize(
    "name, found",
    [
        ("dies", "failed: its process ended with status -9"),
        ("hangs", "stopped after"),
        ("breaks", "breaks by"),
    ],
)
def test_a_case_that_ends_its_process_is_a_line_and_the_next_case_has_another_process(name, found, tmp_path, capsys):
    path = tmp_path / "table.md"
    table = Table(path, HEAD)
    with Workers([sys.executable, "-c", WORKER]) as workers:
        assert workers.machine().device == "a GPU"
        cases = [check(case) for case in ("one", name, "two", "three")]
        for case in cases:
            table.add(case, workers.measure(case, 1.5 if case.name == "hangs" else 60))
    rows = rows_of(path)
    assert [row[0] for row in rows] == ["one", name, "two", "three"] and found in rows[1][-1]
    processes = [rows[index][-1].split()[-1] for index in (0, 2, 3)]
    assert processes[0] != processes[1] == processes[2]


def test_a_worker_that_does_not_start_is_a_line():
    with Workers([sys.executable, "-c", "raise SystemExit(3)"]) as workers:
        assert workers.measure(check("one"), 60) == Answer(
            result="failed: a new process has not started", is_failure=True
        )


def test_a_case_without_enough_time_is_left_out_and_a_shorter_one_is_not(tmp_path, capsys):
    path = tmp_path / "table.md"
    table = Table(path, HEAD)
    cases = [Check(name="long", seconds=1000), check("short")]
    with Workers([sys.executable, "-c", WORKER]) as workers:
        workers.machine()
        measure_all(cases, workers, table, end=time.monotonic() + 100, patience=60)
    rows = rows_of(path)
    assert rows[0][-1] in ("not run: 100 s are left, and it takes about 1000",)
    assert rows[1][-1].startswith("short by")
    assert (table.num_rows, table.num_left_out, table.num_failures) == (2, 1, 0)


def test_a_speed_is_compared_with_all_levers_and_with_the_product(tmp_path, capsys):
    path = tmp_path / "table.md"
    table = Table(path, HEAD)
    table.add(check("ceilings"), Answer(result="fast", flops=800e12))
    values = {"slowest": 90.0, "fastest": 2000.0, "waiting": 0.0, "peak_gib": 1.0, "start_seconds": 2.0, "graphs": 3}
    for what, speed in (("all levers", 1000.0), ("not compiled", 800.0)):
        case = Speed(name=f"base 128: {what}", seconds=1, preset="base", length=128, micro_batch=8, micro_batches=1)
        breaks = 2 if what == "not compiled" else 0
        answer = Answer(result="loss", tokens_per_second=speed, flops=4e11 * speed, mfu=0.4, **values)
        table.add(case, replace(answer, graph_breaks=breaks))
    assert rows_of(path)[1:] == [
        ["base 128: all levers", "1,000 [90, 2,000]", "1.00", "40.0%", "50.0%", "0.0%", "1.0", "2.0", "3", "loss"],
        [
            "base 128: not compiled",
            "800 [90, 2,000]",
            "0.80",
            "40.0%",
            "40.0%",
            "0.0%",
            "1.0",
            "2.0",
            "3 and 2 breaks",
            "loss",
        ],
    ]


# ---- its parts


def test_the_data_set_is_made_without_beam_and_has_the_lengths_of_real_text(tmp_path):
    code = (
        "from pathlib import Path\nimport sys\nfrom benchmarks.gpu.made_data import make_data_set\n"
        "make_data_set(Path(sys.argv[1]), num_tokens=300_000, num_words=30_522, lengths=(128, 512))\n"
    )
    script = tmp_path / "make.py"
    script.write_text(code)
    (tmp_path / "set").mkdir()
    command = [sys.executable, "-c", BEAMLESS.replace("{names}", repr(ABSENT)), str(script), str(tmp_path / "set")]
    subprocess.run(command, check=True, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)})
    data_set = DataSet(tmp_path / "set")
    assert data_set.vocabulary_size == 30_522 and data_set.max_seq_lengths("train") == [128, 512]
    for length, low, high in ((128, 0.92, 0.97), (512, 0.8, 0.93)):
        examples = data_set.examples("train", length)
        assert low < examples.num_tokens / (sum(examples.rows_per_copy) * length) < high
        assert examples.gather([0, 0], [0, 1]).next_sentence_label.min() >= 0
    assert len(data_set.read("vocab.txt").splitlines()) == 30_522 and data_set.read("tokenizer.json")


@pytest.mark.slow
def test_the_worker_needs_no_package_that_a_machine_for_measuring_may_lack(tmp_path):
    command = [sys.executable, "-c", BEAMLESS.replace("{names}", repr(ABSENT))]
    command += [str(ROOT / "benchmarks" / "gpu" / "worker.py"), "--data", str(tmp_path)]
    ended = subprocess.run(command, input="", capture_output=True, text=True)
    assert ended.returncode == 0 and '"device": ""' in ended.stdout, ended.stderr


@pytest.fixture
def built(made, monkeypatch):
    """Returns the model that computes, and the parts that would be compiled; what levers patch is undone."""
    parts: list[str] = []

    def note(model, shapes):
        parts.extend(part for _, part in model.encoder.regions()[1:])

    monkeypatch.setattr(levers_of_gpu, "compile_model", note)

    def build(ways: Levers):
        parts.clear()
        model = build_model("base", made.vocabulary_size, is_tiny=True)
        updates = build_updates(model, "bf16", levers=ways, shapes=[])
        return updates, updates.copy.model if updates.copy else model, parts

    return build


@pytest.mark.parametrize("levers", [levers for _, levers in OFF.values()])
def test_a_step_with_a_lever_off_computes_the_same(levers, made, built):
    losses = []
    for ways in (Levers(), levers):
        updates, _, _ = built(ways)
        with Steps(made, REHEARSAL.short, 8, 2, torch.device("cpu")) as steps:
            losses.append([updates.run(batch, step).loss for step, (batch, _) in enumerate(steps.read(3))])
    assert losses[0] == pytest.approx(losses[1], abs=0.02) and losses[0][-1] < losses[0][0]


@pytest.mark.parametrize("levers", [Levers(), BEFORE, *(levers for _, levers in OFF.values())])
def test_a_lever_changes_what_it_names_and_nothing_else(levers, built):
    updates, computing, parts = built(levers)
    assert set(parts) == ({"forward" if levers.whole_layers else "after_attention"} if levers.compiled else set())
    assert (updates.copy is not None) == levers.compute_copy
    assert computing.encoder.word_embeddings.dtype == (torch.bfloat16 if levers.compute_copy else torch.float32)
    assert len(computing.encoder.word_embeddings) == (1024 if levers.padded_vocabulary else 1000)
    assert ("word_losses" in vars(computing)) == (not levers.loss_chunks)
    assert updates.graphs is None and type(updates.optimizer) is torch.optim.AdamW


def test_shellcheck_finds_no_fault_in_the_script():
    script = ROOT / "benchmarks" / "on_gpu.sh"
    done = subprocess.run([Path(sys.executable).parent / "shellcheck", script], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "") and os.access(script, os.X_OK)
