"""Each command runs with the packages of its own extra, and without them it names the extra to install."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import distribution, packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from bertloom import __all__ as public_names
from bertloom.extras import EXTRA_OF, EXTRAS, needs
from jobs.cli import NEEDS, main
from tests.jobs.corpus import documents, write

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
DISTRIBUTIONS = packages_distributions()
OURS = {"bertloom", "bertloom_entry", "jobs", "model", "pipeline"}
OTHER_WAYS = {"wandb", "transformers"}
"""Modules that no extra installs: a sink of metrics that users install themselves, and a name in text for type checkers."""


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def requirements(extra: str = "") -> list[Requirement]:
    """What bertloom asks for with an extra, or, without one, always."""
    lines = PROJECT["optional-dependencies"][extra] if extra else PROJECT["dependencies"]
    return [Requirement(line) for line in lines]


def installed_with(*extras: str) -> set[str]:
    """The modules of all packages that an installation with these extras brings."""
    todo = [*requirements(), *(needed for extra in extras for needed in requirements(extra))]
    found: set[tuple[str, str]] = set()
    while todo:
        needed = todo.pop()
        name = canonical(needed.name)
        if name == "bertloom":
            todo += [one for extra in needed.extras for one in requirements(extra)]
            continue
        for extra in {"", *needed.extras} - {known for of, known in found if of == name}:
            found.add((name, extra))
            for line in distribution(name).requires or []:
                one = Requirement(line)
                if one.marker is None or one.marker.evaluate({"extra": extra}):
                    todo.append(one)
    names = {name for name, _ in found}
    return {module for module, owners in DISTRIBUTIONS.items() if names & {*map(canonical, owners)}}


def imported_by(folder: str) -> dict[str, str]:
    """The third-party modules that the code of a folder names in an import, with one of the files."""
    found = {}
    for path in sorted((ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module and not node.level else []
            tops = {name.partition(".")[0] for name in names} - OURS - sys.stdlib_module_names
            found |= dict.fromkeys(tops, path.relative_to(ROOT).as_posix())
    return found


# ---- what pyproject.toml says


def test_each_module_of_the_table_is_installed_by_its_extra():
    for extra, modules in EXTRAS.items():
        named = {canonical(needed.name) for needed in requirements(extra)}
        for module in modules:
            owners = {*map(canonical, DISTRIBUTIONS.get(module, [module]))}
            assert owners & named, f"{module} is not a package of the extra {extra}"


def test_each_package_that_bertloom_asks_for_is_imported_by_its_code():
    imported = {name for folder in OURS - {"bertloom_entry"} for name in imported_by(folder)}
    through = {"s3fs", "gcsfs", "aiohttp", "google-auth-httplib2", "onnx"}  # fsspec's clients, Beam, torch's exporter
    for extra in ["", *EXTRAS]:
        for needed in requirements(extra):
            modules = {module for module, owners in DISTRIBUTIONS.items() if needed.name in map(canonical, owners)}
            assert modules & imported or needed.name in through, f"nothing imports {needed.name}"


@pytest.mark.parametrize(
    ("folder", "extras"),
    [
        ("bertloom", ["s3", "gcs", "http"]),
        ("pipeline", ["pipeline", "chinese", "dask", "ftfy", "icu", "langid", "markup", "unigram", "web"]),
        ("model", ["train", "onnx"]),
        ("jobs", ["pipeline", "train", "browse"]),
    ],
)
def test_the_code_imports_only_packages_that_it_asks_for(folder, extras):
    lacking = set(imported_by(folder)) - installed_with(*extras) - OTHER_WAYS
    assert {name: imported_by(folder)[name] for name in lacking} == {}


def test_the_base_asks_for_neither_torch_nor_beam():
    assert not {"torch", "apache_beam", "sklearn", "scipy", "matplotlib"} & installed_with()
    assert "torch" not in installed_with("pipeline") and "apache_beam" not in installed_with("train")


def test_all_is_what_both_halves_and_the_browser_need_and_is_part_of_test():
    assert installed_with("all") == installed_with("browse", "pipeline", "train") <= installed_with("test")


def test_the_pages_name_only_extras_that_exist():
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("docker/*"), *ROOT.glob("deploy/**/*.*")]
    shown = {
        extra
        for page in pages
        for found in re.findall(r"(?:bertloom|(?<=['`\"])\.)\[([a-z0-9,]+)\]", page.read_text("utf-8"))
        for extra in found.split(",")
    }
    assert shown and shown <= set(PROJECT["optional-dependencies"])


# ---- commands with their own packages


def run_without(blocked: set[str], code: str, *words: object) -> subprocess.CompletedProcess[str]:
    """Run Python code in a process in which these modules cannot be imported, as if they were not installed."""
    hide = (
        "import sys\n"
        "class Hiding:\n"
        "    def __init__(self, finder): self.finder = finder\n"
        "    def __getattr__(self, name): return getattr(self.finder, name)\n"
        "    def find_spec(self, name, *more):\n"
        f"        return None if name.partition('.')[0] in {blocked!r} else self.finder.find_spec(name, *more)\n"
        "sys.meta_path[:] = map(Hiding, sys.meta_path)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-c", hide + code, *map(str, words)]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def run_commands(commands: str, extras: list[str], **places: object) -> str:
    """Run commands, one a line, in one process that has only the packages of these extras. Return what they print."""
    lines = [[word.format(**places) for word in line.split()] for line in commands.strip().splitlines()]
    code = (
        "from jobs.cli import main\n"
        f"for words in {lines!r}:\n"
        "    status = main(words)\n"
        "    if status:\n"
        "        sys.exit(f'{words[0]}: status {status}')\n"
    )
    foreign = {module for module in DISTRIBUTIONS if module not in installed_with(*extras)} - OURS
    done = run_without(foreign, code)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A folder with a text, a vocabulary and a data set, made with the packages of the extra `pipeline`."""
    folder = tmp_path_factory.mktemp("made")
    write(folder / "in.txt", documents(40))
    commands = """
        build-vocab --input {folder}/in.txt --vocab-size 300 --min-frequency 1 --out {folder}/vocab.txt
        preprocess --input {folder}/in.txt --vocab {folder}/vocab.txt --out {folder}/set --max-seq-length 32
    """
    run_commands(commands, ["pipeline"], folder=folder)
    return folder


def test_the_base_reads_and_inspects_data(made, tmp_path):
    commands = """
        corpora
        preview {folder}/in.txt --html {tmp}/preview.html
        inspect {folder}/set --examples 1
        explain {folder}/set 0
        report {folder}/set --gates.no-fail
        verify {folder}/set
        export-data {folder}/set --with-text --out {tmp}/examples.parquet
    """
    assert "0 faults" in run_commands(commands, [], folder=made, tmp=tmp_path)


@pytest.mark.slow
def test_training_and_what_follows_run_with_the_packages_of_train(made, tmp_path):
    rows = "".join(
        f'{{"text": "{"the house" if number % 2 else "a river"}", "label": {number % 2}}}\n' for number in range(8)
    )
    (tmp_path / "rows.jsonl").write_text(rows)
    (tmp_path / "tasks.toml").write_text(
        'num_epochs = 1\nseeds = [1]\n[rows]\ntask = "classify"\ntrain = "rows.jsonl"\ndev = "rows.jsonl"\n'
    )
    commands = """
        pretrain tiny --data {folder}/set --out {tmp}/run --num-steps 2 --device cpu
        verify {tmp}/run
        evaluate --model {tmp}/run --data {folder}/set --split train --device cpu
        plot {tmp}/run --out {tmp}/curves.png
        export --checkpoint {tmp}/run --out {tmp}/model
        import --hf {tmp}/model --out {tmp}/imported
        score --model {tmp}/model --input {tmp}/rows.jsonl --out {tmp}/scores.jsonl --device cpu
        embed --model {tmp}/model --input {tmp}/rows.jsonl --out {tmp}/vectors.parquet --device cpu
        finetune --task classify --model {tmp}/run --train {tmp}/rows.jsonl --dev {tmp}/rows.jsonl --out {tmp}/tuned
        predict --model {tmp}/tuned --input {tmp}/rows.jsonl --out {tmp}/predictions.jsonl --device cpu
        bench-tasks {tmp}/tasks.toml --model run={tmp}/run --out {tmp}/bench
        compare {tmp}/run {tmp}/tuned --text {tmp}/rows.jsonl --tasks {tmp}/tasks.toml --out {tmp}/compared
    """
    run_commands(commands, ["train"], folder=made, tmp=tmp_path)


# ---- commands without the packages of their extra


def line_about(extras: str) -> str:
    """The end of the line, in a checkout."""
    named = " and ".join(f'"{extra}"' for extra in extras.split(","))
    return f"needs the extra{'s' * (',' in extras)} {named}: pip install -e '.[{extras}]'"


@pytest.mark.parametrize("command", NEEDS)
def test_a_command_without_its_extra_names_it_in_one_line(command, monkeypatch, capsys):
    monkeypatch.setattr("bertloom.extras.find_spec", lambda module: None)
    extras = ",".join(dict.fromkeys(EXTRA_OF[module] for module in NEEDS[command]))
    assert main([command, "--num-workers", "2"]) == 2  # which would start worker processes
    assert capsys.readouterr() == ("", f"bertloom {command}: error: bertloom {command} {line_about(extras)}\n")
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0


@pytest.mark.parametrize(("missing", "extras"), [("torch", "train"), ("apache_beam", "pipeline")])
def test_of_several_extras_those_are_named_that_are_missing(missing, extras, monkeypatch, capsys):
    monkeypatch.setattr("bertloom.extras.find_spec", lambda module: module != missing)
    assert main(["demo"]) == 2
    assert capsys.readouterr().err.endswith(f"bertloom demo {line_about(extras)}\n")


def test_a_package_that_a_command_misses_on_its_way_is_named_by_its_extra(monkeypatch, capsys):
    def miss(argv: object) -> None:
        raise ModuleNotFoundError("No module named 'scipy.special'", name="scipy.special")

    monkeypatch.setattr("jobs.inspect_shards.main", miss)
    assert main(["inspect"]) == 2
    assert capsys.readouterr().err == f"bertloom inspect: error: bertloom inspect {line_about('train')}\n"


def test_a_package_that_no_extra_installs_is_a_bug(monkeypatch, capsys):
    def miss(argv: object) -> None:
        raise ModuleNotFoundError("No module named 'nobody'", name="nobody")

    monkeypatch.setattr("jobs.inspect_shards.main", miss)
    assert main(["inspect"]) == 70
    assert "ModuleNotFoundError: No module named 'nobody'" in capsys.readouterr().err


def test_a_run_is_not_verified_without_torch_but_a_data_set_is(tmp_path):
    (tmp_path / "run/checkpoints").mkdir(parents=True)
    code = "from jobs.cli import main; sys.exit(main(['verify', sys.argv[1]]))"
    done = run_without({"torch"}, code, tmp_path / "run")
    assert (done.returncode, done.stderr) == (2, f"bertloom verify: error: verifying a run {line_about('train')}\n")
    done = run_without({"torch"}, code, ROOT / "tests/golden/dataset")
    assert done.returncode == 0, done.stderr


def test_a_wiki_dump_is_not_read_without_its_parser(tmp_path, monkeypatch, capsys):
    dump = tmp_path / "dump.xml"
    dump.write_text("<mediawiki><page><title>A</title><ns>0</ns><revision><text>a</text></revision></page></mediawiki>")
    monkeypatch.setattr("bertloom.extras.find_spec", lambda module: None)
    main(["preview", str(dump)])
    printed = "".join(capsys.readouterr())
    assert f"{dump}: is a MediaWiki dump. Reading it {line_about('pipeline')}" in printed.replace("\n", " ")


def test_a_public_name_without_its_extra_is_an_error_of_import_that_names_it():
    code = (
        "import bertloom\n"
        "for name in bertloom.__all__:\n"
        "    try:\n"
        "        getattr(bertloom, name)\n"
        "        print(name, 'is there')\n"
        "    except ImportError as error:\n"
        "        print(error)\n"
    )
    done = run_without(set(EXTRA_OF), code)
    assert done.stdout.splitlines() == [
        f"{name} is there" if name in ("DataSet", "read_shard") else f"bertloom.{name} {line_about('train')}"
        for name in public_names
    ]


def test_outside_a_checkout_pip_is_asked_for_the_package(monkeypatch):
    monkeypatch.setattr(os.path, "isfile", lambda path: False)
    expected = "bertloom preprocess needs the extra \"pipeline\": pip install 'bertloom[pipeline]'"
    assert needs("bertloom preprocess", "pipeline") == expected
