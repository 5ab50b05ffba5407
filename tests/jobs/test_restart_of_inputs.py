"""Jobs over other inputs than text, cleaned, killed with SIGKILL: the next start does the rest, to the same bytes."""

import signal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs import cli
from jobs.verify import verify
from tests.jobs.corpus import digests, documents, write, write_vocabulary
from tests.jobs.restartable_job import run_in_forks

POINTS = [
    "within \\.lines$ 2",
    "before lines/[^/]*\\.json$ 1",
    "within lines\\.json 1",
    "after lines-0000\\.parquet 1",
    "before \\.work/repeated_lines\\.parquet 1",
    "within parts/[^/]+/repeated_lines\\.parquet 1",
    "before \\.part$ 2",
    "after out-\\d+/repeated_lines\\.parquet 1",
]


@pytest.fixture(scope="module")
def argv(tmp_path_factory):
    """The command line over Parquet and JSON Lines whose documents share a menu, into any output."""
    folder = tmp_path_factory.mktemp("inputs")
    texts = [["Bada | Bebe | Bibi", *paragraphs] for paragraphs in documents(120)]
    (folder / "in").mkdir()
    rows = ["\n\n".join(paragraphs) for paragraphs in texts[:70]]
    pq.write_table(pa.table({"text": [*rows, None, ""]}), folder / "in/a.parquet", row_group_size=10)
    write(folder / "in/b.jsonl", texts[70:])
    vocab = write_vocabulary(folder / "vocab.txt")
    flags = ["--max-line-repeats", "9", "--sample", "0.8", "--unicode-normalization", "NFC", "--split-mb", "0.01"]
    flags += ["--max-seq-length", "32", "--dupe-factor", "1", "--validation-fraction", "0.1"]
    return lambda out: ["preprocess", "--input", f"{folder}/in", "--vocab", str(vocab), "--out", str(out), *flags]


@pytest.fixture(scope="module")
def unbroken(argv, tmp_path_factory) -> dict[str, str]:
    out = tmp_path_factory.mktemp("unbroken") / "out"
    assert cli.main(argv(out)) == 0
    return digests(out)


def kill_and_finish(argv, unbroken, folder, points, data_sets=("",)):
    outs = [folder / f"out-{i}" for i in range(len(points))]
    ran = run_in_forks([(kill, argv(out)) for point, out in zip(points, outs) for kill in (point, "")])
    for point, out, killed, ended in zip(points, outs, ran[::2], ran[1::2]):
        assert killed[0] == -signal.SIGKILL, f"{point}: never reached: {killed}"
        assert ended[0] == 0, f"{point}: {ended}"
        assert digests(out) == unbroken, point
        for name in data_sets:
            assert verify(str(out / name))[0] == []


@pytest.mark.slow
def test_a_job_that_was_killed_while_it_counted_lines_or_read_rows_finishes(argv, unbroken, tmp_path: Path):
    kill_and_finish(argv, unbroken, tmp_path, POINTS)


def test_a_job_over_small_files_that_was_killed_finishes(tmp_path: Path):
    for i, text in enumerate(documents(40)):
        write(tmp_path / f"in/{i:02d}.txt", [text])
    vocab = write_vocabulary(tmp_path / "vocab.txt")
    flags = ["--vocab", str(vocab), "--max-seq-length", "32", "--validation-fraction", "0", "--split-mb", "0.03"]

    def argv(out: Path) -> list[str]:
        return ["preprocess", "--input", f"{tmp_path}/in", "--out", str(out), *flags]

    assert cli.main(argv(tmp_path / "unbroken")) == 0
    points = ["within \\.part$ 2", "after \\.part$ 1"]
    kill_and_finish(argv, digests(tmp_path / "unbroken"), tmp_path, points)
