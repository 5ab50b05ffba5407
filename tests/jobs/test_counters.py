"""Beam counters of whole jobs: they equal the numbers of the manifest."""

from collections import Counter
from itertools import takewhile
from typing import Any

import pytest
from apache_beam.runners.portability.local_job_service import LocalJobServicer

from jobs.build_vocab import BuildVocabConfig, build_vocab
from jobs.preprocess import PreprocessConfig, preprocess, print_counters
from pipeline import execution
from pipeline.options import compose
from pipeline.stages.counters import counters_of
from pipeline.stages.work_log import STAGES
from tests.jobs.corpus import documents, run_job, write, write_vocabulary


@pytest.fixture
def counted(monkeypatch):
    """(stage, counter) -> number, summed over the jobs of a test."""
    numbers: Counter[tuple[str, str]] = Counter()
    run = execution.run

    def spy(*arguments):
        result = run(*arguments)
        for stage, counters in counters_of([result]).items():
            numbers.update({(stage, name): number for name, number in counters.items()})
        return result

    monkeypatch.setattr(execution, "run", spy)
    return numbers


@pytest.fixture
def source(tmp_path):
    """Texts, some of them twice, some with one more sentence, and a broken line."""
    texts = documents(120)
    again = [[*text, "And a sentence more."] for text in texts[:20]] + texts[20:30]
    with write(tmp_path / "in.jsonl", texts + again).open("ab") as file:
        file.write(b'{"text": "cut o\n')
    return tmp_path / "in.jsonl"


@pytest.mark.parametrize("num_workers", [1, 2])
def test_the_counters_equal_the_numbers_of_the_manifest(source, tmp_path, counted, num_workers):
    vocab = write_vocabulary(tmp_path / "vocab.txt")
    options = {"near_duplicates": 0.5, "num_workers": num_workers, "split_mb": 0.01}
    numbers = run_job(source, tmp_path / "out", vocab, work_dir=tmp_path / "work", **options)["counters"]
    pairs, examples = numbers["pairs"], numbers["examples"]
    shards = list((tmp_path / "out").rglob("*.tar"))
    expected = expected_counters(numbers) | {
        ("weave", "pairs-out"): sum(number for name, number in pairs.items() if name.startswith("pairs/")),
        ("weave", "pairs-dropped"): sum(number for name, number in pairs.items() if name.startswith("pairs-dropped/")),
        ("weave", "examples-out"): examples["train"] + examples["validation"],
        ("weave", "shards-out"): len(shards),
        ("weave", "shard-bytes"): sum(path.stat().st_size for path in shards),
        ("tokenize", "parts-out"): len(list((tmp_path / "work").rglob("*.part"))),
        ("tokenize", "parts-reused"): 0,
    }
    assert {key: counted[key] for key in expected} == expected
    assert 0 < numbers["documents_near_duplicate"] < numbers["documents_duplicate"]
    assert counted["tokenize", "parts-out"] > 1


def expected_counters(numbers: dict[str, Any]) -> dict[tuple[str, str], int]:
    """The counters of documents that a job with these numbers in its manifest has, whatever its runner."""
    rejected = numbers["documents_rejected"] - numbers["rejected"].get("no-example", 0)
    return {
        ("tokenize", "documents-in"): numbers["documents_in"],
        ("tokenize", "documents-rejected"): rejected,
        ("tokenize", "documents-out"): numbers["documents_in"] - rejected,
        ("tokenize", "text-bytes"): numbers["text_bytes"],
        ("sketch", "documents-in"): numbers["documents_in"] - rejected,
        ("verify", "near-duplicates-found"): numbers["documents_near_duplicate"],
        ("weave", "documents-in"): numbers["documents_in"] - rejected,
        ("weave", "documents-used"): numbers["documents_used"],
        ("weave", "documents-duplicate"): numbers["documents_duplicate"],
        ("weave", "documents-near-duplicate"): numbers["documents_near_duplicate"],
        ("weave", "documents-rejected"): numbers["documents_rejected"] - rejected,
        ("manifest", "documents-in"): numbers["documents_in"],
        ("manifest", "documents-used"): numbers["documents_used"],
    }


def test_parts_of_an_earlier_job_count_as_reused(source, tmp_path, counted):
    vocab = write_vocabulary(tmp_path / "vocab.txt")
    run_job(source, tmp_path / "first", vocab, work_dir=tmp_path / "work")
    num_parts = counted["tokenize", "parts-out"]
    counted.clear()
    run_job(source, tmp_path / "second", vocab, work_dir=tmp_path / "work", seed=2)
    assert counted["tokenize", "parts-out"] == counted["tokenize", "parts-reused"] == num_parts > 0


def test_the_lines_that_repeat_are_counted(tmp_path, counted):
    texts = [["Menu and search.", *text] for text in documents(40)]
    source, vocab = write(tmp_path / "in.txt", texts), write_vocabulary(tmp_path / "vocab.txt")
    run_job(source, tmp_path / "out", vocab, max_line_repeats=20)
    assert counted["count lines", "lines-repeated"] == 1 < counted["list lines", "entries-out"]


def test_every_stage_has_counters_of_what_goes_in(source, tmp_path, counted):
    vocab = write_vocabulary(tmp_path / "vocab.txt")
    passes = {"near_duplicates": 0.5, "max_line_repeats": 20, "sample": 100.0}
    run_job(source, tmp_path / "out", vocab, **passes)
    more = write(tmp_path / "more.txt", documents(40, seed=2))
    run_job(more, tmp_path / "second", vocab, extend=(str(tmp_path / "out"),), near_duplicates=0.5)
    build_vocab(compose(BuildVocabConfig, input=(str(source),), out=str(tmp_path / "made.txt"), vocab_size=200))
    assert {stage for stage, name in counted if name.endswith("-in")} == set(STAGES)


def test_a_job_of_a_portable_runner_ends_with_its_counters_by_stage(source, tmp_path, capfd):
    vocab = write_vocabulary(tmp_path / "vocab.txt")
    server = LocalJobServicer(staging_dir=str(tmp_path / "staging"))
    port = server.start_grpc_server(0)
    try:
        config = compose(
            PreprocessConfig,
            input=(str(source),),
            vocab=str(vocab),
            out=str(tmp_path / "out"),
            near_duplicates=0.5,
            split_mb=0.01,
        )
        flags = ["--runner=PortableRunner", f"--job_endpoint=localhost:{port}", "--environment_type=LOOPBACK"]
        numbers = preprocess(config, flags)["counters"]
    finally:
        server.stop(0)
    lines = capfd.readouterr().err.partition("bertloom preprocess: counters by stage:\n")[2].splitlines()
    printed = Counter[tuple[str, str]]()
    for line in takewhile(lambda line: line.startswith("  "), lines):
        stage, *words = line[2:16].strip(), *line[17:].split(", ")
        printed.update({(stage, name): int(number.replace(",", "")) for name, number in map(str.split, words)})
    assert [stage for stage in STAGES if any(found == stage for found, _ in printed)] == [
        *("tokenize", "sketch", "pair", "verify", "plan", "weave", "manifest")
    ]
    assert Counter(expected_counters(numbers)) <= printed


def test_a_runner_without_counters_is_named_as_such(capsys):
    class Result:
        def metrics(self):
            raise NotImplementedError("collecting metrics will come later!")

    print_counters([Result()])
    assert (
        capsys.readouterr().err == "bertloom preprocess: this runner keeps no counters; manifest.json has the numbers\n"
    )
