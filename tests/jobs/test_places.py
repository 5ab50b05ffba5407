"""Where a job may write: not where its inputs are looked for, and elsewhere where a check of its texts has failed."""

import re

import pytest

from jobs import cli
from tests.jobs.corpus import documents, write, write_vocabulary

SMALL = ["--max-seq-length", "32", "--dupe-factor", "1"]


@pytest.fixture
def preprocess(tmp_path, capsys, monkeypatch):
    """Runs a job in its own folder; (exit status, what it said)."""
    monkeypatch.chdir(tmp_path)
    vocab = write_vocabulary(tmp_path / "words")

    def run(source, *flags):
        status = cli.main(["preprocess", "--input", source, "--vocab", str(vocab), *SMALL, *flags])
        return status, capsys.readouterr().err

    return run


def test_texts_unfit_for_pairs_can_be_used_as_the_error_says(preprocess, tmp_path):
    write(tmp_path / "in.txt", [[f"word{i} and nothing else."] for i in range(400)])
    status, said = preprocess("in.txt", "--out", "out")
    assert status == 2 and "If the documents are really that short, use --pairs none" in said
    assert "; other flags or inputs need another --out, and can reuse the tokens with --work-dir out/.work" in said
    status, said = preprocess("in.txt", "--pairs", "none", "--out", "other", "--work-dir", "out/.work")
    assert status == 0 and "1 of 1 split tokenized, 0 buckets finished" in said


@pytest.mark.parametrize(
    "source, flag, place",
    [
        ("corpus", "--out", "corpus/out"),
        ("./corpus/", "--out", "corpus"),
        ("corpus/**/*.txt", "--out", "corpus/out"),
        ("corpus/**/*.txt", "--out", "corpus"),
        ("corpus/*/*.parquet", "--out", "corpus/out"),
        ("corpus", "--work-dir", "corpus/work"),
    ],
)
def test_a_place_where_an_input_would_find_files_of_the_job_is_refused(preprocess, tmp_path, source, flag, place):
    write(tmp_path / "corpus/a.txt", documents(20))
    places = {"--out": "out", flag: place}
    status, said = preprocess(source, *(word for row in places.items() for word in row))
    assert status == 2 and f"error: {flag} {place} is inside --input {source}: the next start would read" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus", "words"]


def test_an_output_beside_the_files_of_a_pattern_is_taken_and_started_again(preprocess, tmp_path):
    write(tmp_path / "corpus/a.txt", documents(20))
    places = ["--out", "corpus/out", "--work-dir", "corpus/work"]
    assert preprocess("corpus/*.txt", *places)[0] == 0
    status, said = preprocess("corpus/*.txt", *places)
    assert status == 0 and re.search("corpus/out is already complete", said)


def test_an_output_below_a_folder_of_an_object_store_is_refused(preprocess):
    status, said = preprocess("s3://texts/in/", "--out", "s3://texts/in/set")
    assert status == 2 and "--out s3://texts/in/set is inside --input s3://texts/in/" in said
