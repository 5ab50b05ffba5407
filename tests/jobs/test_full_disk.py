"""A full disk: the error names the file, and nothing half-written counts as complete."""

import errno
import os

import pytest

from jobs import cli
from tests.jobs.restartable_job import (
    TIMEOUT_SECONDS,
    assert_whole,
)


@pytest.mark.parametrize(
    "name", ["job.json", "parts/", "plan.json", "train/", "documents/", "weave/", "shards.parquet", "manifest.json"]
)
def test_a_full_disk_is_an_error_that_names_the_file_and_leaves_nothing_half_written(
    job, unbroken, tmp_path, monkeypatch, capsys, name
):
    out, real = tmp_path / "out", os.fsync

    def full(handle):
        path = os.readlink(f"/proc/self/fd/{handle}")
        if name in path and ".tmp-" in path:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        assert cli.main(job.argv(out)) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(f"bertloom preprocess: error: {out}") and name in last
    assert "no space left on device" in last and "Make room, then start the same command again" in last
    assert not (out / "manifest.json").exists() and not list(out.rglob(".tmp-*")) and not (out / ".lock").exists()
    assert cli.main(job.argv(out)) == 0
    assert_whole(out, unbroken)


def test_a_full_disk_in_a_worker_process_is_a_one_line_error(job, tmp_path):
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(
        "import errno, os, sys\n"
        "def full(handle, real=os.fsync):\n"
        "    if '.part' in os.readlink(f'/proc/self/fd/{handle}'):\n"
        "        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))\n"
        "    real(handle)\n"
        "if any('pipeline.local.worker' in word for word in sys.orig_argv):\n"
        "    os.fsync = full\n"
    )
    process = job.start(tmp_path / "out", "--num-workers", "2", first=str(site))
    _, said = process.communicate(timeout=TIMEOUT_SECONDS)
    assert process.returncode == 2 and "Traceback" not in said
    assert said.splitlines()[-1].startswith(f"bertloom preprocess: error: {tmp_path}/out/.work/parts/")
    assert "no space left on device" in said
