"""A few pages are made at a time. The others wait for their turn, and a page whose browser has left is not made.

A browser that leaves a page does not end the thread that makes it. Without turns, fifty explanations that somebody has
passed by keep all other pages waiting for a minute, and forty threads take 2 GB.
"""

import asyncio

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

AT_ONCE = 3
"""Pages that are made at a time. In addition, one slow page is made at a time (`Section.slow`)."""


class Turns:
    """Passes on requests when it is their turn, in their order, unless the browser has left."""

    def __init__(self, app: ASGIApp, turns: asyncio.Semaphore) -> None:
        """turns: as many as pages are made at a time, for all pages that wait for each other."""
        self.app = app
        self._turns = turns

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._turns:
            if not await Request(scope, receive).is_disconnected():
                await self.app(scope, receive, send)
