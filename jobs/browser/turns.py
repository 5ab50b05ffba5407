"""A few pages are made at a time. The others wait for their turn, and those that nobody waits for any more are not made.

A browser that leaves a page does not end a thread that makes it. Without turns, the explanations of fifty examples that
somebody has passed by keep all other pages waiting for a minute, and forty threads take 2 GB.
"""

import asyncio

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

AT_ONCE = 3
"""Pages that are made at a time."""


class Turns:
    """Passes on AT_ONCE requests at a time, in their order, unless the browser has left."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._turns:
            if not await Request(scope, receive).is_disconnected():
                await self.app(scope, receive, send)
