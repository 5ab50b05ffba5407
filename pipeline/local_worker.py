"""Beam's worker process on this machine, started with the process id of its job: it ends when the job does.

Beam's own worker would live on for seconds after its job was killed, and for ever if that happened while it started.
"""

import os
import sys
import threading
import time

LOOK_SECONDS = 0.1


def main() -> None:
    threading.Thread(target=_end_with, args=(int(sys.argv[1]),), daemon=True).start()
    from apache_beam.runners.worker import sdk_worker_main  # takes a second: the watch has to come first

    sdk_worker_main.main(sys.argv)


def _end_with(job: int) -> None:
    while os.getppid() == job:
        time.sleep(LOOK_SECONDS)
    os._exit(1)


if __name__ == "__main__":
    main()
