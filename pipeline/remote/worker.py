"""A worker process of `worker_pool`: it does what the engine at an address asks for.

It ends when the engine ends the job, and when the pool that started it ends, in any way.
"""

import logging
import os
import sys
import threading
import traceback
from contextlib import suppress
from typing import NoReturn

from pipeline.local.beam_import import import_beam


def work(control_endpoint: str, worker_id: str) -> NoReturn:
    """Work for the engine at this address, then end this process."""
    threading.Thread(target=_end_with_pool, daemon=True).start()
    import_beam(connectors=False)
    from apache_beam.runners.worker.sdk_worker import SdkHarness

    status = 1
    try:
        SdkHarness(control_endpoint, worker_id=worker_id).run()
        status = 0
    except Exception:
        traceback.print_exc()
    finally:
        os._exit(status)  # Beam's threads may still wait for the engine


def _end_with_pool() -> None:
    with suppress(OSError):
        os.read(0, 1)  # the pool writes nothing, so this returns when it ends
    os._exit(1)


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    work(*sys.argv[1:])
