"""One job per output, one configuration per output, and work folders that several outputs share."""

import gzip
import json
import os
import re
import signal
import subprocess
import sys

import pytest

from bertloom import storage
from bertloom.locks import output_lock
from jobs import cli
from tests.jobs.corpus import digests, documents, run_job, write
from tests.jobs.restartable_job import ROOT, TIMEOUT_SECONDS, assert_whole, environment_of, identities, run_in_forks


@pytest.fixture
def half(job, tmp_path):
    """An output that a killed job has left."""
    ran = run_in_forks([("before weave/ 1", job.argv(tmp_path / "half"))])
    assert ran[0][0] == -signal.SIGKILL
    return tmp_path / "half"


def test_a_second_job_on_the_same_output_is_refused_with_the_name_of_the_first(job, unbroken, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    with output_lock(str(out)):
        assert cli.main(job.argv(out)) == 2
        said = capsys.readouterr().err
        assert re.search(
            rf"{out} is being written by process {os.getpid()} on \S+ since 20\d\d-.*: wait for it, or choose", said
        )
        assert os.listdir(out) == [".lock"]
    assert cli.main(job.argv(out)) == 0
    assert_whole(out, unbroken)


def test_the_lock_of_a_dead_job_is_ignored(job, unbroken, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/.lock").write_text("process 1 on elsewhere since 2001-01-01 00:00:00\n")
    assert cli.main(job.argv(tmp_path / "out")) == 0
    assert_whole(tmp_path / "out", unbroken)


def test_jobs_that_compete_for_the_lock_get_it_one_at_a_time(tmp_path):
    code = (
        "import sys, time\n"
        "from bertloom.locks import output_lock\n"
        "held = 0\n"
        "while held < 40:\n"
        "    try:\n"
        f"        with output_lock({str(tmp_path)!r}):\n"
        f"            open({str(tmp_path / 'mine')!r}, 'x').close()\n"
        f"            import os; os.remove({str(tmp_path / 'mine')!r})\n"
        "            held += 1\n"
        "    except ValueError as error:\n"
        "        assert 'is being written by' in str(error)\n"
    )
    processes = [subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=environment_of()) for _ in range(3)]
    assert [process.wait(TIMEOUT_SECONDS) for process in processes] == [0, 0, 0]


def test_an_unfinished_output_refuses_another_configuration_vocabulary_or_input(job, unbroken, half, capsys, tmp_path):
    (half / ".lock").unlink()  # of the killed job
    before = identities(half)
    words = job.vocab.read_text().splitlines()
    (tmp_path / "other.txt").write_text("\n".join([*words[:-1], "other"]) + "\n")
    for flags, says in (
        (
            ["--seed", "2", "--dupe-factor", "3"],
            "unfinished data set with another configuration (dupe_factor, seed differ)",
        ),
        (["--no-do-lower-case"], "unfinished data set with another configuration (do_lower_case differ)"),
        (
            ["--vocab", str(tmp_path / "other.txt")],
            "unfinished data set with another configuration (vocabulary differ)",
        ),
        (["--input", str(job.folder / "in/a.txt")], "unfinished data set made from other input files"),
    ):
        assert cli.main(job.argv(half, *flags)) == 2
        said = capsys.readouterr().err
        assert says in said and "choose another --out" in said
        assert identities(half) == before
    assert cli.main(job.argv(half, "--split-mb", "0.05")) == 0  # how the input is cut is no part of the configuration
    assert_whole(half, unbroken)


def test_a_finished_output_is_not_changed(job, unbroken, tmp_path, capsys):
    out = tmp_path / "out"
    assert cli.main(job.argv(out)) == 0
    before = identities(out)
    capsys.readouterr()
    assert cli.main(job.argv(out)) == 0
    said = capsys.readouterr()
    assert f"{out} is already complete: nothing to do" in said.err and f"{out}: complete" in said.out
    assert cli.main(job.argv(out, "--seed", "2")) == 2
    assert "complete data set with another configuration (seed differ): choose another --out" in capsys.readouterr().err
    assert cli.main(job.argv(out, "--input", f"{job.folder}/in/a.txt")) == 2
    assert "complete data set made from other input files: choose another --out" in capsys.readouterr().err
    assert identities(out) == before and not list(out.glob(".*"))


def test_an_output_with_shards_but_without_an_unfinished_job_is_refused(job, tmp_path, capsys):
    (tmp_path / "out/train").mkdir(parents=True)
    assert cli.main(job.argv(tmp_path / "out")) == 2
    said = capsys.readouterr().err
    assert (
        "holds train, but neither manifest.json of a finished data set nor .work/job.json of an unfinished one" in said
    )
    assert said.endswith("choose a new or empty --out\n")


def test_an_unfinished_output_whose_job_file_was_removed_or_damaged_is_refused_and_kept(half, capsys, job):
    (half / ".lock").unlink()  # of the killed job
    claim = half / ".work/job.json"
    good = json.loads(claim.read_text())
    changes = [{"inputs": 5}, {"configuration": []}, {"vocabulary": "x"}, {"files": []}, {"excluded": 3}]
    changes = [json.dumps(good | {"configuration_digest": "x"} | change) for change in changes]
    for content in (None, "", claim.read_text()[:300], "[]", "{}", *changes):
        claim.unlink(missing_ok=True)
        if content is not None:
            claim.write_text(content)
        before = identities(half)
        assert cli.main(job.argv(half)) == 2
        said = capsys.readouterr().err
        assert "job.json" in said and "did not write" not in said
        assert f"Choose another --out, which can reuse the tokens with --work-dir {half}/.work" in said
        assert identities(half) == before


def test_a_kept_work_folder_is_reused_with_other_lengths_copies_masks_and_more_files(job, unbroken, tmp_path, capsys):
    work = tmp_path / "work"
    assert cli.main(job.argv(tmp_path / "one", "--work-dir", str(work))) == 0
    assert_whole(tmp_path / "one", unbroken)
    parts = identities(work / "parts")
    capsys.readouterr()
    other = ["--max-seq-length", "48", "--dupe-factor", "1", "--masked-lm-prob", "0.3", "--seed", "9"]
    assert cli.main(job.argv(tmp_path / "two", "--work-dir", str(work), *other)) == 0
    assert f"continuing with the tokens in {work}: 4 of 4 splits tokenized" in capsys.readouterr().err
    assert identities(work / "parts") == parts
    write(tmp_path / "more/c.txt", documents(40, seed=3))
    inputs = ["--input", str(job.folder / "in"), str(tmp_path / "more")]
    assert cli.main(job.argv(tmp_path / "three", "--work-dir", str(work), *inputs)) == 0
    assert "4 of 5 splits tokenized" in capsys.readouterr().err
    assert parts.items() < identities(work / "parts").items()
    assert cli.main(job.argv(tmp_path / "four", "--work-dir", str(work), "--no-do-lower-case", "--gates.no-fail")) == 0
    assert "splits tokenized" not in capsys.readouterr().err  # other tokens


@pytest.mark.parametrize(
    "theirs, says",
    [
        ("vocab.txt", "holds vocab.txt, but neither manifest.json of a finished data set nor .work/job.json"),
        ("report.html", "holds report.html, but"),
        ("rejects/notes.md", "holds rejects, but"),
        (".work/thesis.txt", "holds .work/thesis.txt, but"),
        ("manifest.json", "manifest.json is not JSON"),
    ],
)
def test_a_folder_with_files_of_the_users_own_is_refused_and_not_changed(job, tmp_path, capsys, theirs, says):
    path = tmp_path / "out" / theirs
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    assert cli.main(job.argv(tmp_path / "out")) == 2
    assert says in capsys.readouterr().err
    assert path.read_text() == "mine" and [p for p in tmp_path.rglob("*") if p.is_file()] == [path]


def test_a_folder_in_a_store_with_files_of_the_users_own_is_refused(job, tmp_path):
    out = f"memory://{tmp_path.name}"
    for name in ("vocab.txt", "sub/notes.md"):
        storage.write_whole(f"{out}/{name}", [b"mine"])
    with pytest.raises(
        ValueError, match="holds sub, vocab.txt, but neither .* of an unfinished one: choose a new or empty --out"
    ):
        run_job(job.folder / "in", out, job.vocab)


def test_an_output_without_a_shard_can_be_started_again_with_other_flags_and_inputs(job, tmp_path, capsys):
    out = tmp_path / "out"
    texts = write(tmp_path / "a.jsonl", documents(60))
    command = ["preprocess", "--vocab", str(job.vocab), "--out", str(out), "--max-seq-length", "32", "--gates.no-fail"]
    assert cli.main([*command, "--input", str(texts), "--text-column", "content"]) == 2
    said = capsys.readouterr().err
    assert "60 of 60 records rejected (60 no-text-field, the first in a.jsonl at byte 0: fields: id, text {" in said
    assert ": there is no field 'content'; name the field that holds the text with --text-column); see" in said
    assert "has no shards yet, so it can be used again with other flags" in said
    with gzip.open(out / "rejects/rejects.jsonl.gz", "rt") as log:
        assert len(log.readlines()) == 60
    one = write(tmp_path / "one.txt", documents(1))
    assert cli.main([*command, "--input", str(one)]) == 2
    assert "give at least two documents" in capsys.readouterr().err
    assert not (out / "rejects").exists()
    assert cli.main([*command, "--input", str(texts)]) == 0
    assert cli.main([*command[:3], "--out", str(tmp_path / "new"), *command[5:], "--input", str(texts)]) == 0
    assert digests(out) == digests(tmp_path / "new")


def test_a_json_array_is_named_as_the_reason(job, tmp_path, capsys):
    (tmp_path / "a.jsonl").write_text("[\n" + ",\n".join(f'{{"text": "{i}"}}' for i in range(30)) + "\n]\n")
    assert (
        cli.main(
            ["preprocess", "--vocab", str(job.vocab), "--out", str(tmp_path / "o"), "--input", f"{tmp_path}/a.jsonl"]
        )
        == 2
    )
    said = capsys.readouterr().err
    assert "31 of 32 records rejected (31 not-json, the first in a.jsonl at byte 0: " in said
    assert "read an array of objects with --format json-array" in said
