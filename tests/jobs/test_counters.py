"""Beam counters of whole jobs: they equal the numbers of the manifest."""

from collections import Counter

import pytest

from pipeline import execution
from pipeline.stages.counters import NAMESPACE
from tests.jobs.corpus import documents, run_job, write, write_vocabulary


@pytest.fixture
def counted(monkeypatch):
    """Counter -> number, summed over the stages and jobs of a test."""
    numbers: Counter[str] = Counter()
    run = execution.run

    def spy(*arguments):
        result = run(*arguments)
        for counter in result.metrics().query()["counters"]:
            if counter.key.metric.namespace == NAMESPACE:
                numbers[counter.key.metric.name] += counter.committed
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
    expected = {
        "documents-in": numbers["documents_in"],
        "documents-rejected": numbers["documents_rejected"],
        "documents-duplicate": numbers["documents_duplicate"],
        "documents-near-duplicate": numbers["documents_near_duplicate"],
        "near-duplicates-found": numbers["documents_near_duplicate"],
        "documents-used": numbers["documents_used"],
        "text-bytes": numbers["text_bytes"],
        "pairs-out": sum(number for name, number in pairs.items() if name.startswith("pairs/")),
        "pairs-dropped": sum(number for name, number in pairs.items() if name.startswith("pairs-dropped/")),
        "examples-out": examples["train"] + examples["validation"],
        "shards-out": len(shards),
        "shard-bytes": sum(path.stat().st_size for path in shards),
        "parts-out": len(list((tmp_path / "work").rglob("*.part"))),
        "parts-reused": 0,
    }
    assert {name: counted[name] for name in expected} == expected
    assert 0 < expected["documents-near-duplicate"] < expected["documents-duplicate"] and expected["parts-out"] > 1


def test_parts_of_an_earlier_job_count_as_reused(source, tmp_path, counted):
    vocab = write_vocabulary(tmp_path / "vocab.txt")
    run_job(source, tmp_path / "first", vocab, work_dir=tmp_path / "work")
    num_parts = counted["parts-out"]
    counted.clear()
    run_job(source, tmp_path / "second", vocab, work_dir=tmp_path / "work", seed=2)
    assert counted["parts-out"] == counted["parts-reused"] == num_parts > 0


def test_the_lines_that_repeat_are_counted(tmp_path, counted):
    texts = [["Menu and search.", *text] for text in documents(40)]
    source, vocab = write(tmp_path / "in.txt", texts), write_vocabulary(tmp_path / "vocab.txt")
    run_job(source, tmp_path / "out", vocab, max_line_repeats=20)
    assert counted["lines-repeated"] == 1 < counted["line-entries"]
