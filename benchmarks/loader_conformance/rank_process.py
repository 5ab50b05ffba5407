"""One process of a training without a model: it reads steps, writes down the rows, and saves the loader's state.

    python -m loader_conformance.rank_process JOB.json

Runs in the environment of the loader. `training.py` starts it, with the variables that torchrun sets.
"""

import json
import os
import pickle
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from loader_conformance.interface import Session, Setting, loader_of
from loader_conformance.rows import row_of, row_tokens


def main(path: str) -> None:
    job = json.loads(Path(path).read_text())
    out = Path(job["out"])
    try:
        if job["action"] == "write":
            for folder, first, size in job["sets"]:
                Path(folder).mkdir(parents=True)
                loader_of(job["loader"]).write([row_tokens(row) for row in range(first, first + size)], Path(folder))
        else:
            train(job, out, int(os.environ["RANK"]))
    except Exception as error:
        traceback.print_exc()
        (out / f"error-{os.environ['RANK']}.txt").write_text(first_line(error))
        sys.stderr.flush()
        os._exit(3)  # workers and threads of a loader that failed may keep the process alive


def first_line(error: Exception) -> str:
    """Return the first line of an error; of one from a worker process, of the error in the worker."""
    text = str(error)
    if "Original Traceback" in text:
        return [line for line in text.splitlines() if line.strip() and not line.startswith(" ")][-1]
    where = traceback.extract_tb(error.__traceback__)[-1]
    text = text.strip() or f"in {where.name}, {where.line}"
    return f"{type(error).__name__}: {text.splitlines()[0]}"


def train(job: dict[str, Any], out: Path, rank: int) -> None:
    if job["setting"]["num_ranks"] > 1:
        import torch.distributed as dist

        dist.init_process_group("gloo")
    setting = Setting(**job["setting"], rank=rank)
    session = loader_of(job["loader"]).Session(setting)
    epoch = step = 0
    if job["checkpoint"]:
        saved = [pickle.loads(file.read_bytes()) for file in sorted(Path(job["checkpoint"]).glob("state-*.pickle"))]
        epoch, step = saved[0]["epoch"], saved[0]["step"]
        session.load([state["loader"] for state in saved])
    with open(out / f"steps-{rank}.jsonl", "w") as lines:
        read(session, job, out / f"state-{rank}.pickle", lines, epoch, step)
    if setting.num_ranks > 1:
        dist.barrier()
        dist.destroy_process_group()
    (out / f"done-{rank}").touch()


def read(session: Session, job: dict[str, Any], checkpoint: Path, lines: Any, epoch: int, step: int) -> None:
    """Read steps up to the stop or the end, and write a line for each."""
    while epoch < job["num_epochs"]:
        for batches in session.steps(epoch):
            places = [session.places(batch) for batch in batches]
            rows = [[row_of(tokens) for tokens in session.tokens(batch)] for batch in batches]
            line = {"epoch": epoch, "rows": rows, "places": None if None in places else places}
            print(json.dumps(line), file=lines, flush=True)
            step += 1
            if step == job["stop"]:
                temporary = checkpoint.with_suffix(".part")
                temporary.write_bytes(pickle.dumps({"epoch": epoch, "step": step, "loader": session.state()}))
                temporary.rename(checkpoint)
                if not job["kill"]:
                    return
            while step == job["kill"]:  # until SIGKILL
                time.sleep(1)
            if step == job["max_steps"]:
                return
        epoch += 1


if __name__ == "__main__":
    main(sys.argv[1])
