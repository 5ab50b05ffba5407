"""Inputs with their own settings (--inputs), and the flags of well-known corpora (--like)."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs import cli
from jobs.corpora import corpora_page
from jobs.explain import main as explain
from jobs.preprocess import PreprocessConfig
from jobs.support.config import checked_table, parse
from jobs.support.inputs import read_inputs
from pipeline.inputs.corpora import corpora
from pipeline.inputs.discovery import find_sources
from pipeline.inputs.documents import TextConfig
from pipeline.inputs.sources import ReadConfig
from tests.jobs.corpus import documents, run_job, shard_digests, write

TEXTS = documents(120)
ONE = {"max_seq_length": (32,), "dupe_factor": 1}


@pytest.fixture
def mixed(tmp_path) -> Path:
    """A folder in which every file needs other options, and a TOML file with them."""
    folder = tmp_path / "in"
    folder.mkdir()
    rows = ["\n\n".join(paragraphs) for paragraphs in TEXTS]
    pq.write_table(pa.table({"body": rows[:40]}), folder / "a.parquet")
    (folder / "b.jsonl").write_text("".join(json.dumps({"content": row}) + "\n" for row in rows[40:80]), "utf-8")
    for i, row in enumerate(rows[80:]):
        (folder / f"c{i}.txt").write_text(row, "utf-8")
    (tmp_path / "inputs.toml").write_text(
        f"""
        [[input]]
        path = ["{folder}/a.parquet"]
        text_column = "body"

        [[input]]
        path = "{folder}/b.jsonl"
        like = "oscar"

        [[input]]
        path = "{folder}/*.txt"
        text_layout = "file"
        """,
        "utf-8",
    )
    return tmp_path


def test_files_that_need_other_options_give_the_shards_of_the_plain_texts(mixed, vocab):
    run_job(write(mixed / "plain.txt", TEXTS), mixed / "expected", vocab, **ONE)
    manifest = run_job([], mixed / "out", vocab, inputs=str(mixed / "inputs.toml"), **ONE)
    assert shard_digests(mixed / "out") == shard_digests(mixed / "expected")
    reading = {row["name"]: row.get("reading") for row in manifest["inputs"]}
    assert reading["a.parquet"] == {"text_column": "body"}
    assert reading["b.jsonl"]["text_column"] == "content"
    assert reading["c0.txt"] == {"text_layout": "file"}


def test_explain_reads_each_file_again_with_its_own_options(mixed, vocab, capsys):
    run_job([], mixed / "out", vocab, inputs=str(mixed / "inputs.toml"), **ONE)
    assert explain([str(mixed / "out"), "3"]) == 0
    assert "columns agree with the shard, and the whole shard has the same sha256" in capsys.readouterr().out


def test_the_vocabulary_is_built_from_the_same_texts(mixed, capsys):
    words = ["--vocab-size", "300", "--out", str(mixed / "v.txt")]
    assert cli.main(["build-vocab", "--inputs", str(mixed / "inputs.toml"), *words]) == 0
    assert f"bertloom preprocess --inputs {mixed}/inputs.toml --vocab" in capsys.readouterr().out
    write(mixed / "plain.txt", TEXTS)
    words = ["--vocab-size", "300", "--out", str(mixed / "w.txt")]
    assert cli.main(["build-vocab", "--input", str(mixed / "plain.txt"), *words]) == 0
    assert (mixed / "v.txt").read_bytes() == (mixed / "w.txt").read_bytes()


def test_the_layout_of_an_input_with_its_own_flags_is_not_called_wrong(tmp_path, vocab, capsys):
    folder = tmp_path / "in"
    folder.mkdir()
    for i in range(30):
        lines = [sentence for text in TEXTS[i * 4 : i * 4 + 4] for sentence in text] * 3
        (folder / f"{i}.txt").write_text("\n".join(lines), "utf-8")
    (tmp_path / "inputs.toml").write_text(f'[[input]]\npath = "{folder}"\ntext_layout = "file"\n')
    command = ["preprocess", "--vocab", str(vocab), "--max-seq-length", "32", "--dupe-factor", "1", "--gates.no-fail"]
    assert cli.main([*command, "--inputs", f"{tmp_path}/inputs.toml", "--out", f"{tmp_path}/own"]) == 0
    assert "--text-layout line" not in capsys.readouterr().err
    assert cli.main([*command, "--input", str(folder), "--out", f"{tmp_path}/out"]) == 0
    assert "30 text files gave 30 documents of" in capsys.readouterr().err


def test_the_last_table_that_names_a_file_decides(tmp_path):
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text("One text.\n")
    toml = tmp_path / "inputs.toml"
    toml.write_text(f'[[input]]\npath = "{tmp_path}"\n[[input]]\npath = "{tmp_path}/b.txt"\ntext_layout = "line"\n')
    listed = read_inputs(str(toml), TextConfig(read=ReadConfig(text_layout="file")))
    sources = find_sources([], [], ReadConfig(), (), listed.inputs)
    assert [(source.name, source.read.text_layout) for source in sources] == [("a.txt", "file"), ("b.txt", "line")]


def test_other_options_for_a_file_are_other_inputs(mixed, vocab):
    run_job([], mixed / "out", vocab, inputs=str(mixed / "inputs.toml"), **ONE)
    toml = (mixed / "inputs.toml").read_text().replace('text_layout = "file"', 'text_layout = "line"')
    (mixed / "inputs.toml").write_text(toml)
    with pytest.raises(ValueError, match="holds a complete data set made from other input files"):
        run_job([], mixed / "out", vocab, inputs=str(mixed / "inputs.toml"), **ONE)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "",
            r"expected only tables \[\[input\]\], each with a path and options for reading; found the keys of an empty",
        ),
        ("input = 3", r"found the keys input"),
        ("[[inputs]]\npath = 'a'", r"found the keys inputs"),
        ("[[input]]\ntext_column = 'a'", r"input\[0\] has no path. Expected path = \"a file, a folder or a glob\""),
        ("[[input]]\npath = 3", r"input\[0\].path = 3: expected a string or a list, each item a string"),
        ("[[input]]\npath = 'a'\ntext_colum = 'b'", r"unknown key 'input\[0\].text_colum': did you mean 'text_column'"),
        (
            "[[input]]\npath = 'a'\ntext_layout = 'page'",
            r"input\[0\].text_layout = 'page': expected one of 'blank-line'",
        ),
        ("[[input]]\npath = 'a'\nlike = 'c44'", r"input\[0\]: --like c44: no corpus has this name; did you mean c4\?"),
        ("[[input]]\npath = 'a'\nencoding = 'utf-9'", r"input\[0\]: .*utf-9"),
        ("[[input]\n", r"inputs.toml"),
    ],
)
def test_a_wrong_file_of_inputs_is_one_clear_error(tmp_path, content, message):
    (tmp_path / "inputs.toml").write_text(content)
    with pytest.raises(ValueError, match=message):
        read_inputs(str(tmp_path / "inputs.toml"), TextConfig())


def test_a_job_without_any_input_says_which_flags_to_give():
    with pytest.raises(ValueError, match="no input: expected --input with files, folders or globs, or --inputs with a"):
        parse(PreprocessConfig, ["--vocab", "v", "--out", "o"], "bertloom preprocess")


def test_like_sets_flags_and_a_flag_beside_it_overrides():
    words = ["--input", "i", "--vocab", "v", "--out", "o", "--like", "oscar"]
    config = parse(PreprocessConfig, words, "bertloom preprocess")
    assert config.tokenize.text.read.text_column == "content"
    config = parse(PreprocessConfig, [*words, "--text-column", "body"], "bertloom preprocess")
    assert config.tokenize.text.read.text_column == "body"
    config = parse(PreprocessConfig, [*words[:-2], "--like=leipzig"], "bertloom preprocess")
    assert config.examples.pairs == "none"
    with pytest.raises(ValueError, match="--like oskar: no corpus has this name; did you mean oscar"):
        parse(PreprocessConfig, [*words[:-1], "oskar"], "bertloom preprocess")


@pytest.mark.parametrize("corpus", corpora().values(), ids=corpora())
def test_the_flags_of_each_corpus_are_flags_of_preprocess_with_other_values_than_the_defaults(corpus):
    base = {"input": ["i"], "vocab": "v", "out": "o"}
    words = ["--input", "i", "--vocab", "v", "--out", "o"]
    checked_table(PreprocessConfig, {**base, **corpus.options}, corpus.name, "")
    config = parse(PreprocessConfig, [*words, "--like", corpus.name], "bertloom preprocess")
    default = parse(PreprocessConfig, words, "bertloom preprocess")
    assert (config.tokenize, config.examples) != (default.tokenize, default.examples) or not corpus.options


def test_the_page_of_corpora_is_the_one_that_the_command_prints():
    page = Path(__file__).parent.parent.parent / "docs/corpora.md"
    assert page.read_text("utf-8") == corpora_page()


def test_the_command_prints_the_list_and_one_of_it(capsys):
    assert cli.main(["corpora"]) == 0
    assert {line.split()[0] for line in capsys.readouterr().out.splitlines()[:-2]} == set(corpora())
    assert cli.main(["corpora", "wikitext"]) == 0
    assert "--document-start '^ = [^=].* = $'" in capsys.readouterr().out
    assert cli.main(["corpora", "wikitxt"]) == 2
    assert "no corpus has this name; did you mean wikitext?" in capsys.readouterr().err
