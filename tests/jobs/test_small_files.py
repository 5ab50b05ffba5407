"""Many small files share splits and token parts. That shows in no shard, page of documents or count."""

import gzip
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from jobs import cli
from tests.jobs.corpus import documents, run_job, shard_digests, write, write_vocabulary

TEXTS = documents(160)
ENDINGS = (".txt", ".jsonl", ".txt.gz")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder of small files in three formats with two pairs of equal texts, a damaged file and an empty one."""
    folder = tmp_path_factory.mktemp("small")
    write_vocabulary(folder / "vocab.txt")
    for i in range(80):
        write(folder / f"in/{i:03d}{ENDINGS[i % 3]}", TEXTS[2 * i : 2 * i + 2])
    write(folder / "in/050-again.jsonl", TEXTS[3:4])
    write(folder / "in/080.txt", TEXTS[70:71])
    (folder / "in/031-damaged.jsonl.gz").write_bytes(gzip.compress(b'{"text": "One."}\n' * 9)[:-9])
    (folder / "in/032-bad.jsonl").write_text('{"txt": 1}\nno JSON\n')
    (folder / "in/033-empty.txt").write_text("")
    return folder


def job(folder: Path, out: Path, split_mb: float, **options) -> tuple:
    manifest = run_job(folder / "in", out, folder / "vocab.txt", split_mb=split_mb, pairs="nsp", **options)
    pages = pq.read_table(out / "documents").to_pylist()
    rejects = gzip.decompress((out / "rejects/rejects.jsonl.gz").read_bytes()).splitlines()
    notes = [note for note in manifest["notes"] if "single sentence" not in note]
    return shard_digests(out), pages, manifest["inputs"], manifest["counters"], sorted(rejects), notes


SLOW = [pytest.param(options, marks=pytest.mark.slow) for options in ({"near_duplicates": 0.8}, {"sample": 60.0})]


@pytest.mark.parametrize("options", [{}, {"max_line_repeats": 3}, *SLOW], ids=str)
def test_the_data_set_does_not_depend_on_which_files_share_a_part(folder, tmp_path, options):
    found = [job(folder, tmp_path / f"{mb}", mb, work_dir=tmp_path / f"w{mb}", **options) for mb in (0.0001, 0.03, 8)]
    assert found[0] == found[1] == found[2]
    num_parts = [len(list((tmp_path / f"w{mb}").rglob("*.part"))) for mb in (0.0001, 0.03, 8)]
    assert num_parts[0] > 80 and 10 < num_parts[1] < 80 and num_parts[2] < 5
    inputs = {row["name"]: row for row in found[0][2]}
    assert inputs["031-damaged.jsonl.gz"]["damaged"] and inputs["033-empty.txt"]["documents"] == 0
    assert sum("damaged" in row for row in inputs.values()) == 1
    assert inputs["032-bad.jsonl"]["rejected"] == 2


def test_held_out_files_are_in_no_part_of_others(folder, tmp_path):
    vocab = folder / "vocab.txt"
    held_out = {"validation_input": (str(folder / "in/04*"), str(folder / "in/07*"))}
    found = []
    for mb in (0.0001, 8):
        run_job(folder / "in", tmp_path / f"{mb}", vocab, split_mb=mb, validation_fraction=0.0, **held_out)
        found.append(shard_digests(tmp_path / f"{mb}"))
    assert found[0] == found[1]


def test_a_new_file_leaves_most_parts_as_they_are(folder, tmp_path):
    for path in (folder / "in").iterdir():
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / path.name).hardlink_to(path)
    work = tmp_path / "work"
    run_job(tmp_path / "in", tmp_path / "a", folder / "vocab.txt", split_mb=0.03, work_dir=work)
    before = {path.name for path in work.rglob("*.part")}
    write(tmp_path / "in/000-first.txt", documents(2, seed=9))
    run_job(tmp_path / "in", tmp_path / "b", folder / "vocab.txt", split_mb=0.03, work_dir=work)
    added = {path.name for path in work.rglob("*.part")} - before
    assert len(before) > 10 and 0 < len(added) <= 3


def test_examples_of_small_files_are_explained_exactly(folder, tmp_path, capsys):
    run_job(folder / "in", tmp_path / "out", folder / "vocab.txt", max_seq_length=(32,), dupe_factor=1)
    for index in range(0, 300, 60):
        assert cli.main(["explain", f"{tmp_path}/out", str(index), "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["agrees"]
