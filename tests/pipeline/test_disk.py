"""How much disk a job will need is said before it begins, near the truth, and too little is refused."""

import re
import shutil
from pathlib import Path

import pytest

from jobs import cli
from pipeline.inputs.beginnings import read_beginning
from pipeline.inputs.discovery import find_sources
from pipeline.inputs.sources import ReadConfig
from pipeline.inputs.splitting import group_splits, split_source
from pipeline.job import JobConfig
from pipeline.local import disk_estimate as disk
from pipeline.local.disk_estimate import Need, check_room, compare, estimate, measure
from pipeline.places import Places
from pipeline.text.cleaning import CleanConfig
from pipeline.vocabulary_files import read_vocabulary
from tests.jobs.corpus import as_txt, documents, run_job, write, write_vocabulary

MB = 1_000_000


def size_below(folder):
    return sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())


@pytest.mark.parametrize("name", ["in.txt", "in.jsonl", "in.txt.gz", "in.jsonl.bz2"])
@pytest.mark.parametrize("options", [{}, {"pairs": "none"}, {"pairs": "sop", "dupe_factor": 3}], ids=str)
def test_the_estimate_is_near_what_a_job_writes(tmp_path, name, options):
    source, vocab = write(tmp_path / name, documents(700)), write_vocabulary(tmp_path / "vocab.txt")
    manifest = run_job(source, tmp_path / "out", vocab, work_dir=tmp_path / "work", validation_fraction=0.0, **options)
    job, vocabulary = JobConfig.from_manifest(manifest), read_vocabulary(str(vocab))
    splits = [split for source in find_sources([str(source)]) for split in split_source(source, 8 * MB)]
    rates = measure(splits, job, vocabulary)
    num_bytes = sum(split.num_bytes for split in splits)
    need = estimate(rates, num_bytes, num_bytes, len(splits), job, vocabulary)
    assert num_bytes * rates.text == pytest.approx(manifest["counters"]["text_bytes"], rel=0.1)
    assert need.parts == pytest.approx(size_below(tmp_path / "work"), rel=0.15)
    assert need.shards == pytest.approx(
        size_below(tmp_path / "out/train") + size_below(tmp_path / "out/documents"), rel=0.3
    )


def test_the_tokens_of_many_small_files_are_estimated(tmp_path):
    texts, vocab = documents(700), write_vocabulary(tmp_path / "vocab.txt")
    for i in range(20):
        write(tmp_path / f"in/{i:02d}.txt", texts[i::20])
    manifest = run_job(tmp_path / "in", tmp_path / "out", vocab, work_dir=tmp_path / "work", validation_fraction=0.0)
    assert len(list((tmp_path / "work").rglob("*.part"))) < 5
    job, vocabulary = JobConfig.from_manifest(manifest), read_vocabulary(str(vocab))
    splits = [split for source in find_sources([str(tmp_path / "in")]) for split in split_source(source, 8 * MB)]
    groups = group_splits(splits, 8 * MB)
    said = check_room(Places(str(tmp_path / "new"), str(tmp_path / "new")), job, vocabulary, groups, 8 * MB)
    assert float(re.search(r"about ([\d.]+) MB for tokens", said)[1]) == pytest.approx(
        size_below(tmp_path / "work") / MB, rel=0.15
    )


def test_large_files_are_sampled_more_than_small_ones_and_empty_files_are_allowed(tmp_path):
    write(tmp_path / "in/large.txt", documents(900, chinese=1.0))
    for i in range(6):
        write(tmp_path / f"in/{i}.txt", documents(1, chinese=0.0))
        (tmp_path / f"in/none{i}.txt").write_text("")
    vocab = write_vocabulary(tmp_path / "vocab.txt")
    job, vocabulary = (
        JobConfig.from_manifest(run_job(tmp_path / "in", tmp_path / "out", vocab)),
        read_vocabulary(str(vocab)),
    )
    splits = [split for source in find_sources([str(tmp_path / "in")]) for split in split_source(source, 20_000)]
    assert measure(splits, job, vocabulary).tokens == pytest.approx(
        0.35, rel=0.1
    )  # a token is a Chinese character of three bytes
    nothing = [split for split in splits if split.source.size == 0]
    assert len(nothing) == 6 and measure(nothing, job, vocabulary) is None


@pytest.fixture
def corpus(tmp_path):
    (tmp_path / "in.txt").write_bytes(as_txt(documents(150)))
    vocab = write_vocabulary(tmp_path / "vocab.txt")
    return ["preprocess", "--input", str(tmp_path / "in.txt"), "--vocab", str(vocab), "--max-seq-length", "32"]


def test_a_job_that_will_not_fit_is_refused_with_both_sizes_and_leaves_nothing(corpus, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(disk, "disk_of", lambda folder: (1, 100_000))
    assert cli.main([*corpus, "--out", str(tmp_path / "out")]) == 2
    says = (
        r"out: 0.1 MB are free on this disk, but about 0\.\d MB are needed \(0.1 MB for tokens while the job works and"
    )
    assert re.search(says, capsys.readouterr().err)
    assert list((tmp_path / "out").rglob("*")) == []
    monkeypatch.setattr(disk, "disk_of", lambda folder: (1, 10 * MB))
    assert cli.main([*corpus, "--out", str(tmp_path / "out"), "--dupe-factor", "1"]) == 0  # other flags are no obstacle
    said = r"needs about 0.1 MB for tokens while the job works and 0\.\d MB for shards, 10.0 MB are free"
    assert re.search(said, capsys.readouterr().err)


def test_a_work_folder_on_another_disk_is_counted_separately(tmp_path, monkeypatch):
    places = Places(str(tmp_path / "out"), str(tmp_path / "work"))
    free = {"out": (1, 5 * MB), "work": (2, 3 * MB)}
    monkeypatch.setattr(disk, "disk_of", lambda folder: free[Path(folder).name])
    assert compare(places, Need(parts=2 * MB, shards=4 * MB)) == (
        "needs about 2.0 MB for tokens while the job works, 3.0 MB are free; needs about 4.0 MB for shards, 5.0 MB are free"
    )
    for need, says in (
        (
            Need(parts=4 * MB, shards=1),
            f"--work-dir {tmp_path}/work: 3.0 MB are free on this disk, but about 4.0 MB are needed",
        ),
        (
            Need(parts=1, shards=6 * MB),
            f"--out {tmp_path}/out: 5.0 MB are free on this disk, but about 6.0 MB are needed",
        ),
    ):
        with pytest.raises(ValueError, match=says):
            compare(places, need)
    free["work"] = free["out"]
    with pytest.raises(
        ValueError, match=r"5.0 MB are free on this disk, but about 6.0 MB are needed \(2.0 MB for tokens while"
    ):
        compare(places, Need(parts=2 * MB, shards=4 * MB))


def test_space_for_finished_files_is_not_needed_again(corpus, tmp_path, capsys):
    work = ["--work-dir", str(tmp_path / "work"), "--dupe-factor", "2"]
    assert cli.main([*corpus, *work, "--out", str(tmp_path / "one")]) == 0
    capsys.readouterr()
    assert cli.main([*corpus, *work, "--out", str(tmp_path / "two"), "--seed", "2"]) == 0
    assert "needs about 0.0 MB for tokens while the job works and 0.2 MB for shards" in capsys.readouterr().err


def test_a_folder_that_does_not_exist_yet_is_on_the_disk_of_its_parent(tmp_path):
    assert disk.disk_of(str(tmp_path / "a/b")) == (tmp_path.stat().st_dev, shutil.disk_usage(tmp_path).free)


def test_a_text_of_several_pieces_takes_as_much_room_as_it_has_bytes(tmp_path):
    (tmp_path / "long.txt").write_text("A sentence of a long book. " * 200_000)
    [source] = find_sources([str(tmp_path)], None, ReadConfig(text_layout="file"))
    [split] = split_source(source, 1 << 30)
    beginning = read_beginning(split, CleanConfig(), 100_000)
    assert (beginning.text_per_byte, beginning.is_whole, len(beginning.records)) == (1.0, False, 1)
