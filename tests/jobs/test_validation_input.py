"""`--validation-input`: its documents are the validation split, and no text of it is trained on."""

import pyarrow.parquet as pq
import pytest

from jobs import cli
from jobs.explain import main as explain
from tests.jobs.corpus import as_txt, digests, documents, run_job, shard_digests, write

TEXTS = documents(60)
SMALL = {"max_seq_length": (32,), "dupe_factor": 1, "validation_fraction": 0.0}


@pytest.fixture(scope="module")
def made(vocab, tmp_path_factory):
    """A data set with 20 validation texts, 3 of which are among the training texts too."""
    folder = tmp_path_factory.mktemp("validation-input")
    write(folder / "in/a.txt", TEXTS[:43])
    write(folder / "held/a.txt", TEXTS[40:])
    manifest = run_job(folder / "in", folder / "out", vocab, **SMALL, validation_input=(str(folder / "held"),))
    return folder, manifest


def ids_of(dataset, split):
    return {
        i for page in (dataset / "documents" / split).glob("*.parquet") for i in pq.read_table(page)["id"].to_pylist()
    }


def test_its_documents_are_the_validation_split_and_their_equals_are_not_trained_on(made, vocab):
    folder, manifest = made
    train, validation = ids_of(folder / "out", "train"), ids_of(folder / "out", "validation")
    assert (len(train), len(validation), train & validation) == (40, 20, set())
    counters = manifest["counters"]
    assert (counters["documents_in"], counters["documents_duplicate"]) == (63, 3)
    assert counters["examples"]["validation"] > 0
    run_job(folder / "held", folder / "alone", vocab, **SMALL)
    assert ids_of(folder / "alone", "train") == validation
    inputs = {row["name"]: row.get("split") for row in manifest["inputs"]}
    assert inputs == {"a.txt": None, f"{folder}/held/a.txt": "validation"}
    assert manifest["configuration"]["validation_fraction"] == 0.0


def test_the_data_set_is_the_same_with_more_workers_and_smaller_splits(made, vocab):
    folder, _ = made
    options = {"split_mb": 0.001, "validation_input": (str(folder / "held"),), "num_workers": 2}
    run_job(folder / "in", folder / "again", vocab, **SMALL, **options)
    assert shard_digests(folder / "again") == shard_digests(folder / "out")
    assert digests(folder / "again", "documents/") == digests(folder / "out", "documents/")


def test_verify_and_explain_know_such_a_data_set(made, capsys):
    folder, _ = made
    assert cli.main(["verify", str(folder / "out")]) == 0
    assert explain([str(folder / "out"), "0"]) in (0, None)
    capsys.readouterr()


def test_a_file_in_a_folder_of_the_input_may_be_held_out(vocab, tmp_path, capsys):
    write(tmp_path / "in/a.txt", TEXTS[:40])
    write(tmp_path / "in/valid.txt", TEXTS[40:])
    (tmp_path / "link.txt").symlink_to("in/valid.txt")
    for i, held in enumerate(("in/valid.txt", "link.txt")):
        out = tmp_path / f"out{i}"
        run_job(tmp_path / "in", out, vocab, **SMALL, validation_input=(str(tmp_path / held),))
        assert "valid.txt: held out by --validation-input, and not trained on" in capsys.readouterr().err
        assert (len(ids_of(out, "train")), len(ids_of(out, "validation"))) == (40, 20)


def test_what_is_trained_on_and_what_is_held_out_share_no_tokens_by_mistake(vocab, tmp_path):
    write(tmp_path / "a.txt", TEXTS[:30])
    write(tmp_path / "b.txt", TEXTS[30:])
    for i, (train, held) in enumerate((("a.txt", "b.txt"), ("b.txt", "a.txt"))):
        options = {"validation_input": (str(tmp_path / held),), "work_dir": tmp_path / "work"}
        run_job(tmp_path / train, tmp_path / f"out{i}", vocab, **SMALL, **options)
    assert ids_of(tmp_path / "out0", "train") == ids_of(tmp_path / "out1", "validation")


@pytest.mark.parametrize(
    "held, options, says",
    [
        (
            TEXTS[:40],
            {},
            "no document is left for training, because --validation-input has all texts of --input: give other",
        ),
        ([["\u200b"]], {}, "--validation-input: its files have no document that can be used"),
        (TEXTS[40:41], {}, "the validation documents are all pieces of one text"),
        (TEXTS[40:], {"validation_fraction": 0.2}, "--validation-fraction 0.2 and --validation-input both choose"),
        (None, {}, "--validation-input .*held.txt: there is no such file"),
    ],
)
def test_a_validation_input_that_cannot_be_used_is_an_error(vocab, tmp_path, held, options, says):
    write(tmp_path / "a.txt", TEXTS[:40])
    if held is not None:
        (tmp_path / "held.txt").write_bytes(as_txt(held))
    with pytest.raises(ValueError, match=says):
        run_job(
            tmp_path / "a.txt", tmp_path / "out", vocab, **SMALL | options, validation_input=(f"{tmp_path}/held.txt",)
        )
    with pytest.raises(
        ValueError, match="names all files of --input, so no file is left to train on: give other files"
    ):
        run_job(tmp_path / "a.txt", tmp_path / "o", vocab, **SMALL, validation_input=(f"{tmp_path}/a.txt",))
