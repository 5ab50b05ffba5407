"""Who gets an answer from `bertloom browse`, byte by byte, and how the command ends."""

import ctypes
import os
import re
import signal
import socket
import subprocess
import sys

import pytest

from jobs.browser.app import build_app
from jobs.browser.security import HEADERS, Guard
from jobs.browser.server import MOST_CONNECTIONS, listen
from jobs.browser.targets import Targets
from jobs.cli import main
from tests.jobs.browser.served import GOLDEN, ROOT, RUN, Served, served


@pytest.fixture(scope="module")
def server():
    with served(GOLDEN) as running:
        yield running
        assert running.end() == (143, "bertloom browse: terminated\n")  # and nothing else was written


# ---- which requests are answered


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.0.0.1:9", "localhost", "LOCALHOST:80", "localhost.", "[::1]", "[::1]:9"]
)
def test_a_request_with_the_token_and_a_name_of_this_machine_is_answered(server: Served, host):
    assert server.ask(f"/{server.token}/d0/examples", host=host)[0] == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:80", "127.0.0.1@evil", "10.0.0.1", "", ":80"],
)
def test_another_host_is_refused_also_with_the_token(server: Served, host):
    status, answer = server.ask(f"/{server.token}/d0/examples", host=host)
    assert status == 421 and f"\r\n\r\nHost: {host}: expected a name of this machine." in answer


def test_a_request_without_a_host_or_with_two_is_refused(server: Served):
    assert server.ask(f"/{server.token}/", host=None)[0] == 400
    assert server.ask(f"/{server.token}/", "Host: evil.example")[0] == 400
    assert server.raw(f"GET /{server.token}/ HTTP/1.0\r\n\r\n").startswith("HTTP/1.1 421 ")


@pytest.mark.parametrize(
    "path",
    ["/", "/d0/examples", "/x{token}/", "/{token}x/", "//{token}/", "/./{token}/", "/static/style.css", "/%2f{token}/",
     "http://evil.example/{token}/", "http://127.0.0.1/{token}/", "/open/", "/open/x"],
)  # fmt: skip
def test_a_request_without_the_token_at_its_place_is_refused(server: Served, path):
    status, answer = server.ask(path.format(token=server.token))
    assert status == 403 and server.token not in answer


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "GETS"])
def test_only_get_and_head_are_accepted(server: Served, method):
    status, answer = server.ask(f"/{server.token}/d0/examples", method=method)
    assert status == 405 and "\r\nallow: GET, HEAD\r\n" in answer


def test_head_gives_the_headers_alone(server: Served):
    assert re.fullmatch(r"HTTP/1.1 200 .*\r\n\r\n", server.ask(f"/{server.token}/d0/examples", method="HEAD")[1], re.S)


@pytest.mark.parametrize(
    "path",
    ["../app.py", "%2e%2e/app.py", "..%2fapp.py", "..%5capp.py", "//etc/passwd", "%2fetc/passwd", "%00", "", ".",
     "style.css/..%2f..%2fapp.py", "a" * 5000, "%ff", "../static%2f../app.py"],
)  # fmt: skip
def test_static_files_do_not_leave_their_folder(server: Served, path):
    status, answer = server.ask(f"/{server.token}/static/{path}")
    assert status == 404 and "build_app" not in answer and "root:" not in answer


@pytest.mark.parametrize(
    "path", ["", "d0/examples", "d0/none", "static/style.css", "static/none", "d0/examples?after=x"]
)
def test_every_answer_has_the_headers_that_protect_it(server: Served, path):
    head = server.ask(f"/{server.token}/{path}")[1].partition("\r\n\r\n")[0]
    assert {f"{name}: {value}" for name, value in HEADERS.items()} <= {*head.split("\r\n")}
    assert "\r\ncache-control: no-store" in head and "\r\nserver:" not in head


def test_wrong_addresses_give_a_page_with_a_line_that_names_the_value(server: Served):
    for path, status, message in [
        ("d7/examples", 404, "the data set d7 does not exist"),
        ("d0/none", 404, "the page /d0/none does not exist"),
        ("d0/%3Cscript%3E", 404, "the page /d0/&lt;script&gt; does not exist"),
        ("%ff%fe", 404, "the page /�� does not exist"),
    ]:
        found, answer = server.ask(f"/{server.token}/{path}")
        assert found == status and f'<p class="error" role="alert">{message}</p>' in answer


def test_a_very_long_address_and_bytes_that_are_no_request_are_refused_without_a_message(server: Served):
    with server.connect() as connection:
        connection.sendall(f"GET /{server.token}/{'a' * 70_000}".encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 400 ")
    assert server.raw("\x16\x03\x01\x02\r\n\r\n").startswith("HTTP/1.1 400 ")


def test_a_request_to_change_to_a_web_socket_is_answered_as_any_other(server: Served):
    assert server.ask(f"/{server.token}/d0/examples", "Upgrade: websocket", "Connection: upgrade")[0] == 200


def test_clients_that_never_finish_a_request_do_not_keep_others_out(server: Served):
    slow = [server.connect() for _ in range(MOST_CONNECTIONS + 50)]
    try:
        for connection in slow[::2]:
            connection.sendall(b"GET / HTTP/1.1\r\n")
        assert server.ask(f"/{server.token}/d0/examples")[0] == 200
    finally:
        for connection in slow:
            connection.close()


# ---- addresses to listen on


def name_is_accepted(host: str, value: str) -> bool:
    return build_app(Targets(None, 1.0), "token", host).is_name_of_this(value)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "gpu1.example"])
def test_a_server_for_other_machines_has_numeric_names_and_its_own(host):
    for value in (
        "192.0.2.7:8000",
        "[2001:db8::1]:8000",
        socket.gethostname(),
        "localhost",
        host.replace("::", "[::]"),
    ):
        assert name_is_accepted(host, value)
    assert not name_is_accepted(host, "evil.example") and not name_is_accepted(host, "gpu2.example")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
def test_a_server_for_this_machine_has_no_other_numeric_name(host):
    assert not name_is_accepted(host, "192.0.2.7:8000") and name_is_accepted(host, "127.0.0.1:8000")


def test_the_path_that_opens_a_browser_works_once():
    app = build_app(Targets(None, 1.0), "token", "127.0.0.1")
    scope = {"type": "http", "method": "GET", "headers": [(b"host", b"127.0.0.1")], "path": app.opening_path()}
    first, second = app._answer(scope), app._answer(scope)
    assert first and (first.status_code, first.headers["location"]) == (303, "/token/")
    assert second and second.status_code == 403
    assert isinstance(app, Guard) and app._answer(scope | {"path": ""}).status_code == 403  # type: ignore[union-attr]


def test_another_address_than_that_of_this_machine_is_warned_about():
    with served(GOLDEN, "--host", "0.0.0.0") as running:
        assert (
            running.address.startswith("http://127.0.0.1:") and running.ask(f"/{running.token}/d0/examples")[0] == 200
        )
        status, said = running.end()
    assert status == 143 and said.startswith("bertloom browse: --host 0.0.0.0: everybody who can reach this machine")


def has_ipv6() -> bool:
    try:
        listen("::1", 0).close()
    except ValueError:
        return False
    return True


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
def test_an_address_of_ipv6_is_listened_on_without_a_warning():
    with served(GOLDEN, "--host", "::1") as running:
        assert running.address.startswith("http://[::1]:")
        assert running.ask(f"/{running.token}/d0/examples", host=f"[::1]:{running.port}")[0] == 200
        assert running.end() == (143, "bertloom browse: terminated\n")


# ---- how it starts and ends


@pytest.fixture
def said_by(capsys):
    """A function that runs the command until it ends: its exit status and what it writes to standard error."""

    def run(*words: object) -> tuple[int, str]:
        status = main(["browse", "--no-open", *map(str, words)])
        written = capsys.readouterr()
        assert written.out == ""
        return status, written.err

    return run


def test_an_address_or_port_that_cannot_be_used_is_named(server: Served, said_by):
    assert said_by(GOLDEN, "--port", server.port) == (
        2,
        f"bertloom browse: error: --host 127.0.0.1 --port {server.port} cannot be used (Address already in use): "
        "give an address of this machine and another port, or --port 0 for a free one\n",
    )
    for host, message in [
        ("", "--host '': expected an address"),
        ("no.such.invalid", "--host no.such.invalid --port 0 cannot be used"),
    ]:
        status, said = said_by(GOLDEN, "--host", host)
        assert status == 2 and said.startswith(f"bertloom browse: error: {message}"), said


def test_what_is_neither_a_data_set_nor_a_run_is_named(tmp_path, said_by):
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "none", tmp_path / "empty", ROOT / "README.md", "s3:/x"):
        status, said = said_by(path)
        assert status == 2 and said.count("\n") == 1 and str(path) in said, said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_at_once_with_connections_that_are_open(number):
    with (
        served(GOLDEN) as running,
        running.connect() as idle,
        running.connect() as unfinished,
        running.connect() as slow,
    ):
        assert running.ask(f"/{running.token}/d0/examples")[0] == 200
        unfinished.sendall(b"GET / HTTP/1.1\r\n")
        slow.sendall(f"GET /{running.token}/static/htmx.min.js HTTP/1.1\r\nHost: localhost\r\n\r\n".encode() * 200)
        word = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}[number]
        assert running.end(number) == (128 + number, f"bertloom browse: {word}\n")
        assert idle.recv(1) == b""


FAULTY = """
import threading
from jobs.browser import sections
from jobs.browser.section import Section
def bug(request):
    raise KeyError("<b>" + request.url.path)
def endless(request):
    threading.Event().wait()
sections.SECTIONS += (Section(name="bug", title="Bug", of="d", routes=[("bug", bug), ("endless", endless)]),)
"""


def test_a_signal_ends_it_at_once_while_a_page_is_being_made():
    with served(GOLDEN, code=FAULTY + RUN) as running, running.connect() as waiting:
        waiting.sendall(f"GET /{running.token}/d0/endless HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        assert running.ask(f"/{running.token}/d0/examples")[0] == 200
        assert running.end(signal.SIGINT)[0] == 130


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "tgkill"), reason="this system cannot send a signal to one thread")
def test_a_signal_that_does_not_wake_the_main_thread_ends_it():
    with served(GOLDEN) as running:
        assert running.ask(f"/{running.token}/d0/examples")[0] == 200
        process = running.process.pid
        newest = max(int(name) for name in os.listdir(f"/proc/{process}/task"))  # it has made the page
        assert ctypes.CDLL(None).tgkill(process, newest, signal.SIGTERM) == 0
        assert running.process.wait(300) == 143


def test_a_bug_in_a_page_gives_a_line_there_and_a_traceback_in_a_file(tmp_path):
    with served(GOLDEN, code=FAULTY + RUN, TMPDIR=str(tmp_path)) as running:
        for headers in ([], ["HX-Request: true"], []):
            status, answer = running.ask(f"/{running.token}/d0/bug", *headers)
            assert status == 500 and "KeyError: &#39;&lt;b&gt;/" in answer and "Traceback" not in answer
            assert ("<html" in answer) == (not headers)
        assert running.ask(f"/{running.token}/d0/examples")[0] == 200
        _, said = running.end()
    (file,) = tmp_path.glob("bertloom-*.txt")  # one, although it happened three times
    assert "Traceback" in file.read_text() and said.count(str(file)) == 1 and "Traceback" not in said


def test_without_its_packages_the_command_names_the_extra():
    code = "import sys\nsys.modules['starlette'] = None\n" + RUN
    ran = subprocess.run([sys.executable, "-c", code, "browse", "x"], cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 2 and 'bertloom browse needs the extra "browse": pip install' in ran.stderr
    assert ran.stderr.count("\n") == 1
