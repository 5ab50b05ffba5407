"""Each program in examples/ does what its first lines promise, on the shipped sample."""

import doctest
import json
import os
import re
import shutil
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import nbclient
import nbformat
import pytest

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
SAMPLE = ROOT / "jobs/sample"
VOCABULARY = ROOT / "tests/golden/dataset/vocab.txt"
SUBTITLES = """1
00:00:01,000 --> 00:00:03,000
<i>The harbour lay quiet</i>
in the early morning.

2
00:00:03,500 --> 00:00:05,000
- Nobody was on the quay.

3
00:01:03,500 --> 00:01:05,000
{\\an8}我们到了。
这里很安静。
"""


def load(name):
    spec = spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def start(*words, root=ROOT):
    """Run a program and return what it printed."""
    environment = {**os.environ, "PYTHONPATH": str(root), "BERTLOOM_DEBUG": ""}
    ran = subprocess.run([sys.executable, *map(str, words)], capture_output=True, text=True, env=environment, cwd=root)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def job_of(files, out, *flags):
    return "preprocess", "--input", *files, "--vocab", VOCABULARY, "--out", out, "--gates.no-fail", *flags


def counters_of(dataset):
    return json.loads((dataset / "manifest.json").read_text("utf-8"))["counters"]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    out = tmp_path_factory.mktemp("examples") / "dataset"
    start("-m", "jobs.cli", *job_of([SAMPLE / "en.jsonl"], out, "--dupe-factor", "1"))
    return out


@pytest.fixture(scope="module")
def examples(dataset):
    out = dataset.parent / "examples.parquet"
    start("-m", "jobs.cli", "export-data", dataset, "--out", out)
    return out


def test_every_example_is_in_the_list_and_has_a_test():
    names = {path.name for path in EXAMPLES.iterdir() if path.suffix in (".py", ".ipynb")}
    listed = re.findall(r"^\| \[(\S+)\]\(\1\)", (EXAMPLES / "README.md").read_text("utf-8"), re.M)
    assert names == {*listed}
    assert all(Path(name).stem in Path(__file__).read_text("utf-8") for name in names)


# ---- a reader


@pytest.mark.parametrize("name", ["own_reader", "own_filter"])
def test_what_the_docstrings_show_is_true(name):
    results = doctest.testmod(load(name))
    assert results.attempted and not results.failed


def test_own_reader_makes_a_paragraph_of_each_scene():
    paragraphs = load("own_reader").text_of_subtitles(SUBTITLES).split("\n\n")
    assert paragraphs == [
        "The harbour lay quiet\nin the early morning.\nNobody was on the quay.",
        "我们到了。\n这里很安静。",
    ]


def test_own_reader_reads_subtitles_and_rejects_what_is_none(tmp_path):
    for i in range(12):
        (tmp_path / f"{i}.srt").write_text(SUBTITLES.replace("quay", f"quay number {i}"), "utf-8")
    (tmp_path / "not.srt").write_text("This is a letter.\n", "utf-8")
    out = tmp_path / "out"
    start(EXAMPLES / "own_reader.py", *job_of([tmp_path / "*.srt"], out))
    assert counters_of(out)["documents_used"] == 12
    assert counters_of(out)["rejected"] == {"page-too-deep": 1}


# ---- a filter


def test_own_filter_removes_menus_and_rejects_other_languages():
    own = load("own_filter")
    page = "首页 | 新闻 | 登录\n" + "今天下午，市图书馆新馆正式对外开放。\n" + "新馆共有六层，藏书一百二十万册。" * 8
    assert own.without_menus(page) == page.split("\n", 1)[1] and own.chinese_fault(own.without_menus(page)) == ""
    assert own.chinese_fault("The library is open to everybody. " * 9) == "0% of the characters are Chinese"
    assert (
        own.chinese_fault("\n".join(["今天下午，市图书馆新馆正式对外开放。"] * 9)) == "89% of the lines repeat another"
    )


def test_own_filter_keeps_the_chinese_sample_and_rejects_the_english_one(tmp_path):
    out = tmp_path / "out"
    files = [SAMPLE / "zh.txt", SAMPLE / "en.jsonl"]
    start(EXAMPLES / "own_filter.py", *job_of(files, out, "--dupe-factor", "1", "--quality-filter", "chinese"))
    assert counters_of(out)["documents_used"] == 156 and counters_of(out)["rejected"] == {"quality-chinese": 169}


def test_a_filter_that_is_not_registered_is_refused_with_the_names_of_the_others():
    from pipeline.text.filters.registry import find_filters

    with pytest.raises(ValueError, match="--quality-filter chinese is unknown: expected c4 or gopher"):
        find_filters(("chinese",))


# ---- both as parts of bertloom


def make_part_of(root, name, target, record, registry, members):
    """Do what the docstring of an example says: move the file, without its last function, and register its record."""
    code = (EXAMPLES / f"{name}.py").read_text("utf-8")
    (root / target).write_text(code[: code.index("\n\ndef main(")], "utf-8")
    lines = (root / registry).read_text("utf-8")
    module = target.removesuffix(".py").replace("/", ".")
    lines = lines.replace("\nfrom pipeline.", f"\nfrom {module} import {record}\nfrom pipeline.", 1)
    assert f"{members} = [" in lines
    (root / registry).write_text(lines.replace(f"{members} = [", f"{members} = [{record}, ", 1), "utf-8")


def test_moved_into_the_packages_both_work_in_every_worker(tmp_path):
    root = tmp_path / "checkout"
    for package in ("bertloom", "pipeline", "jobs", "model"):
        shutil.copytree(ROOT / package, root / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "bertloom_entry.py", root)
    formats, filters = "pipeline/inputs/formats/", "pipeline/text/filters/"
    list_of_formats = (formats + "registry.py", "FORMATS: list[Format]")
    list_of_filters = (filters + "registry.py", "FILTERS: list[QualityFilter]")
    make_part_of(root, "own_reader", formats + "subtitles.py", "SUBTITLES", *list_of_formats)
    make_part_of(root, "own_filter", filters + "chinese.py", "CHINESE", *list_of_filters)
    scenes = (
        SUBTITLES
        + "\n4\n00:02:00,000 --> 00:02:09,000\n"
        + "港口的船只在清晨离开，码头上只有一位老人。\n"
        + "他每天都来看船。" * 12
    )
    for i in range(12):
        (tmp_path / f"{i}.srt").write_text(scenes.replace("一位", "一二三四五六七八九十百千"[i] + "位"), "utf-8")
    (tmp_path / "english.srt").write_text(SUBTITLES, "utf-8")
    flags = ("--quality-filter", "chinese", "--num-workers", "2", "--split-mb", "0.001")
    start("-m", "jobs.cli", *job_of([tmp_path / "*.srt"], tmp_path / "out", *flags), root=root)
    assert counters_of(tmp_path / "out")["documents_used"] == 12
    assert counters_of(tmp_path / "out")["rejected"] == {"quality-chinese": 1}


# ---- a trainer


def test_own_trainer_stopped_and_continued_equals_an_unbroken_run(dataset, tmp_path):
    flags = ("--save-every", "2", "--hidden-size", "32", "--batch-size", "8", "--num-steps")
    own = EXAMPLES / "own_trainer.py"
    unbroken = start(own, dataset, tmp_path / "a.pt", *flags, 6).splitlines()
    first = start(own, dataset, tmp_path / "b.pt", *flags, 4).splitlines()
    rest = start(own, dataset, tmp_path / "b.pt", *flags, 6).splitlines()
    assert rest[0] == "continues after step 4" and first + rest[1:] == unbroken and len(unbroken) == 6


@pytest.mark.parametrize(
    "flag, value, says",
    [
        ("--save-every", "0", "--save-every 0: expected 1 or more"),
        ("--num-steps", "-1", "--num-steps -1: expected 1 or more"),
        ("--batch-size", "0", "--batch-size 0: expected 1 or more"),
        ("--hidden-size", "10", "--hidden-size 10: expected a multiple of 32, the width of a head"),
        ("--num-steps", "1", "the folder {} does not exist; make it first"),
    ],
)
def test_own_trainer_refuses_wrong_values_before_it_trains(tmp_path, capsys, flag, value, says):
    folder = tmp_path / "missing"
    with pytest.raises(SystemExit):
        load("own_trainer").main(
            ["no-dataset", str(folder / "a.pt" if "{}" in says else tmp_path / "a.pt"), flag, value]
        )
    assert says.format(folder) in capsys.readouterr().err


# ---- queries


def test_query_with_duckdb_counts_what_the_manifest_counts(dataset, examples):
    own = load("query_with_duckdb")
    counters = counters_of(dataset)
    sizes = own.shards(str(dataset)).fetchall()
    assert sum(row[4] for row in sizes) == sum(row[2] for row in own.labels(str(examples)).fetchall())
    assert own.frequent_sources(str(dataset)).fetchall()[0][:2] == ("en.jsonl", counters["documents_used"])
    masks = own.masked_words(str(dataset), str(examples)).fetchall()
    assert len(masks) == 10 and sorted((row[1] for row in masks), reverse=True) == [row[1] for row in masks]
    assert "megabytes" in start(EXAMPLES / "query_with_duckdb.py", dataset, examples)


def test_query_with_polars_finds_the_same_as_duckdb(dataset, examples):
    own, duckdb = load("query_with_polars"), load("query_with_duckdb")
    assert own.shards(str(dataset)).rows() == duckdb.shards(str(dataset)).fetchall()
    assert own.lengths(str(examples))["examples"].sum() == own.shards(str(dataset))["examples"].sum()
    longest = own.longest_documents(str(dataset), 3)
    assert longest["num_tokens"].is_sorted(descending=True) and len(longest) == 3
    assert "from_tokens" in start(EXAMPLES / "query_with_polars.py", dataset, examples)


# ---- a notebook


def test_first_look_runs_and_its_loss_falls(tmp_path, monkeypatch):
    notebook = nbformat.read(EXAMPLES / "first_look.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "the notebook is kept without outputs"
    commands = Path(sys.executable).parent  # where `bertloom` is, as in an activated environment
    monkeypatch.setenv("PATH", f"{commands}{os.pathsep}{os.environ['PATH']}")
    nbclient.NotebookClient(notebook, resources={"metadata": {"path": str(tmp_path)}}).execute()
    printed = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", []))
    before, after = map(float, re.search(r"loss (\d+\.\d+) -> (\d+\.\d+)", printed).groups())
    assert after < before - 1 and "B follows A" in printed and "digest of all shards" in printed
