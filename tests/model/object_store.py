"""A real S3 server on loopback (moto's), behind a proxy that can fail in the ways of networks."""

import http.client
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import boto3
import pytest
import s3fs
from moto.server import ThreadedMotoServer

from bertloom import stores

KEYS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_MAX_ATTEMPTS": "1",
    "AWS_CONFIG_FILE": "/nonexistent",
    "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
}
"""What a client finds in its environment. Its own tries are turned off, so that ours can be counted."""
S3_ANSWERS = {
    kind: (int(status), f"<Error><Code>{code}</Code><Message>{text}</Message></Error>")
    for kind, status, code, text in (
        ("500", 500, "InternalError", "asked for"),
        ("503", 503, "SlowDown", "Please reduce your request rate."),
        ("403", 403, "AccessDenied", "asked for"),
        ("expired", 400, "ExpiredToken", "The provided token has expired."),
        ("wrong", 403, "InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist in our records."),
    )
}
LEFT_OUT = ("content-length", "connection", "server", "date", "transfer-encoding")


@dataclass
class Store:
    """The server, and what goes wrong on the way to it."""

    endpoint: str = ""
    """Of the proxy."""
    requests: list[tuple[str, str, str]] = field(default_factory=list)
    """Method, path and range of all that came, the failed ones too."""
    faults: list[list] = field(default_factory=list)
    """[kind, part of a path, how many times to come, method]; kinds: those of `answers`, cut, short, slow, flip, lost."""
    answers: dict[str, tuple[int, str]] = field(default_factory=lambda: dict(S3_ANSWERS))
    """Kind -> status and body of an answer that the store gives instead of its own."""
    moto: tuple[str, int] = ("", 0)

    def fail(self, kind: str, path: str, times: int, method: str = "GET") -> None:
        """From now on, this number of requests for such paths fails in this way.

        cut: the connection ends in the middle of the answer. short: the answer ends there, and says so. lost: the connection
        ends in the middle of the request.
        """
        self.faults.append([kind, path, times, method])

    def reset(self) -> None:
        self.faults.clear()
        self.requests.clear()

    def fetched(self, ending: str = ".tar") -> list[tuple[str, str]]:
        """Path and range of what was read of such files."""
        return [(path, part) for method, path, part in self.requests if method == "GET" and path.endswith(ending)]

    def client(self):
        return boto3.client(
            "s3",
            endpoint_url=f"http://{self.moto[0]}:{self.moto[1]}",
            region_name="us-east-1",
            aws_access_key_id="test",
            aws_secret_access_key="test",
        )

    def upload(self, directory: Path, bucket: str) -> str:
        """Copies a folder into a new bucket, past the proxy; its URL."""
        client = self.client()
        client.create_bucket(Bucket=bucket)
        for path in directory.rglob("*"):
            if path.is_file():
                client.put_object(Bucket=bucket, Key=f"set/{path.relative_to(directory)}", Body=path.read_bytes())
        return f"s3://{bucket}/set"


def proxy_handler(store: Store) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *arguments: object) -> None:
            pass

        def forward(self) -> None:
            path = self.path.partition("?")[0]
            store.requests.append((self.command, path, self.headers.get("Range", "")))
            fits = [
                fault for fault in store.faults if fault[1] in self.path and fault[2] > 0 and fault[3] == self.command
            ]
            fault = fits[0] if fits else None
            kind = fault[0] if fault else ""
            if fault:
                fault[2] -= 1
            length = int(self.headers.get("Content-Length", 0))
            if kind == "lost":
                self.rfile.read(length // 2)
                self.close_connection = True
                return
            body = self.rfile.read(length)
            if kind in store.answers:  # the request has no effect
                status, text = store.answers[kind]
                self.send_response(status)
                self.send_header("Content-Length", str(len(text.encode())))
                self.end_headers()
                self.wfile.write(text.encode() if self.command != "HEAD" else b"")
                return
            upstream = http.client.HTTPConnection(*store.moto, timeout=30)
            upstream.request(self.command, self.path, body, dict(self.headers))
            answer = upstream.getresponse()
            content, status = answer.read(), answer.status
            upstream.close()
            if kind == "short":
                content = content[: len(content) // 2]
            if kind == "flip":
                middle = len(content) // 2
                content = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
            self.send_response(status)
            for name, value in answer.getheaders():
                # No checksum of the store's own: ours is to be seen at work.
                if name.lower() not in LEFT_OUT and not name.lower().startswith("x-amz-checksum"):
                    self.send_header(name, value)
            length = answer.getheader("Content-Length") if self.command == "HEAD" else str(len(content))
            self.send_header("Content-Length", length or "0")
            self.end_headers()
            if kind in ("cut", "slow"):
                self.wfile.write(content[: len(content) // 2])
                if kind == "slow":
                    time.sleep(1.5)
                self.close_connection = True
                return
            self.wfile.write(content)

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = forward

    return Handler


class QuietServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, address: object) -> None:
        """The client went away, as it may."""


@contextmanager
def serve(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """An HTTP server on loopback; its URL."""
    server = QuietServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def forget_clients() -> None:
    """Drop the clients of this process, which know another server or other credentials."""
    stores.clients.clear()
    stores._found.clear()
    s3fs.S3FileSystem.clear_instance_cache()


@contextmanager
def object_store() -> Iterator[Store]:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    store = Store(moto=moto.get_host_and_port())
    with pytest.MonkeyPatch.context() as patch, serve(proxy_handler(store)) as store.endpoint:
        for name, value in (KEYS | {"AWS_ENDPOINT_URL": store.endpoint}).items():
            patch.setenv(name, value)
        forget_clients()
        yield store
    moto.stop()
