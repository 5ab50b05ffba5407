"""Another runner's engine is reached or started before the job; each fault is one line, and nothing started stays."""

import json
import os
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import psutil
import pytest

from pipeline.execution import pipeline_options
from pipeline.remote import engine
from pipeline.remote.engine import open_engine

LOOPBACK = "--environment_type=LOOPBACK"
PRISM = f"""#!/bin/sh
exec {sys.executable} -m apache_beam.runners.portability.local_job_service_main --job_port "$2"
"""


@pytest.fixture(autouse=True)
def own_logs(tmp_path, monkeypatch):
    """A job's log is a temporary file; Beam keeps its downloads in the home folder."""
    (tmp_path / "logs").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "logs"))
    monkeypatch.setattr("apache_beam.utils.subprocess_server.JavaJarServer.JAR_CACHE", str(tmp_path / "jars"))
    monkeypatch.setattr("apache_beam.runners.portability.prism_runner.PrismJobServer.BIN_CACHE", str(tmp_path / "bin"))
    monkeypatch.setattr("apache_beam.utils.subprocess_server.urlopen", no_network)
    monkeypatch.setattr("apache_beam.runners.portability.prism_runner.urlopen", no_network)
    yield
    assert not [child for child in psutil.Process().children() if "job_port" in " ".join(child.cmdline())]


def no_network(*_):
    from urllib.error import URLError

    raise URLError("Name or service not known")


def opened(flags: list[str]) -> str:
    with open_engine(pipeline_options(1, flags), flags) as found:
        assert os.path.exists(found.log)
        return found.found


def script(path: Path, text: str) -> str:
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


@contextmanager
def web_page(content: dict):
    """A server that answers every request with a JSON object. Yields its HOST:PORT."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self):
            body = json.dumps(content).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with HTTPServer(("localhost", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"localhost:{server.server_port}"
        server.shutdown()


def test_a_job_server_runs_for_the_length_of_the_job(tmp_path):
    flags = ["--runner=PrismRunner", f"--prism_location={script(tmp_path / 'prism', PRISM)}"]
    options = pipeline_options(1, flags)
    with open_engine(options, flags) as found:
        (server,) = [child for child in psutil.Process().children() if "--job_port" in child.cmdline()]
        assert os.getpgid(server.pid) == server.pid  # Ctrl-C does not reach it
        port = server.cmdline()[-1]
        assert found.found == f"PrismRunner, job server localhost:{port}, workers: LOOPBACK, in this process"
        again = ["--runner=PortableRunner", f"--job_endpoint=localhost:{port}", LOOPBACK]
        assert opened(again) == f"PortableRunner, job server localhost:{port}, workers: LOOPBACK, in this process"
    assert not server.is_running()
    assert not list((tmp_path / "logs").glob("bertloom-*"))  # neither a log nor a folder of the server


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("PortableRunner", "--runner=PortableRunner needs --job_endpoint=HOST:PORT"),
        (
            "PortableRunner --job_endpoint=localhost:1",
            "--job_endpoint=localhost:1: no job server answers there (ipv4:127.0.0.1:1: Failed to connect to remote host: ",
        ),
        ("PortableRunner --job_endpoint=no.invalid:1", "--job_endpoint=no.invalid:1: no job server answers there ("),
        ("FlinkRunner --job_endpoint=localhost:1", "--job_endpoint=localhost:1: no job server answers there ("),
        ("PrismRunner", "--runner=PrismRunner needs its job server: Unable to fetch remote prism binary at https://"),
        ("PrismRunner --prism_location=/no/prism", "--prism_location=/no/prism: there is no such file; expected"),
        ("PrismRunner --prism_location={folder}", "--prism_location={folder}: there is no such file; expected"),
        ("PrismRunner --prism_location={text}", "{text} does not start: Exec format error; expected Beam's `prism`"),
        ("PrismRunner --prism_location={failing}", "{failing}, ended at once with status 3: no port is free"),
        ("FlinkRunner", "--runner=FlinkRunner needs its job server: Unable to fetch remote job server jar at https://"),
        ("SparkRunner", "give --spark_job_server_jar=PATH, Beam's jar for your engine's version, or --job_endpoint"),
        (
            "FlinkRunner --flink_job_server_jar=/no.jar",
            "--flink_job_server_jar=/no.jar: there is no such file; expected",
        ),
        (
            "SparkRunner --spark_job_server_jar=/no.jar",
            "--spark_job_server_jar=/no.jar: there is no such file; expected",
        ),
        (
            "FlinkRunner --flink_job_server_jar={text} --job_server_java_launcher=/no/java",
            "/no/java does not start: No such file or directory; install Java, or give --job_server_java_launcher=PATH",
        ),
        (
            "FlinkRunner --flink_master=localhost:1",
            "=localhost:1: no Flink answers there (Connection refused)",
        ),
        ("SparkRunner --spark_master_url=spark://localhost:1", "no Spark master answers there (Connection refused)"),
    ],
)
def test_an_engine_that_does_not_start_or_answer_is_one_error(tmp_path, flags, said):
    (tmp_path / "text").write_text("text")
    failing = script(tmp_path / "failing", "#!/bin/sh\necho no port is free\nexit 3\n")
    names = {
        "text": str(tmp_path / "text"),
        "failing": failing,
        "folder": str(tmp_path),
    }
    runner, *more = flags.format(**names).split()
    with pytest.raises(ConnectionError) as error:
        opened([f"--runner={runner}", *more, LOOPBACK])
    assert said.format(**names) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (
            ["--environment_type=EXTERN"],
            "--environment_type=EXTERN: expected one of LOOPBACK, EXTERNAL, PROCESS, DOCKER",
        ),
        (["--environment_type=EXTERNAL"], "--environment_type=EXTERNAL needs --environment_config=HOST:PORT"),
        (
            ["--environment_type=EXTERNAL", "--environment_config=localhost"],
            "--environment_config=localhost: expected HOST:PORT, the address of a worker pool, such as localhost:50000",
        ),
        (["--environment_type=PROCESS"], "--environment_type=PROCESS needs --environment_config="),
        ([], "the workers would run in Beam's own Docker image, which lacks bertloom"),
    ],
)
def test_workers_that_could_not_run_are_an_error_before_anything_starts(flags, said):
    with pytest.raises(ValueError) as error:
        opened(["--runner=PortableRunner", "--job_endpoint=localhost:1", *flags])
    assert said in str(error.value)


def test_a_program_that_is_no_dask_scheduler_is_an_error_and_not_waited_for(monkeypatch, tmp_path):
    monkeypatch.setattr(engine, "CONNECT_SECONDS", 0.1)
    with web_page({}) as address:
        with pytest.raises(
            ConnectionError, match=f"=tcp://{address}: no Dask scheduler answers there .* Start one with"
        ):
            opened(["--runner=DaskRunner", f"--dask_client_address=tcp://{address}"])
        (tmp_path / "scheduler.json").write_text(json.dumps({"address": f"tcp://{address}"}))
        with pytest.raises(ConnectionError, match="--dask_scheduler_file=.*: no Dask scheduler answers there"):
            opened(["--runner=DaskRunner", f"--dask_scheduler_file={tmp_path}/scheduler.json"])


def test_an_unknown_flag_is_an_error_once_the_job_server_has_named_its_own(tmp_path):
    flags = ["--runner=PrismRunner", f"--prism_location={script(tmp_path / 'prism', PRISM)}", "--no_such_thing=1"]
    with pytest.raises(ValueError, match="--no_such_thing, after --, is not a flag of Beam or of this runner"):
        opened(flags)


def test_a_flink_cluster_is_described_and_its_version_compared():
    overview = {"taskmanagers": 2, "slots-total": 4, "flink-version": "1.19.1"}
    with web_page(overview) as address:
        flags = ["--runner=FlinkRunner", f"--flink_master={address}"]
        found = engine.check_master(pipeline_options(1, [*flags, "--flink_version=1.19"]))
        assert found == f" at http://{address} (Flink 1.19.1, 2 task managers, 4 slots)"
        with pytest.raises(ValueError, match="2.2 differs from Flink 1.19.1 at .*: give --flink_version=1.19"):
            engine.check_master(pipeline_options(1, flags))
        assert engine.check_master(pipeline_options(1, [*flags, "--flink_job_server_jar=x.jar"])) == found
    with web_page({}) as address:
        found = engine.check_master(pipeline_options(1, ["--runner=FlinkRunner", f"--flink_master={address}"]))
        assert "Flink of unknown version" in found
