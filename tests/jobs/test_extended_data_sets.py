"""`preprocess --extend`: a data set of only what is new, next to the one that it extends."""

import json
import os
import random
import re
import shutil

import pyarrow.parquet as pq
import pytest

from bertloom.manifest import manifest_sha256, manifest_text
from jobs.cli import main
from jobs.verify import verify
from tests.jobs.corpus import digests, documents, run_job, shard_digests, write, write_vocabulary

FLAGS = ["--max-seq-length", "32", "64", "--dupe-factor", "2", "--validation-fraction", "0.1", "--split-mb", "0.01"]


def ids_of(data_set, split="*"):
    """The ids of the documents of a data set."""
    pages = sorted(data_set.glob(f"documents/{split}/*.parquet"))
    return [number for page in pages for number in pq.read_table(page)["id"].to_pylist()]


def manifest_of(data_set):
    return json.loads((data_set / "manifest.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """(folder of input files, data set): 120 texts in two files."""
    folder = tmp_path_factory.mktemp("first")
    texts = documents(120)
    write(folder / "in/a.txt", texts[:80])
    write(folder / "in/b.jsonl", texts[80:])
    vocab = write_vocabulary(folder / "vocab.txt")
    assert (
        main(["preprocess", "--input", str(folder / "in"), "--vocab", str(vocab), "--out", str(folder / "one"), *FLAGS])
        == 0
    )
    return folder, folder / "one"


def extend(folder, out, *flags, first="one"):
    return main(
        ["preprocess", "--extend", str(folder / first), "--input", str(folder / "in"), "--out", str(out), *flags]
    )


@pytest.fixture
def grown(first, tmp_path):
    """The same folder with a new file: 60 new texts, 20 of the first data set, 5 of the new ones twice."""
    shutil.copytree(first[0], tmp_path / "all", copy_function=shutil.copy2)
    new, old = documents(60, seed=2), documents(120)[70:90]
    mixed = [*new, *old, *new[:5]]
    random.Random(3).shuffle(mixed)
    write(tmp_path / "all/in/c.jsonl.gz", mixed)
    return tmp_path / "all"


def test_a_data_set_that_extends_another_has_only_what_is_new(grown, tmp_path, capsys):
    before = digests(grown / "one")
    assert extend(grown, tmp_path / "two", "--split-mb", "0.01") == 0
    said = capsys.readouterr()
    assert "2 of 3 input files are in one and are not read again" in said.err
    assert "20 are equal to documents of one" in said.out
    assert digests(grown / "one") == before
    manifest, one = manifest_of(tmp_path / "two"), manifest_of(grown / "one")
    counters = manifest["counters"]
    assert (counters["documents_in"], counters["documents_duplicate"]) == (85, 25)
    assert counters["duplicates_of"] == {"one": {"equal": 20}}
    assert [row["name"] for row in manifest["inputs"]] == ["c.jsonl.gz"]
    assert manifest["extends"] == [
        {
            "name": "one",
            "path": str(grown / "one"),
            "sha256": one["sha256"],
            "shards_digest": one["shards_digest"],
            "files_not_read_again": 2,
        }
    ]
    assert manifest["configuration"] == one["configuration"]
    assert verify(str(tmp_path / "two"))[0] == []


def test_both_data_sets_have_the_documents_of_one_job_over_all_texts_in_the_same_splits(grown, tmp_path):
    assert extend(grown, tmp_path / "two") == 0
    vocab = grown / "vocab.txt"
    run_job(grown / "in", tmp_path / "whole", vocab)
    for split in ("train", "validation"):
        one, two, whole = (ids_of(path, split) for path in (grown / "one", tmp_path / "two", tmp_path / "whole"))
        assert sorted([*one, *two]) == whole
    assert len(ids_of(tmp_path / "two")) == 60


def test_neither_workers_nor_splits_show_in_the_bytes(grown, tmp_path):
    assert extend(grown, tmp_path / "two") == 0
    assert extend(grown, tmp_path / "again", "--num-workers", "2", "--split-mb", "0.005") == 0
    assert shard_digests(tmp_path / "again") == shard_digests(tmp_path / "two")
    assert manifest_of(tmp_path / "again")["counters"] == manifest_of(tmp_path / "two")["counters"]


def test_a_file_that_changed_is_read_again_and_only_its_new_documents_count(grown, tmp_path, capsys):
    write(grown / "in/a.txt", [*documents(120)[:80], *documents(12, seed=5)])
    os.remove(grown / "in/c.jsonl.gz")
    assert extend(grown, tmp_path / "two") == 0
    assert "1 of 2 input files are in one" in capsys.readouterr().err
    counters = manifest_of(tmp_path / "two")["counters"]
    assert (counters["documents_in"], counters["duplicates_of"]["one"]["equal"]) == (92, 80)
    assert len(ids_of(tmp_path / "two")) == 12


def test_several_data_sets_can_be_extended(grown, tmp_path, capsys):
    assert extend(grown, tmp_path / "two") == 0
    write(grown / "in/d.txt", [*documents(60, seed=2)[:30], *documents(120)[:10], *documents(20, seed=9)])
    capsys.readouterr()
    both = ["--extend", str(grown / "one"), str(tmp_path / "two")]
    assert main(["preprocess", *both, "--input", str(grown / "in"), "--out", str(tmp_path / "three")]) == 0
    assert manifest_of(tmp_path / "three")["counters"]["duplicates_of"] == {"one": {"equal": 10}, "two": {"equal": 30}}
    assert len(ids_of(tmp_path / "three")) == 20
    capsys.readouterr()
    only = ["--extend", str(tmp_path / "two"), "--input", str(grown / "in/d.txt"), "--out", str(tmp_path / "four")]
    assert main(["preprocess", *only]) == 0
    assert f"two extends {grown / 'one'}, which this job does not extend" in capsys.readouterr().err


def test_data_sets_with_the_same_name_are_named_by_their_paths(grown, tmp_path):
    assert extend(grown, tmp_path / "b/one") == 0
    write(grown / "in/d.txt", documents(30, seed=8))
    both = ["--extend", str(grown / "one"), str(tmp_path / "b/one")]
    assert main(["preprocess", *both, "--input", str(grown / "in"), "--out", str(tmp_path / "three")]) == 0
    assert list(manifest_of(tmp_path / "three")["counters"]["duplicates_of"]) == both[1:]


def test_without_a_new_file_or_a_new_document_nothing_is_made(first, grown, tmp_path, capsys):
    assert extend(first[0], tmp_path / "two") == 2
    assert "all 2 input files are in the data sets of --extend already" in capsys.readouterr().err
    write(grown / "in/c.jsonl.gz", documents(120)[:10])
    assert extend(grown, tmp_path / "two") == 2
    assert "the data sets of --extend have all 10 documents already" in capsys.readouterr().err
    assert not (tmp_path / "two/manifest.json").exists()


def test_texts_of_the_first_data_set_are_not_held_out_in_the_second(grown, tmp_path):
    """They were trained on: in the second data set they are duplicates."""
    held_out = write(grown / "valid.txt", [*documents(120)[:5], *documents(12, seed=6)])
    assert extend(grown, tmp_path / "two", "--validation-input", str(held_out)) == 0
    assert len(ids_of(tmp_path / "two", "validation")) == 12
    assert set(ids_of(tmp_path / "two")).isdisjoint(ids_of(grown / "one"))
    held_out = write(grown / "valid.txt", documents(120)[:5])
    assert extend(grown, tmp_path / "three", "--validation-input", str(held_out), "--gates.no-fail") == 0
    assert verify(str(tmp_path / "three"))[0] == []
    assert ids_of(tmp_path / "three", "validation") == []
    assert manifest_of(tmp_path / "three")["counters"]["duplicates_of"]["one"]["equal"] == 25


@pytest.mark.parametrize(
    "value, expected",
    [
        ([{"name": "one"}], "extends"),
        ("one", "extends"),
        (None, "duplicates_of"),
    ],
)
def test_a_manifest_whose_list_of_data_sets_is_not_possible_is_refused(grown, tmp_path, capsys, value, expected):
    assert extend(grown, tmp_path / "two") == 0
    manifest = manifest_of(tmp_path / "two")
    if value is None:
        del manifest["counters"]["duplicates_of"]
    else:
        manifest["extends"] = value
    manifest["sha256"] = manifest_sha256(manifest)
    (tmp_path / "two/manifest.json").write_bytes(manifest_text(manifest))
    assert main(["inspect", str(tmp_path / "two")]) == 2
    assert expected in capsys.readouterr().err


def test_no_output_is_inside_a_data_set(grown, capsys):
    assert extend(grown, grown / "one/two") == 2
    assert "is inside --extend" in capsys.readouterr().err


@pytest.mark.parametrize(
    "flags, expected",
    [
        (["--max-seq-length", "32"], "--max-seq-length 32: "),
        (["--do-lower-case", "False"], "--do-lower-case False: "),
        (["--vocab", "OTHER"], "has the vocabulary "),
        (["--extend", "NONE"], "--extend NONE does not exist"),
        (["--extend", "IN"], "is not a data set, or not a finished one"),
        (["--extend", "OUT"], "is also the --out"),
        (["--extend", "ONE", "ONE"], "twice"),
    ],
)
def test_what_makes_no_mixture_is_an_error(grown, tmp_path, capsys, flags, expected):
    (tmp_path / "other.txt").write_text((grown / "vocab.txt").read_text("utf-8") + "extra\n", "utf-8")
    names = {"OTHER": tmp_path / "other.txt", "IN": grown / "in", "ONE": grown / "one", "OUT": grown / "one"}
    out = grown / "one" if "OUT" in flags else tmp_path / "two"
    assert extend(grown, out, *(str(names.get(flag, flag)) for flag in flags)) == 2
    assert expected in capsys.readouterr().err
    assert not (tmp_path / "two").exists()


def test_other_options_may_differ_and_are_printed(grown, tmp_path, capsys):
    assert extend(grown, tmp_path / "two", "--dupe-factor", "1", "--masked-lm-prob", "0.2") == 0
    said = capsys.readouterr().err
    assert "differs from one: dupe_factor 1 instead of 2, masked_lm_prob 0.2 instead of 0.15" in said
    assert manifest_of(tmp_path / "two")["configuration"]["max_predictions_per_seq"] == [7, 14]


def test_a_damaged_page_of_the_first_data_set_is_an_error_that_names_it(grown, tmp_path, capsys):
    page = next(grown.glob("one/documents/train/*.parquet"))
    page.write_bytes(page.read_bytes()[:-1] + b"x")
    assert extend(grown, tmp_path / "two") == 2
    assert "documents/train/00000.parquet: its sha256 differs" in capsys.readouterr().err


def test_verify_finds_a_document_that_is_in_both(grown, tmp_path, capsys):
    assert extend(grown, tmp_path / "two") == 0
    command = ["verify", str(tmp_path / "two"), "--extends"]
    assert main([*command, str(grown / "one")]) == 0
    run_job(grown / "in", tmp_path / "whole", grown / "vocab.txt")
    capsys.readouterr()
    assert main([*command, str(tmp_path / "whole")]) == 1
    said = capsys.readouterr().out
    assert "does not list" in said and re.search(
        r"documents/train/00000.parquet of .*whole: holds \d+ documents of", said
    )


def test_a_run_reads_both_data_sets_as_a_mixture(grown, tmp_path):
    assert extend(grown, tmp_path / "two") == 0
    model = ["--model.hidden-size", "32", "--model.num-hidden-layers", "1", "--model.num-attention-heads", "2"]
    size = ["--model.intermediate-size", "64", "--num-steps", "6", "--batch-size", "8", "--max-seq-length", "32"]
    entries = [f"{grown / 'one'}:0.8", f"{tmp_path / 'two'}:0.2"]
    run = ["pretrain", "tiny", "--data", *entries, "--out", str(tmp_path / "run"), "--device", "cpu", *model, *size]
    assert main(run) == 0
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text("utf-8").splitlines()]
    last = [line for line in lines if line["split"] == "train"][-1]
    assert last["tokens_by_source"].keys() == {"one", "two"}
    assert main(["verify", str(tmp_path / "run")]) == 0
