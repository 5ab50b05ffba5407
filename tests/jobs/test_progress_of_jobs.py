"""The progress of `preprocess` and `build-vocab`: on a terminal, in a file, and what it reads."""

import io
import json
import sys

import pytest

from bertloom import storage
from jobs.build_vocab import BuildVocabConfig, build_vocab
from jobs.support import progress
from jobs.support.progress import JobProgress
from pipeline.options import compose
from pipeline.stages import work_log
from pipeline.stages.work_log import BYTES, STAGES, WorkLog, log_begin, log_piece
from tests.jobs.corpus import documents, run_job, write


@pytest.fixture
def shown(tmp_path, monkeypatch):
    """A progress without its thread, at the second 0 of a job over 4 MB of files."""
    monkeypatch.setattr(JobProgress, "_watch", lambda self: None)
    monkeypatch.setattr(progress.time, "monotonic", lambda: 0.0)
    with JobProgress("preprocess", str(tmp_path / "log"), 4_000_000) as shown:
        yield shown


@pytest.fixture
def logs(monkeypatch) -> list[WorkLog]:
    """The logs that jobs read, in order."""
    found: list[WorkLog] = []
    begin = WorkLog.__init__

    def spy(self, folder):
        begin(self, folder)
        found.append(self)

    monkeypatch.setattr(WorkLog, "__init__", spy)
    return found


def begin(shown: JobProgress, stage: str, total: int = 0) -> None:
    """The stage begins at second 0."""
    log_begin(shown.folder, stage, total)
    at(shown, 0)


def at(shown: JobProgress, seconds: float) -> str:
    progress.time.monotonic = lambda: seconds
    shown.update()
    return shown.line(seconds)


@pytest.mark.parametrize(("number", "said"), [(1, "1 document"), (1234, "1,234 documents")])
def test_a_line_has_the_share_the_documents_the_speed_and_the_time_left(shown, number, said):
    begin(shown, "tokenize")
    log_piece(shown.folder, "tokenize", "0.part", 1_000_000, documents=number, text_bytes=3_000_000)
    assert at(shown, 10) == f"tokenize 25 % of 4.0 MB in 00:10, {said}, 0.3 MB/s, 00:30 left"


def test_until_a_worker_begins_the_progress_is_that_none_has(shown):
    assert at(shown, 75) == "has waited 01:15 for workers"
    log_begin(shown.folder, "tokenize")
    assert at(shown, 80) == "tokenize 0 % of 4.0 MB in 00:00, ? left"
    log_piece(shown.folder, "tokenize", "0.part", 1_000_000)
    assert at(shown, 90) == "tokenize 25 % of 4.0 MB in 00:10, 0.1 MB/s, 00:30 left"


def test_work_of_an_earlier_start_is_finished_but_is_not_part_of_the_speed(shown):
    begin(shown, "tokenize")
    log_piece(shown.folder, "tokenize", "0", 2_000_000, documents=5, text_bytes=6_000_000, is_new=False)
    assert at(shown, 1) == "tokenize 50 % of 4.0 MB in 00:01, 5 documents, ? left"
    log_piece(shown.folder, "tokenize", "1", 1_000_000, documents=3, text_bytes=1_000_000)
    assert at(shown, 10) == "tokenize 75 % of 4.0 MB in 00:10, 8 documents, 0.1 MB/s, 00:10 left"


def test_work_that_a_runner_does_twice_counts_once(shown):
    begin(shown, "weave", 4)
    for _ in range(3):
        log_begin(shown.folder, "weave", 4)
        log_piece(shown.folder, "weave", "bucket 1", documents=7)
        log_piece(shown.folder, "weave", "bucket 1", documents=7, is_new=False)
    assert at(shown, 10).startswith("weave 25 % of 4 shards in 00:10, 7 documents, ")


def test_a_stage_has_its_own_clock_and_its_speed_is_that_of_the_text(shown):
    log_piece(shown.folder, "tokenize", "0.part", 4_000_000, documents=9, text_bytes=12_000_000)
    at(shown, 10)
    log_begin(shown.folder, "plan")
    assert at(shown, 20) == "plan in 00:00"
    log_begin(shown.folder, "weave", 4)
    assert at(shown, 30) == "weave 0 % of 4 shards in 00:00, ? left"
    log_piece(shown.folder, "weave", "a")
    assert at(shown, 40) == "weave 25 % of 4 shards in 00:10, 0.3 MB/s, 00:30 left"
    log_piece(shown.folder, "tokenize", "0.part", 4_000_000, is_new=False)  # an engine that begins again
    assert at(shown, 50).startswith("weave 25 %")


def test_the_speed_is_that_until_the_last_reading_of_the_log(shown):
    begin(shown, "tokenize")
    log_piece(shown.folder, "tokenize", "0.part", 1_000_000)
    at(shown, 10)
    assert shown.line(19) == "tokenize 25 % of 4.0 MB in 00:19, 0.1 MB/s, 00:30 left"


def test_a_bar_on_a_terminal_shows_every_stage_once_to_its_end(tmp_path, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    with JobProgress("preprocess", str(tmp_path / "log"), 4_000_000) as shown:
        log_piece(shown.folder, "tokenize", "0.part", 1_000_000, documents=3, text_bytes=3_000_000)
        shown.update()
        log_begin(shown.folder, "weave", 12)
        shown.update()
    last = [line.split("\r")[-1] for line in terminal.getvalue().rstrip("\n").split("\n")]
    assert [line.split("|")[0] for line in last] == ["tokenize 100% ", "weave 100% "]
    assert "4.00M/4.00M [00:00, 3 documents" in last[0] and "12/12 [00:00]" in last[1]
    assert "tokenize  25% |" in terminal.getvalue()


def test_in_a_file_a_line_is_written_now_and_then_and_at_the_end_of_such_a_stage(shown, capsys):
    begin(shown, "tokenize")
    assert capsys.readouterr().err == ""
    for seconds in (30, 35, 59, 60):
        at(shown, seconds)
    log_begin(shown.folder, "weave", 2)
    at(shown, 70)
    lines = capsys.readouterr().err.splitlines()
    assert [line.removeprefix("bertloom preprocess: ").split(",")[0] for line in lines] == [
        "tokenize 0 % of 4.0 MB in 00:30",
        "tokenize 0 % of 4.0 MB in 01:00",
        "tokenize 100 % of 4.0 MB in 01:10",
    ]


OF_EXTENDED = {"read known", "match known", "read sketches", "pair known", "verify known"}


def test_a_job_that_extends_a_data_set_logs_all_of_its_work(tmp_path, vocab, logs):
    run_job(write(tmp_path / "a.jsonl", documents(150)), tmp_path / "one", vocab, near_duplicates=0.5)
    source = write(tmp_path / "b.jsonl", [*documents(50), *documents(50, seed=2)])
    run_job(source, tmp_path / "two", vocab, near_duplicates=0.5, extend=(str(tmp_path / "one"),))
    for stage in OF_EXTENDED:
        work = logs[-1].stages[stage]
        assert (work.amount, work.new_amount) == (work.total, work.total) and work.total > 0
    assert logs[-1].stages["read known"].documents == 150


@pytest.mark.parametrize("num_workers", [1, 2])
def test_each_pass_of_a_job_logs_all_of_its_work(tmp_path, vocab, logs, num_workers):
    source = write(tmp_path / "in.jsonl", documents(150))
    passes = {"near_duplicates": 0.5, "max_line_repeats": 20, "sample": 100.0}
    manifest = run_job(source, tmp_path / "out", vocab, num_workers=num_workers, split_mb=0.01, **passes)
    sample, lines, rest = logs
    assert [log.stages.keys() for log in logs] == [
        {"choose sample"},
        {"list lines", "count lines"},
        {"tokenize", "sketch", "pair", "verify", "plan", "weave", "manifest"},
    ]
    others = {"count words", *OF_EXTENDED}
    assert STAGES.keys() == others.union(*(log.stages for log in logs)), "a stage that logs no work"
    assert sample.stages["choose sample"].documents == 150
    for log in logs:
        for stage, work in log.stages.items():
            assert (work.amount, work.new_amount) == (
                work.total or source.stat().st_size * (STAGES[stage] == BYTES),
            ) * 2
    assert rest.stages["tokenize"].documents == manifest["counters"]["documents_in"]
    assert rest.stages["tokenize"].text_bytes == manifest["counters"]["text_bytes"]
    assert rest.stages["weave"].documents == manifest["counters"]["documents_in"]


def test_a_second_job_over_the_same_tokens_finds_them_finished(tmp_path, vocab, logs):
    source = write(tmp_path / "in.jsonl", documents(150))
    for seed in (1, 2):
        run_job(source, tmp_path / f"out{seed}", vocab, work_dir=tmp_path / "work", near_duplicates=0.5, seed=seed)
    first, second = (log.stages for log in logs)
    for stage in ("tokenize", "sketch", "pair", "verify"):
        assert second[stage].amount == first[stage].new_amount > 0 == second[stage].new_amount
    assert second["weave"].new_amount == second["weave"].total


def test_a_start_after_a_failure_has_a_log_of_its_own_and_finds_the_shards_finished(tmp_path, vocab, logs, monkeypatch):
    source = write(tmp_path / "in.jsonl", documents(150))
    with monkeypatch.context() as broken:
        broken.setattr("pipeline.stages.manifest.add_up", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run_job(source, tmp_path / "out", vocab)
    run_job(source, tmp_path / "out", vocab)
    first, second = logs
    assert first.folder != second.folder
    work = second.stages["weave"]
    assert (work.amount, work.new_amount) == (work.total, 0) and work.total > 0
    assert work.documents == 150


def test_a_compressed_file_is_shown_before_its_end(tmp_path, vocab, logs, monkeypatch):
    source = write(tmp_path / "in.jsonl.gz", documents(150))
    amounts = []
    add = work_log.StageWork.add
    monkeypatch.setattr(
        work_log.StageWork, "add", lambda self, row: (add(self, row), amounts.append(self.amount)) if row[1:] else None
    )
    run_job(source, tmp_path / "out", vocab, split_mb=0.01)
    size = source.stat().st_size
    assert amounts[0] < size / 2 and size in amounts and sum(0 < amount < size for amount in amounts) > 3


def test_build_vocab_logs_its_work(tmp_path, logs):
    source = write(tmp_path / "in.txt", documents(100))
    words = {"input": (str(source),), "out": str(tmp_path / "vocab.txt"), "vocab_size": 500, "min_frequency": 1}
    build_vocab(compose(BuildVocabConfig, **words))
    work = logs[0].stages["count words"]
    assert (work.documents, work.amount) == (100, source.stat().st_size)


def test_the_log_in_a_store_is_read_like_one_on_a_disk_and_with_few_requests(monkeypatch, tmp_path):
    folder = f"memory://{tmp_path.name}/log"
    log = WorkLog(folder)
    written: list[str] = []
    write_whole = storage.write_whole
    monkeypatch.setattr(storage, "write_whole", lambda path, chunks: (written.append(path), write_whole(path, chunks)))
    for i in range(100):
        log_piece(folder, "tokenize", str(i), 10)
    log.read()
    assert len(written) == 1 and log.stages["tokenize"].amount == 10
    monkeypatch.setattr(work_log, "STORE_SECONDS", 0.0)
    work_log._file(folder, work_log.os.getpid()).due = 0.0
    log_piece(folder, "tokenize", "last", 10)
    log.read()
    assert len(written) == 2 and log.stages["tokenize"].amount == 1010


def test_every_byte_of_the_log_is_read_once(monkeypatch, tmp_path):
    folder = str(tmp_path / "log")
    log, sizes = WorkLog(folder), []
    read_range = storage.read_range
    monkeypatch.setattr(storage, "read_range", lambda *where: (sizes.append(where[2]), read_range(*where))[1])
    path = tmp_path / "log/1.jsonl"
    with path.open("ab", buffering=0) as file:
        for i in range(50):
            file.write(json.dumps(["tokenize", str(i), 1, 1, 1, True]).encode() + b"\n")
            log.read()
            log.read()
    assert log.stages["tokenize"].amount == 50 and sum(sizes) == path.stat().st_size


def test_half_a_line_and_a_stage_of_another_version_wait_or_are_left_out(tmp_path):
    log = WorkLog(str(tmp_path / "log"))
    path = tmp_path / "log/1.jsonl"
    path.write_text('["polish", "1", 2]\n["weave", 5]\n["weave", "a", 1, 2, 3, tr')
    log.read()
    assert log.stages["weave"].total == 5 and log.stages["weave"].amount == 0 and len(log.stages) == 1
    with path.open("a") as file:
        file.write("ue]\n")
    log.read()
    assert log.stages["weave"].amount == 1


def test_a_stage_begins_once_in_the_file_of_a_process(tmp_path):
    log = WorkLog(str(tmp_path / "log"))
    for i in range(1000):
        log_begin(log.folder, "tokenize")
        log_piece(log.folder, "tokenize", str(i))
    assert sum(path.read_text().count("\n") for path in (tmp_path / "log").iterdir()) == 1001


def test_a_worker_that_cannot_write_its_log_goes_on(tmp_path):
    log_piece(str(tmp_path / "missing/log"), "tokenize", "0.part", 10)
    assert not (tmp_path / "missing").exists()


def test_what_an_earlier_start_logged_is_forgotten(tmp_path):
    folder = str(tmp_path / "log")
    WorkLog(folder)
    log_piece(folder, "tokenize", "0.part", 10)
    log = WorkLog(folder)
    log.read()
    assert log.stages == {}
