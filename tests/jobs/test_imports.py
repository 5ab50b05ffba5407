"""`--help` and errors about flags import nothing heavy, and a small job imports only what it uses."""

import subprocess
import sys

import pytest

from jobs.cli import COMMANDS
from tests.jobs.corpus import documents, write, write_vocabulary

HEAVY = ["torch", "apache_beam", "matplotlib", "scipy", "sklearn", "transformers", "pandas"]


def heavy_imports_of(*words: object) -> set[str]:
    code = (
        "import sys\nfrom jobs.cli import main\ntry:\n    main(sys.argv[1:])\nexcept SystemExit:\n    pass\n"
        f"print(*({{*{HEAVY + ['boto3', 'pymongo', 'google.cloud', 'jinja2']!r}}} & {{*sys.modules}}), file=sys.stderr)"
    )
    command = [sys.executable, "-c", code, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return set(done.stderr.splitlines()[-1].split())


@pytest.mark.parametrize("command", COMMANDS)
def test_help_imports_nothing_heavy(command):
    assert heavy_imports_of(command, "--help") == set()


@pytest.mark.parametrize("command", COMMANDS)
def test_an_unknown_flag_is_refused_before_torch_is_imported(command):
    assert "torch" not in heavy_imports_of(command, "--no-such-flag", "1")


def test_a_small_job_imports_beam_without_its_connectors_and_no_drawing_library(tmp_path):
    write(tmp_path / "in.txt", documents(3))
    write_vocabulary(tmp_path / "vocab.txt")
    flags = ("--input", tmp_path / "in.txt", "--vocab", tmp_path / "vocab.txt", "--out", tmp_path / "out")
    found = heavy_imports_of("preprocess", *flags, "--max-seq-length", 32, "--validation-fraction", 0)
    assert found == {"apache_beam", "jinja2"}
