"""Errors of a disk name the file that was to be written, at each call that can fail."""

import errno
import logging
import os
import sys

import pytest

from bertloom import storage
from bertloom.whole_files import remove_path, sync, whole_folder, write_text
from jobs.support.errors import describe
from pipeline.execution import user_error
from pipeline.local.runner import quiet_workers


@pytest.fixture(params=["fsync", "replace", "rename"])
def broken(request, monkeypatch):
    """A disk on which a call fails."""

    def fail(*arguments, **options):
        names = [name for name in arguments if not isinstance(name, int)]
        raise OSError(errno.EIO, os.strerror(errno.EIO), *map(str, names[:1]))

    monkeypatch.setattr(os, request.param, fail)
    return request.param


def line_of(error: Exception) -> str:
    return describe("bertloom", error)[0]


def test_a_broken_disk_is_named_with_the_file_that_was_asked_for(tmp_path, broken):
    if broken != "rename":
        with pytest.raises(OSError) as file:
            write_text(tmp_path / "file", "text")
        assert line_of(file.value) == f"{tmp_path}/file: Input/output error"
        with pytest.raises(OSError) as chunks:
            storage.write_whole(f"{tmp_path}/file", [b"text"])
        assert line_of(chunks.value).startswith(f"{tmp_path}/file: input/output error, after 4 bytes.")
        assert line_of(chunks.value).endswith("is kept. Start the same command again")
    if broken != "replace":
        with pytest.raises(OSError) as folder, whole_folder(tmp_path / "folder") as made:
            (made / "a").write_text("text")
        assert line_of(folder.value).removeprefix(f"{tmp_path}/folder") in (
            ": Input/output error",
            "/a: Input/output error",
        )
    assert os.listdir(tmp_path) == []


def test_a_folder_that_cannot_be_synced_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda handle: (_ for _ in ()).throw(OSError(errno.EIO, os.strerror(errno.EIO))))
    with pytest.raises(OSError) as error:
        sync(tmp_path)
    assert line_of(error.value) == f"{tmp_path}: Input/output error"


def test_a_folder_that_cannot_be_removed_is_named(tmp_path, monkeypatch):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/file").touch()

    def unlink(path, **options):
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), path)

    monkeypatch.setattr(os, "unlink", unlink)
    with pytest.raises(OSError) as error:
        remove_path(f"{tmp_path}/folder")
    assert line_of(error.value).startswith(f"{tmp_path}/folder") and "Device or resource busy" in line_of(error.value)


def test_an_error_of_a_worker_in_this_process_keeps_its_file(tmp_path):
    error = user_error(OSError(errno.EIO, os.strerror(errno.EIO), f"{tmp_path}/file"))
    assert line_of(error) == f"{tmp_path}/file: Input/output error"


def test_messages_of_workers_that_cannot_be_logged_are_left_out(tmp_path, capfd):
    handler = logging.StreamHandler(sys.stderr)
    handler.emit = lambda record: handler.handleError(record)
    logger = logging.getLogger("tests.disk_errors")
    logger.addHandler(handler)
    try:
        with quiet_workers(f"{tmp_path}/log"):
            logger.warning("a message")
    finally:
        logger.removeHandler(handler)
    assert capfd.readouterr().err == "" and logging.raiseExceptions
