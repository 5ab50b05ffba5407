"""Stores on loopback besides S3: Google's, by an emulator, and HDFS, by a small server that speaks WebHDFS over a folder.

Both are behind the proxy of tests/model/object_store.py, which can fail in the ways of networks.
"""

import json
import logging
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import gcsfs
import pytest
from gcp_storage_emulator.server import create_server

from bertloom import stores
from tests.model.object_store import Store, proxy_handler, serve

GS_ANSWERS = {
    "503": (503, '{"error": {"code": 503, "message": "Backend Error"}}'),
    "403": (403, '{"error": {"code": 403, "message": "me does not have storage.objects.get access"}}'),
    "expired": (401, '{"error": {"code": 401, "message": "Request had invalid authentication: it has expired."}}'),
}
HDFS_ANSWERS = {
    "503": (503, "busy"),
    "403": (
        403,
        '{"RemoteException": {"exception": "AccessControlException", "message": "Permission denied: user=me"}}',
    ),
    "expired": (403, '{"RemoteException": {"exception": "InvalidToken", "message": "token (me) is expired"}}'),
}


@contextmanager
def google_store(bucket: str) -> Iterator[Store]:
    """Google's store in memory, with one bucket."""
    logging.getLogger("gcp_storage_emulator").setLevel(logging.ERROR)
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = free.getsockname()
    emulator = create_server(*address, in_memory=True, default_bucket=bucket)
    emulator.start()
    store = Store(moto=address, answers=GS_ANSWERS)
    try:
        with pytest.MonkeyPatch.context() as patch, serve(proxy_handler(store)) as store.endpoint:
            patch.setenv("STORAGE_EMULATOR_HOST", store.endpoint)
            stores.clients.clear()
            gcsfs.GCSFileSystem.clear_instance_cache()
            yield store
    finally:
        stores.clients.clear()
        emulator.stop()


@contextmanager
def hdfs(folder: Path) -> Iterator[Store]:
    """HDFS with the content of a folder. Its clients need `connect(options_of(store))`."""
    server = type("OneServer", (WebHdfs,), {"folder": folder})
    with serve(server) as url:
        host, _, port = url.removeprefix("http://").partition(":")
        store = Store(moto=(host, int(port)), answers=HDFS_ANSWERS)
        with serve(proxy_handler(store)) as store.endpoint:
            yield store


def flags_of(store: Store) -> list[str]:
    """Beam's flags for an HDFS."""
    host, _, port = store.endpoint.removeprefix("http://").partition(":")
    return [f"--hdfs_host={host}", f"--hdfs_port={port}", "--hdfs_user=me"]


class WebHdfs(BaseHTTPRequestHandler):
    """https://hadoop.apache.org/docs/stable/hadoop-project-dist/hadoop-hdfs/WebHDFS.html, as far as fsspec uses it.

    A name node sends clients to a data node to read and write; here both are one.
    """

    protocol_version = "HTTP/1.1"
    folder: Path

    def log_message(self, *arguments: object) -> None:
        pass

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def answer_json(self, value: object, status: int = 200) -> None:
        self.answer(status, json.dumps(value).encode())

    def refuse(self, exception: str, message: str, status: int) -> None:
        self.answer_json({"RemoteException": {"exception": exception, "message": message}}, status)

    def handle_request(self) -> None:
        parts = urlsplit(self.path)
        self.query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.name = unquote(parts.path).removeprefix("/webhdfs/v1")
        path = self.folder / self.name.lstrip("/")
        operation = self.query["op"].lower()
        if operation in ("open", "create", "append") and "data" not in self.query:
            if operation == "open" and not path.is_file():
                return self.refuse("FileNotFoundException", f"File does not exist: {self.name}", 404)
            return self.answer(307, Location=f"http://{self.headers['Host']}{self.path}&data=true")
        return getattr(self, operation)(path)

    do_GET = do_PUT = do_POST = do_DELETE = handle_request

    def status(self, path: Path, suffix: str) -> dict[str, object]:
        found = path.stat()
        kind, size = ("DIRECTORY", 0) if path.is_dir() else ("FILE", found.st_size)
        times = {"modificationTime": int(found.st_mtime * 1000), "accessTime": 0}
        return {"pathSuffix": suffix, "type": kind, "length": size, **times}

    def getfilestatus(self, path: Path) -> None:
        if not path.exists():
            return self.refuse("FileNotFoundException", f"File does not exist: {self.name}", 404)
        return self.answer_json({"FileStatus": self.status(path, "")})

    def liststatus(self, path: Path) -> None:
        if not path.exists():
            return self.refuse("FileNotFoundException", f"File {self.name} does not exist.", 404)
        entries = [(path, "")] if path.is_file() else [(entry, entry.name) for entry in path.iterdir()]
        return self.answer_json({"FileStatuses": {"FileStatus": [self.status(*entry) for entry in entries]}})

    def open(self, path: Path) -> None:
        content = path.read_bytes()
        begin = int(self.query.get("offset", 0))
        if begin > len(content):
            return self.refuse("IOException", f"Offset={begin} out of the range [0, {len(content)})", 403)
        return self.answer(200, content[begin : begin + int(self.query.get("length", len(content)))])

    def create(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self.body)
        self.answer(201)

    def append(self, path: Path) -> None:
        with path.open("ab") as file:
            file.write(self.body)
        self.answer(200)

    def mkdirs(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        self.answer_json({"boolean": True})

    def rename(self, path: Path) -> None:
        target = self.folder / self.query["destination"].lstrip("/")
        done = path.exists() and target.parent.is_dir() and not target.exists()
        if done:
            path.rename(target)
        self.answer_json({"boolean": done})

    def delete(self, path: Path) -> None:
        existed = path.exists()
        if path.is_dir():
            shutil.rmtree(path)
        elif existed:
            path.unlink()
        self.answer_json({"boolean": existed})
