"""The command finds its own packages, whatever is on the path; the library names the file that hides one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bertloom.processes import command_of
from bertloom_entry import NAMES
from tests.jobs.corpus import documents, write, write_vocabulary

ROOT = Path(__file__).parent.parent
# As pip writes it.
SCRIPT = "import sys\nfrom bertloom_entry import main\nif __name__ == '__main__':\n    sys.exit(main())\n"


@pytest.fixture
def mine(tmp_path) -> Path:
    """A folder with a user's own files, each with the name of one of our packages."""
    folder = tmp_path / "mine"
    folder.mkdir()
    for name in set(NAMES) - {"bertloom_entry"}:
        (folder / f"{name}.py").write_text("raise SystemExit('a file of the user')\n")
    return folder


def run(words: list[object], folder: Path, path: list[object]) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, path))}
    return subprocess.run(list(map(str, words)), cwd=folder, env=environment, capture_output=True, text=True)


def test_files_of_the_user_with_the_names_of_our_packages_hide_nothing_from_the_command_and_its_workers(mine, tmp_path):
    script = tmp_path / "bertloom"
    script.write_text(SCRIPT)
    text, vocabulary = write(tmp_path / "a.txt", documents(20)), write_vocabulary(tmp_path / "vocab.txt")
    words = ["preprocess", "--input", text, "--vocab", vocabulary, "--out", tmp_path / "out", "--num-workers", 2]
    ran = run([sys.executable, script, *words, "--validation-fraction", 0], mine, ["", mine, ROOT])
    assert ran.returncode == 0, ran.stderr
    assert "complete" in ran.stdout


def test_files_of_the_user_hide_nothing_from_the_processes_that_the_command_starts(mine):
    ran = run(command_of("jobs.cli", "plot", "--help"), mine, ["", mine, ROOT])
    assert ran.returncode == 0 and "usage: bertloom plot" in ran.stdout, ran.stderr


def test_the_library_names_the_file_that_hides_one_of_its_packages(mine):
    (mine / "bertloom.py").unlink()
    ran = run([sys.executable, "-c", "import bertloom; bertloom.load('x')"], mine, ["", ROOT])
    hidden = ROOT / "model/__init__.py"
    said = f"ImportError: {mine / 'model.py'} hides {hidden}, which bertloom needs: rename it or move it"
    assert ran.stderr.splitlines()[-1] == said
