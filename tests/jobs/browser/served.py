"""`bertloom browse` in a process of its own, and requests to it, byte by byte."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

ROOT = Path(__file__).parents[3]
GOLDEN = ROOT / "tests/golden/dataset"
HEEDED = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
"""The shell's background jobs, and what they start, ignore SIGINT."""
RUN = HEEDED + "import sys; from bertloom_entry import main; sys.exit(main())"


@dataclass
class Served:
    """A server that runs."""

    process: subprocess.Popen[str]
    address: str

    @property
    def port(self) -> int:
        port = urlsplit(self.address).port
        assert port
        return port

    @property
    def token(self) -> str:
        return urlsplit(self.address).path.strip("/")

    def connect(self) -> socket.socket:
        return socket.create_connection((urlsplit(self.address).hostname, self.port), timeout=60)

    def raw(self, request: str) -> str:
        """Send the bytes of a request and return those of the answer. The connection must be closed by the server."""
        with self.connect() as connection:
            connection.sendall(request.encode("latin-1"))
            return b"".join(iter(lambda: connection.recv(1 << 16), b"")).decode("utf-8")

    def ask(self, path: str, *headers: str, method: str = "GET", host: str | None = "127.0.0.1") -> tuple[int, str]:
        """Return (status, everything that came back)."""
        lines = [f"{method} {path} HTTP/1.1", *([f"Host: {host}"] if host is not None else []), *headers]
        answer = self.raw("\r\n".join([*lines, "Connection: close", "", ""]))
        return int(answer.split(" ", 2)[1]), answer

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """Send a signal and return (exit status, what was written to standard error)."""
        self.process.send_signal(number)
        _, said = self.process.communicate(timeout=300)
        return self.process.returncode, said


@contextmanager
def served(*words: object, code: str = RUN, **environment: str) -> Iterator[Served]:
    """Run `bertloom browse --no-open` with these words until the block ends."""
    command = [sys.executable, "-W", "error", "-c", code, "browse", "--no-open", *map(str, words)]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout
        address = process.stdout.readline().strip()
        assert address, process.communicate()[1]
        yield Served(process, address)
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()
