import os
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from bertloom.whole_files import output_file, remove_folder, sweep_temporary, whole_file, whole_folder, write_text


def test_a_file_has_its_name_once_it_is_whole(tmp_path):
    with whole_file(tmp_path / "file", "w") as file:
        file.write("größer\n")
        assert [name.startswith(".tmp-") for name in os.listdir(tmp_path)] == [True]
    assert os.listdir(tmp_path) == ["file"] and (tmp_path / "file").read_bytes() == "größer\n".encode()
    with pytest.raises(KeyError), whole_file(str(tmp_path / "file")) as file:
        file.write(b"half")
        raise KeyError
    assert os.listdir(tmp_path) == ["file"] and (tmp_path / "file").read_bytes() == "größer\n".encode()
    write_text(tmp_path / "file", "new")
    assert (tmp_path / "file").read_text() == "new"


def test_a_file_of_the_working_folder_needs_no_folder_in_its_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_text("file", "x")
    with whole_folder("folder") as folder:
        write_text(folder / "file", "x")
    assert sorted(os.listdir()) == ["file", "folder"]


def test_a_folder_has_its_name_once_it_is_whole(tmp_path):
    out = tmp_path / "made" / "out"
    with pytest.raises(KeyError), whole_folder(out) as folder:
        (folder / "file").write_text("half")
        raise KeyError
    assert os.listdir(tmp_path / "made") == []
    out.mkdir()
    with whole_folder(out) as folder:
        (folder / "sub").mkdir()
        (folder / "sub/file").write_text("first")
        assert os.listdir(out) == []
    with pytest.raises(ValueError, match="out holds sub already: give a new or empty folder"), whole_folder(out):
        pass
    (tmp_path / "file").write_text("x")
    refused = pytest.raises(ValueError, match="file is a file: --out must be a new or empty folder")
    with refused, whole_folder(tmp_path / "file"):
        pass
    with whole_folder(out, replace=True) as folder:
        (folder / "other").write_text("second")
        assert os.listdir(out) == ["sub"]
    assert os.listdir(out) == ["other"] and os.listdir(tmp_path / "made") == ["out"]
    remove_folder(out)
    remove_folder(out)
    assert os.listdir(tmp_path / "made") == []


def test_what_killed_writers_left_is_swept_and_nothing_else(tmp_path):
    (tmp_path / "sub/.tmp-1-2-folder/deep").mkdir(parents=True)
    (tmp_path / "sub/.tmp-1-2-folder/.tmp-1-2-file").write_text("x")
    (tmp_path / "sub/.tmp-1-2-old").write_text("x")
    (tmp_path / "sub/file").write_text("x")
    os.utime(tmp_path / "sub/.tmp-1-2-old", (time.time() - 100,) * 2)
    sweep_temporary(tmp_path, 50)
    assert sorted(os.listdir(tmp_path / "sub")) == [".tmp-1-2-folder", "file"]
    sweep_temporary(tmp_path)
    assert os.listdir(tmp_path / "sub") == ["file"]
    sweep_temporary(tmp_path / "nowhere")


def test_the_next_writer_of_an_output_removes_what_killed_ones_left_of_it_and_nothing_else(tmp_path):
    ended = subprocess.Popen(["true"])
    ended.wait()
    theirs = [f".tmp-{ended.pid}-1-other", f".tmp-{os.getppid()}-1-out", ".tmp-x-1-out", "file"]
    for name in [f".tmp-{ended.pid}-7-out", f".tmp-{ended.pid}-7-text", *theirs]:
        (tmp_path / name).mkdir()
        (tmp_path / name / f".tmp-{ended.pid}-7-part").write_text("x")
    with whole_folder(tmp_path / "out") as folder:
        (folder / "a").write_text("a")
    with output_file(tmp_path / "text", "w") as file:
        file.write("a")
    assert sorted(os.listdir(tmp_path)) == sorted([*theirs, "out", "text"])


def test_the_time_of_a_file_may_be_in_the_future(tmp_path):
    for name, seconds in ((".tmp-1-2-far", 1e9), (".tmp-1-2-near", 10)):
        (tmp_path / name).write_text("x")
        os.utime(tmp_path / name, (time.time() + seconds,) * 2)
    sweep_temporary(tmp_path, 50)
    assert os.listdir(tmp_path) == [".tmp-1-2-near"]
    sweep_temporary(tmp_path)
    assert os.listdir(tmp_path) == []


def test_an_output_that_is_a_device_or_a_pipe_is_written_through(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor() as pool:
        content = pool.submit(pipe.read_text)
        with output_file(pipe, "w") as file:
            file.write("größer\n")
        assert content.result(timeout=60) == "größer\n"
    assert pipe.is_fifo() and os.listdir(tmp_path) == ["pipe"]
    main, terminal = os.openpty()
    try:
        with output_file(os.ttyname(terminal)) as file:
            file.write(b"shown")
        assert os.read(main, 5) == b"shown" and os.path.exists(os.ttyname(terminal))
    finally:
        os.close(main)
        os.close(terminal)


@pytest.mark.parametrize("exists", [True, False])
def test_an_output_that_is_a_link_is_followed(tmp_path, exists):
    (tmp_path / "folder").mkdir()
    target = tmp_path / "folder/real"
    if exists:
        target.write_text("old")
    (tmp_path / "link").symlink_to("folder/real")
    (tmp_path / "second").symlink_to(tmp_path / "link")
    with output_file(tmp_path / "second", "w") as file:
        file.write("new")
        assert target.exists() == exists, "it is whole or absent"
    assert target.read_text() == "new" and not target.is_symlink()
    assert (tmp_path / "link").is_symlink() and (tmp_path / "second").is_symlink()
    assert os.listdir(tmp_path / "folder") == ["real"]


def test_an_open_file_of_the_process_keeps_what_it_holds(tmp_path):
    with open(tmp_path / "log", "w") as log:
        log.write("before\n")
        log.flush()
        (tmp_path / "stdout").symlink_to(f"/proc/self/fd/{log.fileno()}")
        with output_file(tmp_path / "stdout", "w") as file:
            file.write("after\n")
    assert (tmp_path / "log").read_text() == "before\nafter\n"


def test_an_output_that_cannot_be_written_is_refused_before_the_work(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "nowhere").symlink_to("missing/file")
    for name, message in (
        (".", "is a folder: give the name of a file as --out"),
        ("missing/file", "missing/file: the folder .*/missing does not exist: create it first, or give another --out"),
        ("nowhere", "nowhere: the folder .*/missing does not exist: create it first, or give another --out"),
        ("loop", "loop is a link that leads to itself"),
    ):
        with pytest.raises(ValueError, match=message), output_file(tmp_path / name):
            raise AssertionError("the block is not entered")
    assert sorted(os.listdir(tmp_path)) == ["loop", "nowhere"]
