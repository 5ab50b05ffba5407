import os
import time

import pytest

from bertloom.whole_files import remove_folder, sweep_temporary, whole_file, whole_folder, write_text


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
