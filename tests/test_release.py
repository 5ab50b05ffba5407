"""What a release holds: the sdist, the citation, the table of versions, the tests of SECURITY.md; the demo from a wheel.

`make release-check` runs the last one, which installs packages from an index.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path

import pytest
import yaml

from bertloom import manifest, shards
from bertloom.manifest import parse_manifest
from model.loading.order import ORDER_VERSION
from model.runs import resume, state
from model.tasks.training import FinetuneState

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
VERSIONS = (ROOT / "docs/versions.md").read_text("utf-8")
BUILD = "import setuptools.build_meta as backend, sys; backend.build_sdist(sys.argv[1])"
MADE_BY_SETUPTOOLS = {"PKG-INFO", "setup.cfg"}


def run(folder: Path, *words: object) -> subprocess.CompletedProcess[str]:
    """Run a command that does not see the checkout."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(list(map(str, words)), cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def sources() -> list[str]:
    """The files of the checkout: those that git tracks, and new ones that it does not ignore."""
    if not shutil.which("git") or not (ROOT / ".git").exists():
        pytest.skip("needs a checkout with git")
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    return [name for name in names if name and (ROOT / name).exists()]


def build_sdist(folder: Path, names: list[str]) -> Path:
    """The sdist of these files, built in a copy of them."""
    for name in names:
        (folder / "copy" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / "copy" / name)
    run(folder / "copy", sys.executable, "-c", BUILD, folder)
    (sdist,) = folder.glob("*.tar.gz")
    return sdist


def test_the_sdist_has_every_file_of_the_repository_and_nothing_else(tmp_path):
    names = sources()
    with tarfile.open(build_sdist(tmp_path, names)) as tar:
        found = {member.name.partition("/")[2] for member in tar if member.isfile()}
    made = {name for name in found if name in MADE_BY_SETUPTOOLS or name.startswith("bertloom.egg-info/")}
    assert (found - made) ^ set(names) == set()


def test_the_citation_has_what_the_format_requires_and_the_version_of_the_package():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert citation["cff-version"] == "1.2.0" and citation["type"] == "software"
    assert citation["authors"] == [{"name": "The bertloom authors"}]
    assert (citation["version"], citation["license"]) == (PROJECT["version"], PROJECT["license"])


def test_the_table_of_versions_has_the_numbers_of_the_code():
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in VERSIONS.splitlines() if line.startswith("|")]
    columns, _, latest = rows[:3]
    assert columns == ["bertloom", "shard format", "checkpoints", "order of training", "Python"]
    numbers = [PROJECT["version"], shards.FORMAT_VERSION, state.FORMAT_VERSION, ORDER_VERSION]
    assert latest[:4] == list(map(str, numbers))
    first, after = re.fullmatch(r">=3[.](\d+),<3[.](\d+)", PROJECT["requires-python"]).groups()
    assert latest[4] == f"3.{first} to 3.{int(after) - 1}"


def errors_about_versions(folder: Path) -> list[str]:
    """The error for each kind of file that another version wrote."""
    golden = json.loads((ROOT / "tests/golden/dataset/manifest.json").read_text("utf-8"))
    content = {"format": FinetuneState.FORMAT, "format_version": 2, "sha256": ""}
    (folder / "state.json").write_text(json.dumps(content))
    order = {"order_version": 2}
    calls = [
        lambda: parse_manifest(json.dumps(golden | {"format_version": 2}).encode(), "DATASET/manifest.json"),
        lambda: state.read_content(folder),
        lambda: resume.changes_between(order, {"order_version": ORDER_VERSION}, 1, []),
    ]
    found = []
    for call in calls:
        with pytest.raises(ValueError) as error:
            call()
        found.append(str(error.value).replace(str(folder), "RUN/checkpoints/step-00001000"))
    return found


def test_the_errors_about_versions_are_those_of_the_page(tmp_path):
    shown = [" ".join(text.split()) for text in re.findall(r"```\n(.*?)```", VERSIONS, re.S)]
    assert shown == errors_about_versions(tmp_path)
    assert manifest.FORMAT in VERSIONS


def test_every_line_of_the_security_page_names_tests_that_exist():
    page = (ROOT / "SECURITY.md").read_text("utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| ") and not line.startswith("| file |")]
    assert len(rows) >= 6
    for row in rows:
        named = re.findall(r"`(tests/[\w/]+\.py)`", row)
        assert named and all((ROOT / name).exists() for name in named), row


LIMITS = {
    "64 MiB": ("bertloom.json_files", "MAX_BYTES", 1 << 26),
    "256 MiB": ("bertloom.manifest", "MAX_BYTES", 1 << 28),
    "100 levels": ("bertloom.json_files", "MAX_DEPTH", 100),
    "50 MB": ("pipeline.inputs.formats.streamed", "MAX_LINE_BYTES", 50_000_000),
    "10,000 times": ("pipeline.inputs.streams", "MAX_EXPANSION", 10_000),
    "2 GiB": ("pipeline.inputs.streams", "MAX_WINDOW", 1 << 31),
    "1,000,000 entries": ("pipeline.inputs.formats.zip_archive", "MAX_ENTRIES", 1_000_000),
    "8 GB": ("pipeline.inputs.archives", "MAX_UNPACKED_BYTES", 8_000_000_000),
    "512 MiB": ("bertloom.decoding", "MAX_BYTES", 1 << 29),
    "1 GiB": ("bertloom.shards", "MAX_MEMBER_BYTES", 1 << 30),
}


@pytest.mark.parametrize("words", LIMITS)
def test_a_limit_on_the_security_page_is_that_of_the_code(words):
    module, name, value = LIMITS[words]
    assert words in (ROOT / "SECURITY.md").read_text("utf-8")
    assert getattr(__import__(module, fromlist=[name]), name) == value


@pytest.mark.versions
def test_the_demo_runs_from_a_wheel_of_the_sdist_in_an_empty_environment(tmp_path):
    sdist = build_sdist(tmp_path, sources())
    shutil.rmtree(tmp_path / "copy")
    run(tmp_path, sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", tmp_path, sdist)
    (wheel,) = tmp_path.glob("*.whl")
    run(tmp_path, sys.executable, "-m", "venv", "venv")
    python = tmp_path / "venv/bin/python"
    needed = ["-c", ROOT / "constraints.txt", f"bertloom[all] @ {wheel.as_uri()}"]
    run(tmp_path, python, "-m", "pip", "install", "-q", *needed)
    (tmp_path / "elsewhere").mkdir()
    done = run(tmp_path / "elsewhere", tmp_path / "venv/bin/bertloom", "demo", "--out", "demo")
    print(done.stdout)  # shown with -s
    assert "── Done in" in done.stdout and "BertForPreTraining.from_pretrained" in done.stdout
    assert (tmp_path / "elsewhere/demo/hugging_face/model.safetensors").exists()
    where = run(tmp_path / "elsewhere", python, "-c", "import bertloom; print(bertloom.__file__)").stdout
    assert where.startswith(str(tmp_path / "venv"))
