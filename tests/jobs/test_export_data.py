"""`bertloom export-data` writes what the shards hold, in Parquet that other programs read."""

import itertools
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bertloom.members import read_shard
from jobs import cli, export_data
from pipeline.examples.decoding import decode
from pipeline.vocabulary_files import read_vocabulary
from tests.jobs.corpus import documents, run_job, write, write_vocabulary

NAMES = [
    "input_ids segment_b_start masked_lm_positions masked_lm_ids next_sentence_label document_a token_a document_b token_b",
    "token_type_ids split max_seq_length copy shard member row",
]
COLUMNS = " ".join(NAMES).split()


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export-data")
    source = write(folder / "in.txt", documents(200))
    run_job(source, folder / "out", write_vocabulary(folder / "vocab.txt"), max_seq_length=(16, 32), dupe_factor=2)
    return folder / "out"


def shards_of(dataset):
    return pq.read_table(dataset / "shards.parquet").to_pylist()


def expected_rows(dataset, shards):
    for shard in shards:
        sizes = shard["member_examples"]
        places = [(member, row) for member, size in enumerate(sizes) for row in range(size)]
        for example, (member, row) in zip(read_shard(str(dataset / shard["path"])).to_pylist(), places, strict=True):
            b, length = example["segment_b_start"], len(example["input_ids"])
            names = {name: shard[name] for name in ("split", "max_seq_length", "copy")}
            place = {"shard": shard["number"], "member": member, "row": row}
            yield {**example, "token_type_ids": [0] * b + [1] * (length - b), **names, **place}


@pytest.mark.parametrize("group_members", [1, 16])
def test_one_file_has_every_example_of_the_shards(dataset, tmp_path, capsys, monkeypatch, group_members):
    monkeypatch.setattr(export_data, "GROUP_MEMBERS", group_members)
    out = tmp_path / "all.parquet"
    cli.main(["export-data", str(dataset), "--out", str(out)])
    table, shards = pq.read_table(out), shards_of(dataset)
    assert capsys.readouterr().out == f"{out}: {table.num_rows:,} examples of {len(shards)} shards\n"
    assert table.column_names == COLUMNS
    assert table.to_pylist() == list(expected_rows(dataset, shards))
    assert list(tmp_path.iterdir()) == [out]


def test_a_folder_has_a_file_for_each_shard_under_its_path(dataset, tmp_path):
    out = tmp_path / "folder"
    cli.main(["export-data", str(dataset), "--out", str(out), "--split", "train", "--max-seq-length", "32"])
    shards = [row for row in shards_of(dataset) if (row["split"], row["max_seq_length"]) == ("train", 32)]
    files = sorted(path.relative_to(out).as_posix() for path in out.rglob("*.parquet"))
    assert files == [row["path"].replace(".tar", ".parquet") for row in shards] and len(files) > 1
    for row, file in zip(shards, files):
        found = pq.read_table(out / file, partitioning=None).to_pylist()
        assert found == list(expected_rows(dataset, [row]))


def test_tokens_and_texts_are_those_that_inspect_shows(dataset, tmp_path):
    out = tmp_path / "text.parquet"
    cli.main(["export-data", str(dataset), "--out", str(out), "--with-text", "--split", "validation"])
    vocabulary, rows = read_vocabulary(str(dataset / "vocab.txt")), pq.read_table(out).to_pylist()
    assert len(rows) > 20
    for row in rows:
        assert row["tokens"] == [vocabulary.words[i] for i in row["input_ids"]]
        bare = dict(row)
        for at, truth in zip(row["masked_lm_positions"], row["masked_lm_ids"]):
            bare["input_ids"][at] = truth
        bare |= {"masked_lm_positions": [], "masked_lm_ids": []}
        shown = decode(bare, vocabulary, {})
        assert (row["text_a"], row["text_b"]) == (shown["a"], shown["b"])


def test_an_output_that_exists_or_is_in_the_data_set_is_refused(dataset, tmp_path, capsys):
    (tmp_path / "file.parquet").write_bytes(b"mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for out, message in (
        (tmp_path / "file.parquet", "already exists: give a new name"),
        (tmp_path / "folder", "already exists: give a new name"),
        (tmp_path / "link", "already exists: give a new name"),
        (tmp_path / "no/where.parquet", "no does not exist: create it first"),
        (dataset / "examples.parquet", "is inside the data set, which must not change"),
        (dataset / "train/more", "is inside the data set, which must not change"),
    ):
        assert cli.main(["export-data", str(dataset), "--out", str(out)]) == 2
        assert message in capsys.readouterr().err
    assert (tmp_path / "file.parquet").read_bytes() == b"mine" and not (tmp_path / "nowhere").exists()


def test_a_split_or_length_that_is_not_there_is_refused(dataset, tmp_path, capsys):
    out = ["--out", str(tmp_path / "new")]
    assert cli.main(["export-data", str(dataset), *out, "--max-seq-length", "64"]) == 2
    assert "--max-seq-length 64: the data set has 16, 32" in capsys.readouterr().err
    assert cli.main(["export-data", str(tmp_path / "no"), *out]) == 2
    assert (
        "no does not exist: expected a folder with manifest.json" in capsys.readouterr().err
        and not (tmp_path / "new").exists()
    )


def test_a_damaged_shard_is_named_and_leaves_no_output(dataset, tmp_path, capsys):
    damaged = tmp_path / "damaged"
    shutil.copytree(dataset, damaged)
    last = shards_of(dataset)[-1]
    (damaged / last["path"]).write_bytes((damaged / last["path"]).read_bytes()[:1000])
    for out in (tmp_path / "one.parquet", tmp_path / "several"):
        assert cli.main(["export-data", str(damaged), "--out", str(out)]) == 2
        assert f"member 0 of {damaged / last['path']} cannot be read" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [damaged]


@pytest.fixture(scope="module")
def folder(dataset, tmp_path_factory):
    out = tmp_path_factory.mktemp("parquet") / "folder"
    export_data.export_data(export_data.ExportDataConfig(dataset=str(dataset), out=out, max_seq_length=(16,)))
    return out


def labels_of(dataset, split):
    rows = [row for row in shards_of(dataset) if (row["split"], row["max_seq_length"]) == (split, 16)]
    found = (read_shard(str(dataset / row["path"]))["next_sentence_label"].to_pylist() for row in rows)
    return list(itertools.chain.from_iterable(found))


def test_duckdb_reads_it(dataset, folder):
    duckdb = pytest.importorskip("duckdb")
    query = f"SELECT split, count(*), sum(next_sentence_label) FROM '{folder}/**/*.parquet' GROUP BY ALL"
    found = {split: (number, ones) for split, number, ones in duckdb.sql(query).fetchall()}
    assert found == {s: (len(labels_of(dataset, s)), sum(labels_of(dataset, s))) for s in ("train", "validation")}


def test_polars_reads_it(dataset, folder):
    polars = pytest.importorskip("polars")
    frame = polars.read_parquet(f"{folder}/train/**/*.parquet")
    assert frame["next_sentence_label"].to_list() == labels_of(dataset, "train")
    assert frame["input_ids"].list.len().to_list() == frame["token_type_ids"].list.len().to_list()


def test_hugging_face_datasets_finds_the_splits(dataset, folder, tmp_path):
    datasets = pytest.importorskip("datasets")
    found = datasets.load_dataset(str(folder), cache_dir=str(tmp_path))
    for split in ("train", "validation"):
        assert sorted(found[split]["next_sentence_label"]) == sorted(labels_of(dataset, split))


def test_the_types_of_the_shards_are_kept(dataset, folder):
    table = pq.read_table(next(folder.rglob("*.parquet")), partitioning=None)
    shard = read_shard(str(dataset / shards_of(dataset)[0]["path"]))
    assert [table.schema.field(name).type for name in shard.column_names[:5]] == shard.schema.types[:5]
    assert table.schema.field("token_type_ids").type.value_type == pa.uint8()
