"""The check that each worker process of another runner makes before its first work."""

import os
import pickle
import socket
import sys
from dataclasses import replace

import pytest

from bertloom import storage
from bertloom.store_errors import StoreError
from pipeline.places import Places
from pipeline.remote import worker_check as module
from pipeline.remote.worker_check import versions, worker_check

WORKER = f"the worker on {socket.gethostname()} (process {os.getpid()})"


@pytest.fixture
def places(tmp_path) -> Places:
    (tmp_path / "in.txt").write_text("text")
    return Places(str(tmp_path / "out"), str(tmp_path / "work"))


@pytest.fixture
def check(places, tmp_path):
    with worker_check(places, [str(tmp_path / "in.txt")]) as found:
        yield found


def error_of(check) -> str:
    with pytest.raises(ConnectionError) as error:
        check()
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_worker_that_shares_the_folders_answers_and_the_end_leaves_nothing(places, tmp_path):
    with worker_check(places, [str(tmp_path / "in.txt")]) as check:
        assert not check.has_answers()
        pickle.loads(pickle.dumps(check))()
        assert check.has_answers()
        for folder in check.folders:
            assert storage.names_in(folder) == {"token", f"{socket.gethostname()}-{os.getpid()}"}
    assert os.listdir(tmp_path / "out/.work") == os.listdir(tmp_path / "work") == []


def test_a_check_is_made_once_by_a_process_unless_it_fails(check):
    token = storage.join(check.folders[0], "token")
    content = storage.read(token)
    storage.remove(token)
    error_of(check)
    storage.write_whole(token, [content])
    check()
    storage.remove(token)
    check()


def test_two_jobs_and_two_starts_have_different_tokens(places, tmp_path, check):
    with worker_check(places, []) as again:
        assert again.folders == check.folders
        expected = (
            f"{WORKER} finds files of another job, or of an earlier start, in {tmp_path}/out/.work. All machines must"
        )
        assert error_of(check).startswith(expected)
        again()


def test_a_worker_that_does_not_see_a_folder_or_an_input_names_its_host_and_the_path(tmp_path, check):
    storage.remove(check.folders[1])
    assert error_of(check) == (
        f"{WORKER} does not see {tmp_path}/work: No such file or directory. All machines must have it under this path: "
        f"mount a shared file system there, or use an object store, such as s3://BUCKET"
    )
    other = replace(check, folders=(), inputs=(str(tmp_path / "none.txt"),))
    assert error_of(other).startswith(
        f"{WORKER} does not see {tmp_path}/none.txt: No such file or directory. All machines"
    )
    relative = replace(check, folders=(), inputs=("in.txt",))
    assert f"relative to the folder in which the worker runs, {os.getcwd()}: give an absolute one" in error_of(relative)


def test_a_worker_that_cannot_write_names_its_user(tmp_path, check, monkeypatch):
    def denied(path, chunks):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(storage, "write_whole", denied)
    said = f"{WORKER} cannot write in {tmp_path}/out/.work: Permission denied. Give the user {os.getuid()} there the "
    assert error_of(check).startswith(said)


def test_a_store_that_refuses_a_worker_is_no_matter_of_mounts(check, monkeypatch):
    def denied(path, start, most):
        raise PermissionError(f"{path}: access denied")

    monkeypatch.setattr(storage, "read_range", denied)
    found = error_of(replace(check, folders=("s3://bucket/out/.work/check",)))
    assert (
        "does not see s3://bucket/out/.work: s3://bucket/out/.work/check/token: access denied. The worker needs the"
        in found
    )


def test_a_worker_without_credentials_is_named(check, monkeypatch):
    def refused(path, *_):
        raise StoreError(f"{path}: no credentials for s3://bucket")

    monkeypatch.setattr(storage, "read_range", refused)
    found = error_of(replace(check, folders=("s3://bucket/out/.work/check",)))
    assert found.startswith(f"{WORKER} does not see s3://bucket/out/.work: s3://bucket/out/.work/check/token: no cred")
    assert found.endswith("The worker needs the credentials and the endpoint of this store in its environment")


@pytest.mark.parametrize("number", range(3))
def test_other_software_is_named_with_its_python(check, number):
    other = list(versions())
    name, version = other[number]
    other[number] = (name, "0.0")
    assert error_of(replace(check, versions=tuple(other))) == (
        f"{WORKER} has {name} {version} in {sys.executable}; expected {name} 0.0, as where the job was started. Install the "
        f"same there"
    )


def test_the_software_includes_the_code_that_was_changed_without_a_new_version(tmp_path, monkeypatch):
    before = versions()
    assert [name for name, _ in before] == ["Python", "apache-beam", "bertloom"]
    for name in ("bertloom", "pipeline/remote"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "bertloom/new.py").write_text("")
    monkeypatch.setattr(module, "__file__", str(tmp_path / "pipeline/remote/worker_check.py"))
    versions.cache_clear()
    changed = versions()
    versions.cache_clear()
    assert changed[:2] == before[:2] and changed[2] != before[2]
