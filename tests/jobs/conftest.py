"""Data that several test files read: made once for each process of pytest, and never changed."""

from pathlib import Path

import pytest

from tests.jobs.corpus import write_vocabulary
from tests.jobs.restartable_job import Job


@pytest.fixture(scope="session")
def vocab(tmp_path_factory) -> Path:
    """The vocabulary of the corpus."""
    return write_vocabulary(tmp_path_factory.mktemp("vocabulary") / "vocab.txt")


@pytest.fixture(scope="session")
def encoder(tmp_path_factory) -> Path:
    """A small BERT with random weights, in transformers' form."""
    from tests.model.small_task import write_model

    return write_model(tmp_path_factory.mktemp("models") / "encoder")


@pytest.fixture(scope="session")
def task_files(tmp_path_factory) -> dict[str, tuple[Path, Path]]:
    """Training and dev rows of each task."""
    from tests.model.small_task import ROWS, write_jsonl

    folder = tmp_path_factory.mktemp("rows")
    return {
        task: (
            write_jsonl(folder / f"{task}.jsonl", rows(160)),
            write_jsonl(folder / f"{task}-dev.jsonl", rows(40, seed=9)),
        )
        for task, rows in ROWS.items()
    }


@pytest.fixture(scope="session")
def finetuned(encoder, task_files, tmp_path_factory) -> Path:
    """A fine-tuning run that was never stopped."""
    from jobs.finetune import finetune
    from tests.jobs.small_finetune import config

    out = tmp_path_factory.mktemp("runs") / "finetuned"
    finetune(config(encoder, task_files, out, save_every=3))
    return out


@pytest.fixture(scope="session")
def job(tmp_path_factory) -> Job:
    """A small corpus, and the command that preprocesses it."""
    return Job(tmp_path_factory.mktemp("job"))


@pytest.fixture(scope="session")
def unbroken(job, tmp_path_factory) -> dict[str, str]:
    """Digests of the files of a data set whose job was never stopped."""
    from jobs import cli
    from tests.jobs.corpus import digests

    out = tmp_path_factory.mktemp("unbroken") / "out"
    assert cli.main(job.argv(out)) == 0
    return digests(out)
