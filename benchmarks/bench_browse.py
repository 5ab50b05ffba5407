"""Measure `bertloom browse` on a large data set, on the local disk and in a store that moto serves as S3.

    python benchmarks/bench_browse.py DATASET
    python benchmarks/bench_browse.py DATASET --words learning 机器学习 --local

The real command runs in a process of its own, and pages are requested as a browser does, with the requests that a page makes
by itself. The cache for S3 is empty at the start. Memory is the resident set size of the process, sampled fifty times a
second. It needs the extra `test`.
"""

import argparse
import html
import logging
import os
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import boto3
import psutil
from moto.server import ThreadedMotoServer
from setting import ROOT, header, write_report

from jobs.browser.data_set import BrowsedDataSet

KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
WORDS = ["learning", "机器学习", "hamlet"]
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--words", nargs="+", default=WORDS, help="words to search for")
    parser.add_argument("--local", action="store_true", help="leave out S3")
    arguments = parser.parse_args()
    data_set = BrowsedDataSet(str(arguments.dataset), None, 1.0)
    what = (
        f"{data_set.num_examples:,} examples in {len(data_set.member_firsts) - 1:,} members of {len(data_set.rows)} shards, "
        f"{sum(row['bytes'] for row in data_set.rows) / 1e6:,.0f} MB. Milliseconds: median and [least, largest] of the "
        f"requests in parentheses. A page is full when its 20 examples are there, or all that match."
    )
    found = {"local": measure(str(arguments.dataset), data_set, arguments.words)}
    if not arguments.local:
        with bucket(arguments.dataset) as url:
            found["S3 (moto)"] = measure(url, data_set, arguments.words)
    lines = [
        *header("Pages of `bertloom browse`", what, "starlette", "uvicorn", "jinja2", "pyarrow", "numpy"),
        f"| | {' | '.join(found)} |",
        f"|---|{'---|' * len(found)}",
    ]
    rows = list(next(iter(found.values())))
    lines += [f"| {name} | {' | '.join(column[name] for column in found.values())} |" for name in rows]
    write_report("browse", lines, is_sample=False)


class Client:
    """Requests pages of a server, and follows what they ask for."""

    def __init__(self, address: str) -> None:
        self.address = address

    def get(self, path: str) -> str:
        host = "/".join(self.address.split("/")[:3])
        whole = host + path if path.startswith("/") else self.address + path
        headers = {"HX-Request": "true"} if "/more?" in path else {}
        with OPENER.open(urllib.request.Request(whole, headers=headers)) as answer:
            text: str = answer.read().decode()
            return text

    def page(self, path: str, whole: bool = False) -> tuple[float, float, float]:
        """Return the milliseconds to the first answer, to the first example, and to a full page, or to the whole search."""
        start = time.perf_counter()
        text = self.get(path)
        first = example = time.perf_counter()
        num_examples = text.count("<h2><a")
        while (asks := re.search(r'hx-get="([^"]*)"', text)) and (whole or "counting=1" not in asks[1]):
            text = self.get(html.unescape(asks[1]))
            if not num_examples:
                example = time.perf_counter()
            num_examples += text.count("<h2><a")
        end = time.perf_counter()
        return (first - start) * 1e3, (example - start) * 1e3, (end - start) * 1e3


def measure(location: str, data_set: BrowsedDataSet, words: list[str]) -> dict[str, str]:
    """Return what was measured, by name."""
    found: dict[str, str] = {}
    draw = random.Random(1)
    with served(location) as (client, ready, peak):
        found["server ready"] = f"{ready * 1e3:,.0f}"
        found["first page after that"] = f"{client.page('d0/examples')[2]:,.0f}"
        found["memory after the first page, MB"] = f"{peak[0]:,.0f}"
        numbers = [draw.randrange(data_set.num_examples) for _ in range(20)]
        found["page at any number"] = shown([client.page(f"d0/examples?number={number}") for number in numbers], 2)
        found["last page"] = shown([client.page(f"d0/examples?before={data_set.num_examples}")], 2)
        for name, queries in filters_of(data_set, draw).items():
            times = [client.page(f"d0/examples?{query}") for query in queries]
            found[f"filter: {name}, first answer"] = shown(times, 0)
            found[f"filter: {name}, full page"] = shown(times, 2)
        found["memory after these, largest, MB"] = f"{peak[0]:,.0f}"
        for word in words:
            _, first, whole = client.page(f"d0/examples?word={urllib.request.quote(word)}", whole=True)
            found[f"search for {word}: first match"] = f"{first:,.0f}"
            found[f"search for {word}: all matches counted"] = f"{whole:,.0f}"
        for query in ("unknown=1", "label=1", "script=Latin", "masked_at=3-4"):
            client.page(f"d0/examples?{query}", whole=True)
        found["memory after whole searches, largest, MB"] = f"{peak[0]:,.0f}"
    return found


def filters_of(data_set: BrowsedDataSet, draw: random.Random) -> dict[str, list[str]]:
    """Return several queries of each filter on columns."""
    rows = data_set.rows
    documents = [
        row for split, numbers in data_set.pages.items() for row in data_set.documents(split, numbers[0]).to_pylist()
    ]
    lengths, copies = sorted({row["max_seq_length"] for row in rows}), sorted({row["copy"] for row in rows})
    return {
        "split": ["split=train", "split=validation"],
        "length": [f"length={length}" for length in lengths],
        "copy": [f"copy={copy}" for copy in copies],
        "label": [f"label={label}" for label in data_set.labels],
        "source": [f"source={urllib.request.quote(row['name'])}" for row in data_set.manifest["inputs"]],
        "document": [f"document={row['id']:016x}" for row in draw.sample(documents, min(20, len(documents)))],
        "tokens": [f"tokens={first}-{first + 2}" for first in draw.sample(range(5, lengths[-1]), 10)],
        "source, label and length": [
            f"source={urllib.request.quote(row['name'])}&label=1&length={lengths[-1]}"
            for row in data_set.manifest["inputs"]
        ],
    }


def shown(times: list[tuple[float, float, float]], column: int) -> str:
    values = [time[column] for time in times]
    return f"{median(values):,.0f} [{min(values):,.0f}, {max(values):,.0f}] ({len(values)})"


@contextmanager
def served(location: str) -> Iterator[tuple[Client, float, list[float]]]:
    """Run the command. Yields (client, seconds until the address was printed, [largest memory so far in MB])."""
    with tempfile.TemporaryDirectory() as cache:
        command = [sys.executable, "-m", "jobs.cli", "browse", location, "--no-open", "--cache-dir", cache]
        start = time.perf_counter()
        process = subprocess.Popen(
            command, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True
        )
        try:
            assert process.stdout
            address = process.stdout.readline().strip()
            ready = time.perf_counter() - start
            peak, watched = [0.0], psutil.Process(process.pid)

            def watch() -> None:
                while process.poll() is None:
                    peak[0] = max(peak[0], watched.memory_info().rss / 1e6)
                    time.sleep(0.02)

            watcher = threading.Thread(target=watch, daemon=True)
            watcher.start()
            time.sleep(0.1)
            yield Client(address), ready, peak
        finally:
            process.terminate()
            process.wait()


@contextmanager
def bucket(folder: Path) -> Iterator[str]:
    """Serve a copy of a folder as S3. Yields its URL, which the environment of this process makes readable."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        os.environ.update(KEYS | {"AWS_ENDPOINT_URL": f"http://{host}:{port}"})
        client = boto3.client("s3")
        client.create_bucket(Bucket="bench")
        for path in filter(Path.is_file, folder.rglob("*")):
            client.put_object(Bucket="bench", Key=f"set/{path.relative_to(folder)}", Body=path.read_bytes())
        yield "s3://bench/set"
    finally:
        server.stop()


if __name__ == "__main__":
    main()
