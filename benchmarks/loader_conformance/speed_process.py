"""One process that writes rows in a loader's format, or reads them and prints the seconds after the first batch.

python -m loader_conformance.speed_process JOB.json
"""

import json
import os
import sys
import time
from pathlib import Path

import numpy as np

from loader_conformance.interface import Setting, loader_of
from loader_conformance.speed import BATCH


def main(path: str) -> None:
    job = json.loads(Path(path).read_text())
    loader = loader_of(job["loader"])
    if job["action"] == "write":
        rows = np.load(job["rows"])
        Path(job["folder"]).mkdir()
        loader.write(np.split(rows["ids"], np.cumsum(rows["lengths"])[:-1]), Path(job["folder"]))
        print("written")
    else:
        print(
            read(loader.Session(Setting(folders=[job["folder"]], global_batch=BATCH, micro_batch=BATCH)), job["count"])
        )
    sys.stdout.flush()
    os._exit(0)  # how a loader ends is not measured


def read(session, count: int) -> float:
    seen = epoch = 0
    begun = 0.0
    while seen < count:
        for _ in session.steps(epoch):
            seen += BATCH
            if seen == BATCH:
                begun = time.perf_counter()
            if seen >= count:
                break
        epoch += 1
    return time.perf_counter() - begun


if __name__ == "__main__":
    main(sys.argv[1])
