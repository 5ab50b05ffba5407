"""Compare `bertloom.storage` (fsspec) with pyarrow.fs on a local S3 server: requests, the client's CPU, and memory.

    python benchmarks/bench_storage.py

The server is moto's, in a process of its own that counts requests. Each measurement runs in a new process, so its CPU has no
imports of the other library and its memory is its own. The patterns are those of a job and of the trainer.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from urllib.request import urlopen

from setting import ROOT, header, write_report

PACKAGES = ("fsspec", "s3fs", "pyarrow", "moto")
MB = 1_000_000
NUM_LISTED = 10_000
KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
PATTERNS = {
    "read 300 files of 5 KB": "small",
    "read 200 ranges of 100 KB of a 40 MB shard": "ranges",
    "read 6 near spans of each of 50 parts of 3.5 MB": "parts",
    "read a text of 58 MB in sequence": "sequence",
    "write 100 files of 100 KB": "write 100",
    "write 20 files of 4 MB": "write 4000",
    "write 4 files of 40 MB": "write 40000",
    "sizes of 300 files": "sizes",
    f"list {NUM_LISTED:,} objects": "list",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", default="storage", help="name of the file in benchmarks/results/")
    arguments = parser.parse_args()
    with subprocess.Popen([sys.executable, __file__, "server"], stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout
            url = server.stdout.readline().strip()
            os.environ |= {**KEYS, "AWS_ENDPOINT_URL": url, "PYTHONPATH": str(ROOT)}
            rows = ["| pattern | library | requests | CPU, s | peak memory, MB |", "|---|---|---|---|---|"]
            for pattern, short in PATTERNS.items():
                for library in ("bertloom.storage", "pyarrow.fs"):
                    urlopen(f"{url}/reset").read()
                    command = [sys.executable, __file__, library, short]
                    measured = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
                    counts = json.loads(urlopen(f"{url}/reset").read())
                    requests = ", ".join(f"{n} {method}" for method, n in sorted(counts.items()))
                    rows.append(f"| {pattern} | {library} | {requests} | {measured[0]:.2f} | {measured[1]:.0f} |")
                    print(rows[-1], flush=True)
        finally:
            server.terminate()
    what = "Each line is one process. CPU is its own, without imports and the connection; memory is what it grew by."
    write_report(arguments.name, [*header("S3 by fsspec and by pyarrow.fs", what, *PACKAGES), *rows], False)


def serve() -> None:
    """Run the server, with the objects that are read and listed. /reset returns the counts, and sets them to zero."""
    import logging

    from moto.s3.models import s3_backends
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    counts: Counter[str] = Counter()
    application = DomainDispatcherApplication(create_backend_app)

    def counting(environment, start):
        if environment["PATH_INFO"] == "/reset":
            body = json.dumps(counts).encode()
            counts.clear()
            start("200 OK", [("Content-Length", str(len(body)))])
            return [body]
        is_list = "list-type" in environment.get("QUERY_STRING", "")
        counts["LIST" if is_list else environment["REQUEST_METHOD"]] += 1
        return application(environment, start)

    class Handler(WSGIRequestHandler):
        protocol_version = "HTTP/1.1"

        def log(self, *_: object) -> None:
            pass

    server = make_server("127.0.0.1", 0, counting, threaded=True, request_handler=Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    backend = s3_backends["123456789012"]["aws"]
    backend.create_bucket("bucket", "us-east-1")
    for i in range(300):
        backend.put_object("bucket", f"small/{i}", b"x" * 5000)
    for i in range(50):
        backend.put_object("bucket", f"part/{i}", bytes(3_500_000))
    backend.put_object("bucket", "shard", bytes(40 * MB))
    backend.put_object("bucket", "text", bytes(58 * MB))
    for i in range(NUM_LISTED):
        backend.put_object("bucket", f"many/{i // 1000:03d}/{i:06d}.txt", b"")
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    threading.Event().wait()


def measure(library: str, pattern: str) -> None:
    """Print the CPU seconds and the peak memory that a pattern takes, after the library is loaded and connected."""
    work = with_storage() if library == "bertloom.storage" else with_arrow()
    work["small"](1)
    before = resource.getrusage(resource.RUSAGE_SELF)
    name, _, kilobytes = pattern.partition(" ")
    number = {"100": 100, "4000": 20, "40000": 4}.get(kilobytes, 0)
    work[name](number, int(kilobytes) * 1000) if number else work[name]()
    after = resource.getrusage(resource.RUSAGE_SELF)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(json.dumps([seconds, (after.ru_maxrss - before.ru_maxrss) / 1024]))


def with_storage() -> dict[str, Callable[..., object]]:
    from bertloom import storage

    def sequence() -> None:
        with storage.open_read("s3://bucket/text", 58 * MB, 58 * MB) as file:
            while file.read(1 << 20):
                pass

    return {
        "small": lambda number=300: [storage.read(f"s3://bucket/small/{i}") for i in range(number)],
        "ranges": lambda: [storage.read_range("s3://bucket/shard", i * 200_000, 100_000) for i in range(200)],
        "parts": lambda: [storage.read_ranges(f"s3://bucket/part/{i}", spans()) for i in range(50)],
        "sequence": sequence,
        "write": lambda number, size: [storage.write_whole(f"s3://bucket/w/{i}", [bytes(size)]) for i in range(number)],
        "sizes": lambda: [storage.size(f"s3://bucket/small/{i}") for i in range(300)],
        "list": lambda: storage.find("s3://bucket/many"),
    }


def with_arrow() -> dict[str, Callable[..., object]]:
    from pyarrow.fs import FileSelector, S3FileSystem

    system = S3FileSystem(endpoint_override=os.environ["AWS_ENDPOINT_URL"], scheme="http", region="us-east-1")

    def read(path: str, places: list[tuple[int, int]] | None = None) -> None:
        with system.open_input_file(path) as file:
            if places is None:
                file.read()
            for offset, length in places or []:
                file.read_at(length, offset)

    def sequence() -> None:
        with system.open_input_stream("bucket/text", buffer_size=8 << 20) as file:
            while file.read(1 << 20):
                pass

    def write(number: int, size: int) -> None:
        for i in range(number):
            with system.open_output_stream(f"bucket/w/{i}") as file:
                file.write(bytes(size))

    return {
        "small": lambda number=300: [read(f"bucket/small/{i}") for i in range(number)],
        "ranges": lambda: read("bucket/shard", [(i * 200_000, 100_000) for i in range(200)]),
        "parts": lambda: [read(f"bucket/part/{i}", spans()) for i in range(50)],
        "sequence": sequence,
        "write": write,
        "sizes": lambda: [system.get_file_info(f"bucket/small/{i}").size for i in range(300)],
        "list": lambda: {
            info.path: (info.size, info.mtime)
            for info in system.get_file_info(FileSelector("bucket/many", recursive=True))
        },
    }


def spans() -> list[tuple[int, int]]:
    """The spans of one bucket in a part: (offset, length)."""
    return [(3_400_000, 24), (3_400_500, 24), (100_000, 40_000), (150_000, 10_000), (170_000, 30_000), (210_000, 5000)]


if __name__ == "__main__":
    if sys.argv[1:] == ["server"]:
        serve()
    elif len(sys.argv) == 3 and sys.argv[1] in ("bertloom.storage", "pyarrow.fs"):
        measure(*sys.argv[1:])
    else:
        main()
