"""The laws of the house that a machine can hold: who imports whom, how long a file is, what it is called."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("bertloom", "pipeline", "model", "jobs")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
FORBIDDEN = {
    "bertloom": {"torch", "apache_beam", "pipeline", "model", "jobs"},
    "pipeline": {"torch", "model", "jobs"},
    "model": {"apache_beam", "pipeline", "jobs"},
    "jobs": set(),
}


def name(path):
    return path.relative_to(ROOT).as_posix()


def imported(source):
    """The top names of all modules that this source imports, also inside functions."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module.partition(".")[0])
    return names


def test_imports_are_found_wherever_they_stand():
    source = "import a.b as c\ndef f():\n    from d.e import g\n    if x:\n        import h, i\nfrom . import j\n"
    assert imported(source) == {"a", "d", "h", "i"}


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_the_import_arrows_hold(path):
    package = path.relative_to(ROOT).parts[0]
    assert imported(path.read_text(encoding="utf-8")) & FORBIDDEN[package] == set()


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_a_bare_package_is_never_imported(path):
    """`from model.bert import BertModel`, never `import model`: then `model = BertModel(config)` is a fine name."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            assert not {alias.name for alias in node.names} & set(PACKAGES)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide which package is meant"
            folder = ROOT / (node.module or "").replace(".", "/")
            if folder.is_dir() and (node.module or "").partition(".")[0] in PACKAGES:
                assert all((folder / f"{alias.name}.py").exists() for alias in node.names)


@pytest.mark.parametrize("path", [*SOURCES, *TESTS], ids=name)
def test_a_file_has_at_most_450_lines(path):
    long = ("test_finetune.py", "test_restart.py")  # since ruff format; to be split
    assert len(path.read_text(encoding="utf-8").split("\n")) - 1 <= (500 if path.name in long else 450)


@pytest.mark.parametrize("path", [p for p in SOURCES if p.name == "__init__.py"], ids=name)
def test_an_init_file_holds_a_docstring_and_nothing_else(path):
    body = ast.parse(path.read_text(encoding="utf-8")).body
    assert len(body) == 1 and isinstance(body[0], ast.Expr) and isinstance(body[0].value.value, str)


@pytest.mark.parametrize("path", [p for p in SOURCES if p.name != "__init__.py"], ids=name)
def test_no_file_is_named_like_a_standard_module_and_each_has_a_docstring(path):
    assert path.stem not in sys.stdlib_module_names
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


def test_the_tests_are_no_package():
    """With an `__init__.py`, `tests/model` would hide `model` (importlib import mode)."""
    assert list((ROOT / "tests").rglob("__init__.py")) == []


def without(module, code):
    """Runs Python code in a process in which `module` cannot be imported, as if it were not installed."""
    block = (
        "import sys\n"
        "class Block:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.partition('.')[0] == {module!r}:\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Block())\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "error", "-c", block + code]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


@pytest.mark.skipif(not (ROOT / "jobs" / "pretrain.py").exists(), reason="the command is not there")
def test_pretrain_runs_where_beam_is_not_installed():
    done = without("apache_beam", "from jobs.cli import main; sys.exit(main(['pretrain', '--help']))")
    assert done.returncode == 0, done.stderr
    assert "--data" in done.stdout


@pytest.mark.parametrize("command", ["build-vocab", "preprocess"])
def test_text_becomes_shards_where_torch_is_not_installed(command):
    module = {"build-vocab": "build_vocab"}.get(command, command)
    if not (ROOT / "jobs" / f"{module}.py").exists():
        pytest.skip("the command is not there")
    done = without("torch", f"from jobs.cli import main; sys.exit(main([{command!r}, '--help']))")
    assert done.returncode == 0, done.stderr
    assert "--input" in done.stdout


def test_the_base_package_imports_without_torch_and_beam():
    modules = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in SOURCES]
    names = ", ".join(name for name in modules if name.startswith("bertloom.") and not name.endswith("__init__"))
    done = without("torch", f"sys.modules['apache_beam'] = None; import {names}")
    assert done.returncode == 0, done.stderr
