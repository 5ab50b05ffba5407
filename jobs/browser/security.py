"""Which requests are answered, and the headers of the answers.

A page is answered only if its path begins with the token, a random word that only the address printed by the command has.
The name in the `Host` header must be one of this machine: otherwise a page elsewhere could point its own host name to
127.0.0.1 and read the answers (DNS rebinding). Nothing but GET and HEAD is accepted, because nothing can be changed.
"""

import ipaddress
import secrets
import socket

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",  # the address holds the token
    "x-content-type-options": "nosniff",
}
LOCAL_NAMES = ("127.0.0.1", "localhost", "::1")


class Guard:
    """Answers only requests that have the token and one of the host names."""

    def __init__(self, app: ASGIApp, token: str, host: str) -> None:
        self.app = app
        self.token = token.encode()
        self.host = host

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

        refusal = self._refusal(scope)
        await (refusal or self.app)(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope) -> PlainTextResponse | None:
        if not is_host_of(Headers(scope=scope).getlist("host"), self.host):
            return PlainTextResponse("The Host header does not name this machine.\n", 421)
        if scope["method"] not in ("GET", "HEAD"):
            return PlainTextResponse("Only GET and HEAD: nothing can be changed here.\n", 405, {"allow": "GET, HEAD"})
        first = scope["path"].split("/")[1:2]
        if not secrets.compare_digest("".join(first).encode(), self.token):
            return PlainTextResponse("Use the whole address that `bertloom browse` printed.\n", 403)
        return None


def is_host_of(values: list[str], host: str) -> bool:
    """Return whether a request's `Host` headers name this machine. host: the address that the server listens on.

    Any port is accepted: behind an SSH tunnel it differs. If the server listens on another address than 127.0.0.1, every
    numeric address is accepted, because only a name can be pointed elsewhere.
    """
    if len(values) != 1:
        return False
    name = values[0].rpartition(":")[0] if values[0].rpartition(":")[2].isdecimal() else values[0]
    name = name.removeprefix("[").removesuffix("]").rstrip(".").lower()
    if name in LOCAL_NAMES:
        return True
    if host in LOCAL_NAMES:
        return False
    return name in {host.lower(), socket.gethostname().lower(), socket.getfqdn().lower()} or _is_numeric(name)


def _is_numeric(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
