"""--min-shards: as many shards as were asked for, the same in every job, and named in the manifest."""

import pyarrow.parquet as pq
import pytest

from jobs import cli
from jobs.verify import verify
from tests.jobs.corpus import documents, run_job, write, write_vocabulary


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("number-of-shards")
    write(folder / "in.txt", documents(200))
    write_vocabulary(folder / "vocab.txt")
    return folder


def test_every_copy_has_at_least_so_many_shards_in_every_job(folder, tmp_path):
    manifests = [
        run_job(folder / "in.txt", tmp_path / name, folder / "vocab.txt", max_seq_length=(32,), min_shards=8, **options)
        for name, options in (("one", {}), ("two", {"num_workers": 2, "split_mb": 0.01}))
    ]
    assert manifests[0]["shards_digest"] == manifests[1]["shards_digest"]
    assert manifests[0]["configuration"]["min_shards"] == 8
    rows = pq.read_table(tmp_path / "one/shards.parquet").to_pylist()
    for copy in range(2):
        assert sum(row["split"] == "train" and row["copy"] == copy for row in rows) >= 8
    assert sum(row["split"] == "validation" and row["copy"] == 0 for row in rows) == 1
    assert verify(str(tmp_path / "one"))[0] == []


@pytest.mark.parametrize("number", ["0", "4097"])
def test_a_number_that_is_not_possible_is_refused(folder, tmp_path, capsys, number):
    flags = ["--input", str(folder / "in.txt"), "--vocab", str(folder / "vocab.txt"), "--out", str(tmp_path / "out")]
    assert cli.main(["preprocess", *flags, "--min-shards", number]) == 2
    assert f"--min-shards {number}: expected 1 to 4,096" in capsys.readouterr().err
