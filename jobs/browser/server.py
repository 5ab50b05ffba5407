"""Serves the pages until the process is interrupted."""

import socket
import sys
import webbrowser

import uvicorn
from starlette.types import ASGIApp

from jobs.browser.security import LOCAL_NAMES


def serve(app: ASGIApp, token: str, host: str, port: int, opens: bool) -> None:
    """Listen on `host`, print the address of the first page, and answer requests.

    Raises:
        ValueError: the address or the port cannot be used.
    """
    listener = listen(host, port)
    number = listener.getsockname()[1]
    name = f"[{host}]" if ":" in host else host
    address = f"http://{'127.0.0.1' if host in ('0.0.0.0', '::') else name}:{number}/{token}/"
    if host not in LOCAL_NAMES:
        print(
            f"bertloom browse: --host {host}: everybody who can reach this machine and learns the address below can read "
            f"these data, and the connection is not encrypted",
            file=sys.stderr,
        )
    config = uvicorn.Config(app, access_log=False, log_level="warning", lifespan="off", server_header=False, ws="none")
    _Server(config, address, opens).run(sockets=[listener])


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError, UnicodeError) as error:
        what = getattr(error, "strerror", None) or error
        raise ValueError(
            f"--host {host} --port {port} cannot be used ({what}): give another port, or --port 0 for a free one"
        ) from None


class _Server(uvicorn.Server):
    """Prints the address once requests are answered."""

    def __init__(self, config: uvicorn.Config, address: str, opens: bool) -> None:
        super().__init__(config)
        self.address = address
        self.opens = opens

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        print(self.address, flush=True)
        if self.opens:
            webbrowser.open(self.address)
