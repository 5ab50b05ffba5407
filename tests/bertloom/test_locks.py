import os
import resource
import subprocess
import sys
import threading
import time

import pytest

from bertloom.locks import file_lock


def taken(holder: str) -> str:
    return f"taken by {holder}"


def test_a_second_holder_is_refused_by_the_name_of_the_first(tmp_path):
    refused = pytest.raises(ValueError, match=f"taken by process {os.getpid()} on .* since 20")
    with file_lock(tmp_path / "lock", taken), refused, file_lock(tmp_path / "lock", taken):
        pass
    with file_lock(tmp_path / "lock", taken):
        pass


def test_a_lock_for_which_the_disk_has_no_room_is_an_error_that_names_the_file(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3, hard))
    try:
        with pytest.raises(OSError, match="File too large") as found, file_lock(tmp_path / "lock"):
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert found.value.filename == str(tmp_path / "lock")


def test_a_lock_of_a_killed_process_is_free(tmp_path):
    code = (
        "import os, sys, time\n"
        "from bertloom.locks import file_lock\n"
        "with file_lock(sys.argv[1]):\n"
        "    print(flush=True)\n"
        "    time.sleep(60)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "lock")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        refused = pytest.raises(ValueError, match=f"taken by process {process.pid} on")
        with refused, file_lock(tmp_path / "lock", taken):
            pass
        process.kill()
        process.wait()
        with file_lock(tmp_path / "lock", taken):
            assert f"process {os.getpid()} on" in (tmp_path / "lock").read_text()


def test_threads_that_wait_enter_one_at_a_time_also_where_the_file_is_removed(tmp_path):
    inside, most = 0, []

    def work() -> None:
        nonlocal inside
        for _ in range(20):
            with file_lock(tmp_path / "lock"):
                inside += 1
                most.append(inside)
                time.sleep(0.0005)
                inside -= 1
                (tmp_path / "lock").unlink()  # while the lock is held, as at the end of a job

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 80
