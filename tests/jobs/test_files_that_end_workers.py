"""An input file that ends each worker process that reads it is named, and can be left out."""

import json
import os
from pathlib import Path

import pytest

from bertloom.processes import PROCESS_LOST
from pipeline.inputs.sources import Source, Split, leave_out
from pipeline.stages.reading_notes import clear_notes, reading, record_deaths
from tests.jobs.restartable_job import TIMEOUT_SECONDS, Job


def source(name: str) -> Source:
    return Source(f"/in/{name}", name, "text", None, None, 10, f"of {name}")


@pytest.fixture
def deadly(tmp_path) -> dict[str, str]:
    """The environment in which a worker that opens b.jsonl is killed."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site/sitecustomize.py").write_text(
        "import builtins, os, signal, sys\n"
        "if any('pipeline.local.worker' in word for word in sys.orig_argv):\n"
        "    before = builtins.open\n"
        "    def open(path, *more, **options):\n"
        "        if str(path).endswith('in/b.jsonl'):\n"
        "            os.kill(os.getpid(), signal.SIGSEGV)\n"
        "        return before(path, *more, **options)\n"
        "    builtins.open = open\n"
    )
    return {"first": str(tmp_path / "site")}


def test_a_file_that_ends_a_worker_twice_is_named_and_can_be_left_out(tmp_path, deadly):
    job, out = Job(tmp_path), tmp_path / "out"

    def run(*flags: str) -> tuple[int, str]:
        process = job.start(out, "--num-workers", "2", *flags, **deadly)
        said = process.communicate(timeout=TIMEOUT_SECONDS)[1].strip()
        return process.returncode, said.splitlines()[-1] if said else ""

    status, said = run()
    assert status == PROCESS_LOST and "a worker process died" in said
    assert "It was reading b.jsonl. Finished work is kept. Start the same command again to continue" in said
    assert run() == (
        2,
        "bertloom preprocess: error: b.jsonl has ended a worker process 2 times at the same place: the worker crashed or "
        "ran out of memory. Repair or remove the file, or leave it out with --leave-out 'b.jsonl'",
    )
    status, said = run("--leave-out", "b.jsonl", "--gates.no-fail")
    assert status == 0, said
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["counters"]["rejected"] == {"left-out": 1} and manifest["counters"]["documents_in"] == 101
    assert [(row["name"], row["documents"], row["rejected"]) for row in manifest["inputs"]] == [
        ("a.txt", 100, 0),
        ("b.jsonl", 0, 1),
    ]


@pytest.mark.parametrize("flags", [("--sample", "40"), ("--max-line-repeats", "3")], ids=" ".join)
def test_a_file_that_ends_a_worker_before_tokenization_is_named(tmp_path, deadly, flags):
    job = Job(tmp_path)
    for expected in ("It was reading b.jsonl. Finished work is kept", "b.jsonl has ended a worker process 2 times"):
        process = job.start(tmp_path / "out", "--num-workers", "2", *flags, **deadly)
        assert expected in process.communicate(timeout=TIMEOUT_SECONDS)[1]


def test_only_the_notes_of_dead_processes_count_and_only_deaths_at_the_same_place(tmp_path):
    folder = str(tmp_path / "reading")

    def die(name: str, part: int) -> None:
        if (child := os.fork()) == 0:
            with reading(folder) as note:
                note(Split(source(name), 0, None), part)
                os._exit(0)  # as if it had crashed: the note stays
        os.waitpid(child, 0)

    with reading(folder) as note:
        note(Split(source("alive.txt"), 0, None), 0)
        die("a.txt", 0)
        assert record_deaths(folder) == {"a.txt": 1}
        clear_notes(folder)
        die("a.txt", 3)
        die("b.txt", 0)
        assert record_deaths(folder) == {"a.txt": 1, "b.txt": 1}
        clear_notes(folder)
        die("a.txt", 3)
        assert record_deaths(folder) == {"a.txt": 2}
    clear_notes(folder)
    assert sorted(path.name for path in Path(folder).iterdir()) == ["deaths.json"]


def test_a_note_is_gone_when_the_split_is_read_or_reading_it_fails(tmp_path):
    with pytest.raises(ZeroDivisionError), reading(str(tmp_path)):
        assert len(list(tmp_path.iterdir())) == 1
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_no_input_file_has_cannot_be_left_out():
    assert [one.left_out for one in leave_out([source("a"), source("b")], ["b"])] == [False, True]
    with pytest.raises(ValueError, match="--leave-out c: no input file has this name"):
        leave_out([source("a")], ["c"])
