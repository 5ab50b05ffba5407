"""A stand-in for Dataflow on this machine: it takes a job over HTTP, and runs the graph that the launcher has uploaded."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.pipeline.job_graphs import WITHOUT_LAUNCHER, as_on_a_worker

_RUN = f"""
{WITHOUT_LAUNCHER}
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability import python_urns
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

graph = beam_runner_api_pb2.Pipeline.FromString(sys.stdin.buffer.read())
for environment in graph.components.environments.values():  # a container elsewhere, this process here
    environment.urn, environment.payload = python_urns.EMBEDDED_PYTHON, b""
FnApiRunner().run_via_runner_api(graph, PipelineOptions()).wait_until_finish()
"""
ID = "2026-01-01_0"


@dataclass
class Service:
    """What it was asked, and how it answers."""

    folder: Path
    """Where the launcher uploads to."""
    endpoint: str = ""
    job: dict = field(default_factory=dict)
    failure: str = ""
    """The message with which the job fails; if empty, it is run."""

    def start(self, job: dict) -> dict:
        self.job = job
        if not self.failure:
            graph = (self.folder / "pipeline.pb").read_bytes()
            environment = as_on_a_worker(with_store=True)
            subprocess.run([sys.executable, "-c", _RUN], input=graph, cwd="/", env=environment, check=True, timeout=300)
        state = "JOB_STATE_RUNNING" if self.failure else "JOB_STATE_DONE"
        return {"id": ID, "currentState": state, "clientRequestId": job["clientRequestId"]}

    def state(self, path: str) -> dict:
        if path.endswith("/messages"):
            message = {"id": "1", "time": "2026-01-01T00:00:00Z", "messageText": self.failure}
            return {"jobMessages": [message | {"messageImportance": "JOB_MESSAGE_ERROR"}]}
        if path.endswith("/metrics"):
            return {"metrics": []}
        return {"id": ID, "currentState": "JOB_STATE_FAILED" if self.failure else "JOB_STATE_DONE"}


@contextmanager
def dataflow_service(folder: Path) -> Iterator[Service]:
    """Run the stand-in for the length of a block."""
    service = Service(folder)

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            pass

        def do_POST(self) -> None:
            self.answer(service.start(json.loads(self.rfile.read(int(self.headers["Content-Length"])))))

        def do_GET(self) -> None:
            self.answer(service.state(self.path.partition("?")[0]))

        def answer(self, content: dict) -> None:
            data = json.dumps(content).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    service.endpoint = f"http://localhost:{server.server_address[1]}"
    try:
        yield service
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
