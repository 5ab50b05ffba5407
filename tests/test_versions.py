"""The shards of the sample have the same digest on each Python found here, with the pinned and with the oldest packages; and
an installation with an extra runs what the extra is for.

`make test-versions` runs this. It installs packages from an index.
"""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SAMPLE = ROOT / "jobs" / "sample"
COMMAND = (
    "import sys; sys.path.insert(0, {root!r}); from jobs.cli import main\n"
    "words = ['--input', 'en.jsonl', 'zh.txt', '--num-workers', '2']\n"
    "main(['build-vocab', *words, '--vocab-size', '8000', '--out', 'vocab.txt'])\n"
    "main(['preprocess', *words, '--vocab', 'vocab.txt', '--out', 'books', '--max-seq-length', '128',\n"
    "      '--dupe-factor', '2', '--validation-fraction', '0.05'])\n"
)
UV = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")


def pythons() -> dict[str, str]:
    """The paths of the Pythons on PATH and of pyenv, by minor version."""
    found = {}
    for minor in range(11, 15):
        own = sorted(Path.home().glob(f".pyenv/versions/3.{minor}.*/bin/python"))
        if path := shutil.which(f"python3.{minor}") or (own and str(own[-1])):
            found[f"3.{minor}"] = path
    return found


@pytest.mark.versions
@pytest.mark.parametrize("packages", ["pinned", "oldest"])
@pytest.mark.parametrize("version", pythons())
def test_the_digest_of_the_sample_is_that_of_the_readme(version, packages, tmp_path):
    assert UV, "uv is not installed: run this with `make test-versions`"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    needed = project["dependencies"] + project["optional-dependencies"]["pipeline"]
    choice = ["-c", str(ROOT / "constraints.txt")]
    if packages == "oldest":
        choice = ["--resolution", "lowest-direct", "--only-binary", ":all:"]
    python = str(tmp_path / "venv/bin/python")
    subprocess.run([UV, "venv", "-q", "-p", pythons()[version], tmp_path / "venv"], check=True)
    subprocess.run([UV, "pip", "install", "-q", "-p", python, *choice, *needed], check=True)
    for name in ("en.jsonl", "zh.txt"):
        shutil.copy(SAMPLE / name, tmp_path)
    ran = subprocess.run(
        [python, "-c", COMMAND.format(root=str(ROOT))], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    (digest,) = re.findall(r"digest of all shards ([0-9a-f]{64})", ran.stdout)
    assert digest in (ROOT / "README.md").read_text("utf-8")


def outside(folder: Path, *words: object) -> subprocess.CompletedProcess[str]:
    """Run a command that does not see the checkout."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(list(map(str, words)), cwd=folder, env=environment, capture_output=True, text=True)


def built(folder: Path) -> Path:
    """The wheel of this checkout, built in a copy of it."""
    for name in ("bertloom", "jobs", "model", "pipeline"):
        shutil.copytree(ROOT / name, folder / "copy" / name)
    for name in ("bertloom_entry.py", "LICENSE", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, folder / "copy")
    done = outside(folder, sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, folder / "copy")
    assert done.returncode == 0, done.stderr
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.mark.versions
@pytest.mark.parametrize(
    ("extras", "words"),
    [
        ("", ["verify", "GOLDEN"]),
        ("[pipeline]", ["build-vocab", "--input", "zh.txt", "--vocab-size", 8000, "--out", "vocab.txt"]),
        ("[train]", ["pretrain", "tiny", "--data", "GOLDEN", "--out", "run", "--num-steps", 2, "--device", "cpu"]),
    ],
)
def test_an_installation_runs_the_commands_of_its_extra_and_names_the_extra_of_others(extras, words, tmp_path):
    bin_ = tmp_path / "venv/bin"
    outside(tmp_path, sys.executable, "-m", "venv", "venv")
    needed = ["-c", ROOT / "constraints.txt", f"bertloom{extras} @ {built(tmp_path).as_uri()}"]
    done = outside(tmp_path, bin_ / "python", "-m", "pip", "install", "-q", *needed)
    assert done.returncode == 0, done.stderr
    shutil.copy(SAMPLE / "zh.txt", tmp_path)
    words = [ROOT / "tests/golden/dataset" if word == "GOLDEN" else word for word in words]
    done = outside(tmp_path, bin_ / "bertloom", *words)
    assert done.returncode == 0, done.stderr
    for command, other in [("build-vocab", "[pipeline]"), ("pretrain", "[train]")]:
        done = outside(tmp_path, bin_ / "bertloom", command)
        said = f"bertloom {command} needs the extra \"{other.strip('[]')}\": pip install 'bertloom{other}'\n"
        assert done.returncode == 2 and done.stderr.endswith(said) is (other != extras), done.stderr
