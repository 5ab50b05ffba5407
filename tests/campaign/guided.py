"""Searches for inputs that reach new code, by atheris (libFuzzer for Python), from the same seeds as the targets of files.

    python -m tests.campaign.guided inputs-web FOLDER 7 10000    10,000 inputs for the web archives, from seed 7

atheris has wheels for some Pythons only. Without it the searches are left out, and the report names the reason.
"""

import importlib
import io
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from tests.campaign.outcome import Outcome
from tests.mutants import Target, has_fault, limit_memory

ROOT = Path(__file__).parent.parent.parent
SEARCHED = {
    "inputs-delimited": "tests.pipeline.input_mutants",
    "inputs-json": "tests.pipeline.input_mutants",
    "inputs-web": "tests.pipeline.input_mutants",
    "inputs-dump": "tests.pipeline.input_mutants",
    "inputs-extracted": "tests.pipeline.input_mutants",
    "inputs-pages": "tests.pipeline.input_mutants",
    "inputs-parquet": "tests.pipeline.input_mutants",
    "rows-json": "tests.model.row_mutants",
    "rows-csv": "tests.model.row_mutants",
    "rows-conll": "tests.model.row_mutants",
}
"""Target -> its list. Their mutants are single files."""
INSTRUMENTED = ["bertloom", "pipeline", "model", "jobs"]
LONGEST = 20_000  # bytes of an input
SECONDS = 900  # of a search, at most


def run(folder: Path, seed: int, number: int, only: int | None = None) -> Iterator[Outcome]:
    """Yield an outcome for each search. number: inputs of all searches. only: number of the one search to run."""
    if find_spec("atheris") is None:
        yield Outcome("searches", "left out: atheris is not installed; it has wheels for some Pythons only", 0, count=0)
        return
    for i, name in enumerate(SEARCHED):
        if only in (None, i):
            yield search(name, folder / name, seed, max(1, number // len(SEARCHED)))


def search(name: str, folder: Path, seed: int, number: int) -> Outcome:
    """Run a search in a process of its own. The input of a fault stays in the folder."""
    folder.mkdir(parents=True)
    begun = time.monotonic()
    command = [sys.executable, "-m", "tests.campaign.guided", name, str(folder), str(seed), str(number)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with open(folder / "log.txt", "w+", errors="replace") as log:
        try:
            done = subprocess.run(command, cwd=ROOT, env=environment, stdout=log, stderr=log, timeout=SECONDS)
            ending = f"exit status {done.returncode}" if done.returncode else ""
        except subprocess.TimeoutExpired:
            ending = f"more than {SECONDS} seconds"
        log.seek(0)
        result = f"{folder}: {ending}\n{log.read()[-3000:]}" if ending else "used, or refused in one line"
    return Outcome(f"search from {name}", result, time.monotonic() - begun, bool(ending), number)


def main(name: str, folder: Path, seed: int, number: int) -> None:
    """Search, and end this process: with the status 0 if no input was a fault."""
    import atheris

    with atheris.instrument_imports(include=INSTRUMENTED):
        targets: dict[str, Target] = importlib.import_module(SEARCHED[name]).TARGETS
    target = targets[name.partition("-")[2]]
    seeds = target.prepare(folder / "originals")
    names = sorted(seeds)
    (folder / "corpus").mkdir()
    for i, file in enumerate(names):
        (folder / "corpus" / f"{i:03d}").write_bytes(bytes([i]) + seeds[file])

    def use(data: bytes) -> None:
        """Use an input: its first byte chooses the name of the file, and the rest is the content."""
        path = folder / f"input-{names[data[0] % len(names) if data else 0]}"
        path.write_bytes(data[1:])
        said = io.StringIO()
        if has_fault(target, path, target.uses(seeds, path, random.Random(seed)), said):
            raise RuntimeError(f"{path}: {said.getvalue()}")

    limit_memory()
    # The time limit of an input is the target's own, which uses the same timer.
    options = [f"-runs={number}", f"-seed={seed}", f"-max_len={LONGEST}", f"-artifact_prefix={folder}/fault-"]
    options += ["-timeout=0", "-handle_alrm=0", "-rss_limit_mb=0", "-verbosity=0", "-len_control=0"]
    atheris.Setup([sys.argv[0], *options, str(folder / "corpus")], use)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
