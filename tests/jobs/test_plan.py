"""`bertloom plan` against `bertloom preprocess`, and what it refuses."""

import json

import pytest

from jobs import cli
from tests.jobs.corpus import documents, run_job, write, write_vocabulary

FLAGS = ["--max-seq-length", "32", "64", "--dupe-factor", "2", "--validation-fraction", "0.1"]


@pytest.fixture
def corpus(tmp_path):
    write(tmp_path / "in/a.txt", documents(150, seed=1))
    write(tmp_path / "in/b.jsonl.gz", documents(200, seed=2))
    with (tmp_path / "in/b.jsonl").open("wb") as file:  # duplicates and rejects
        file.write((write(tmp_path / "c.jsonl", documents(40, seed=1))).read_bytes() + b"{broken\n{}\n")
    write_vocabulary(tmp_path / "vocab.txt")
    return tmp_path


def plan(corpus, capsys, *flags):
    words = ["plan", "--input", str(corpus / "in"), "--vocab", str(corpus / "vocab.txt"), *flags]
    assert cli.main(words) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("pairs", ["nsp", "none"])
def test_a_corpus_smaller_than_the_sample_is_counted_as_the_job_counts_it(corpus, capsys, pairs):
    found = json.loads(plan(corpus, capsys, *FLAGS, "--pairs", pairs, "--json"))["preprocess"]
    manifest = run_job(
        corpus / "in", corpus / "out", corpus / "vocab.txt", max_seq_length=(32, 64), dupe_factor=2, pairs=pairs
    )
    counters = manifest["counters"]
    assert found["is_whole"]
    for name in ("in", "used", "duplicate"):
        value = found["documents"][name]
        assert value["value"] == value["low"] == value["high"] == counters[f"documents_{name}"]
    assert counters["documents_duplicate"] >= 40
    rejected = {reason: one["value"] for reason, one in found["documents"]["rejected"].items()}
    assert rejected == counters["rejected"]
    for name in ("text_bytes", "sentences", "tokens"):
        assert found[name]["value"] == counters[name]
    for length in ("32", "64"):
        splits = found["examples"][length]
        examples = sum(splits[split]["value"] for split in ("train", "validation") if split in splits)
        assert examples == counters["pairs"][f"pairs/{length}"]


def test_the_disk_space_is_near_what_the_job_writes(corpus, capsys):
    found = json.loads(plan(corpus, capsys, *FLAGS, "--json"))["preprocess"]
    run_job(
        corpus / "in",
        corpus / "out",
        corpus / "vocab.txt",
        max_seq_length=(32, 64),
        dupe_factor=2,
        work_dir=corpus / "work",
    )
    shards = sum(path.stat().st_size for path in (corpus / "out").rglob("*.tar"))
    parts = sum(path.stat().st_size for path in (corpus / "work").rglob("*.part"))
    assert shards < found["disk"]["data_set"]["value"] < shards + 150_000
    assert found["disk"]["parts"]["value"] == pytest.approx(parts, rel=0.15)


def test_the_table_shows_ranges_only_for_what_is_estimated(corpus, capsys):
    out = plan(corpus, capsys, *FLAGS)
    assert "preprocess: 3 files, " in out and "documents, tokens and examples are counted" in out
    assert "  not-json " in out
    assert " to " not in next(line for line in out.splitlines() if line.startswith("  tokens"))
    out = plan(corpus, capsys, *FLAGS, "--sample-mb", "0.05")
    assert " to " in next(line for line in out.splitlines() if line.startswith("  tokens"))
    assert "Equal documents are seen only if both are in the sample" in out


def test_nothing_is_written(corpus, capsys):
    before = sorted(corpus.rglob("*"))
    plan(corpus, capsys, *FLAGS)
    assert sorted(corpus.rglob("*")) == before


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "no input: expected --input"),
        (["--input", "IN"], "no vocabulary: the number of tokens depends on it. Give --vocab"),
        (["--input", "IN", "--vocab", "V", "--sample-mb", "0"], "--sample-mb 0: expected more than 0, such as 16"),
        (["--input", "IN", "--vocab", "V", "--sample", "100"], "--sample 100: a number of documents is chosen by"),
        (["--input", "NONE", "--vocab", "V"], "NONE"),
        (["--input", "IN", "--vocab", "V", "--num-workers", "0"], "--num-workers 0"),
    ],
)
def test_what_is_wrong_is_named(corpus, capsys, flags, message):
    known = {"IN": str(corpus / "in"), "V": str(corpus / "vocab.txt"), "NONE": str(corpus / "NONE")}
    assert cli.main(["plan", *(known.get(word, word) for word in flags)]) == 2
    assert message in capsys.readouterr().err


def test_an_input_without_texts_is_refused(corpus, capsys):
    (corpus / "empty.txt").write_text("\n\n")
    words = ["plan", "--input", str(corpus / "empty.txt"), "--vocab", str(corpus / "vocab.txt")]
    assert cli.main(words) == 2
    assert "no documents: the input has no text that can be read" in capsys.readouterr().err


def test_equal_documents_are_planned_for_the_source_that_has_them_in_the_job(tmp_path, capsys):
    texts = documents(60)
    write(tmp_path / "a.txt", texts[:40])
    write(tmp_path / "b.txt", texts[20:])
    toml = "".join(f'[[input]]\npath = "{tmp_path}/{name}.txt"\n' for name in "ba")  # not in the order of their names
    (tmp_path / "inputs.toml").write_text(toml)
    words = ["--inputs", f"{tmp_path}/inputs.toml", "--vocab", str(write_vocabulary(tmp_path / "vocab.txt")), *FLAGS]
    assert cli.main(["plan", *words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["preprocess"]["tokens_of_sources"]
    assert cli.main(["preprocess", *words, "--out", f"{tmp_path}/out", "--gates.no-fail"]) == 0
    sources = json.loads((tmp_path / "out/manifest.json").read_text())["sources"]
    assert {name: one["value"] for name, one in found.items()} == {
        one["name"]: one["counters"]["tokens"] for one in sources
    }


def test_the_tokens_of_each_source_are_planned_and_budgets_applied(corpus, capsys):
    (corpus / "inputs.toml").write_text(
        f'[[input]]\nname = "a"\npath = "{corpus}/in/a.txt"\n\n[[input]]\nname = "b"\npath = "{corpus}/in/b.jsonl.gz"\n'
    )
    words = ["plan", "--inputs", str(corpus / "inputs.toml"), "--vocab", str(corpus / "vocab.txt"), *FLAGS]
    assert cli.main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["preprocess"]
    tokens = {name: one["value"] for name, one in found["tokens_of_sources"].items()}
    assert sum(tokens.values()) == found["tokens"]["value"] and set(tokens) == {"a", "b"}
    with (corpus / "inputs.toml").open("a") as file:
        file.write("tokens = 1000\n")
    assert cli.main(words) == 0
    out = capsys.readouterr().out
    assert "    b                          1,000\n" in out and "    over-budget" in out
    assert "tokens and examples are counted, except in sources with a budget." in out
