"""Which requests are answered, and the headers of the answers.

A page is answered only if its path begins with the token, a random word that only the address printed by the command has.
The name in the `Host` header must be one of this machine: otherwise a page elsewhere could point its own host name to
127.0.0.1 and read the answers (DNS rebinding). Nothing but GET and HEAD is accepted, because nothing can be changed.
"""

import ipaddress
import secrets
import socket

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",  # the address holds the token
    "x-content-type-options": "nosniff",
}
LOCAL_NAMES = frozenset(("127.0.0.1", "localhost", "::1"))
LONGEST_NAME = 253
"""Characters of a host name."""


class Guard:
    """Answers only requests that have the token and one of the host names."""

    def __init__(self, app: ASGIApp, token: str, host: str) -> None:
        self.app = app
        self.token = token
        self.is_local = is_loopback(host)
        self.names = LOCAL_NAMES
        if not self.is_local:
            self.names |= {name.lower() for name in (host, socket.gethostname(), socket.getfqdn())}
        self.opening = ""

    def opening_path(self) -> str:
        """Return a path that leads to the first page a single time.

        It is for a command line, for example of a browser, which other people of this machine can read in the list of
        processes.
        """
        self.opening = f"/open/{secrets.token_urlsafe(16)}"
        return self.opening

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("cache-control", "no-store")
            await send(message)

        await (self._answer(scope) or self.app)(scope, receive, send_with_headers)

    def _answer(self, scope: Scope) -> Response | None:
        """Return the answer to a request that no page answers."""
        hosts = Headers(scope=scope).getlist("host")
        if len(hosts) != 1 or not self.is_name_of_this(hosts[0]):
            named = hosts[0][:LONGEST_NAME] if len(hosts) == 1 else f"{len(hosts)} names"
            return _refuse(421, f"Host: {named}: expected a name of this machine. Use the address that was printed.")
        if scope["method"] not in ("GET", "HEAD"):
            return _refuse(405, f"{scope['method'][:20]}: expected GET or HEAD. Nothing can be changed here.")
        path = scope["path"].encode()
        if self.opening and secrets.compare_digest(path, self.opening.encode()):
            self.opening = ""
            return RedirectResponse(f"/{self.token}/", 303)
        if not secrets.compare_digest(b"".join(path.split(b"/")[1:2]), self.token.encode()):
            return _refuse(403, "Use the whole address that `bertloom browse` printed: it has a random part.")
        return None

    def is_name_of_this(self, value: str) -> bool:
        """Return whether the value of a `Host` header names this machine.

        Any port is accepted: with an SSH tunnel it differs. If the server listens on more than this machine, every numeric
        address is accepted, because only a name can be pointed elsewhere.
        """
        name, _, port = value.rpartition(":")
        if not port.isdecimal():  # there is none
            name = value
        name = name.removeprefix("[").removesuffix("]").removesuffix(".").lower()
        return name in self.names or (not self.is_local and _is_numeric(name))


def is_loopback(host: str) -> bool:
    """Return whether an address to listen on can be reached only from this machine.

    >>> [is_loopback(host) for host in ("127.0.0.1", "localhost", "::1", "127.0.0.5", "0.0.0.0", "::", "gpu1", "")]
    [True, True, True, True, False, False, False, False]
    """
    return host in LOCAL_NAMES or (_is_numeric(host) and ipaddress.ip_address(host).is_loopback)


def _is_numeric(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _refuse(status: int, sentence: str) -> PlainTextResponse:
    return PlainTextResponse(f"{sentence}\n", status, {"allow": "GET, HEAD"} if status == 405 else None)
