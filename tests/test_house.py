"""House rules that a machine can check: who imports whom, how long files and functions are, what files are called."""

import ast
import os
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("bertloom", "pipeline", "model", "jobs")
ENTRY = ROOT / "bertloom_entry.py"  # a module of its own, which finds the packages
SOURCES = [ENTRY, *sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))]
TESTS = sorted((ROOT / "tests").rglob("*.py"))
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in SOURCES}
PUBLIC = ROOT / "bertloom/__init__.py"  # offers the public names of all packages, and imports them only when asked

FORBIDDEN = {
    "bertloom": {"torch", "apache_beam", "pipeline", "model", "jobs"},
    "pipeline": {"torch", "model", "jobs"},
    "model": {"apache_beam", "pipeline", "jobs"},
    "jobs": set(),
}
# The files and folders of each half, from the bottom up: each imports only what comes before it.
ORDER = {
    "pipeline": "places options arrow_streams text inputs vocabulary tokenizer_models tokenizer_vocabulary vocabulary_files "
    "tokens part_sources examples stages checks preprocess storage_flags local remote execution planning",
    "model": "tensor_files shape bert_config optimizers distributed normalization gradient_sum packing attention devices "
    "batch encoder encoders bert optimizer schedule losses heads compiling loading step runs hub tasks inference",
}


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


MODULES = {module(path): path for path in SOURCES}


def imports(tree: ast.AST) -> set[str]:
    """The dotted names of everything imported, also inside functions: a.b for `import a.b` and `from a import b`."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{'.' * node.level}{node.module or ''}.{alias.name}" for alias in node.names}
    return names


def imported_modules(path: Path) -> set[str]:
    """Our own modules that a file imports."""
    names = {part for full in imports(TREES[path]) for part in (full, full.rpartition(".")[0])}
    return (names & MODULES.keys()) - {module(path)}


def place(module_name: str) -> str:
    """The file or folder right inside a package, as `ORDER` names it."""
    return module_name.split(".")[1]


def test_imports_are_found_wherever_they_are():
    source = "import a.b as c\ndef f():\n    from d.e import g\n    if x:\n        import h, i\nfrom . import j\n"
    assert imports(ast.parse(source)) == {"a.b", "d.e.g", "h", "i", "..j"}


def test_no_package_imports_what_it_must_not():
    faults = {
        (name(path), full)
        for path in SOURCES
        for full in imports(TREES[path])
        if path not in (PUBLIC, ENTRY) and full.partition(".")[0] in FORBIDDEN[path.relative_to(ROOT).parts[0]]
    }
    assert faults == set()


@pytest.mark.parametrize("package", ORDER)
def test_imports_inside_a_package_point_downward(package):
    order = ORDER[package].split()
    found = {
        (importer, imported)
        for importer, path in MODULES.items()
        for imported in imported_modules(path)
        if importer.startswith(f"{package}.") and imported.startswith(f"{package}.")
        if {place(importer), place(imported)} <= set(order)
        if order.index(place(importer)) < order.index(place(imported))
    }
    assert found == set()


def test_no_modules_import_each_other_in_a_circle():
    list(TopologicalSorter({name: imported_modules(path) for name, path in MODULES.items()}).static_order())


def test_modules_are_imported_by_absolute_names_and_never_a_bare_package():
    """`from model.heads import PretrainingModel`, never `import model`: `model` is a name for a variable."""
    folders = {name(path.parent).replace("/", ".") for path in SOURCES}
    faults = []
    for path, tree in TREES.items():
        for full in imports(tree):
            parent, _, last = full.rpartition(".")
            if full.startswith(".") or full in folders or (parent in folders and f"{parent}.{last}" not in MODULES):
                faults.append((name(path), full))
    assert faults == []


def test_a_file_has_at_most_450_lines():
    lengths = {name(path): path.read_text(encoding="utf-8").count("\n") for path in [*SOURCES, *TESTS]}
    assert {path: lines for path, lines in lengths.items() if lines > 450} == {}


def test_a_function_has_at_most_85_lines():
    lengths = {
        f"{name(path)} {node.name}": (node.end_lineno or 0) - node.lineno + 1
        for path, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert {key: lines for key, lines in lengths.items() if lines > 85} == {}


def test_an_init_file_holds_only_a_docstring():
    inits = [path for path in SOURCES if path.name == "__init__.py" and path != PUBLIC]
    assert [name(path) for path in inits if len(TREES[path].body) != 1 or not ast.get_docstring(TREES[path])] == []


def test_each_file_has_a_docstring():
    assert [name(path) for path, tree in TREES.items() if not ast.get_docstring(tree)] == []


def test_a_file_is_named_after_what_it_holds():
    """Not like a module of the standard library, and not `utils`."""
    bad = sys.stdlib_module_names | {"utils", "util", "helpers", "common", "misc"}
    assert [name(path) for path in SOURCES if path.stem in bad - {"__init__"}] == []


def test_the_tests_are_not_a_package():
    """With an `__init__.py`, `tests/model` would hide `model` (importlib import mode)."""
    assert list((ROOT / "tests").rglob("__init__.py")) == []


def test_docs_import_only_the_public_package():
    pattern = re.compile(r"^(?:>>> |\.\.\. )?\s*(?:from|import) +((?:bertloom|pipeline|model|jobs)\b[\w.]*)", re.M)
    shown = {(name(page), found) for page in PAGES for found in pattern.findall(page.read_text(encoding="utf-8"))}
    assert {(page, found) for page, found in shown if found != "bertloom"} == set()


def run_without(blocked: str, code: str) -> subprocess.CompletedProcess[str]:
    """Run Python code in a process in which the module `blocked` cannot be imported, as if it were not installed."""
    block = (
        "import sys\n"
        "class Block:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.partition('.')[0] == {blocked!r}:\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Block())\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "error", "-c", block + code]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("blocked", "command", "flag"),
    [
        ("apache_beam", "pretrain", "--data"),
        ("torch", "build-vocab", "--input"),
        ("torch", "preprocess", "--input"),
        ("torch", "pretrain", "--model.encoder"),
        ("torch", "finetune", "--task"),
    ],
)
def test_each_half_runs_where_the_library_of_the_other_is_not_installed(blocked, command, flag):
    done = run_without(blocked, f"from jobs.cli import main; sys.exit(main([{command!r}, '--help']))")
    assert done.returncode == 0, done.stderr
    assert flag in done.stdout


def test_the_base_package_imports_without_torch_and_beam():
    names = ", ".join(name for name in MODULES if name.startswith("bertloom.") and not name.endswith("__init__"))
    done = run_without("torch", f"sys.modules['apache_beam'] = None; import {names}")
    assert done.returncode == 0, done.stderr
