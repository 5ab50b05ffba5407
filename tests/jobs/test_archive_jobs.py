"""Whole jobs over archives: the same shards as over folders, places of documents in the archives, restarts, explanations."""

import gzip
import json
import signal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs import cli
from jobs.explain import Explainer
from jobs.verify import verify
from tests.jobs.corpus import as_jsonl, as_txt, digests, documents, run_job, shard_digests, write_vocabulary
from tests.jobs.restartable_job import run_in_forks
from tests.pipeline.archive_files import PACK, make_tar, make_zip

TEXTS = documents(120)


def files() -> dict[str, bytes]:
    """Small files of several formats. Each has its number in its name, so that archives and folders have one order."""
    made = {}
    for i in range(0, 120, 4):
        some = TEXTS[i : i + 4]
        if i % 3 == 0:
            made[f"{i:03}.txt"] = as_txt(some)
        elif i % 3 == 1:
            made[f"{i:03}.jsonl.xz"] = PACK[".xz"](as_jsonl(some) + b"{broken\n")
        else:
            sink = pa.BufferOutputStream()
            pq.write_table(pa.table({"text": ["\n\n".join(paragraphs) for paragraphs in some]}), sink)
            made[f"{i:03}.parquet"] = sink.getvalue().to_pybytes()
    return made | {"120.txt": b"Single"}


FILES = files()
INNER = [(name, FILES[name]) for name in sorted(FILES)[10:20]]
NESTED = {name for name, _ in INNER}
ARCHIVES = {
    "plain.tar": lambda: make_tar(FILES.items()),
    "packed.tgz": lambda: make_tar(FILES.items(), ".gz"),
    "plain.zip": lambda: make_zip(FILES.items()),
    "nested.tar": lambda: make_tar(
        [*(item for item in FILES.items() if item[0] not in NESTED), ("in.xz", make_tar(INNER, ".xz"))]
    ),
}


@pytest.fixture(scope="module")
def vocab(tmp_path_factory) -> Path:
    return write_vocabulary(tmp_path_factory.mktemp("vocab") / "vocab.txt")


@pytest.fixture(scope="module")
def of_folder(tmp_path_factory, vocab) -> Path:
    folder = tmp_path_factory.mktemp("folder")
    (folder / "in").mkdir()
    for name, data in FILES.items():
        (folder / "in" / name).write_bytes(data)
    run_job(folder / "in", folder / "out", vocab)
    return folder / "out"


def pages(dataset: Path) -> list[dict]:
    return pq.read_table(dataset / "documents").sort_by("id").to_pylist()


def rejects(dataset: Path) -> list[dict]:
    lines = gzip.decompress((dataset / "rejects/rejects.jsonl.gz").read_bytes()).splitlines()
    return sorted(map(json.loads, lines), key=lambda row: (row["source"], row["position"]))


@pytest.mark.parametrize("split_mb", [8.0, 0.002])
@pytest.mark.parametrize("name", ARCHIVES)
def test_an_archive_gives_the_shards_of_a_folder_and_names_each_file(tmp_path, of_folder, vocab, name, split_mb):
    (tmp_path / name).write_bytes(ARCHIVES[name]())
    manifest = run_job(tmp_path / name, tmp_path / "out", vocab, split_mb=split_mb)

    def in_archive(row: dict) -> dict:
        inner = "in.xz!" if name == "nested.tar" and row["source"] in NESTED else ""
        return row | {"source": f"{name}!{inner}{row['source']}"}

    assert shard_digests(tmp_path / "out") == shard_digests(of_folder)
    assert pages(tmp_path / "out") == [in_archive(row) for row in pages(of_folder)]
    wanted = sorted(map(in_archive, rejects(of_folder)), key=lambda row: (row["source"], row["position"]))
    assert rejects(tmp_path / "out") == wanted
    [row] = manifest["inputs"]
    assert (row["name"], row["documents"], row["rejected"]) == (name, 121, len(wanted) - 1)
    assert verify(str(tmp_path / "out"))[0] == []


@pytest.mark.parametrize("name", ARCHIVES)
def test_examples_of_an_archive_are_explained_exactly(tmp_path, vocab, name):
    (tmp_path / name).write_bytes(ARCHIVES[name]())
    run_job(tmp_path / name, tmp_path / "out", vocab, max_seq_length=(32,), dupe_factor=1)
    explainer = Explainer(str(tmp_path / "out"))
    for index in range(0, explainer.num_examples, 7):
        found = explainer.explain(index)
        assert found["agrees"], (index, found)
        source, path = found["a"]["source"], found["a"]["path"]
        assert source.startswith(f"{name}!") and path == f"{tmp_path}/{source}"
        assert found["a"]["unit"] == ("row" if source.endswith(".parquet") else "byte")


def test_files_of_one_name_in_an_archive_are_both_read_and_explained(tmp_path, vocab):
    halves = [("a.txt", as_txt(TEXTS[:30])), ("a.txt", as_txt(TEXTS[30:60]))]
    (tmp_path / "twice.tar").write_bytes(make_tar(halves))
    manifest = run_job(tmp_path / "twice.tar", tmp_path / "out", vocab)
    assert manifest["counters"]["documents_used"] == 60
    assert Explainer(str(tmp_path / "out")).explain(0)["agrees"]


def test_near_duplicates_in_an_archive_are_listed_with_their_file(tmp_path, vocab):
    changed = [[*paragraphs[:-1], paragraphs[-1] + " Bada."] for paragraphs in TEXTS[:10]]
    halves = [("a.txt", as_txt(TEXTS)), ("b.txt", as_txt(changed))]
    (tmp_path / "near.zip").write_bytes(make_zip(halves))
    run_job(tmp_path / "near.zip", tmp_path / "out", vocab, near_duplicates=0.7)
    rows = pq.read_table(tmp_path / "out/near-duplicates.parquet").to_pylist()
    places = {f"near.zip!{name}": data for name, data in halves}
    assert rows and {row["source"] for row in rows} <= places.keys()
    assert all(row["position"] < len(places[row["source"]]) for row in rows)


def test_a_job_over_an_archive_suggests_the_layout_file(tmp_path, vocab):
    books = [(f"{i}.txt", as_txt([[p[0]] for p in TEXTS[i * 20 : i * 20 + 20]] * 2)) for i in range(6)]
    (tmp_path / "books.zip").write_bytes(make_zip(books))
    manifest = run_job(tmp_path / "books.zip", tmp_path / "out", vocab, gates={})
    assert any("6 text files gave" in note and "--text-layout file" in note for note in manifest["notes"])


def test_an_archive_without_a_file_that_can_be_read_ends_with_the_reasons(tmp_path, vocab):
    (tmp_path / "a.tar").write_bytes(make_tar([("a.png", b"x"), ("b.png", b"y"), (".c.txt", b"z")]))
    with pytest.raises(ValueError, match=r"passed over: 2 unknown-format, 1 hidden-file"):
        run_job(tmp_path / "a.tar", tmp_path / "out", vocab)


POINTS = ["within \\.part$ 1", "before \\.part$ 2", "after \\.part$ 3", "before \\.tar$ 1"]


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("packed.tgz", "plain.zip")]


@pytest.mark.parametrize("name", ["nested.tar", *SLOW])
def test_a_job_over_an_archive_that_was_killed_finishes_to_the_same_bytes(tmp_path, vocab, name):
    (tmp_path / name).write_bytes(ARCHIVES[name]())
    flags = ["--max-seq-length", "32", "--dupe-factor", "1", "--split-mb", "0.002", "--validation-fraction", "0.1"]

    def argv(out: Path) -> list[str]:
        return ["preprocess", "--input", str(tmp_path / name), "--vocab", str(vocab), "--out", str(out), *flags]

    assert cli.main(argv(tmp_path / "unbroken")) == 0
    unbroken = digests(tmp_path / "unbroken")
    outs = [tmp_path / f"out-{i}" for i in range(len(POINTS))]
    ran = run_in_forks([(kill, argv(out)) for point, out in zip(POINTS, outs) for kill in (point, "")])
    for point, out, killed, ended in zip(POINTS, outs, ran[::2], ran[1::2]):
        assert killed[0] == -signal.SIGKILL, f"{point}: never reached: {killed}"
        assert ended[0] == 0, f"{point}: {ended}"
        assert digests(out) == unbroken, point
