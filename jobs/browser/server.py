"""Serves the pages until the process is interrupted."""

import asyncio
import socket
import sys
import threading
import webbrowser

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from jobs.browser.security import Guard
from model.runs.heap import M_ARENA_MAX, M_MMAP_THRESHOLD, set_malloc

MOST_CONNECTIONS = 200
"""A browser opens six. Beyond this number, connections that wait for a request are closed."""
LARGE_BLOCK = 1 << 20
"""Bytes of the smallest block of memory that goes back to the system as soon as it is free."""
SHOWN = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}


def serve(app: Guard, host: str, port: int, opens: bool) -> None:
    """Listen on `host`, print the address of the first page, and answer requests until the process is interrupted.

    The server has a thread of its own. A signal makes the main thread end it, whatever page is being made.

    Raises:
        ValueError: the address or the port cannot be used.
    """
    set_malloc({M_ARENA_MAX: 1, M_MMAP_THRESHOLD: LARGE_BLOCK})  # or glibc keeps 200 MB of free memory
    listener = listen(host, port)
    name = SHOWN.get(host, f"[{host}]" if ":" in host else host)
    origin = f"http://{name}:{listener.getsockname()[1]}"
    if not app.is_local:
        print(
            f"bertloom browse: --host {host}: everybody who can reach this machine and learns the address below can read "
            f"these data, and the connection is not encrypted",
            file=sys.stderr,
        )
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            http=_Connection,
            ws="none",
            loop="asyncio",
            lifespan="off",
            access_log=False,  # it would hold the token
            log_config=None,
            log_level="error",
            proxy_headers=False,
            server_header=False,
        )
    )
    thread = threading.Thread(target=server.run, args=([listener],), name="server", daemon=True)
    thread.start()
    try:
        print(f"{origin}/{app.token}/", flush=True)
        if opens:
            webbrowser.open(origin + app.opening_path())
        while thread.is_alive():
            thread.join(1)  # a signal that comes as the main thread begins to wait does not wake it
    finally:
        server.should_exit = server.force_exit = True
        thread.join(1)
    raise RuntimeError("the server has ended by itself")


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens."""
    if not host:
        raise ValueError("--host '': expected an address of this machine, or 0.0.0.0 for all of them")
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    except (OSError, UnicodeError) as error:
        what = str(getattr(error, "strerror", None) or error).partition(" (while ")[0]
        raise ValueError(
            f"--host {host} --port {port} cannot be used ({what}): "
            "give an address of this machine and another port, or --port 0 for a free one"
        ) from None


class _Connection(H11Protocol):
    """A connection that makes room for itself: clients that never finish a request cannot take all sockets."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        if len(self.connections) >= MOST_CONNECTIONS:
            for other in list(self.connections):
                if isinstance(other, H11Protocol) and (other.cycle is None or other.cycle.response_complete):
                    other.transport.abort()
        super().connection_made(transport)
