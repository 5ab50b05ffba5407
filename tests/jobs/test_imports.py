"""`--help` and errors about flags import nothing heavy, and a small job imports only what it uses."""

import subprocess
import sys

import pytest

from jobs.cli import COMMANDS
from tests.jobs.corpus import documents, write, write_vocabulary

HEAVY = {
    *("torch", "transformers", "sklearn", "scipy", "pandas", "matplotlib", "jinja2"),
    *("apache_beam", "boto3", "pymongo", "google.cloud", "httplib2", "pyarrow", "tokenizers"),
}


def run_and_list_imports(*words: object) -> tuple[set[str], str]:
    """Return (the heavy modules that a command imported, what it printed on standard error)."""
    code = (
        "import sys\nfrom jobs.cli import main\ntry:\n    main(sys.argv[1:])\nexcept SystemExit:\n    pass\n"
        "print(*sys.modules, file=sys.stderr)"
    )
    command = [sys.executable, "-c", code, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    printed, _, modules = done.stderr.rstrip("\n").rpartition("\n")
    return HEAVY & {*modules.split()}, printed


def heavy_imports_of(*words: object) -> set[str]:
    return run_and_list_imports(*words)[0]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_imports_nothing_heavy(command):
    assert heavy_imports_of(command, "--help") == set()


@pytest.mark.parametrize("command", COMMANDS)
def test_an_unknown_flag_is_refused_before_anything_heavy_is_imported(command):
    assert heavy_imports_of(command, "--no-such-flag", "1") == set()


@pytest.fixture(scope="module")
def small_job(tmp_path_factory):
    """Return (the heavy modules that a small job imported, its data set)."""
    folder = tmp_path_factory.mktemp("small")
    write(folder / "in.txt", documents(3))
    write_vocabulary(folder / "vocab.txt")
    flags = ("--input", folder / "in.txt", "--vocab", folder / "vocab.txt", "--out", folder / "out")
    return heavy_imports_of("preprocess", *flags, "--max-seq-length", 32, "--validation-fraction", 0), folder / "out"


def test_a_small_job_imports_beam_without_its_connectors_and_no_drawing_library(small_job):
    assert small_job[0] == {"apache_beam", "jinja2", "pyarrow", "tokenizers"}


@pytest.mark.parametrize("command", ["verify", "inspect", "report", "explain", "export-data"])
def test_commands_that_read_a_data_set_import_no_beam_and_print_no_warning(small_job, tmp_path, command):
    more = {"explain": ["0"], "export-data": ["--out", tmp_path / "out.parquet"]}
    imported, printed = run_and_list_imports(command, small_job[1], *more.get(command, []))
    assert "apache_beam" not in imported and printed == ""
