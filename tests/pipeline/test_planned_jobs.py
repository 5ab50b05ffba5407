"""The sample of a plan, and the estimates from it, against simple twins and corpora whose counts are known."""

import gzip
import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.examples.configuration import ExamplesConfig
from pipeline.inputs.discovery import find_sources
from pipeline.inputs.splitting import split_source
from pipeline.job import JobConfig
from pipeline.planning import sample as planning_sample
from pipeline.planning.estimate import Estimate, distinct_documents, estimate_job, total_of
from pipeline.planning.sample import choose_sample
from pipeline.planning.trial import run_trial
from pipeline.tokenizer import TokenizeConfig
from pipeline.tokens import read_documents_table, read_footer
from pipeline.vocabulary_files import read_vocabulary
from tests.jobs.corpus import WORDS, write_vocabulary

PART_BYTES = 8_000_000


@pytest.fixture(autouse=True)
def small_cells(monkeypatch):
    monkeypatch.setattr(planning_sample, "CELL_BYTES", 4_000)


def texts(lengths, seed=1):
    """One text for each number of sentences, each of them different."""
    draw = random.Random(seed)
    for i, number in enumerate(lengths):
        sentences = [" ".join(draw.choices(WORDS, k=draw.randint(4, 14))) for _ in range(number)]
        yield f"{'. '.join(sentences)}. {i}."


def write_json_lines(path, rows):
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps({"text": text}) + "\n" for text in rows)
    return path


def tried(path, folder, sample_bytes, **examples):
    """Return the sample of a file or a folder, its trial, and the job and vocabulary of both."""
    vocabulary = read_vocabulary(str(write_vocabulary(folder / "vocab.txt")))
    job = JobConfig(TokenizeConfig(), ExamplesConfig(dupe_factor=2, **examples), vocabulary.sha256)
    scratch = folder / "scratch"
    scratch.mkdir()
    sample = choose_sample(find_sources([str(path)]), sample_bytes, PART_BYTES, scratch)
    return sample, run_trial(sample, job, vocabulary, scratch), job, vocabulary


def estimate(path, folder, sample_bytes, **examples):
    """Return the estimate for a file or a folder, and the sample."""
    found = tried(path, folder, sample_bytes, **examples)
    return estimate_job(*found, PART_BYTES, 1), found[0]


def lengths(kind, number, seed=1):
    draw = random.Random(f"{kind} {seed}")
    if kind == "equal":
        return [10] * number
    if kind == "geometric":
        return [1 + int(draw.expovariate(0.1)) for _ in range(number)]
    return [2 if draw.random() < 0.95 else 150 for _ in range(number)]  # few long documents


@pytest.mark.parametrize("kind", ["equal", "geometric", "few long"])
@pytest.mark.parametrize("name", ["in.jsonl.gz", "in.txt", "in.parquet"])
def test_the_estimate_of_every_format_is_near_the_truth(tmp_path, kind, name):
    rows = list(texts(lengths(kind, 2_000)))
    if name == "in.parquet":
        pq.write_table(pa.table({"text": rows}), tmp_path / name, row_group_size=700)
    elif name == "in.txt":
        (tmp_path / name).write_text("\n\n".join(row.replace(". ", ".\n") for row in rows))
    else:
        write_json_lines(tmp_path / name, rows)
    found, sample = estimate(tmp_path / name, tmp_path, 200_000)
    assert not sample.is_whole
    num_bytes = sum(map(len, rows)) + (len(rows) if name == "in.txt" else 0)  # a line feed ends each text
    for quantity, truth in (("documents_in", 2_000), ("documents_used", 2_000), ("text_bytes", num_bytes)):
        one = found.quantities[quantity]
        assert abs(one.value - truth) <= 3 * one.error + 0.003 * truth, (quantity, one, truth)


@pytest.mark.parametrize("kind", ["equal", "geometric", "few long"])
def test_the_truth_is_in_the_range_nineteen_of_twenty_times(tmp_path, kind):
    inside = 0
    for seed in range(8):
        folder = tmp_path / str(seed)
        folder.mkdir()
        path = write_json_lines(folder / "in.jsonl", texts(lengths(kind, 1_500, seed), seed))
        low, high = estimate(path, folder, 150_000)[0].quantities["documents_in"].range
        inside += low <= 1_500 <= high
    assert inside >= 7


def test_a_folder_of_files_of_very_different_kinds_is_estimated_by_kind(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    long, short = list(texts([400] * 60, 1)), list(texts([2] * 5_000, 2))
    write_json_lines(folder / "long.jsonl", long)
    write_json_lines(folder / "short.jsonl.gz", short)
    for i, text in enumerate(texts([5] * 400, 3)):
        (folder / f"{i:03d}.txt").write_text(text)
    found, sample = estimate(folder, tmp_path, 300_000)
    assert len(sample.stratum_bytes) == 3
    assert found.quantities["documents_in"].value == pytest.approx(5_460, rel=0.1)
    low, high = found.quantities["documents_in"].range
    assert low <= 5_460 <= high


def test_the_memory_of_a_worker_grows_with_the_buckets_when_there_are_as_many_as_there_can_be(tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.stages.plan.BUCKET_TOKENS", 100)
    monkeypatch.setattr("pipeline.stages.plan.MAX_BUCKETS", 7)
    sample, trial, *job = tried(write_json_lines(tmp_path / "in.jsonl", texts([10] * 500)), tmp_path, 10_000_000)
    trial.memory = replace(trial.memory, before=0, tokenize=0)
    found = estimate_job(sample, trial, *job, PART_BYTES, 1)
    assert found.memory == pytest.approx(40 * found.quantities["tokens"].value / 7, abs=1)


def test_no_document_is_read_twice_and_the_draws_are_the_same_each_time(tmp_path):
    path = write_json_lines(tmp_path / "in.jsonl", texts(lengths("geometric", 3_000)))
    places = []
    for number in range(2):
        folder = tmp_path / str(number)
        folder.mkdir()
        _, sample = estimate(path, folder, 400_000)
        (part,) = folder.glob("*/*/parts/*")
        rows = read_documents_table(str(part), read_footer(str(part)))
        assert len(np.unique(rows["position"])) == len(rows)
        places.append([cell.group.splits[0].start for cell in sample.cells])
    assert places[0] == places[1] and len(set(places[0])) == len(places[0])


def test_an_input_smaller_than_the_sample_is_read_whole(tmp_path):
    path = write_json_lines(tmp_path / "in.jsonl.gz", texts([10] * 50))
    found, sample = estimate(path, tmp_path, 10_000_000)
    assert sample.is_whole and found.is_whole
    assert found.quantities["documents_in"] == Estimate(50, 0.0, 50)
    assert found.quantities["text_bytes"].range == (found.quantities["text_bytes"].value,) * 2


def test_duplicates_of_which_the_sample_has_one_are_estimated(tmp_path):
    rows = list(texts(lengths("geometric", 3_000)))
    path = write_json_lines(tmp_path / "in.jsonl", rows + rows[:1_500])
    found, _ = estimate(path, tmp_path, 800_000)
    low, high = found.quantities["documents_used"].range
    assert low <= 3_000 <= high
    assert found.quantities["documents_used"].value == pytest.approx(3_000, rel=0.1)
    assert found.quantities["documents_duplicate"].value == pytest.approx(1_500, rel=0.3)


def test_rejects_are_estimated_by_reason(tmp_path):
    path = tmp_path / "in.jsonl"
    rows = [json.dumps({"text": text}) for text in texts([10] * 2_000)]
    path.write_text("\n".join(line if i % 4 else "{broken" for i, line in enumerate(rows)))
    found, _ = estimate(path, tmp_path, 200_000)
    assert found.rejected["not-json"].value == pytest.approx(500, rel=0.1)


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 100), st.integers(1, 50)), min_size=1, max_size=30),
    st.lists(st.integers(1_500, 10_000), min_size=3, max_size=3),
)
def test_a_total_equals_that_of_the_slow_twin(cells, sizes):
    strata, values, extents = (np.array(column) for column in zip(*cells))
    found = total_of(values.astype(float), extents.astype(float), strata, sizes)
    expected = variance = 0.0
    for number, size in enumerate(sizes):
        own = [(value, extent) for stratum, value, extent in cells if stratum == number]
        if not own:
            continue
        ratio = sum(value for value, _ in own) / sum(extent for _, extent in own)
        expected += ratio * size
        left = 1 - sum(extent for _, extent in own) / size
        if len(own) > 1:
            residuals = [value - ratio * extent for value, extent in own]
            mean = sum(extent for _, extent in own) / len(own)
            scatter = sum(residual**2 for residual in residuals) / (len(own) - 1)
            variance += left * scatter / len(own) * (size / mean) ** 2
        else:
            variance += left * (0.3 * ratio * size) ** 2
    assert found.value == pytest.approx(expected)
    assert found.error == pytest.approx(variance**0.5, abs=1e-6)


class _Repeats:
    def __init__(self, documents, distinct, once, twice):
        self.documents, self.distinct, self.once, self.twice = documents, distinct, once, twice


@given(st.integers(2_000, 20_000), st.floats(0.0, 1.0), st.floats(0.2, 0.9))
def test_documents_that_occur_once_or_twice_are_counted_nearly_right_on_average(number, pairs, share):
    twice = number * pairs
    seen_twice = twice * share**2
    once = (number - twice) * share + twice * 2 * share * (1 - share)
    found = distinct_documents(_Repeats(once + 2 * seen_twice, once + seen_twice, once, seen_twice), share)
    assert 0.85 * number <= found <= 1.001 * number


@given(st.integers(2_000, 20_000), st.sampled_from([0, 1]), st.floats(0.2, 0.9))
def test_the_count_is_exact_where_all_documents_occur_equally_often(number, pairs, share):
    seen_twice = number * pairs * share**2
    once = number * share * (2 * (1 - share) if pairs else 1)
    found = distinct_documents(_Repeats(once + 2 * seen_twice, once + seen_twice, once, seen_twice), share)
    assert found == pytest.approx(number, rel=0.01)


def test_without_duplicates_all_documents_are_distinct():
    assert distinct_documents(_Repeats(500, 500, 500, 0), 0.25) == pytest.approx(2_000)


def test_rows_are_counted_and_a_cell_ends_within_a_row_group(tmp_path):
    rows = list(texts([10] * 1_000))
    pq.write_table(pa.table({"text": rows}), tmp_path / "in.parquet")  # one row group
    found, sample = estimate(tmp_path / "in.parquet", tmp_path, 100_000)
    (source,) = find_sources([str(tmp_path / "in.parquet")])
    assert len(split_source(source, 1_000)) == 1 and len(sample.cells) > 3
    assert found.quantities["documents_in"].value == pytest.approx(1_000, rel=0.05)
    assert Path(sample.cells[0].files[0].source.path).name == "in.parquet"
