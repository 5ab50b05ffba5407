"""The snippets in the READMEs that read a shard without bertloom work, on the golden data set."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from bertloom.members import read_shard

ROOT = Path(__file__).parent.parent
SHARD = ROOT / "tests/golden/dataset/train/seq24/copy0/00000.tar"
MARKED = re.compile(r"<!-- runs as a test[^>]*-->\s*```python\n(.*?)```", re.S)
# webdataset leaves its files to the garbage collector
FLAGS = ["-W", "error", "-W", "ignore::ResourceWarning"]


def snippets(name):
    return MARKED.findall((ROOT / name).read_text("utf-8"))


def run(code):
    """What the snippet prints, run where nothing of bertloom can be imported."""
    alone = f"import sys; sys.path[:] = [p for p in sys.path if p]\nshard = {str(SHARD)!r}\n{code}"
    ran = subprocess.run([sys.executable, *FLAGS, "-I", "-c", alone], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@pytest.mark.parametrize("name", ["README.md", "README.zh-CN.md"])
def test_each_readme_has_a_snippet_with_pyarrow_alone_and_one_with_webdataset(name):
    found = snippets(name)
    assert len(found) == 2
    assert "tarfile" in found[0] and "webdataset" not in found[0] and "webdataset" in found[1]
    for code in found:
        imports = set(re.findall(r"^(?:import|from) (\w+)", code, flags=re.M))
        assert imports <= {"tarfile", "pyarrow", "webdataset"}


def test_the_snippet_with_pyarrow_alone_reads_every_example():
    printed = run(snippets("README.md")[0])
    table = read_shard(str(SHARD))
    assert f"{table.num_rows} examples" in printed and str(table.slice(0, 1).to_pylist()[0]["input_ids"]) in printed


def test_the_snippet_with_webdataset_reads_every_member():
    printed = run(snippets("README.md")[1])
    table = read_shard(str(SHARD))
    assert "00000-000000" in printed and f"{table.num_rows} examples" in printed and "input_ids" in printed
