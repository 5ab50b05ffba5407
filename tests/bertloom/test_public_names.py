import ast
import importlib
import os
import subprocess
import sys
from pathlib import Path

import bertloom

INIT = Path(bertloom.__file__)


def test_every_public_name_is_there_and_listed():
    for name in bertloom.__all__:
        assert getattr(bertloom, name).__name__ == name
        assert name in dir(bertloom)
    assert bertloom.__all__ == sorted(bertloom.__all__)


def test_types_come_from_the_modules_that_the_names_are_loaded_from():
    block = next(node for node in ast.parse(INIT.read_text()).body if isinstance(node, ast.If))
    typed = {alias.name: node.module for node in block.body for alias in node.names}
    assert typed == bertloom._MODULES and set(typed) == set(bertloom.__all__)
    assert all(hasattr(importlib.import_module(module), name) for name, module in typed.items())
    assert (INIT.parent / "py.typed").exists()


def test_importing_the_package_loads_nothing_heavy_and_sets_how_threads_wait():
    code = (
        "import bertloom, os, sys\n"
        "heavy = {'torch', 'apache_beam', 'numpy', 'pyarrow', 'model', 'pipeline', 'jobs'}\n"
        "print(sorted(heavy & set(sys.modules)), os.environ['OMP_WAIT_POLICY'])\n"
        "try:\n"
        "    bertloom.nothing\n"
        "except AttributeError as error:\n"
        "    print(error)\n"
    )
    environment = {key: value for key, value in os.environ.items() if key != "OMP_WAIT_POLICY"}
    ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert ran.stdout.startswith("[] passive\nmodule 'bertloom' has no attribute 'nothing'; its names are DataSet, ")
