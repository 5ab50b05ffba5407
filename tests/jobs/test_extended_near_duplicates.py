"""`preprocess --extend` with --near-duplicates: what resembles an earlier data set is found when its texts are gone."""

import random
import shutil

import pyarrow.parquet as pq
import pytest

from jobs.cli import main
from jobs.verify import verify
from tests.jobs.corpus import documents, run_job, shard_digests, write, write_vocabulary
from tests.jobs.test_extended_data_sets import ids_of, manifest_of

FLAGS = ["--max-seq-length", "32", "--dupe-factor", "1", "--validation-fraction", "0.1", "--split-mb", "0.01"]
NEAR = ["--near-duplicates", "0.8"]


def texts_of(first, number, seed=1):
    """Texts of 2 to 90 paragraphs: some have more shingles than a sketch keeps."""
    sentences = documents(2000, seed=seed)
    sizes = [(2, 2, 30)[i % 3] for i in range(first + number)]
    starts = [sum(sizes[:i]) for i in range(first + number)]
    return [sum(sentences[starts[i] : starts[i] + sizes[i]], []) for i in range(first, first + number)]


def edited(text):
    return [*text, "And a sentence more."]


OLD, NEW = texts_of(0, 90), texts_of(0, 40, seed=2)
AGAIN = [edited(text) for text in OLD[:30]] + OLD[30:40]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(folder, data set of OLD, data set of what is new): the texts of the first are gone when the second is made."""
    folder = tmp_path_factory.mktemp("near")
    vocab = write_vocabulary(folder / "vocab.txt")
    source = write(folder / "old/a.txt", OLD)
    flags = ["--vocab", str(vocab), *FLAGS, *NEAR]
    assert main(["preprocess", "--input", str(source), "--out", str(folder / "one"), *flags]) == 0
    mixed = [*NEW, *AGAIN, *(edited(text) for text in NEW[:5])]
    random.Random(1).shuffle(mixed)
    write(folder / "new/b.jsonl", mixed)
    shutil.rmtree(folder / "old")
    assert extend(folder, folder / "two", "--split-mb", "0.01") == 0
    return folder, folder / "one", folder / "two"


def extend(folder, out, *flags):
    places = ["--extend", str(folder / "one"), "--input", str(folder / "new"), "--out", str(out)]
    return main(["preprocess", *places, *flags])


def test_near_duplicates_of_an_earlier_data_set_are_counted_and_listed(made):
    _, one, two = made
    counters = manifest_of(two)["counters"]
    assert counters["duplicates_of"] == {"one": {"equal": 10, "near": 30}}
    assert counters["documents_near_duplicate"] == 5
    assert (counters["documents_in"], counters["documents_duplicate"], counters["documents_used"]) == (85, 45, 40)
    rows = pq.read_table(two / "near-duplicates-of-others.parquet").to_pylist()
    assert len(rows) == 30 and {row["data_set"] for row in rows} == {"one"}
    assert {row["resembles"] for row in rows} <= set(ids_of(one))
    assert all(row["similarity"] >= 0.8 and row["source"] == "b.jsonl" for row in rows)
    assert {row["is_exact"] for row in rows} == {True, False}
    assert len(ids_of(two)) == 40 and verify(str(two))[0] == []
    assert len(pq.read_table(two / "near-duplicates.parquet")) == 5


def test_neither_workers_nor_splits_show_in_the_bytes(made, tmp_path):
    folder, _, two = made
    assert extend(folder, tmp_path / "again", "--num-workers", "2", "--split-mb", "0.004") == 0
    assert shard_digests(tmp_path / "again") == shard_digests(two)
    for name in ("near-duplicates-of-others.parquet", "sketches/train/00000.parquet"):
        assert (tmp_path / "again" / name).read_bytes() == (two / name).read_bytes()


def test_a_third_data_set_leaves_out_what_resembles_either(made, tmp_path):
    folder, one, two = made
    write(tmp_path / "c.txt", [edited(OLD[45]), edited(NEW[20]), *texts_of(0, 6, seed=3)])
    both = ["--extend", str(one), str(two), "--input", str(tmp_path / "c.txt"), "--out", str(tmp_path / "three")]
    assert main(["preprocess", *both]) == 0
    numbers = {name: {"equal": 0, "near": 1} for name in ("one", "two")}
    assert manifest_of(tmp_path / "three")["counters"]["duplicates_of"] == numbers


def test_only_the_member_of_a_pair_that_is_kept_differs_from_one_job_over_all_texts(made, tmp_path):
    """In one job the document of smaller id is kept, here the document of the first data set."""
    folder, one, two = made
    write(tmp_path / "all/a.txt", OLD)
    shutil.copy2(folder / "new/b.jsonl", tmp_path / "all")
    run_job(tmp_path / "all", tmp_path / "whole", folder / "vocab.txt", near_duplicates=0.8)
    whole, kept = set(ids_of(tmp_path / "whole")), {*ids_of(one), *ids_of(two)}
    rows = pq.read_table(two / "near-duplicates-of-others.parquet").to_pylist()
    assert whole - kept == {row["id"] for row in rows if row["id"] < row["resembles"]} != set()
    assert kept - whole == {row["resembles"] for row in rows if row["id"] < row["resembles"]}


def test_a_data_set_without_sketches_is_searched_for_equal_documents_only(made, tmp_path, capsys):
    folder, _, _ = made
    source, vocab = write(tmp_path / "old.txt", OLD), str(folder / "vocab.txt")
    assert main(["preprocess", "--input", str(source), "--out", str(tmp_path / "one"), "--vocab", vocab, *FLAGS]) == 0
    assert not (tmp_path / "one/sketches").exists()
    shutil.copytree(folder / "new", tmp_path / "new")
    capsys.readouterr()
    assert extend(tmp_path, tmp_path / "two", *NEAR) == 0
    assert "one has no sketches, because it was made without --near-duplicates" in capsys.readouterr().err
    counters = manifest_of(tmp_path / "two")["counters"]
    assert counters["duplicates_of"] == {"one": {"equal": 10}} and counters["documents_near_duplicate"] == 5


def test_sketches_of_another_similarity_are_refused_and_the_search_can_be_left_out(made, tmp_path, capsys):
    folder, _, _ = made
    assert extend(folder, tmp_path / "two", "--near-duplicates", "0.9") == 2
    assert "has sketches for 0.8" in capsys.readouterr().err
    assert extend(folder, tmp_path / "two", "--near-duplicates", "None") == 0
    assert manifest_of(tmp_path / "two")["counters"]["duplicates_of"] == {"one": {"equal": 10}}


def test_a_damaged_page_of_sketches_is_an_error_that_names_it(made, tmp_path, capsys):
    folder, one, _ = made
    shutil.copytree(one, tmp_path / "one")
    shutil.copytree(folder / "new", tmp_path / "new")
    page = tmp_path / "one/sketches/train/00000.parquet"
    page.write_bytes(page.read_bytes() + b"x")
    assert extend(tmp_path, tmp_path / "two") == 2
    assert "sketches/train/00000.parquet: its sha256 differs" in capsys.readouterr().err
