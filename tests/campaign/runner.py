"""Runs the campaign of faults: all parts, two at a time, in about an hour on two cores.

    python -m tests.campaign                                 # or: make campaign
    python -m tests.campaign --part kills --minutes 20
    python -m tests.campaign --part kills --only 17          # the case of index 17 again

Each part writes its section of benchmarks/results/campaign.md. The exit status is 1 if there was any fault.
"""

import argparse
import os
import shlex
import shutil
import tempfile
import threading
import time
import traceback
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

from tests.campaign.outcome import Outcome
from tests.campaign.parts import PARTS, run_part
from tests.campaign.report import section, write_section

AT_ONCE = 2
SECONDS_BETWEEN_LINES = 30


def main(words: list[str]) -> int:
    options = parse(words)
    names, began = options.part or list(PARTS), time.monotonic()
    command = shlex.join(["python", "-m", "tests.campaign", *words])
    num_faults = 0
    context, ours = get_context("spawn"), os.getpid()
    pool = ProcessPoolExecutor(AT_ONCE, context, initializer=end_with, initargs=(ours,), max_tasks_per_child=1)
    try:
        running = {pool.submit(attempt, name, options): name for name in names}
        for future in as_completed(running):
            name, error = running[future], future.exception()
            if error:  # such as a crash of the process
                outcomes, seconds = [(-1, fault_of_part(f"{type(error).__name__}: {error}"))], time.monotonic() - began
                print(f"{name}: {outcomes[0][1].result}", flush=True)
            else:
                outcomes, seconds = future.result()
            num_faults += sum(outcome.is_fault for _, outcome in outcomes)
            if options.only is None:
                write_section(name, section(name, command, options.seed, outcomes, seconds, options.share))
    finally:
        pool.shutdown(cancel_futures=True)  # after Ctrl-C no other part begins
    print(f"faults: {num_faults}")
    return int(num_faults > 0)


def parse(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.campaign", description="Run the campaign of faults.")
    parser.add_argument("--part", nargs="+", choices=PARTS, help="parts to run; default: all")
    amount = parser.add_mutually_exclusive_group()
    amount.add_argument(
        "--minutes", type=float, help="time limit of each part; the part ends after the case that runs then"
    )
    amount.add_argument("--share", type=float, default=1.0, help="amount: 1 is the whole campaign, 0.01 a hundredth")
    parser.add_argument("--seed", type=int, default=1, help="seed of every draw")
    parser.add_argument("--only", type=int, metavar="INDEX", help="run this case of one --part; no report is written")
    options = parser.parse_args(words)
    if options.only is not None and len(options.part or []) != 1:
        parser.error("--only INDEX is a case of one part: add --part NAME")
    if options.only is not None and options.only < 0:
        parser.error(f"--only {options.only}: expected the index of a case, 0 or more")
    if not options.share > 0:
        parser.error(f"--share {options.share}: expected more than 0; 1 is the whole campaign")
    return options


def end_with(runner: int) -> None:
    """Let this process end with the runner, also if the runner is killed."""

    def watch() -> None:
        while os.getppid() == runner:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def fault_of_part(text: str) -> Outcome:
    """Return the outcome of a part that ended with an error of its own."""
    return Outcome("the part itself", text, 0, is_fault=True)


def attempt(name: str, options: argparse.Namespace) -> tuple[list[tuple[int, Outcome]], float]:
    """Run a part and return its outcomes with their indices, and the seconds that it took."""
    folder, began = Path(tempfile.mkdtemp(prefix=f"campaign-{name}-")), time.monotonic()
    found: list[tuple[int, Outcome]] = []
    first, shown = options.only or 0, began
    outcomes = run_part(name, folder, options.seed, options.share, options.only)
    try:
        for index, outcome in enumerate(outcomes, first):
            found.append((index, outcome))
            if outcome.is_fault or not outcome.count or options.only is not None:
                print(f"{name} {index}: {outcome.what}: {outcome.result}", flush=True)
            seconds = time.monotonic() - began
            if began + seconds > shown + SECONDS_BETWEEN_LINES:
                print(f"{name}: {sum(outcome.count for _, outcome in found):,} cases in {seconds:.0f} s", flush=True)
                shown = began + seconds
            if options.minutes is not None and seconds > 60 * options.minutes:
                break
        if not found:
            raise ValueError(f"the part has no case {first}")
    except Exception:
        text = traceback.format_exc()
        print(f"{name}: {text}", flush=True)
        found.append((first + len(found), fault_of_part(text)))
    finally:  # after Ctrl-C, too
        outcomes.close()
        if any(outcome.is_fault for _, outcome in found):
            print(f"{name}: the files of the cases are in {folder}", flush=True)
        else:
            shutil.rmtree(folder)
    return found, time.monotonic() - began
