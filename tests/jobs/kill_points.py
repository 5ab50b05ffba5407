"""Jobs that die at a chosen point: `install` arms this process, `python kill_points.py` runs a list of jobs.

A kill point is "MOMENT NAME NUMBER": at the NUMBER-th file whose final path matches the expression NAME, `within`
its write, `before` it is renamed, or `after` that. Nothing of bertloom is imported, so workers can be given one, too.
"""

import builtins
import io
import json
import os
import re
import signal
import sys
import time
import traceback


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)  # the signal may take a moment to come


def install(point: str, once: str = "") -> None:
    """Arm this process. It creates the file `once` when it dies, and does not die if that file exists."""
    moment, name, number = point.split(" ")
    seen = [0]

    def here(path) -> bool:
        folder, base = os.path.split(os.fspath(path))
        final = os.path.join(folder, re.sub(r"^\.tmp-\d+-\d+-", "", base))
        if not re.search(name, final):
            return False
        seen[0] += 1
        if seen[0] != wanted:
            return False
        if once:
            try:
                os.close(os.open(once, os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                return False
        return True

    wanted = int(number)
    if moment == "start" and here(name):
        die()
    real_open, real_replace = builtins.open, os.replace

    def open_(path, mode="r", *arguments, **options):
        file = real_open(path, mode, *arguments, **options)
        if moment == "within" and mode == "wb" and isinstance(path, str) and ".tmp-" in path and here(path):
            return _Half(file)
        return file

    def replace(source, target, *arguments, **options):
        chosen = moment != "within" and here(target)
        if chosen and moment == "before":
            die()
        real_replace(source, target, *arguments, **options)
        if chosen and moment == "after":
            die()
        if chosen and moment == "slowly":
            time.sleep(0.5)
            seen[0] = 0

    builtins.open, os.replace = open_, replace


class _Half(io.BufferedWriter):
    """Write half of the data and die."""

    def __init__(self, file):
        super().__init__(file.detach())

    def write(self, data):
        super().write(bytes(data)[: len(data) // 2])
        self.flush()
        die()


def main() -> None:
    """Read [[kill point or "", argv], ...], run each in a fork of this process, which has imported everything, and write
    a JSON line for each: [exit status, seconds, output]."""
    from jobs import cli
    from pipeline.local.beam_import import import_beam

    import_beam(connectors=False)
    import pipeline.output
    import pipeline.preprocess  # noqa: F401

    for point, argv in json.load(sys.stdin):
        began, (reading, writing) = time.monotonic(), os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.dup2(writing, 1)
                os.dup2(writing, 2)
                os.close(reading)
                if point:
                    install(point)
                status = cli.main(argv)
                sys.stdout.flush()
                os._exit(status)
            except BaseException:
                traceback.print_exc()
                os._exit(99)
        os.close(writing)
        with open(reading, "rb") as file:
            said = file.read().decode()
        _, status = os.waitpid(child, 0)
        print(json.dumps([os.waitstatus_to_exitcode(status), time.monotonic() - began, said]), flush=True)


if __name__ == "__main__":
    main()
