"""Files that a killed job left in its folders and that are damaged: the next start makes them again, with the same bytes."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from bertloom.locks import shared_lock
from jobs.verify import verify
from tests.jobs.corpus import documents, run_job, shard_digests, write, write_vocabulary

TEXTS = documents(120)
SPLIT_MB = 0.01  # a few files in a part


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> tuple[list[Path], Path]:
    folder = tmp_path_factory.mktemp("inputs")
    sources = [write(folder / f"{i:02d}.jsonl", TEXTS[i * 6 : i * 6 + 6]) for i in range(20)]
    return sources, write_vocabulary(folder / "vocab.txt")


@pytest.fixture(scope="module")
def unbroken(inputs, tmp_path_factory) -> tuple[Path, dict[str, str]]:
    """A work folder with all that a job can leave there, and the digests of the job's shards."""
    folder = tmp_path_factory.mktemp("unbroken")
    run_job(*reorder(inputs, folder / "out"), work_dir=folder / "work", near_duplicates=0.8, split_mb=SPLIT_MB)
    return folder / "work", shard_digests(folder / "out")


def reorder(inputs: tuple[list[Path], Path], out: Path) -> tuple[list[Path], Path, Path]:
    return inputs[0], out, inputs[1]


def changed_bytes(data: bytes) -> bytes:
    half = len(data) // 2
    return data[:half] + bytes(byte ^ 0x42 for byte in data[half : half + 8]) + data[half + 8 :]


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "changed": changed_bytes,
    "cut": lambda data: data[: len(data) // 2],
    "empty": lambda data: b"",
    "grown": lambda data: data + data[-16:],
    "nested": lambda data: data[:-16] + b"[" * 100_000 + (100_000).to_bytes(8, "little") + data[-8:],
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_parts_and_sketches_are_made_again(inputs, unbroken, tmp_path, damage):
    work, digests = unbroken
    kinds = set()
    for path in sorted(work.rglob("*")):
        if path.is_file() and path.name != ".lock":
            copy = tmp_path / "work" / path.relative_to(work)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(DAMAGE[damage](path.read_bytes()))
            kinds.add(path.suffix)
    assert kinds == {".part", ""}
    run_job(*reorder(inputs, tmp_path / "out"), work_dir=tmp_path / "work", near_duplicates=0.8, split_mb=SPLIT_MB)
    assert shard_digests(tmp_path / "out") == digests
    for path in work.rglob("*.part"):
        assert (tmp_path / "work" / path.relative_to(work)).read_bytes() == path.read_bytes()


def test_one_damaged_part_is_made_again_and_the_others_are_kept(inputs, unbroken, tmp_path):
    work, digests = unbroken
    parts = sorted((work / "parts").glob("*.part"))
    (tmp_path / "work/parts").mkdir(parents=True)
    for i, path in enumerate(parts):
        copy = tmp_path / "work/parts" / path.name
        copy.write_bytes(changed_bytes(path.read_bytes()) if i == 3 else path.read_bytes())
        os.utime(copy, (1, 1))
    run_job(*reorder(inputs, tmp_path / "out"), work_dir=tmp_path / "work", near_duplicates=0.8, split_mb=SPLIT_MB)
    assert shard_digests(tmp_path / "out") == digests
    made = [i for i, path in enumerate(parts) if (tmp_path / "work/parts" / path.name).stat().st_mtime > 1]
    assert made == [3]


@pytest.mark.parametrize("what", ["record", "shard", "page of documents"])
def test_a_bucket_whose_record_or_files_are_damaged_is_woven_again(inputs, unbroken, tmp_path, what, monkeypatch):
    """The job stops when all buckets are finished, before the manifest is written."""
    from pipeline.stages import manifest

    work, digests = unbroken
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(manifest, "check_pairs", lambda *_: 1 / 0)
        with pytest.raises(Exception, match="division by zero"):
            run_job(*reorder(inputs, out), work_dir=tmp_path / "work", near_duplicates=0.8, split_mb=SPLIT_MB)
    pattern = {"record": ".work/weave/*.json", "shard": "train/**/*.tar", "page of documents": "documents/train/*"}[
        what
    ]
    for path in out.glob(pattern):
        path.write_bytes(path.read_bytes()[:-5]) if what != "page of documents" else path.unlink()
    run_job(*reorder(inputs, out), work_dir=tmp_path / "work", near_duplicates=0.8, split_mb=SPLIT_MB)
    assert shard_digests(out) == digests


@pytest.mark.parametrize("pattern", ["train/**/*.tar", "documents/train/*", "sketches/train/*"])
def test_a_bucket_with_changed_bytes_in_a_finished_file_is_woven_again(
    inputs, unbroken, tmp_path, pattern, monkeypatch
):
    from pipeline.stages import manifest

    work, digests = unbroken
    out, flags = tmp_path / "out", {"near_duplicates": 0.8, "split_mb": SPLIT_MB}
    with monkeypatch.context() as patch:
        patch.setattr(manifest, "check_pairs", lambda *_: 1 / 0)
        with pytest.raises(Exception, match="division by zero"):
            run_job(*reorder(inputs, out), work_dir=tmp_path / "work", **flags)
    paths = sorted(out.glob(pattern))
    assert paths
    for path in paths:
        path.write_bytes(changed_bytes(path.read_bytes()))
    run_job(*reorder(inputs, out), work_dir=tmp_path / "work", **flags)
    assert shard_digests(out) == digests and verify(str(out))[0] == []


def test_a_damaged_claim_of_an_output_is_named(inputs, tmp_path):
    out = tmp_path / "out"
    (out / ".work").mkdir(parents=True)
    for content, said in (
        (b"[" * 100_000, "job.json is not JSON"),
        (b"{}", "job.json is damaged: it has no configuration"),
    ):
        (out / ".work/job.json").write_bytes(content)
        with pytest.raises(ValueError, match=said):
            run_job(*reorder(inputs, out))


def temporary(work: Path) -> Path:
    path = work / "parts" / ".tmp-99999999-1-dead.part"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"half of a part")
    return path


def test_half_written_parts_of_a_killed_job_are_removed_by_the_next_job_with_the_work_folder(inputs, tmp_path):
    left = temporary(tmp_path / "work")
    run_job(*reorder(inputs, tmp_path / "out"), work_dir=tmp_path / "work")
    assert not left.exists()


def test_half_written_parts_stay_while_another_job_uses_the_work_folder_unless_they_are_old(inputs, tmp_path):
    left = temporary(tmp_path / "work")
    with shared_lock(tmp_path / "work/.lock", lambda: None):
        run_job(*reorder(inputs, tmp_path / "a"), work_dir=tmp_path / "work")
        assert left.exists()
        os.utime(left, (1, 1))
        run_job(*reorder(inputs, tmp_path / "b"), work_dir=tmp_path / "work")
        assert not left.exists()
    assert json.loads((tmp_path / "b/manifest.json").read_text())["counters"]["documents_in"] == len(TEXTS)
