"""Folders that one command owns."""

import pytest

from jobs.demo import DemoConfig, demo
from jobs.support.outputs import own_folder


def test_a_folder_is_new_empty_or_of_the_same_command(tmp_path):
    (tmp_path / "empty").mkdir()
    for name in ("new/deep", "empty"):
        own_folder(tmp_path / name, "demo")
        (tmp_path / name / "file").write_text("ours")
        own_folder(tmp_path / name, "demo")
        with pytest.raises(ValueError, match="holds .bertloom, file, which `bertloom bench-tasks` did not write"):
            own_folder(tmp_path / name, "bench-tasks")
    with pytest.raises(ValueError, match="is a file: expected a new or empty folder"):
        own_folder(tmp_path / "empty/file", "demo")


@pytest.mark.parametrize("name", ["vocab.txt", "dataset/notes.md", "run/metrics.jsonl"])
def test_the_demo_deletes_nothing_that_no_demo_wrote(tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine")
    with pytest.raises(ValueError, match=r"which `bertloom demo` did not write: give a new or empty folder"):
        demo(DemoConfig(out=tmp_path))
    assert (tmp_path / name).read_text() == "mine"
